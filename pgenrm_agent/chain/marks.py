"""Read a breakdown of scores: which mark each response got on each criterion.

Reads "Response 1: Clarity 8, Depth 7" as well as "Clarity: Response 1 = 8, Response 2 = 6",
"Response 1: 8 on Clarity" and "Clarity: 8 for Response 1", and tables of either orientation, with
responses named as in `response_names`. What stands between two labels is read by `numbers`; a number
that belongs to no response or no criterion is no mark.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Literal, NamedTuple

from pgenrm_agent.chain.folding import folded, untabled
from pgenrm_agent.chain.labels import Label, labels_in
from pgenrm_agent.chain.numbers import (
    REFUSED,
    Mark,
    begins_with_mark,
    read_mark,
    scale_in,
)
from pgenrm_agent.chain.parsed import MARK_HIGH, MARK_LOW, weighted_total
from pgenrm_agent.chain.response_names import numbered
from pgenrm_agent.chain.words import CLAIMED, NOT_A_MARK, NOT_CLAIMED, last_word
from pgenrm_agent.errors import ChainError
from pgenrm_agent.schema import Criterion

AGREES = 0.15
"""How near a total that the model wrote has to be, to settle which of two numbers is a mark."""
OWN_TOTAL = 0.06
"""How near a number has to be to what the marks come to, to be the total that is told beside them."""
LONGEST_APART = 40
WHOLE = (100.0,)
"""The weight of what is no criterion."""
LONGEST_HEADER = 100
MOST_READINGS = 64

_MARK_FIRST = re.compile(
    r"(?:^|[\s:,;(\[*_]|and\s)(\d{1,3}(?:[.,]\d{1,2})?)(\s?/\s?10| out of 10)?"
    r"(?:\s(?:points?|punkten?|puntos))?[*_)\]]{0,3}"
    r"(?: {1,3}(?P<for>on|for|in|auf|bei|für|pour|sur|en|por|per|su|em|voor|op|за|по) {1,2}"
    r"| {0,2}(?P<bracket>\()|(?: {0,2}[:=]\s| [–—-]\s| [x×*·]\s| {0,2}\n)\s{0,3}| {1,2})"
    r"(?:the\s)?[\"'*_]{0,3}$"
)
# "2." of "1. Clarity: 8\n2. Depth: 2", which numbers what follows.
_NEXT_ITEM = re.compile(r"\n[ \t*_#>-]{0,8}(?P<opening>[(\[])?\d{1,2}[.)\]][\s*_\"'#]{0,6}$")
_DIGIT = re.compile(r"\d")
# "- 8 " of "- 8 Depth": the number opens the line of the criterion that follows.
_OPENS_LINE = re.compile(r"^[^\d]*\n[ \t*_#>•-]{0,8}[\[(]?\d[^\n]*$")
# "= 6.2" of "8 Clarity, 2 Depth = 6.2"
_COMES_TO = re.compile(r"[\s*_)\]]{0,6}=")
_LINKS = tuple(" \n(\"'*_")
# "8 for" of "8 for Response 1", "6 (" of "6 (Response 2)".
_MARK_FOR = re.compile(
    r"(?<![\w.,])\d{1,3}(?:[.,]\d{1,2})?(?: ?/ ?\d{1,3}| out of \d{1,3})?"
    r"(?: (?:points?|punkten?|puntos))?[*_]{0,3}"
    r"(?P<for> {1,2}(?:(?:for|to|für|an|pour|à|para|per|voor|aan|за) {1,2}(?:(?:the|die|la|de) )?"
    r"|(?P<bracket>\())"
    r"[\"'*_]{0,3})$"
)
LONGEST_MARK_FOR = 60
_CLAUSE_END = re.compile(r"[,;.!?]\s|\n|\s(?:and|und|et|y|e|en|и|while|but)\s")
# "on" of "8 for Response 1 on Clarity", "'s" of "8 for Response 1's Clarity".
_LINKED = re.compile(
    r"[\"'*_)]{0,3}(?:['’]s|(?:['’]s)? (?:on|for|in|auf|bei|für|pour|sur|en|por|per|su|em|voor|op|за|по)"
    r"(?: the)?) [\"'*_]{0,3}"
)
_COMPARED = re.compile(r"[\"'*_]{0,3}['’]s\s{0,2}\(?\d")
# What may stand between a criterion and its colon where the criterion heads a list of responses.
_HEADER = re.compile(r"[\s*\"'_]{0,4}(?:\([^()\n]{0,60}\))?[\s*\"'_]{0,4}(?:[:=–—]|-\s)")
# "Clarity (70%)" on a line of its own, above "Response 1: 8"
_ALONE = re.compile(
    r"[\s*\"'_:]{0,4}(?:\([^()\n]{0,60}\))?[ *\"'_:]{0,4}\n[\s*\"'_#>•-]{0,12}"
    r"(?:\d{1,2}(?:[.,]\d)?(?:\s?/\s?10)?[*_]{0,3} (?:for|to|für|an|pour|para|per|voor|за) [*_]{0,3})?"
    r"(?:the |an? )?$"
)
_LINE_BEGINS = re.compile(r"(?:^|\n)[ \t*_#>•\"'-]{0,8}(?:\(?\d{1,2}[.)][ *_\"']{0,4})?$")
_SENTENCE_END = re.compile(r"[.;!?\n](?=\s|$)|\n")
_CLAUSE_OVER = re.compile(r"[.:;!?](?=\s|$)|\n|\d")
# "the gap on Clarity is 5", "a difference in Depth of 7"
_APART = re.compile(r"\b(?:gap|margin|difference|distance|lead) (?:on|in|for|at) (?:the )?$")
_CORRECTED = re.compile(
    r"\b(?:no|wait|actually|correct\w*|revis\w*|rather|scratch|sorry|second|reconsider\w*|final\w*|nein"
    r"|korrig\w*|corrig\w*|нет|anzi|não)\b|更正|訂正|不对"
)


class Marks(NamedTuple):
    """Marks by candidate id, aligned with the criteria; only candidates with at least one.

    notes: codes of what was left out.
    """

    rows: dict[str, tuple[float | None, ...]]
    notes: tuple[str, ...]


def read_marks(
    breakdown: str,
    criteria: Sequence[Criterion],
    ids: Sequence[str],
    reported: Mapping[str, float],
    *,
    cut: bool,
) -> Marks:
    """The marks in a breakdown.

    Args:
        breakdown: without quotations.
        criteria: the rubric's.
        ids: the candidates', in the order shown.
        reported: totals that the model wrote; where the words leave two readings of a mark, the one
            that gives the candidate's total counts, and without one neither does.
        cut: the text ends too early, so that a number at its very end may lack digits.
    """
    text = folded(breakdown)
    if cut:
        text = text.rstrip("0123456789.,")
    if "|" in text:
        text = untabled(text)
    text = numbered(text, [folded(criterion.name) for criterion in criteria])
    reading = _Reading(criteria, len(ids))
    reading.read(text)
    return reading.settled(ids, reported)


@dataclass
class _Reading:
    """Marks as they are collected: by response and criterion, with their doubts."""

    criteria: Sequence[Criterion]
    responses: int
    notes: dict[str, None] = field(default_factory=dict)
    marks: dict[tuple[int, int], Mark] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._written = [
            tuple({criterion.weight, criterion.reported_weight or criterion.weight})
            for criterion in self.criteria
        ]

    def read(self, text: str) -> None:
        labels = labels_in(text, [criterion.name for criterion in self.criteria])
        scale = scale_in(text[: labels[0].start]) if labels and labels[0].start > 4 else None
        response: int | None = None
        criterion: int | None = None
        newest: Literal["response", "criterion"] = "response"
        named_from = named_at = response_at = 0
        # "8 on Clarity and 3 on Depth": the number stands before its criterion.
        number_first = False
        # Whether the response is told to claim what follows; whether another one might be meant.
        claimed = unsure = False
        # What "8 for Response 1" gives the response that follows.
        ahead = _mark_for(text, 0, labels[0], WHOLE, scale)[0] if labels else None
        last = len(labels) - 1
        for place, label in enumerate(labels):
            following = labels[place + 1] if place < last else None
            gap = text[label.end : following.start if following else len(text)]
            if following and following.kind == "criterion" and "\n" in gap:
                gap = _without_numbering(gap)
            given, ahead = ahead, None
            if label.kind == "response":
                if newest == "criterion" and not _heads(text, named_from, named_at, label.start):
                    criterion = None
                # "Response 1 beats Response 2 on Clarity: 8"
                unsure = (
                    newest == "response"
                    and response is not None
                    and not _CLAUSE_OVER.search(text, response_at, label.start)
                )
                response, newest, number_first = label.place, "response", False
                response_at = label.end
                if given is not None:
                    if following and following.kind == "criterion" and _LINKED.fullmatch(gap):
                        criterion = following.place if following.place >= 0 else None
                    if criterion is not None:
                        self._put(response, criterion, given, "")
                    response = None
                    ahead, _ = _mark_for(
                        text, label.end, following, self._weights(criterion), scale
                    )
                    continue
                claim = CLAIMED.match(gap)
                claimed = claim is not None and not NOT_CLAIMED.search(gap, claim.end())
                if following and following.kind == "criterion" and scale_in(gap):
                    scale = scale_in(gap)  # "Response 1 (each out of 5): Clarity 4"
            else:
                criterion = label.place if label.place >= 0 else None
                newest, named_from, named_at = "criterion", label.start, label.end
                if _APART.search(text, max(0, label.start - LONGEST_APART), label.start):
                    criterion = response = None
            ahead, begin = _mark_for(text, label.end, following, self._weights(criterion), scale)
            if ahead is not None:
                # "Depth 9. In sum, 6 for Response 1" has a mark before the response's,
                # "Response 1: Clarity 8 for Response 2's standards" has none.
                own = text[label.end : begin]
                if response is not None and read_mark(own, self._weights(criterion), scale):
                    gap = own
                elif label.kind == "criterion" and (
                    response is None or _SENTENCE_END.search(text, response_at, label.start)
                ):
                    response = None
                    continue
                else:
                    ahead = None
            if claimed:
                claimed = not (label.kind == "criterion" and NOT_CLAIMED.search(gap))
                continue
            if following and following.kind == "criterion" and following.place >= 0:
                first = None
                if response is not None and gap[-1:] in _LINKS:
                    first = _MARK_FIRST.search(gap)
                if first and self._is_weight(_number(first[1]), following.place):
                    gap, first = gap[: first.start(1)], None  # "0.7 x Clarity: 8"
                if first and response is not None:
                    if newest == "response" and not first["for"]:
                        # "Response 1: 6.2 (Clarity 8, Depth 2)" begins with its total.
                        number = _number(first[1])
                        is_first = criterion is None
                        if is_first:
                            alone = self._is_first(text, labels, place + 1, number, scale)
                            is_first, unsure = bool(alone), unsure or alone is None
                    elif newest == "response" or number_first:
                        is_first = True
                    else:
                        is_first = first["for"] not in (None, "en")  # Dutch for "and"
                    if is_first and _is_no_mark(gap[: first.start(1)]):
                        criterion = None
                        continue
                    if is_first:
                        mark = read_mark(first[1] + (first[2] or ""), WHOLE, scale) or REFUSED
                        if unsure:
                            mark = mark._replace(sure=False)
                        self._put(response, following.place, mark, "")
                        number_first, criterion = True, None
                        continue
            if (
                number_first
                and newest == "criterion"
                and (_COMES_TO.match(gap) or not begins_with_mark(gap))
            ):
                criterion = None
                continue
            if criterion is None or response is None:
                continue
            behind = read_mark(gap, self._weights(criterion), scale)
            if behind is None:
                continue
            if unsure and label.kind == "criterion":
                behind = behind._replace(sure=False)
            before = text[max(0, label.start - 40) : label.start]
            self._put(response, criterion, behind, before)
            # A mark is used once: the next one needs a new criterion, or a new response.
            if newest == "response":
                response = None
            else:
                criterion = None

    def _weights(self, criterion: int | None) -> Sequence[float]:
        """A criterion's weight as it counts, and as the model wrote it."""
        return WHOLE if criterion is None else self._written[criterion]

    def _is_weight(self, number: float, criterion: int) -> bool:
        return number < MARK_LOW and any(
            abs(number * 100 - weight) < AGREES for weight in self._weights(criterion)
        )

    def _is_first(
        self, text: str, labels: Sequence[Label], place: int, number: float, scale: float | None
    ) -> bool | None:
        """Whether `number`, before the criterion at `place`, is that criterion's, and not a total.

        It is where the next criterion has its number before it, too; the last one of those that stand
        together may have what they come to behind it ("8 Clarity, 2 Depth = 6.2"). Where both readings
        are possible, the one counts whose marks come to the number that is left; None for neither.
        """
        end = place + 1
        while end < len(labels) and labels[end].kind == "criterion" and labels[end].place >= 0:
            end += 1
        ends = [*(label.start for label in labels[place + 1 : end + 1]), len(text)]
        gaps = [
            text[label.end : stop]
            for label, stop in zip(labels[place:end], ends[: end - place], strict=True)
        ]
        if end > place + 1:
            second = _MARK_FIRST.search(gaps[0]) if gaps[0][-1:] in _LINKS else None
            if second is None:
                return False
            if (number, _number(second[1])) == (1, 2) and _DIGIT.search(
                gaps[0], 0, second.start(1)
            ):
                # "Criterion 1 (Clarity): 8, criterion 2 (Depth): 2"
                return False if _DIGIT.search(gaps[-1]) else None
            if not begins_with_mark(gaps[0]) or all(map(_OPENS_LINE.search, gaps[:-1])):
                return True
        last = read_mark(gaps[-1], self._weights(labels[end - 1].place), scale)
        if last is None:
            return True
        if end == place + 1:
            return False
        matches = [match for gap in gaps[:-1] if (match := _MARK_FIRST.search(gap))]
        numbers = [number, *(_number(match[1]) for match in matches), *last.values]
        if len(numbers) != end - place + 1:
            return None
        criteria = [self.criteria[label.place] for label in labels[place:end]]
        first = weighted_total(criteria, numbers[:-1])
        behind = weighted_total(criteria, numbers[1:])
        is_first = first is not None and abs(first - numbers[-1]) <= OWN_TOTAL
        is_behind = behind is not None and abs(behind - numbers[0]) <= OWN_TOTAL
        return None if is_first == is_behind else is_first

    def _put(self, response: int, criterion: int, mark: Mark, before: str) -> None:
        if response < 0:
            raise ChainError(
                "the responses are numbered from 0, and the prompt's from 1: whose the marks are is"
                " not sure",
                reason="no_totals",
            )
        if not 0 <= response < self.responses:
            self.notes["extra_candidate"] = None
            return
        slot = response, criterion
        earlier = self.marks.get(slot)
        if earlier is None or earlier.values == mark.values:
            self.marks[slot] = mark
        elif mark.sure and mark.values and _CORRECTED.search(before):
            self.notes["mark_corrected"] = None
            self.marks[slot] = mark
        elif mark.sure or not earlier.sure:
            values = tuple(dict.fromkeys(earlier.values + mark.values))
            self.marks[slot] = mark._replace(values=values, sure=False)

    def settled(self, ids: Sequence[str], reported: Mapping[str, float]) -> Marks:
        """Each candidate's marks, where they are sure or its total settles them."""
        rescaled = any(mark.rescaled for mark in self.marks.values())
        if rescaled or any(_is_off_scale(mark) for mark in self.marks.values()):
            # Beside marks on another scale, one without a scale may be on either.
            for slot, mark in self.marks.items():
                if not mark.stated:
                    self.marks[slot] = REFUSED
        rows: dict[str, tuple[float | None, ...]] = {}
        for response in sorted({response for response, _ in self.marks}):
            choices = [self._choices(response, place) for place in range(len(self.criteria))]
            if any(len(values) > 1 or not sure for values, sure in choices):
                row = self._settle(choices, reported.get(ids[response]))
            else:
                row = tuple(values[0] for values, _ in choices)
            if any(mark is not None for mark in row):
                rows[ids[response]] = row
        return Marks(rows, tuple(self.notes))

    def _choices(self, response: int, criterion: int) -> tuple[tuple[float | None, ...], bool]:
        """The values that a mark may have, None where it has none, and whether there is no doubt."""
        mark = self.marks.get((response, criterion))
        if mark is None:
            return (None,), True
        values = tuple(value for value in mark.values if MARK_LOW <= value <= MARK_HIGH)
        if len(values) < len(mark.values) or not values:
            self.notes["mark_refused"] = None
        return (values, mark.sure or not values) if values else ((None,), True)

    def _settle(
        self, choices: Sequence[tuple[tuple[float | None, ...], bool]], total: float | None
    ) -> tuple[float | None, ...]:
        """The one row that gives the total; else the row without the marks in doubt."""
        complete = all(values != (None,) for values, _ in choices)
        if complete and prod(len(values) for values, _ in choices) <= MOST_READINGS:
            rows: list[tuple[float | None, ...]] = list(product(*(values for values, _ in choices)))
            agreeing = [] if total is None else [row for row in rows if self._gives(row, total)]
            if len(agreeing) != 1:
                # "Depth 2 (6.2)": the number that is no mark is what the marks come to.
                agreeing = [row for row in rows if self._tells(row, _rest(choices, row))]
            if len(agreeing) == 1:
                self.notes["mark_settled"] = None
                return agreeing[0]
        self.notes["mark_in_doubt"] = None
        return tuple(values[0] if sure and len(values) == 1 else None for values, sure in choices)

    def _gives(self, row: Sequence[float | None], total: float, within: float = AGREES) -> bool:
        """Whether the marks come to a total, by the weights as they count or as they were written."""
        weighted = weighted_total(self.criteria, row)
        if weighted is None:
            return False
        written = sum(
            (criterion.reported_weight or criterion.weight) * (mark or 0.0) / 100
            for criterion, mark in zip(self.criteria, row, strict=True)
        )
        return min(abs(weighted - total), abs(written - total)) <= within

    def _tells(self, row: Sequence[float | None], rest: Sequence[float]) -> bool:
        """Whether all numbers beside the marks, of which there are some, are what these come to."""
        # A whole number may be near by chance.
        return bool(rest) and all(
            not value.is_integer() and self._gives(row, value, OWN_TOTAL) for value in rest
        )


