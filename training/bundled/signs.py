"""Signs of style that a program can count in any English text, from one word to a page.

The bundled model learns to read these. Each sign is a count (or a share) over the plain text, so
that anyone can check a reading by hand; none needs a model. Four *themes* are sums of signs: they
are what a few choices can reveal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "LEVELS",
    "SIGNS",
    "THEMES",
    "Sign",
    "Theme",
    "levels",
    "measure",
    "measure_along",
    "theme_values",
]

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


def _words(*words: str) -> str:
    return rf"\b(?:{'|'.join(words)})\b"


def _characters(text: str, cuts: IntArray) -> FloatArray:
    return cuts.astype(np.float64)


_WORD = re.compile(r"[A-Za-z][A-Za-z'’]*")
_FORMAL = re.compile(
    _words(
        "accordingly", "additionally", "advised", "aforementioned", "apologi[sz]e", "assistance",
        "await", "cannot", "commence", "concerning", "consequently", "constitutes?", "consult",
        "dear (?:sir|madam|colleagues?)", "do not", "does not", "ensure", "furthermore", "hence",
        "hereby", "herewith", "indicate[sd]?", "individuals?", "inquir(?:y|ies)", "is not", "it is",
        "kindly", "moreover", "must", "nevertheless", "obtain(?:ed)?", "one (?:should|may|must|can)",
        "per", "permit(?:ted|s)?", "please be", "prior to", "provided", "purchase[ds]?", "pursuant",
        "received?", "regarding", "regards", "regret", "remain[s]?", "require[ds]?", "respectfully",
        "shall", "sincerely", "such", "sufficient", "therefore", "thus", "upon", "utili[sz]e[ds]?",
        "whereas", "will not", "with respect to", "would not", "yours", "duly", "deemed", "whilst",
        "thereby", "whom", "decline", "inform(?:ed)?", "attend(?:ed)?", "reply", "request(?:ed|s)?",
        "retain(?:ed)?", "grant(?:ed)?", "cease", "persons?", "fitting", "suitably", "annual(?:ly)?",
        "advise", "gratitude", "honou?r", "confirm(?:ed)?", "submit(?:ted)?", "notif(?:y|ied)",
        "proceed", "matters?", "enclosed", "are to be", "is to be", "at your earliest",
    ),
    re.IGNORECASE,
)  # fmt: skip


def _formal(text: str, cuts: IntArray) -> FloatArray:
    """Percent of words that are long (nine letters or more) or formal; 0 for a text without words.

    Few words make no share: at least eight are counted.
    """
    words = [(match.end(), match.end() - match.start()) for match in _WORD.finditer(text)]
    every = np.maximum(8.0, _ended([end for end, _ in words], cuts))
    long = [end for end, size in words if size >= 9]
    formal = [match.end() for match in _FORMAL.finditer(text) if match.end() - match.start() < 9]
    return 100 * (_ended(long, cuts) + _ended(sorted(formal), cuts)) / every


SIGNS: tuple[Sign, ...] = (
    Sign("length", (12, 40, 120), _characters),
    Sign("extent", (220, 340, 460), _characters),
    Sign(
        "examples",
        (1, 2, 3),
        _count(
            _words(
                "for example", "for instance", "such as", r"e\.g", "examples?", "like",
                "including", "includes?", "because", "since", "specifically", "especially",
            )
            + "|[(]"
        ),
    ),
    Sign("numbers", (1, 3, 6), _count(r"\d+")),
    Sign(
        "lists",
        (1, 3, 5),
        _count(r"(?:^|(?<=\s))(?:[-*•+–]|\(?\d{1,2}[.):]|\(?[a-hA-H]\)|step \d{1,2}[:.)]?)(?=\s)"),
    ),
    Sign("layout", (1, 2, 4), _count(r"→|->|;|\||/(?=\s)|(?<=[a-z]):(?= \S)|\n(?=[^\n]{1,60}(?:\n|$))")),
    Sign(
        "steps",
        (1, 2, 4),
        _count(
            _words(
                "first(?:ly)?", "second(?:ly)?", "third(?:ly)?", "fourth", "then", "next",
                "finally", "last(?:ly)?", "after(?:wards)?", "before", "once", "until", "steps?",
                "begin", "start",
            )
        ),
    ),
    Sign(
        "warm",
        (1, 2, 3),
        _count(
            _words(
                "great", "good", "best", "happy", "glad", "hope", "enjoy(?:ed)?", "loves?", "loved",
                "lovely", "wonderful", "beautiful", "delicious", "perfect", "feel free", "thanks?",
                "thank you", "welcome", "luck(?:y)?", "fun", "friends?", "help", "sure", "dear",
                "nice", "sweet", "cheers", "awesome", "amazing", "fantastic", "brilliant", "super",
                "cozy", "cosy", "yummy", "proud", "hugs?", "cheer", "smile", "treat", "buddy",
                "pal", "mate", "honey", "folks?", "guys?", "congrat(?:s|ulations)", "worry",
                "worries", "excited", "delightful", "bless", "sunshine", "together", "care",
                "you've got this", "don't worry", "well done", "warm", "sorry", "darling", "sweetie",
                "hun", "champ", "kiddo", "legend", "gorgeous", "tasty", "comfy", "cuddles?",
                "snuggle", "giggle", "laugh", "neat", "fab", "dude", "bro", "neighbor", "goodies",
                "joy", "cute", "magic", "favorite", "fancy", "grin", "hero", "star", "thrilled",
            )
        ),
    ),
    Sign(
        "chat",
        (1, 2, 4),
        _count(
            r"!|[:;]-?[)D]|<3|[\U0001F300-\U0001FAFF☀-➿❤]|\b[a-z]+n['’]t\b|['’](?:re|ll|ve|d|m)\b|"
            + _words(
                "hey", "hi", "hello", "oh", "ooh", "aww?", "wow", "yay", "yep", "yeah", "yup",
                "nope", "ok", "okay", "haha", "ha", "lol", "gonna", "wanna", "gotta", "kinda",
                "ya", "stuff", "honestly", "totally", "tons", "bye", "see you", "have fun",
                "trust me", "grab", "phew", "ah", "hmm", "cool", "of course", "no problem",
                "bet", "guess what", "there you go", "here you go", "just", "yikes", "oops", "heck",
                "darn", "bunch", "loads", "heaps", "massive", "huge", "chuck", "chill", "vibes?",
                "yucky", "whoa", "psst", "dunno", "a must", "big time", "come on", "my goodness",
            )
        ),
    ),
    Sign(
        "address",
        (1, 3, 6),
        _count(r"\b(?:you|your|yours|you['’](?:re|ll|ve|d)|yourself|u)\b|\?"),
    ),
    Sign("opinion", (1, 2, 4), _count(r"\b(?:I|I['’](?:m|d|ll|ve)|my|me|myself|we|us|our)\b", 0)),
    Sign("formal", (12, 22, 34), _formal),
    Sign(
        "hedges",
        (1, 2, 3),
        _count(
            _words(
                "may(?:be)?", "might", "could", "perhaps", "possibly", "probably", "likely",
                "seems?", "appears?", "depends?", "depending", "I think", "I believe", "I guess",
                "I suppose", "I'd say", "as far as I know", "not sure", "unsure", "uncertain",
                "unclear", "hard to say", "in some cases", "roughly", "approximately", "tends?",
                "potentially", "presumably", "arguably", "apparently", "guess", "varies", "vary",
                "not (?:necessarily|always|guaranteed|certain)", "no guarantee", "suggests?",
                "as a rule", "more or less", "sort of", "to my knowledge", "worth checking",
                "double-check", "check", "in doubt", "should be", "ish",
            )
        ),
    ),
    Sign(
        "soft",
        (2, 4, 6),
        _count(
            _words(
                "can", "usually", "often", "generally", "typically", "sometimes", "some", "about",
                "around", "if", "unless", "mostly", "most", "many", "would", "should", "whether",
                "rather", "fairly", "quite",
            )
        ),
    ),
    Sign(
        "caveats",
        (1, 2, 3),
        _count(
            _words(
                "sorry", "apologi[sz]e", "unfortunately", "as an ai", "language model", "but",
                "however", "although", "though", "while", "important", "note", "consult",
                "professional", "cannot", "can't", "unable", "exceptions?", "risks?",
                "ask", "doctor", "verify", "confirm", "careful(?:ly)?", "caution", "that said",
                "on the other hand", "keep in mind", "limits?", "yet", "only", "otherwise",
                "in case",
            )
        ),
    ),
    Sign(
        "confident",
        (1, 2, 3),
        _count(
            _words(
                "definitely", "certainly", "absolutely", "clearly", "obviously", "always", "never",
                "must", "undoubtedly", "without (?:a |any )?(?:doubt|question|fail)", "no doubt",
                "no question", "period", "guaranteed", "guarantees?", "exactly", "every time",
                "nothing beats", "hands down", "simply", "of course", "surely", "the best",
                "the only", "will", "every", "all", "none", "full stop", "for certain",
                "for sure", "in fact", "undeniably", "indisputably", "beyond", "bound to",
                "the answer is", "best", "proven", "works", "do it",
            )
        ),
    ),
)  # fmt: skip


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
