"""Read a breakdown of scores: which mark each response got on each criterion.

Reads "Response 1: Clarity 8, Depth 7" as well as "Clarity: Response 1 = 8, Response 2 = 6",
"Response 1: 8 on Clarity" and "Clarity: 8 for Response 1", and tables of either orientation, with
responses named as in `response_names`. What stands between two labels is read by `numbers`; a number
that belongs to no response or no criterion is no mark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from operator import itemgetter
from typing import Literal, NamedTuple

from pgenrm_agent.chain.folding import folded, plain, plain_words, untabled
from pgenrm_agent.chain.numbers import REFUSED, Mark, begins_with_mark, read_mark, scale_in
from pgenrm_agent.chain.parsed import MARK_HIGH, MARK_LOW, weighted_total
from pgenrm_agent.chain.response_names import numbered, responses_in
from pgenrm_agent.chain.words import CLAIMED, NOT_CLAIMED, TOTALS, is_wide
from pgenrm_agent.schema import Criterion

AGREES = 0.15
"""How near a total that the model wrote has to be, to settle which of two numbers is a mark."""
OWN_TOTAL = 0.06
"""How near a number has to be to what the marks come to, to be the total that is told beside them."""
LONGEST_APART = 40
MOST_READINGS = 64

_MARK_FIRST = re.compile(
    r"(?:^|[\s:,;(*_]|and\s)(\d{1,3}(?:[.,]\d{1,2})?)(\s?/\s?10| out of 10)?"
    r"(?:\s(?:points?|punkten?|puntos))?[*_]{0,3}"
    r"(?: {1,3}(?P<for>on|for|in|auf|bei|für|pour|sur|en|por|per|su|em|voor|op|за|по) {1,2}"
    r"| {0,2}(?P<bracket>\()|(?: {0,2}[:=]\s| [–—-]\s| {0,2}\n)\s{0,3}| {1,2})"
    r"(?:the\s)?[\"'*_]{0,3}$"
)
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

    notes: codes of what was left out. doubted: candidates with a mark that was written and is not
    read, so that the others are not all there is.
    """

    rows: dict[str, tuple[float | None, ...]]
    notes: tuple[str, ...]
    doubted: frozenset[str]


class _Label(NamedTuple):
    """A response (its place, from 0), a criterion (its place; -1: a total) at [start, end)."""

    start: int
    end: int
    kind: Literal["response", "criterion"]
    place: int


_START, _END = itemgetter(0), itemgetter(1)


