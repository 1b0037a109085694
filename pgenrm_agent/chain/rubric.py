"""Read a rubric: criteria and their weights, from a list, a sentence, a table or a rationale's part A.

What a criterion is called is decided by the breakdown of scores where it can be: in "Scoring criteria
with weights: Brevity (45%)" the name is what the marks are given on, whatever heads the list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from typing import NamedTuple, TypeAlias

from pgenrm_agent.chain.folding import plain_words
from pgenrm_agent.chain.labels import mentions
from pgenrm_agent.chain.versions import is_aside, which_counts
from pgenrm_agent.chain.words import PERCENT, WEIGHT, unwide
from pgenrm_agent.schema import Criterion, Rubric

# What a chain of a few thousand tokens never exceeds; together they bound the time for any text.
MOST_CRITERIA = 24
LONGEST_NAME = 80
LONGEST_LINE = 2_000
LONGEST_BREAKDOWN = 20_000
MOST_OPTIONS = 100
EXACTLY = 0.5
ABOUT_ALL = 10.0
"""How far weights may be from 100 in sum, where a second reading of them could be better."""

_WEIGHT = re.compile(
    rf"(\d{{1,4}}(?:[.,]\d{{1,6}})?)\s{{0,3}}{PERCENT}"
    rf"|\b{WEIGHT}(?:\s(?:of|von|de|di))?\s{{0,3}}[:=(]?\s{{0,3}}(\d{{1,3}}(?:[.,]\d{{1,6}})?)"
    rf"(?![\d.,]{{0,8}}\s{{0,3}}{PERCENT})",
    re.IGNORECASE,
)
# "65-75%", "65% to 75%"
_RANGE = re.compile(
    rf"(?<![\w.,])(\d{{1,3}})\s?(?:{PERCENT})?(?:[-–—~]|\s(?:to|bis|à|a|al|tot|до)\s)(\d{{1,3}})\s?{PERCENT}",
    re.IGNORECASE,
)
# "80% of the choices" is a share of something, and no weight.
_SHARE_OF = re.compile(
    r"\s?(?:of|der|des|aller|von|de|dei|delle|das|dos|van|из)\s"
    r"(?!(?:the\s|my\s|its\s)?(?:weight|total|score|rubric|gesamt|gewicht|100\b))",
    re.IGNORECASE,
)
# "default 50%, personalized 70%": the weight that it would have otherwise.
_OTHERWISE = re.compile(
    r"\b(?:default|usual(?:ly)?|typical(?:ly)?|generic|normal(?:ly)?|average|general(?:ly)?|base(?:line)?"
    r"|initial(?:ly)?|original(?:ly)?|before|prior|old|from|most people|others?|everyone|standard"
    r"|üblich|sonst|anfangs|vorher|habituel\w*|por defecto|di solito|обычно)\b[^\d%]{0,20}$",
    re.IGNORECASE,
)
_ARROW = re.compile(
    r"\W{0,4}(?:→|->|=>|⇒|\b(?:raised|lowered|increased|reduced|now|revised|changed)\b)"
)
_BARE = re.compile(
    r"(?<![\w.,/-])(0?[.,]\d{1,3}|\d{1,3}(?:[.,]\d{1,2})?)(?![\w%/]|[.,]\d|\s?[-–]\s?\d)"
)
_LINE_NUMBER = re.compile(r"(?m)^\s{0,20}(?:\(?\d{1,3}[.)]|criterion \d{1,2}\b)")
_EDGES = " \t\r\n\xa0*_#`\"'“”„«»「」()[]{}:;,.=–—-•>|+~→"
_BULLET = re.compile(r"\s{0,20}(?:[-*•+|#]{1,6}|\(?\d{1,3}[.)]|[A-Za-z][.)])\s{1,5}")
_WEIGHT_WORD = re.compile(
    rf"[\s(\[:–—,*_-]{{0,6}}\b{WEIGHT}(?:\s(?:of|at|is|von|de|di))?[\s*_:=(\[]{{0,6}}$",
    re.IGNORECASE,
)
_NAME_END = re.compile(r"[:(\[]|\s[–—-]\s")
_SEPARATOR = re.compile(r"[,;\n|•]|\.(?=\s)")
# "Clarity 70% and Depth 30%": an "and" next to a number parts two names; inside one it is a word.
_AND = r"(?:and|und|et|y|e|en|и|&|和|及|と)"
_AND_BEFORE = re.compile(rf"\W{{0,10}}{_AND}(?!\w)", re.IGNORECASE)
_AND_AFTER = re.compile(rf"(?<!\w){_AND}\W{{0,10}}$", re.IGNORECASE)
_PART_A = re.compile(r"(?:^|(?<=[\s\"'*(]))A\*{0,2}[.):](?=[\s*])")
_PART_B = re.compile(r"(?:^|[.;,\n\"'*(%])\s{0,3}\*{0,2}B\*{0,2}[.):](?=[\s*])")
_LIST_END = re.compile(r"[.;\n(]")
_COLONS = re.compile(r":(?!\d)|\s[–—-]\s|\.\s|→")
_CUT = re.compile(r"[:;,.()\[\]\"“”„«»|/–—=→]|\s-\s|\n")
_LETTERS = re.compile(r"[^\W\d_]")


class RubricReading(NamedTuple):
    """A rubric, None where there is none, and codes of what was mended."""

    rubric: Rubric | None
    notes: tuple[str, ...]


class _Item(NamedTuple):
    """A weight in percent with the words before and behind it; around: all that may hold the name."""

    head: str
    tail: str
    weight: float
    around: str = ""


_Read: TypeAlias = Callable[[str, str], list[Criterion]]


def breakdown_of(rationale: str) -> str:
    """The rationale's score breakdown; the whole of it where that is not labeled."""
    begin = _PART_A.search(rationale)
    part = _PART_B.search(rationale, begin.end() if begin else 0)
    return rationale[part.end() :] if part else rationale


