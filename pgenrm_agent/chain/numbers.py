"""Read the numbers that models write as marks.

A number counts as it was meant, or not at all. Decimal commas are decimals. A mark on a stated scale
of N is 10/N of it ("4 out of 5" is 8); an unstated scale is the one asked for, 1 to 10, and what is
out of it is refused. A range is no number. Of two numbers the last one counts where the words
between them say so ("7, no, 8", "10 - 2 = 8"); where they do not, both are kept, as a doubt that
only a second reading of the chain can settle.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

from pgenrm_agent.chain.equations import (
    EQUATION,
    NUMBER,
    PRODUCT,
    as_number,
    beginning,
    mark_in,
)
from pgenrm_agent.chain.words import (
    AFTER_A_MARK,
    APART,
    ARITHMETIC,
    BEFORE_A_MARK,
    CONCLUDED,
    CORRECTED,
    NOT_A_MARK,
    PERCENT,
    PERHAPS,
    SCALE,
    UNIT,
    WEIGHT,
    is_wide,
    last_word,
)

TEN = 10.0
SCALES = frozenset((5, 10, 20, 50, 100))
"""What a mark may be out of: "7/8" and "3 of 4" are counts."""
ROUNDING = 0.051
"""How far a mark's share of the total ("8, so 5.6") may be from mark x weight."""
EXACTLY = 0.01
LONGEST_BEFORE = 300
LONGEST_GAP = 1_500
"""Characters behind a criterion in which its mark is looked for."""

OUT_OF = r"(?:/|out of|von|sur|su|van|из)"


def is_thousands(number: str) -> bool:
    """Whether the comma may part thousands, as in "1,250"."""
    return "," in number and len(number.partition(",")[2]) == 3


class Mark(NamedTuple):
    """What was written as one mark, on the scale of 1 to 10.

    values: what it may be, in the order of writing; none where nothing in it can be used.
    sure: whether the words leave no doubt. rescaled: stated to be out of another number than ten.
    stated: whether its scale was stated.
    """

    values: tuple[float, ...]
    sure: bool = True
    rescaled: bool = False
    stated: bool = False


REFUSED = Mark(())

# How nearly every mark is written: " 8, ", ": 8/10; ", " - **7,5** (because ...". Behind "stop" nothing
# but words may follow.
_PLAIN = re.compile(
    r"[\s:=*_\"'(\[–—]{0,8}(?:-\s|->\s?|→\s?)?(?P<mark>\d{1,3}(?:[.,]\d{1,2})?)(?P<ten>\s?/\s?10(?:\.0)?)?"
    r"(?=[ )\]*_\"']{0,6}(?:[,;.\n|(:\]]|- |$|and |und |et |y |e |en |и ))(?![.,]\d)"
)
_DIGITS = re.compile(r"\d+")
CLOSE = 14
"""Characters between two numbers that may belong together, as a range or an equation."""
MOST_NUMBERS = 12

