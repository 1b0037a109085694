"""What a response is called: "Response 1", and "Response One", "the second answer", "Option B", "R2", too.

Names without digits count only where no name has digits, and where those with one word for a response
leave out no number: "an answer one can use" names nothing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pgenrm_agent.chain.words import (
    BEHIND_A_NAME,
    CARDINALS,
    ORDINALS,
    RESPONSES,
    is_wide,
)

LETTERS = "abcdefgh"
"""Not "i", which is a Roman numeral, too."""
MOST_NAMES = 400
"""A word for a response that a text has more often is looked at no further."""
LONGEST_ORDINAL = 16
LONGEST_CRITERION = 120


def _any_of(words: Sequence[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_NOUN = f"(?:{_any_of(RESPONSES)})"
_CARDINAL = rf"(?P<cardinal>{_any_of(tuple(CARDINALS))}|[{LETTERS}])"
_ORDINAL = rf"(?:(?P<ordinal>{_any_of(tuple(ORDINALS))})|(?P<place>[1-9]\d?)(?:st|nd|rd|th|ª|e))"
# `open`: a word follows, which may make the name a part of other words.
_BEHIND = re.compile(
    rf"[ _#-]{{0,2}}{_CARDINAL}(?![^\W_])"
    rf"(?P<open>(?![ \t]{{0,2}}(?:$|[^\w \t]|_|\d|(?:{BEHIND_A_NAME})\b)))?"
)
_BEFORE = re.compile(rf"(?<!\w){_ORDINAL}[ _-]{{1,2}}$")
_KEY = re.compile(
    rf"(?:the )?(?:(?:{_NOUN}\s{{0,2}}#?\s?|r)?(?P<digits>\d{{1,3}})"
    rf"|{_NOUN} ?{_CARDINAL}|{_ORDINAL} {_NOUN})(?: (?:score|total|mark))?"
)

_SHORT = re.compile(r"(?<!\w)r(\d{1,2})(?!\w)")


_WINNER = re.compile(r"better_?response|best(?:_response)?|winner|preferred(?:_response)?|verdict")


def response_key(key: str) -> int | None:
    """Which response, from 0, a JSON key such as "response_1" names; None for another key."""
    words = key[:40].casefold().replace("_", " ").replace("-", " ").strip()
    match = _KEY.fullmatch(words)
    return _number(match.groupdict()) - 1 if match else None


def winner_in(fields: Mapping[str, object], count: int) -> int | None:
    """Which of `count` responses, from 0, an object calls the best one; None where it does not say."""
    winner: int | None = None
    for key, value in fields.items():
        if is_winner_key(key) and isinstance(value, str | int):
            place = response_key(str(value))
            if place is not None and 0 <= place < count:
                winner = place
    return winner


def is_winner_key(key: str) -> bool:
    """Whether a key such as "winner" or "better_response" names the best response."""
    return _WINNER.fullmatch("_".join(re.split(r"[\s_-]+", key.casefold().strip()))) is not None


def responses_in(text: str) -> Iterator[re.Match[str]]:
    """Every response that is named with digits, by the first word for one that the text has so.

    The first group is its number. text: case folded.
    """
    for word in RESPONSES:
        if word in text:
            pattern = _response(word)
            if pattern.search(text):
                return pattern.finditer(text)
    return iter(())


def numbered(text: str, criteria: Sequence[str] = ()) -> str:
    """`text`, case folded, with responses that are named without digits as "response 1" and so on.

    criteria: names that may follow one's name at once.
    """
    if next(responses_in(text), None) is not None:
        return text
    for noun in RESPONSES:
        if noun in text and (names := _names(text, noun, tuple(criteria))):
            parts, kept = list[str](), 0
            for name in names:
                parts += [text[kept : name.start], f"response {name.number}"]
                kept = name.end
            return "".join([*parts, text[kept:]])
    if _is_whole({int(name[1]) for name in _SHORT.finditer(text)}):
        return _SHORT.sub(r"response \1", text)
    return text


@functools.cache
def _response(word: str) -> re.Pattern[str]:
    # A pattern that begins with plain letters is searched for fast, so it looks back behind them.
    alone = "" if is_wide(word[0]) else rf"(?<!\w{word})"
    return re.compile(rf"{word}{alone}[ _#-]{{0,2}}(\d{{1,3}})(?!\d)")


class _Name(NamedTuple):
    """A response's name at [start, end), and its number, from 1."""

    start: int
    end: int
    number: int
    is_letter: bool


def _names(text: str, noun: str, criteria: tuple[str, ...]) -> list[_Name]:
    """The names without digits that `noun` is a part of: those with words, letters, or both."""
    if text.count(noun) > MOST_NAMES:
        return []
    names: list[_Name] = []
    start = text.find(noun)
    while start >= 0:
        end = start + len(noun)
        if is_wide(noun[0]) or not text[start - 1 : start].isalnum():
            name = _name(text, start, end, criteria)
            if name and (not names or name.start >= names[-1].end):
                names.append(name)
        start = text.find(noun, end)
    whole = {kind: _is_whole({n.number for n in names if n.is_letter == kind}) for kind in (0, 1)}
    return [name for name in names if whole[name.is_letter]]


def _is_whole(numbers: set[int]) -> bool:
    return len(numbers) > 1 and max(numbers) == len(numbers)


def _name(text: str, start: int, end: int, criteria: tuple[str, ...]) -> _Name | None:
    """The name that the word for a response at [start, end) is a part of."""
    behind = _BEHIND.match(text, end)
    if behind and (behind.start("cardinal") > end or is_wide(text[start])):
        follows = text[behind.end() : behind.end() + LONGEST_CRITERION].lstrip(" ")
        if behind["open"] is None or follows.startswith(criteria):
            is_letter = behind["cardinal"] in LETTERS
            return _Name(start, behind.end(), _number(behind.groupdict()), is_letter)
    first = max(0, start - LONGEST_ORDINAL)
    before = _BEFORE.search(text[first:start])
    if before is None or text[end : end + 1].isalnum():
        return None
    start = first + before.start()
    if any(text[start:end] in name for name in criteria):
        return None
    return _Name(start, end, _number(before.groupdict()), False)


def _number(groups: dict[str, str | None]) -> int:
    """The number that a match of one of the patterns above stands for, from 1."""
    word = groups.get("cardinal")
    if word is not None:
        return CARDINALS.get(word) or LETTERS.index(word) + 1
    ordinal = groups.get("ordinal")
    return ORDINALS[ordinal] if ordinal else int(groups.get("place") or groups.get("digits") or 0)