def read_rubric(section: str | None, rationale: str, breakdown: str) -> RubricReading:
    """Criteria from the rubric section, else from the rationale's part A.

    breakdown: where the marks are, which tells what the criteria are called.
    """
    named_in = plain_words(breakdown[:LONGEST_BREAKDOWN])
    notes: list[str] = []
    if _is_in_doubt(section or ""):
        return RubricReading(None, ("weights_in_doubt",))
    criteria = _of_one_list(section or "", _criteria, named_in, notes)
    if not criteria or abs(_sum(criteria) - 100) > ABOUT_ALL:
        begin = _PART_A.search(rationale)
        end = _PART_B.search(rationale, begin.end() if begin else 0)
        part = rationale[begin.end() if begin else 0 : end.start() + 1 if end else len(rationale)]
        # Without its labels, a rationale is read only where each line names one criterion.
        if criteria and abs(sum(map(_percent, _WEIGHT.finditer(part))) - 100) > EXACTLY:
            again = []
        else:
            again = _of_one_list(part, _listed if begin else _criteria, named_in, notes)
        if again and (not criteria or abs(_sum(again) - 100) <= EXACTLY):
            criteria = again
            notes.append("rubric_from_rationale")
    if abs(_sum(criteria) - 100) > EXACTLY and len(criteria) > 1:
        # "Total 100%", or a share of choices in a reason, is no criterion that anything is marked on.
        named = [criterion for criterion in criteria if mentions(criterion.name, named_in)]
        if abs(_sum(named) - 100) <= EXACTLY:
            criteria = named
    first: dict[str, Criterion] = {}
    last: dict[str, Criterion] = {}
    for criterion in criteria:
        last[criterion.name.casefold()] = criterion
        if first.setdefault(criterion.name.casefold(), criterion) is not criterion:
            notes.append("repeated_criterion")
    # Weights that are given anew count where they are whole by themselves, and said to be better.
    anew = abs(_sum(list(last.values())) - 100) <= EXACTLY
    differ = any(last[name].weight != first[name].weight for name in first)
    if (
        anew
        and differ
        and which_counts(["", _before_again(section or rationale, next(iter(last)))]) != 1
    ):
        return RubricReading(None, (*notes, "weights_in_doubt"))
    unique = last if anew else first
    kept = tuple(unique.values())[:MOST_CRITERIA]
    if not kept:
        return RubricReading(None, tuple(notes))
    if abs(_sum(kept) - 100) > EXACTLY:
        notes.append("weights_normalized")
    return RubricReading(Rubric.normalized(kept), tuple(notes))