_STRUCK = re.compile(r"~~[^~\n]{1,80}~~")
_TO = (
    r"(?: {0,2}(?:-|–|—|−|~|〜|～|\.{2,3}|…) {0,2}"
    r"|\s{0,2}(?:to|up to|through|bis|à|a|ao?|até|al|tot|до|到|至|から)\s{0,2})"
)
_STATED = (
    # "on a scale of 1 to 10", "scale: 1-5", "escala de 1 a 10"
    rf"{SCALE}[\s:=]{{0,3}}(?:(?:of|from|von|de|da|van|от|which is)\s{{1,2}})?"
    rf"[01]{_TO}(?P<a>\d{{1,3}})\b",
    rf"{SCALE}\s(?:of|von|de|da|van|до)\s(?P<b>\d{{1,3}})\b(?!{_TO}\d)",
    # "a 1-10 scale", "10-point scale", "10er-skala"
    rf"\b[01]{_TO}(?P<c>\d{{1,3}})[\s-]{{0,2}}(?:point\s)?{SCALE}",
    rf"\b(?P<d>\d{{1,3}})(?:[\s-]?(?:er|{UNIT})[\s-]{{0,2}}|-){SCALE}",
    # "(1-10)", "[scale 1 to 5]", "(from 0 to 100)", "(out of 10)", "(max. 10)", "[/10]"
    rf"[(\[][^()\[\]\d]{{0,24}}\b[01]{_TO}(?P<e>\d{{1,3}})[^()\[\]\d]{{0,24}}[)\]]",
    rf"[(\[]\s{{0,2}}(?:{OUT_OF}|of|de|max\w{{0,6}}[.:]?)\s{{0,2}}(?P<f>\d{{1,3}})\b[^()\[\]\d]{{0,12}}[)\]]",
    r"(?<![\d.,])(?<!\d\s)(?:out[ _]of|max(?:imum)?)[\s:.=]{0,3}(?P<g>\d{1,3})\b",
    r"\bscale[\s:]{1,3}(?P<m>5|10|20|50|100)\b(?!\s?[=-])",
    r"\b[01]\s?=[^\d=,;()]{1,20}[,;]?\s?(?P<l>\d{1,3})\s?=[^\d=,;():]{1,20}",
    rf"\b[01]{_TO}(?P<k>5|10|20|100)\s?:",
    # "from 1 (poor) to 5 (excellent)", "where 10 is best"
    rf"\b[01]\s?\([^()\d]{{1,24}}\){_TO}(?P<n>\d{{1,3}})\s?\([^()\d]{{1,24}}\)",
    r"(?<![\d.,])(?P<o>5|10|20|50|100) (?:is|being|means) (?:the )?"
    r"(?:best|excellent|perfect|highest|top|max\w*|ideal|outstanding)\b",
    r"(?P<h>\d{1,3})\s?[点點]満点[中でのはに]?|满分\s?(?P<i>\d{1,3})\s?分?|(?P<j>\d{1,3})分制",
)
_SCALE = re.compile("|".join(_STATED))
_SCALE_NAMED = re.compile(SCALE)
_SCALE_HINTS = (
    *(
        "out of",
        "max",
        "/",
        "满",
        "満",
        "制",
        "scal",
        "skal",
        "échelle",
        "escala",
        "schaal",
        "шкал",
    ),
    *("(von", "(of", "(de", "(sur", "(su", "(van", "(из", "likert", " best", ") to "),
)

_WEIGHT_HINTS = (
    *("%", "weight", "cent", "prozent", "ciento", "procent", "процент", "importance", "gewicht"),
    *("poids", "pondération", "peso", "weging", "вес", "权重", "權重", "重み", "가중치", "퍼센트"),
)
_OWN_WEIGHT = (
    rf"(?:(?:\b{WEIGHT}\W{{0,4}})?{NUMBER}\s?{PERCENT}"
    rf"|\b{WEIGHT}(?:\s(?:of|at|is|de|von))?[\s:=(*\"']{{0,4}}{NUMBER})"
)
_WEIGHTS = re.compile(rf"[(\[]\s?{_OWN_WEIGHT}\s?[)\]]|{_OWN_WEIGHT}")
_OPERATORS = frozenset("+*×x·÷/−–-")
_RANGE = re.compile(
    rf"(?<![\w.,/%])({NUMBER})(?:\s?/\s?10)?"
    rf"(?:{_TO}|\s(?:or|oder|ou|o|или|または|或)\s)({NUMBER})(?:\s?/\s?10)?(?![\w%]|[.,]\d)"
    rf"|({NUMBER})\s?[+]\s?({NUMBER})"
    # "Response 1 is ahead on Clarity (8 vs 3)": whose is whose is not said here.
    rf"|({NUMBER})\s?(?:vs\.?|versus|against|gegen|contre|contra|contro|tegen|против)\s({NUMBER})(?![\w%]|[.,]\d)"
    rf"|(?:between|zwischen|entre|tra|tussen|между)\s({NUMBER})\s(?:and|und|et|y|e|en|и)\s({NUMBER})"
)
_NUMBER = re.compile(
    r"[\d−-](?<![\d.,].)(?P<number>(?:(?<=\d)|(?<=[−-])\d)\d{0,5}(?:[.,]\d{1,6})?)(?![\d%]|[.,]\d)"
    rf"(?:\s{{0,2}}{UNIT})?(?:\s{{0,3}}(?:{OUT_OF}\s{{0,3}}(?P<out_of>\d{{1,3}})|(?:of|de|av|af)\s(?P<of>100?))(?:\.0{{1,2}}(?!\d))?(?!\d|\.\d)"
    rf"(?:\s{{0,2}}{UNIT})?)?"
)
_STARS = re.compile(r"(?:stars?|sternen?|étoiles|estrellas|stelle)$")
_COUNT_OF = re.compile(rf"(?<![\w.,]){NUMBER}\s(?:of|de)\s(?:the\s)?(?!100?\b)\d{{1,3}}\b")
_WORD_AFTER = re.compile(r"[\s*_]{0,4}([^\W\d_]+)")
_IN_A_WORD = re.compile(r"[a-z#$€£+]$|[a-z0-9]_$|[^\s(]-$|(?<![-=])>\s?$|[<≤≥]\s?$")
_NO_MARK_BEFORE = tuple("°€$£+")
_COUNTERS = "个個条條件段句行字步项項本枚人回次つ種种处處年"
_OPENS_A_MARK = tuple(":=([")
_PARTS = tuple(",;")
_SENTENCE_END = re.compile(r"[.!?]\s")
_START = attrgetter("start")
_NOTHING = re.compile(r"(?:\s?\([^()\d]{1,60}\))?[\W_]*$")


