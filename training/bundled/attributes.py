"""The twelve style attributes that simulated users have tastes about; frozen with their world.

Tastes are weights over `features`. Each attribute is a count (or a share) over the plain text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Attribute:
    """One measurable trait of an answer.

    key: one word, as it stands in a chain's readings.
    more, less: the criterion's name when a user wants more or less of it.
    thresholds: raw values at which the features are 1, 2 and 3.
    raw: the value of a text.
    """

    key: str
    more: str
    less: str
    thresholds: tuple[float, float, float]
    raw: Callable[[str], float]


def _count(pattern: str, flags: int = re.IGNORECASE) -> Callable[[str], float]:
    compiled = re.compile(pattern, flags)
    return lambda text: sum(1 for _ in compiled.finditer(text))


_WORD = re.compile(r"[A-Za-z][A-Za-z'’]*")


def _share_of_long_words(text: str) -> float:
    """Percent of words with nine letters or more; 0 for a text without words."""
    words = _WORD.findall(text)
    return 100 * sum(len(word) >= 9 for word in words) / len(words) if words else 0.0


ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("length", "Thoroughness", "Brevity", (120, 220, 340), len),
    Attribute(
        "lists",
        "Bullet points",
        "Flowing prose",
        (1, 3, 5),
        _count(r"^[ \t]*(?:[-*•+]|\d{1,2}[.)])[ \t]+\S", re.MULTILINE),
    ),
    Attribute(
        "examples",
        "Worked examples",
        "No examples",
        (1, 2, 3),
        _count(
            r"\b(?:for example|for instance|such as|e\.g\.|examples?|like|including|includes?|etc)\b|[(]"
        ),
    ),
    Attribute(
        "hedging",
        "Careful wording",
        "Confident wording",
        (1, 2, 4),
        _count(
            r"\b(?:can|may|might|could|perhaps|possibly|probably|maybe|likely|usually|often"
            r"|generally|typically|sometimes|seems?|appears?|depends?|depending|some|about|if)\b"
        ),
    ),
    Attribute(
        "warmth",
        "Warm tone",
        "Neutral tone",
        (1, 2, 3),
        _count(
            r"!|\b(?:great|good|best|happy|glad|hope|enjoy|love|wonderful|beautiful|delicious"
            r"|perfect|feel free|thanks?|welcome|please|luck|fun|friends?|help|sure)\b"
        ),
    ),
    Attribute("formality", "Formal wording", "Plain words", (10, 16, 23), _share_of_long_words),
    Attribute("questions", "Asking back", "No questions back", (1, 2, 3), _count(r"\?")),
    Attribute("numbers", "Numbers and specifics", "Few numbers", (1, 3, 6), _count(r"\d+")),
    Attribute(
        "opinion",
        "A personal voice",
        "An impersonal voice",
        (1, 2, 4),
        _count(r"\b(?:I|I['’](?:m|d|ll|ve)|my|me|myself)\b", 0),
    ),
    Attribute(
        "disclaimers",
        "Caveats",
        "No disclaimers",
        (1, 2, 3),
        _count(
            r"\b(?:sorry|apologi[sz]e|unfortunately|as an ai|language model|but|however|although"
            r"|though|while|important|note|sure to|consult|professional|cannot|can't|unable|not)\b"
        ),
    ),
    Attribute(
        "steps",
        "Step-by-step order",
        "No step-by-step",
        (1, 2, 4),
        _count(
            r"\b(?:first|second|third|then|next|finally|lastly|after|before|when|once|until|now"
            r"|steps?|begin|start)\b"
        ),
    ),
    Attribute(
        "address",
        "Speaking to the reader",
        "Speaking about the subject",
        (1, 3, 6),
        _count(r"\b(?:you|your|yours|you['’](?:re|ll|ve|d)|yourself)\b"),
    ),
)

KINDS = ("how-to", "factual", "advice", "writing", "other")
_KIND_PATTERNS = (
    (
        "writing",
        re.compile(
            r"\b(?:write|compose|draft|create|generate|rewrite|story|poem|email|essay)\b", re.I
        ),
    ),
    (
        "how-to",
        re.compile(
            r"\bhow (?:do|to|can|would|should)\b|\bsteps?\b|\brecipe\b|\bmake\b|\bcook\b", re.I
        ),
    ),
    (
        "advice",
        re.compile(
            r"\b(?:should|recommend|suggest|advice|best|tips?|ideas?|help|want|need)\b", re.I
        ),
    ),
    (
        "factual",
        re.compile(r"\b(?:what|who|when|where|which|why|is|are|does|did|explain|define)\b", re.I),
    ),
)


def kind_of(query: str) -> int:
    """Index into KINDS: the first matching rule, "other" where none matches."""
    for name, pattern in _KIND_PATTERNS:
        if pattern.search(query):
            return KINDS.index(name)
    return KINDS.index("other")


def measure(text: str) -> FloatArray:
    """Raw values, shape (12,), in the units of each attribute."""
    return np.array([float(attribute.raw(text)) for attribute in ATTRIBUTES])


def features(raw: FloatArray) -> FloatArray:
    """Raw values (..., 12) -> graded values 0-3: linear between thresholds, flat above the third.

    Tastes act on these, so that a difference within one level still counts for something.
    """
    graded = np.empty_like(raw)
    for index, attribute in enumerate(ATTRIBUTES):
        knots = (0.0, *attribute.thresholds)
        graded[..., index] = np.interp(raw[..., index], knots, (0.0, 1.0, 2.0, 3.0))
    return graded