def _before_again(text: str, name: str) -> str:
    """What is said between the line of a criterion and the last that gives it a weight; else all."""
    lines = [line[:LONGEST_LINE] for line in text.splitlines()]
    weighted = [place for place, line in enumerate(lines) if _WEIGHT.search(line)]
    own = [place for place in weighted if name in lines[place].casefold()]
    if len(own) < 2:
        return text
    listed = {place for place in weighted if _BULLET.match(lines[place])}
    return "\n".join(lines[place] for place in range(own[0] + 1, own[-1]) if place not in listed)


def _of_one_list(text: str, read: _Read, named_in: str, notes: list[str]) -> list[Criterion]:
    """The criteria of a text; where it has several lists of weights, those of the one that counts."""
    text = _percentages(text)
    parts = _parts(text)
    lists = [(part, read(part, named_in)) for part in parts]
    whole = [(part, own) for part, own in lists if abs(_sum(own) - 100) <= EXACTLY]
    if not whole or whole[0] != lists[0]:
        return read(text, named_in)
    alike = [{item.name.casefold(): item.weight for item in own} for _, own in whole]
    if all(weights == alike[0] for weights in alike):
        return lists[0][1]
    notes.append("repeated_criterion")
    # "Past choices: 80% short, 20% long" is no list of criteria that anything is marked on.
    marked = [all(mentions(item.name, named_in) for item in own) for _, own in whole]
    if sum(marked) == 1:
        return whole[marked.index(True)][1]
    counts = which_counts([_introduction(part) for part, _ in whole])
    if counts is None:
        notes.append("weights_in_doubt")
        return []
    return whole[counts][1]


def _parts(text: str) -> list[str]:
    """`text`, cut behind each list of weights that sum to 100, without what is said of somebody else then."""
    ends = [0]
    total = 0.0
    for place, percent in islice(_weights_in(text), 8 * MOST_CRITERIA):
        total += percent
        if abs(total - 100) <= EXACTLY:
            ends.append(place)
            total = 0.0
    rest = text[ends[-1] :]
    if len(ends) == 1 or not (_WEIGHT.search(rest) and is_aside(_introduction(rest))):
        ends = [*(ends[:-1] or ends), len(text)]
    return [text[begin:end] for begin, end in pairwise(ends)]


def _weights_in(text: str) -> Iterator[tuple[int, float]]:
    """Each weight in percent, and where what is said of it ends: a line's one, or all of a sentence."""
    for line in re.finditer(r"[^\n]+", text):
        weights = list(islice(_WEIGHT.finditer(text, *line.span()), 4 * MOST_CRITERIA))
        if len(weights) == 1 or _BULLET.match(line[0]):
            own = _own_weight(line[0][:LONGEST_LINE])
            if own and _percent(own) < 100:  # "Total: 100%" is no list of its own.
                yield line.end(), _percent(own)
            continue
        stops = [*(weight.start() for weight in weights[1:]), line.end()]
        for weight, stop in zip(weights, stops, strict=False):
            if _percent(weight) < 100 and not _SHARE_OF.match(text, weight.end()):
                end = _LIST_END.search(text, weight.end(), stop)
                yield (end.end() if end else stop), _percent(weight)


def _introduction(part: str) -> str:
    """What stands before the first weight, without the beginning of a line of the list itself."""
    first = _WEIGHT.search(part)
    before = part[: first.start() if first else 0]
    above, _, own = before.rpartition("\n")
    return above if _BULLET.match(own) else before


def _sum(criteria: Sequence[Criterion]) -> float:
    return sum(criterion.weight for criterion in criteria)