def scale_in(text: str) -> float | None:
    """The top of the scale that `text` states, case folded; None where it states none."""
    match = _SCALE.search(text)
    return _top(match) if match else None


def _top(scale: re.Match[str]) -> float | None:
    top = next(int(group) for group in scale.groups() if group)
    return float(top) if top in SCALES or (top > 1 and _SCALE_NAMED.search(scale[0])) else None


def begins_with_mark(gap: str) -> bool:
    """Whether what follows a criterion begins with a mark as nearly every one is written."""
    return _PLAIN.match(gap) is not None


def read_mark(gap: str, weights: Sequence[float], scale: float | None = None) -> Mark | None:
    """The mark in what follows a criterion, up to the next label; None where there is none.

    Args:
        gap: case folded, without quotations.
        weights: the criterion's, in percent, as it counts and as it was written: they are no marks.
        scale: stated for all marks.
    """
    plain = _PLAIN.match(gap)
    if plain and not _DIGITS.search(gap, plain.end()):
        top = TEN if plain["ten"] else scale
        mark = _scaled(as_number(plain["mark"]), top)
        return Mark((mark,), rescaled=_is_other(top), stated=top is not None)
    gap = gap[:LONGEST_GAP]
    digits = [match.span() for match in _DIGITS.finditer(gap)]
    if not digits:
        return None
    return _Gap(gap, digits, weights, scale).read()


def _scaled(number: float, top: float | None) -> float:
    return number if top is None or top == TEN else number * TEN / top


def _is_other(top: float | None) -> bool:
    return top is not None and top != TEN


_BEFORE_A_MARK = re.compile(r"\s*[)\]]?\s*:?\s*")


class _Grade(IntEnum):
    """How much the words around a number say for its being the mark."""

    COUNTS = 0  # it stands where a mark does, and counts what follows it
    WEAK = 1
    STRONG = 2  # it stands where a mark does
    RESULT = 3  # behind another number and an arrow, an equals sign or "but"
    FINAL = 4  # behind another number and words such as "no" or "so"


class _Number(NamedTuple):
    """A number that may be a mark, at [start, end); top: of its scale, where that is stated."""

    value: float
    start: int
    end: int
    grade: _Grade
    top: float | None