def mentions(name: str, text: str) -> bool:
    """Whether a text of `plain_words` names a criterion, not as a part of other words."""
    return next(_places(_words_of(name), text), None) is not None


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

    def read(self, text: str) -> None:
        labels = _labels(text, [criterion.name for criterion in self.criteria])
        scale = scale_in(text[: labels[0].start]) if labels and labels[0].start > 4 else None
        response: int | None = None
        criterion: int | None = None
        newest: Literal["response", "criterion"] = "response"
        named_at = response_at = 0
        # "8 on Clarity and 3 on Depth": the number stands before its criterion.
        number_first = False
        # Whether the response is told to claim what follows; whether another one might be meant.
        claimed = unsure = False
        # What "8 for Response 1" gives the response that follows.
        ahead = _mark_for(text, 0, labels[0], 100.0, scale)[0] if labels else None
        last = len(labels) - 1
        for place, label in enumerate(labels):
            following = labels[place + 1] if place < last else None
            gap = text[label.end : following.start if following else len(text)]
            given, ahead = ahead, None
            if label.kind == "response":
                if newest == "criterion" and not _heads(text, named_at, label.start):
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
                    ahead, _ = _mark_for(text, label.end, following, self._weight(criterion), scale)
                    continue
                claim = CLAIMED.match(gap)
                claimed = claim is not None and not NOT_CLAIMED.search(gap, claim.end())
                if following and following.kind == "criterion" and scale_in(gap):
                    scale = scale_in(gap)  # "Response 1 (each out of 5): Clarity 4"
            else:
                criterion = label.place if label.place >= 0 else None
                newest, named_at = "criterion", label.end
                if _APART.search(text, max(0, label.start - LONGEST_APART), label.start):
                    criterion = response = None
            ahead, begin = _mark_for(text, label.end, following, self._weight(criterion), scale)
            if ahead is not None:
                # "Depth 9. In sum, 6 for Response 1" has a mark before the response's,
                # "Response 1: Clarity 8 for Response 2's standards" has none.
                own = text[label.end : begin]
                if response is not None and read_mark(own, self._weight(criterion), scale):
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
                if first and response is not None:
                    if newest == "response" and not first["for"]:
                        # "Response 1: 6.2 (Clarity 8, Depth 2)" begins with its total.
                        following_too = self._is_first(text, labels, place + 1, scale)
                        is_first = criterion is None and following_too
                    elif newest == "response" or number_first:
                        is_first = True
                    else:
                        is_first = first["for"] not in (None, "en")  # Dutch for "and"
                    if is_first:
                        mark = read_mark(first[1] + (first[2] or ""), 100.0, scale) or REFUSED
                        if unsure:
                            mark = mark._replace(sure=False)
                        self._put(response, following.place, mark, "")
                        number_first, criterion = True, None
                        continue
            if number_first and newest == "criterion" and not begins_with_mark(gap):
                criterion = None
                continue
            if criterion is None or response is None:
                continue
            behind = read_mark(gap, self.criteria[criterion].weight, scale)
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

    def _weight(self, criterion: int | None) -> float:
        return 100.0 if criterion is None else self.criteria[criterion].weight

    def _is_first(
        self, text: str, labels: Sequence[_Label], place: int, scale: float | None
    ) -> bool:
        """Whether a number before the criterion at `place` is that criterion's, and not a total.

        It is where the next criterion has its number before it, too; the last one of those that stand
        together may have what they come to behind it ("8 Clarity, 2 Depth = 6.2").
        """
        end = place + 1
        while end < len(labels) and labels[end].kind == "criterion" and labels[end].place >= 0:
            end += 1
        gaps = [
            text[labels[at].end : labels[at + 1].start if at + 1 < len(labels) else len(text)]
            for at in (place, end - 1)
        ]
        if end > place + 1:
            if gaps[0][-1:] not in _LINKS or not _MARK_FIRST.search(gaps[0]):
                return False
            if not begins_with_mark(gaps[0]):
                return True
        return read_mark(gaps[1], self._weight(labels[end - 1].place), scale) is None

    def _put(self, response: int, criterion: int, mark: Mark, before: str) -> None:
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
        doubted: set[str] = set()
        for response in sorted({response for response, _ in self.marks}):
            choices = [self._choices(response, place) for place in range(len(self.criteria))]
            if any(len(values) > 1 or not sure for values, sure in choices):
                row = self._settle(choices, reported.get(ids[response]))
            else:
                row = tuple(values[0] for values, _ in choices)
            if any(mark is not None for mark in row):
                rows[ids[response]] = row
            if any(mark is None and (response, n) in self.marks for n, mark in enumerate(row)):
                doubted.add(ids[response])
        return Marks(rows, tuple(self.notes), frozenset(doubted))

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
        """Whether the marks come to a total."""
        weighted = weighted_total(self.criteria, row)
        return weighted is not None and abs(weighted[0] - total) <= within

    def _tells(self, row: Sequence[float | None], rest: Sequence[float]) -> bool:
        """Whether all numbers beside the marks, of which there are some, are what these come to."""
        # A whole number may be near by chance.
        return bool(rest) and all(
            not value.is_integer() and self._gives(row, value, OWN_TOTAL) for value in rest
        )


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
    text: str, start: int, label: _Label | None, weight: float, scale: float | None
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
    return read_mark(before[clause:], weight, scale), begin + clause


def _labels(text: str, names: Sequence[str]) -> list[_Label]:
    """Responses, criteria and totals in the order of the text, without overlaps."""
    labels = [
        _Label(match.start(), match.end(), "response", int(match[1]) - 1)
        for match in responses_in(text)
    ]
    words_only = plain(text)
    for place, name in enumerate(names):
        words = _words_of(name)
        labels += [
            _Label(start, start + len(words), "criterion", place)
            for start in _places(words, words_only)
        ]
    # Few of these words are in any text, and to look for plain words is many times faster.
    for word in TOTALS:
        if word in text:
            labels += [
                _Label(start, start + len(word), "criterion", -1) for start in _places(word, text)
            ]
    # Longest first: "Response 1" and "Top 3 picks" hold numbers that are no marks. Sorts keep order.
    labels.sort(key=_END, reverse=True)
    labels.sort(key=_START)
    kept: list[_Label] = []
    for label in labels:
        if not kept or label.start >= kept[-1].end:
            kept.append(label)
    return kept


def _words_of(name: str) -> str:
    return " ".join(plain_words(name).split())


def _places(words: str, text: str) -> Iterator[int]:
    """Where `words` stand in `text`, not as a part of other words."""
    # A search by hand: to compile a pattern of the names takes longer than the rest of a parse.
    start = text.find(words)
    if start < 0 or not words:
        return
    bound_before, bound_after = not is_wide(words[0]), not is_wide(words[-1])
    while start >= 0:
        end = start + len(words)
        inside = (bound_before and start and _joins(text[start - 1])) or (
            bound_after and end < len(text) and _joins(text[end])
        )
        if not inside:
            yield start
        start = text.find(words, end)


def _joins(char: str) -> bool:
    return char.isalnum() and not is_wide(char)


def _heads(text: str, start: int, end: int) -> bool:
    """Whether the criterion that ends at `start` still holds for the response at `end`."""
    return bool(_HEADER.match(text, start, end)) or not _SENTENCE_END.search(text, start, end)