def _without_numbering(gap: str) -> str:
    """What follows a criterion, without the number in the list that the next criterion has."""
    item = _NEXT_ITEM.search(gap)
    # "[8] Clarity\n[2] Depth" are marks.
    if item is None or (item["opening"] and not _DIGIT.search(gap, 0, item.start())):
        return gap
    return gap[: item.start() + 1]


def _number(digits: str) -> float:
    return float(digits.replace(",", "."))


def _is_no_mark(before: str) -> bool:
    """Whether words such as "ranks" say that the number behind them is no mark."""
    return last_word(before) in NOT_A_MARK


def _is_off_scale(mark: Mark) -> bool:
    """Whether a mark without a stated scale cannot be one from 1 to 10."""
    return (
        mark.sure
        and not mark.stated
        and len(mark.values) == 1
        and not MARK_LOW <= mark.values[0] <= MARK_HIGH
    )


def _rest(
    choices: Sequence[tuple[tuple[float | None, ...], bool]], row: Sequence[float | None]
) -> list[float]:
    """The numbers that a row leaves out."""
    return [
        value
        for (values, _), chosen in zip(choices, row, strict=True)
        for value in values
        if value is not None and value != chosen
    ]


def _mark_for(
    text: str, start: int, label: Label | None, weights: Sequence[float], scale: float | None
) -> tuple[Mark | None, int]:
    """The mark that stands in front of a response's name, as in "8 for Response 1", and where it begins.

    start: where the label before ends. label: None, or a criterion's, has no such mark.
    """
    if label is None or label.kind != "response":
        return None, 0
    begin = max(start, label.start - LONGEST_MARK_FOR)
    match = _MARK_FOR.search(text[begin : label.start])
    if match is None or _COMPARED.match(text, label.end):
        return None, 0
    if match["bracket"] and text[label.end : label.end + 1] != ")":
        return None, 0
    before = text[begin : begin + match.start("for")]
    ends = [end.end() for end in _CLAUSE_END.finditer(before)]
    clause = ends[-1] if ends else 0
    return read_mark(before[clause:], weights, scale), begin + clause


def _heads(text: str, begin: int, end: int, response: int) -> bool:
    """Whether the criterion at [begin, end) still holds for the response that begins at `response`."""
    if _HEADER.match(text, end, response) or not _SENTENCE_END.search(text, end, response):
        return True
    alone = _ALONE.match(text[end:response]) if response - end < LONGEST_HEADER else None
    return alone is not None and bool(_LINE_BEGINS.search(text[max(0, begin - 24) : begin]))