class _Gap:
    """The words between a criterion and the next label; what is no number of a mark is taken out."""

    def __init__(
        self,
        text: str,
        digits: list[tuple[int, int]],
        weights: Sequence[float],
        scale: float | None,
    ) -> None:
        self._weights = weights
        self._top = scale
        self._refused = False
        # Most numbers are far apart, and are spared the search for what two of them make.
        together = any(after - before <= CLOSE for (_, before), (after, _) in pairwise(digits))
        if "~~" in text:
            text = _STRUCK.sub(" ", text)
        text = text.replace("**", " ")
        if together:
            if any(sign in text for sign in ("=", "→", "->")):
                text = EQUATION.sub(self._result, text)
            text = PRODUCT.sub(self._factor, text)
        if any(hint in text for hint in _WEIGHT_HINTS):
            text = _WEIGHTS.sub(" ", text)
        if together or any(hint in text for hint in _SCALE_HINTS):
            text = _SCALE.sub(self._stated, text)
        if together:
            text = _COUNT_OF.sub(" ", _RANGE.sub(self._range, text))
        self._text = text

    def read(self) -> Mark | None:
        numbers = self._numbers()
        if len(numbers) > 1 and self._is_weight(numbers[0]):
            named = self._stands_before(numbers[0])
            if numbers[0].value > (numbers[0].top or TEN) or (
                named and self._follows(*numbers[:2]) and not self._is_share(numbers)
            ):
                del numbers[0]
            elif named:
                return self._mark(numbers[:2], sure=False)  # "Depth (10): 1", of the weight 10
        shares = [
            number.value * weight / 100
            for number in numbers
            for weight in self._weights
            if number.grade == _Grade.STRONG
        ]
        numbers = [
            number
            for number in numbers
            if number is numbers[0]
            or number.grade == _Grade.FINAL
            or all(abs(number.value - share) > ROUNDING for share in shares)
        ]
        if any(number.grade > _Grade.COUNTS for number in numbers):
            numbers = [number for number in numbers if number.grade > _Grade.COUNTS]
        if not numbers:
            return REFUSED if self._refused else None
        last = numbers[-1]
        final = max((n for n in numbers if n.grade == _Grade.FINAL), default=None, key=_START)
        if final and not any(n.grade >= _Grade.STRONG and n.start > final.start for n in numbers):
            return self._mark([final], sure=True)
        if self._refused:
            # What "10, minus 2 for jargon: 8" comes to may be the mark; a range has none.
            decided = len(numbers) > 1 and last.grade >= _Grade.STRONG
            return self._mark([last], sure=False) if decided else REFUSED
        if len({(number.value, number.top) for number in numbers}) == 1:
            return self._mark([last], sure=any(n.grade >= _Grade.STRONG for n in numbers))
        return self._mark(numbers, sure=False)

    def _is_weight(self, number: _Number) -> bool:
        bare = re.fullmatch(NUMBER, self._text[number.start : number.end])
        return bool(bare) and any(abs(number.value - weight) < EXACTLY for weight in self._weights)

    def _stands_before(self, number: _Number) -> bool:
        """Whether a number stands as a weight does before its mark: "Clarity (70) 8", "Clarity 70: 8"."""
        before, behind = self._text[: number.start].rstrip(), self._text[number.end :].lstrip()
        return behind[:1] == ":" or (before[-1:] in ("(", "[") and behind[:1] in (")", "]"))

    def _follows(self, weight: _Number, mark: _Number) -> bool:
        """Whether nothing but a colon stands between, as it would before what marks come to: "(10) = 6.8"."""
        return _BEFORE_A_MARK.fullmatch(self._text[weight.end : mark.start]) is not None

    def _is_share(self, numbers: Sequence[_Number]) -> bool:
        """Whether the second number may be what the first one, as a mark of its own weight, comes to."""
        first, second = numbers[:2]
        return first.value <= TEN and abs(first.value**2 / 100 - second.value) <= ROUNDING

    def _mark(self, numbers: list[_Number], *, sure: bool) -> Mark:
        values = dict.fromkeys(_scaled(number.value, number.top) for number in numbers)
        return Mark(
            tuple(values),
            sure,
            rescaled=any(_is_other(number.top) for number in numbers),
            stated=all(number.top is not None for number in numbers),
        )

    def _numbers(self) -> list[_Number]:
        numbers: list[_Number] = []
        for place, match in enumerate(_NUMBER.finditer(self._text)):
            if place == MOST_NUMBERS:
                self._refused = True
                return []
            number = self._number(match, numbers)
            if number is not None:
                numbers.append(number)
        return numbers

    def _number(self, match: re.Match[str], earlier: Sequence[_Number]) -> _Number | None:
        """The number of a match, if it may be the mark; earlier: those before it."""
        text, (start, end) = self._text, match.span()
        previous = earlier[-1] if earlier else None
        # Behind a plain mark, a conclusion may be the total: "Depth 2, so 6.2".
        given = not self._refused and any(n.grade >= _Grade.STRONG for n in earlier)
        since = previous.end if previous else 0
        before = text[max(since, start - LONGEST_BEFORE) : start]
        if _IN_A_WORD.search(before[-4:]) or text[end : end + 1] in _NO_MARK_BEFORE:
            return None
        written = text[start : match.end("number")]
        if is_thousands(written):
            return None
        value = as_number(written.replace("−", "-"))
        stated = match["out_of"] or match["of"]
        if stated is not None and (int(stated) not in SCALES or value > int(stated)):
            self._refused = True
            return None
        top = self._top if stated is None else float(stated)
        if top is None and _STARS.search(match[0]):
            self._refused = True  # of how many there may be is not said
            return None
        word = last_word(before)
        turned = previous is not None and word in ("to", "no")
        if word in NOT_A_MARK and not turned:
            self._refused = self._refused or word in ARITHMETIC
            return None
        if APART.search(before):
            return None
        grade = _Grade.WEAK
        concluded = CONCLUDED.search(before)
        # What stands in a bracket is about the number before it.
        corrected = CORRECTED.search(before, before.rfind(")") + 1)
        if (previous or self._refused) and (corrected or (concluded and not given)):
            grade = _Grade.FINAL
        elif previous and (turned or concluded or PERHAPS.search(before)):
            grade = _Grade.RESULT
        elif stated is not None or _NOTHING.match(before):
            grade = _Grade.STRONG
        elif word:
            if word in BEFORE_A_MARK or word[-1:] in BEFORE_A_MARK or _decided(before):
                grade = _Grade.STRONG
        elif (
            before.rstrip(" *_\"'")[-1:] in _OPENS_A_MARK
            or (previous is None and before.rstrip()[-1:] in _PARTS)
            or before.rstrip().endswith(("->", "→"))
        ):
            grade = _Grade.STRONG
        if stated is None and _is_counted(text, end):
            if previous or not _NOTHING.match(before):
                return None
            grade = _Grade.COUNTS
        # "1. plain words, 8" is a list of one, and "8. It cites 2 books" a mark and its reason.
        in_list = before.startswith((". ", ") ")) and _NOTHING.match(text[end:])
        if previous and grade == _Grade.WEAK and _SENTENCE_END.search(before) and not in_list:
            return None
        return _Number(value, start, end, grade, top)

    def _result(self, match: re.Match[str]) -> str:
        """What an equation comes to, or the mark in "8 x 70% = 5.6"; what stands before it stays."""
        whole = match[1].rstrip()
        begin = beginning(whole, match[2])
        before, left = whole[:begin], whole[begin:].strip()
        signs = {char for char in left if char in _OPERATORS}
        if not signs:
            return match[0]
        product = PRODUCT.fullmatch(left)
        if product:
            mark = mark_in(product, self._weights)
            # Where neither factor is the weight, any of the three may be the mark.
            read = f"{product[1]} , {product[2]} = {match[2]}" if mark is None else mark
            return f"{before} {read} "
        if signs & set("*×x·"):
            return f"{before} "  # a total: "8*0.7 + 2*0.3 = 6.2"
        if signs == {"/"} and (scored := _NUMBER.fullmatch(left)) and scored["out_of"]:
            # "8/10 = 0.8", and not "16/2 = 8".
            result = left if int(scored["out_of"]) in SCALES else f"= {match[2]}"
            return f"{before} {result} "
        return f"{before} = {match[2]} "

    def _factor(self, match: re.Match[str]) -> str:
        mark = mark_in(match, self._weights)
        if mark is not None:
            return f" {mark} "
        if "(" in match[0] and not any(sign in match[0] for sign in "*×x·"):
            return match[0]
        self._refused = True
        return " "

    def _stated(self, match: re.Match[str]) -> str:
        top = _top(match)
        if top is None:
            return match[0]
        self._top = top
        return " "

    def _range(self, match: re.Match[str]) -> str:
        low, high = (as_number(group) for group in match.groups() if group)
        # "8 - 3 good points" is a mark and a reason; "10 - 2" does not say what it comes to.
        is_dash = any(dash in match[0] for dash in "-–—−")
        if low >= high and is_dash and _WORD_AFTER.match(match.string, match.end()):
            return match[0]
        # "20-30 words" is no range of marks; "8 - 12 words" may be a mark and a reason.
        apart = any(f" {dash} " in match[0] for dash in "-–—−")
        self._refused = self._refused or apart or not _is_counted(match.string, match.end())
        return " "


def _decided(before: str) -> bool:
    return any(words.search(before) for words in (CORRECTED, CONCLUDED, PERHAPS))


def _is_counted(text: str, end: int) -> bool:
    """Whether a number counts what follows it, or is a part of a word, as in "2 steps", "3-fold"."""
    following = text[end : end + 1]
    if following in ("-", "–") and text[end + 1 : end + 2].isalpha():
        return True
    if following.isalpha() and not is_wide(following):
        return True
    after = _WORD_AFTER.match(text, end)
    if after is None:
        return False
    if is_wide(after[1][0]):
        return after[1][0] in _COUNTERS
    return after[1] not in AFTER_A_MARK
