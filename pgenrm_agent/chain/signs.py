"""Signs of style that a program can count in any English text, from one word to a page.

The bundled model learns to read these, and what its chains cite has to hold by them. Each sign is a
count (or a share) over the plain text, so that anyone can check a reading by hand; none needs a model.
Four *themes* are sums of signs: they are what a few choices can reveal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
import numpy.typing as npt
import yaml

from pgenrm_agent.language import writing_of

WORDS: dict[str, list[str]] = yaml.safe_load(
    (resources.files(__package__ or "") / "signs.yaml").read_text(encoding="utf-8")
)
"""Patterns by sign."""

LEVELS = 4
"""Levels run from 0 (absent, lowest) to 3 (highest)."""

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sign:
    """One countable trait of a text.

    thresholds: raw values at which levels 1, 2 and 3 begin.
    along: raw values (n,) of the parts of a text up to n cuts; what a cut splits does not count.
    """

    key: str
    thresholds: tuple[float, float, float]
    along: Callable[[str, IntArray], FloatArray]


def _ended(ends: Sequence[int], cuts: IntArray) -> FloatArray:
    """How many of the (sorted) ends lie at or before each cut."""
    return np.searchsorted(np.array(ends, dtype=np.int64), cuts, side="right").astype(np.float64)


def _count(pattern: str, flags: int = re.IGNORECASE) -> Callable[[str, IntArray], FloatArray]:
    compiled = re.compile(pattern, flags)
    return lambda text, cuts: _ended([match.end() for match in compiled.finditer(text)], cuts)


def _words(sign: str) -> str:
    return rf"\b(?:{'|'.join(WORDS[sign])})\b"


def _characters(text: str, cuts: IntArray) -> FloatArray:
    return cuts.astype(np.float64)


_WORD = re.compile(r"[A-Za-z][A-Za-z'’]*")
_FORMAL = re.compile(_words("formal"), re.IGNORECASE)


def _formal(text: str, cuts: IntArray) -> FloatArray:
    """Percent of words that are long (nine letters or more) or formal; 0 for a text without words.

    Few words make no share: at least eight are counted.
    """
    words = [(match.end(), match.end() - match.start()) for match in _WORD.finditer(text)]
    every = np.maximum(8.0, _ended([end for end, _ in words], cuts))
    long = [end for end, size in words if size >= 9]
    formal = [
        match.end()
        for match in _FORMAL.finditer(text)
        if " " in match[0] or len(match[0]) < 9  # a long word counts already
    ]
    share: FloatArray = 100 * (_ended(long, cuts) + _ended(sorted(formal), cuts)) / every
    return share


SIGNS: tuple[Sign, ...] = (
    Sign("length", (12, 40, 120), _characters),
    Sign("extent", (220, 340, 460), _characters),
    Sign("examples", (1, 2, 3), _count(_words("examples") + "|[(]")),
    Sign("numbers", (1, 3, 6), _count(r"\d+")),
    Sign(
        "lists",
        (1, 3, 5),
        _count(r"(?:^|(?<=\s))(?:[-*•+–]|\(?\d{1,2}[.):]|\(?[a-hA-H]\)|step \d{1,2}[:.)]?)(?=\s)"),
    ),
    Sign(
        "layout",
        (1, 2, 4),
        _count(r"→|->|;|\||/(?=\s)|(?<=[a-z]):(?= \S)|\n(?=[^\n]{1,60}(?:\n|$))"),
    ),
    Sign("steps", (1, 2, 4), _count(_words("steps"))),
    Sign("warm", (1, 2, 3), _count(_words("warm"))),
    Sign(
        "chat",
        (1, 2, 4),
        _count(
            r"!|[:;]-?[)D]|<3|[\U0001F300-\U0001FAFF☀-➿❤]|\b[a-z]+n['’]t\b|['’](?:re|ll|ve|d|m)\b|"
            + _words("chat")
        ),
    ),
    Sign(
        "address", (1, 3, 6), _count(r"\b(?:you|your|yours|you['’](?:re|ll|ve|d)|yourself|u)\b|\?")
    ),
    Sign("opinion", (1, 2, 4), _count(r"\b(?:I|I['’](?:m|d|ll|ve)|my|me|myself|we|us|our)\b", 0)),
    Sign("formal", (12, 22, 34), _formal),
    Sign("hedges", (1, 2, 3), _count(_words("hedges"))),
    Sign("soft", (2, 4, 6), _count(_words("soft"))),
    Sign("caveats", (1, 2, 3), _count(_words("caveats"))),
    Sign("confident", (1, 2, 3), _count(_words("confident"))),
)


@dataclass(frozen=True)
class Theme:
    """Signs that go together. Its poles are named in chain format compact-2.

    plus, minus: the signs whose levels are added and taken away. base: what a text without any has.
    cap: the highest value.
    """

    key: str
    plus: tuple[str, ...]
    minus: tuple[str, ...]
    base: int
    cap: int


THEMES: tuple[Theme, ...] = (
    Theme("substance", ("length", "extent", "examples", "numbers"), (), 0, 9),
    Theme("structure", ("lists", "layout", "steps"), (), 0, 6),
    Theme("warmth", ("warm", "chat", "address", "opinion"), ("formal",), 3, 9),
    Theme("caution", ("hedges", "soft", "caveats"), ("confident",), 3, 9),
)

_KEYS = [sign.key for sign in SIGNS]
LOADINGS = np.array(
    [[int(key in theme.plus) - int(key in theme.minus) for key in _KEYS] for theme in THEMES]
)
CAPS = np.array([theme.cap for theme in THEMES])
_BASES = np.array([theme.base for theme in THEMES])


def measure(text: str) -> FloatArray:
    """Raw values, shape (16,), in the units of each sign."""
    values: FloatArray = measure_along(text, [len(text)])[0]
    return values


def measure_along(text: str, cuts: Sequence[int]) -> FloatArray:
    """Raw values, shape (n, 16), of the first `cuts[i]` characters of the text."""
    where = np.array(cuts, dtype=np.int64)
    return np.stack([sign.along(text, where) for sign in SIGNS], axis=1)


_THRESHOLDS = np.array([sign.thresholds for sign in SIGNS])


def levels(raw: FloatArray) -> IntArray:
    """Raw values (..., 16) -> levels 0-3 of the same shape."""
    result: IntArray = (raw[..., None] >= _THRESHOLDS).sum(-1)
    return result


def theme_values(levels: IntArray) -> IntArray:
    """Levels (..., 16) -> theme readings (..., 4), each 0 to its theme's cap."""
    values: IntArray = np.clip(levels @ LOADINGS.T + _BASES, 0, CAPS)
    return values


def read(texts: Sequence[str]) -> IntArray:
    """Theme readings (n, 4) of English texts."""
    raw = np.array([measure(text) for text in texts]).reshape(len(texts), len(SIGNS))
    return theme_values(levels(raw))


def shown_by(chosen: str, rejected: str) -> dict[str, int]:
    """Return by theme how much more of it the chosen text has; 0 of texts that are not English."""
    texts = (chosen, rejected)
    more = np.zeros(len(THEMES), dtype=np.int64)
    if all(writing_of(text).language != "other" for text in texts):
        more = np.subtract(*read(texts))
    return {theme.key: int(value) for theme, value in zip(THEMES, more, strict=True)}