def _percentages(text: str) -> str:
    """`text` with weights written as "0.45" or "45" as percentages, where they sum to a whole."""
    if _WEIGHT.search(text):
        return text
    numbering = [match.span() for match in _LINE_NUMBER.finditer(text)]
    bare = [
        match
        for match in islice(_BARE.finditer(text), 4 * MOST_CRITERIA)
        if not any(start <= match.start() < end for start, end in numbering)
    ]
    total = sum(_float(match[1]) for match in bare)
    factor = 100 if abs(total - 1) <= 0.02 else 1 if abs(total - 100) <= 2 else 0
    if len(bare) < 2 or not factor:
        return text
    parts, place = [], 0
    for match in bare:
        parts += [text[place : match.start()], f"{_float(match[1]) * factor:g}%"]
        place = match.end()
    return "".join([*parts, text[place:]])


def _criteria(text: str, named_in: str) -> list[Criterion]:
    """The criterion of each line that holds a name and a weight; several from a line of several."""
    criteria: list[Criterion] = []
    heading = ""
    for line in text.splitlines():
        line = line[:LONGEST_LINE]
        match = _own_weight(line)
        if match is None:
            # "1. Clarity", with its weight in a line of its own.
            if line.strip() and len(line) <= LONGEST_NAME:
                heading = line
            continue
        bullet = _BULLET.match(line)
        if bullet is None and len(_WEIGHT.findall(line)) > 1:
            listed = _listed(line, named_in)
            # A second percentage may also belong to the reason of one criterion.
            if abs(_sum(listed) - 100) <= ABOUT_ALL:
                criteria += listed
                continue
        begin = min(bullet.end() if bullet else 0, match.start())
        head, tail = _WEIGHT_WORD.sub("", line[begin : match.start()]), line[match.end() :]
        if not head.strip(_EDGES) and not tail.strip(_EDGES) and heading:
            numbered = _BULLET.match(heading)
            head, heading = heading[numbered.end() if numbered else 0 :], ""
        criterion = _criterion(_Item(head, tail, _percent(match)), named_in)
        if criterion:
            criteria.append(criterion)
        if len(criteria) >= 4 * MOST_CRITERIA:
            break
    return criteria


def _own_weight(line: str) -> re.Match[str] | None:
    """The weight of a line's criterion, and not a share of something, or what it was before."""
    matches = list(islice(_WEIGHT.finditer(line), MOST_CRITERIA))
    if len(matches) < 2:
        return matches[0] if matches else None
    own = [match for match in matches if not _SHARE_OF.match(line, match.end())] or matches
    own = [match for match in own if not _OTHERWISE.search(line, 0, match.start())] or own
    while len(own) > 1 and _ARROW.match(line, own[0].end(), own[1].start()):
        del own[0]
    return own[0]


def _is_in_doubt(section: str) -> bool:
    """Whether a weight is a range."""
    return any(
        _float(match[1]) < _float(match[2])
        for match in islice(_RANGE.finditer(section), MOST_CRITERIA)
    )


def _listed(text: str, named_in: str) -> list[Criterion]:
    """Criteria of running text: "Clarity 30%, Depth (70%)" or "30% clarity and 70% depth"."""
    text = unwide(text)
    matches = list(islice(_WEIGHT.finditer(text), 4 * MOST_CRITERIA))
    if not matches:
        return []
    if _percent(matches[0]) == 100 and len(matches) > 2:
        del matches[0]  # "Criteria (sum 100%): ..."
    # In "45% Brevity, 55% Warmth" the number comes first; where that is not plain, the names tell.
    first = not text[: matches[0].start()].strip(_EDGES)
    reading = _named(_items(text, matches, number_first=first), named_in)
    if named_in and (count := _mentioned(reading, named_in)) < len(matches):
        other_way = _named(_items(text, matches, number_first=not first), named_in)
        if _mentioned(other_way, named_in) > count:
            return other_way
    return reading


