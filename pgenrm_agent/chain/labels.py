"""Find the labels in a breakdown of scores: which response, criterion or total is named where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Literal, NamedTuple

from pgenrm_agent.chain.folding import plain, plain_words
from pgenrm_agent.chain.response_names import responses_in
from pgenrm_agent.chain.words import TOTALS, is_wide


class Label(NamedTuple):
    """A response (its place, from 0), a criterion (its place; -1: a total) at [start, end)."""

    start: int
    end: int
    kind: Literal["response", "criterion"]
    place: int


_START, _END = itemgetter(0), itemgetter(1)


def mentions(name: str, text: str) -> bool:
    """Whether a text of `plain_words` names a criterion, not as a part of other words."""
    return next(_places(_words_of(name), text), None) is not None


def labels_in(text: str, names: Sequence[str]) -> list[Label]:
    """Responses, criteria and totals in the order of the text, without overlaps."""
    labels = [
        Label(match.start(), match.end(), "response", int(match[1]) - 1)
        for match in responses_in(text)
    ]
    words_only = plain(text)
    for place, name in enumerate(names):
        words = _words_of(name)
        labels += [
            Label(start, start + len(words), "criterion", place)
            for start in _places(words, words_only)
        ]
    # Few of these words are in any text, and to look for plain words is many times faster.
    for word in TOTALS:
        if word in text:
            labels += [
                Label(start, start + len(word), "criterion", -1) for start in _places(word, text)
            ]
    # Longest first: "Response 1" and "Top 3 picks" hold numbers that are no marks. Sorts keep order.
    labels.sort(key=_END, reverse=True)
    labels.sort(key=_START)
    kept: list[Label] = []
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