def _items(text: str, matches: Sequence[re.Match[str]], *, number_first: bool) -> list[_Item]:
    """The words of each weight: those before it, or behind it."""
    ends = [match.start() for match in matches[1:]] + [len(text)]
    items: list[_Item] = []
    position = 0
    for match, end in zip(matches, ends, strict=True):
        whole = text[match.end() : end] if number_first else text[position : match.start()]
        if number_first:
            piece = _AND_AFTER.sub("", whole.lstrip(_EDGES)[:LONGEST_LINE])
            separator = _SEPARATOR.search(piece)
            piece = piece[: separator.start()] if separator else piece
        else:
            piece = whole[-LONGEST_LINE:]
            opening = _AND_BEFORE.match(piece)
            piece = piece[opening.end() :] if opening else piece
            # The name is what follows the last separator, unless nothing does.
            for separator in reversed(list(_SEPARATOR.finditer(piece))):
                if piece[separator.end() :].strip(_EDGES):
                    piece = piece[separator.end() :]
                    break
        position = match.end()
        items.append(_Item(_WEIGHT_WORD.sub("", piece), "", _percent(match), whole[-LONGEST_LINE:]))
    if not number_first:
        items[0] = items[0]._replace(head=_without_heading([item.head for item in items]))
    return items


def _named(items: Sequence[_Item], named_in: str) -> list[Criterion]:
    return [criterion for item in items if (criterion := _criterion(item, named_in))]


def _mentioned(criteria: Sequence[Criterion], named_in: str) -> int:
    return sum(mentions(criterion.name, named_in) for criterion in criteria)


def _without_heading(heads: Sequence[str]) -> str:
    """The first of several heads, without the heading of the whole list, if there is one.

    A colon parts a name from what is said about it in every item, and a heading from the first one.
    """
    first = heads[0]
    usual = max((len(_COLONS.findall(head.strip(_EDGES))) for head in heads[1:]), default=0)
    colons = list(_COLONS.finditer(first.rstrip(_EDGES)))
    if len(heads) > 1 and len(colons) > usual:
        return first[colons[len(colons) - usual - 1].end() :]
    return first


def _criterion(item: _Item, named_in: str) -> Criterion | None:
    name, about = _name_of(item.head)
    tail = item.tail
    if not name:
        name, about = _name_of(tail.lstrip(_EDGES))
        tail = ""
    if name and named_in and not mentions(name, named_in):
        name = _as_named(f"{item.around or item.head}: {tail[:LONGEST_NAME]}", named_in) or name
    if not name.strip() or len(name) > LONGEST_NAME or item.weight > 100:
        return None
    reason = f"{about.rstrip(' ([')} {tail.lstrip(' )]:*,–—')}".strip(" \t\r\n*_:;,()–—")
    return Criterion(name=name, weight=item.weight, reason=reason, reported_weight=item.weight)


def _as_named(words: str, named_in: str) -> str | None:
    """The longest part of `words` that the breakdown names."""
    options: list[str] = []
    for piece in _CUT.split(words)[:12]:
        parts = piece.split()[:10]
        options += [
            " ".join(parts[begin:end])
            for begin in range(len(parts))
            for end in range(begin + 1, len(parts) + 1)
        ]
    options = [option.strip(_EDGES) for option in options]
    for option in sorted(set(options), key=len, reverse=True)[:MOST_OPTIONS]:
        letters = len(_LETTERS.findall(option))
        if (letters > 3 or (letters and not option.isascii())) and mentions(option, named_in):
            return option
    return None


def _name_of(text: str) -> tuple[str, str]:
    """A criterion's name, and what is said about it behind a colon, bracket or dash."""
    text = unwide(text).lstrip(_EDGES)
    end = _NAME_END.search(text)
    if end is None:
        return text.strip(_EDGES), ""
    about = text[end.end() :]
    return text[: end.start()].strip(_EDGES), about.replace(")", "", 1) if end[0] == "(" else about


def _percent(weight: re.Match[str]) -> float:
    return _float(weight[1] or weight[2])


def _float(number: str) -> float:
    return float(number.replace(",", "."))
