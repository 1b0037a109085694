"""Rewrites a real text toward a pole of a theme, by rules: more friendly, less certain, as a list.

What comes out is read for its signs like any other text, so a rewrite that changes little only makes
a pair of near-twins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from pgenrm_agent.training.bundled.words import WORDS

_BREAK = re.compile(r"(?<=[.!?])\s+|\n+")

Restyle = Callable[[str, np.random.Generator], str]


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text, without the white space between them."""
    return [part.strip() for part in _BREAK.split(text) if part.strip()]


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _lower(text: str) -> str:
    """A sentence's first letter in lower case, where its first word is no name or "I"."""
    head = text.split(" ", 1)[0]
    plain = len(head) > 1 and head[1:].islower() and head[0].isupper()
    return text[0].lower() + text[1:] if plain else text


def _put(text: str, pole: str, rng: np.random.Generator) -> str:
    """An opening, an ending, or both."""
    before, after = WORDS["phrases"][pole]["before"], WORDS["phrases"][pole]["after"]
    where = rng.random()
    if where < 0.65:
        opening = _pick(before, rng)
        text = f"{opening} {_lower(text) if opening[-1] not in '.!?:' else text}"
    if where > 0.4:
        ending = _pick(after, rng)
        if ending[0].islower():
            text = text.rstrip(".!") + ","
        text = f"{text} {ending}"
    return text


def _swap(
    text: str, pairs: Sequence[tuple[str, str]], share: float, rng: np.random.Generator
) -> str:
    for old, new in pairs:

        def replaced(match: re.Match[str], new: str = new) -> str:
            return new if rng.random() < share else match[0]

        text = re.sub(old, replaced, text)
    return text


def _pairs(name: str) -> list[tuple[str, str]]:
    return [(old, new) for old, new in WORDS["swaps"][name]]


CONTRACT, STIFFEN, SOFTEN, HARDEN = map(_pairs, ("contract", "stiffen", "soften", "harden"))
EXPAND = [(rf"\b{new}\b", old.replace(r"\b", "")) for old, new in CONTRACT]


def _friendlier(text: str, rng: np.random.Generator) -> str:
    text = _swap(text, CONTRACT, 0.7, rng)
    if rng.random() < 0.4:
        text = re.sub(r"\.$", "!", text)
    return _put(text, "warmth more", rng)


def _more_formal(text: str, rng: np.random.Generator) -> str:
    text = _swap(_swap(text, EXPAND, 0.9, rng), STIFFEN, 0.8, rng)
    return _put(text, "warmth less", rng)


def _more_careful(text: str, rng: np.random.Generator) -> str:
    return _put(_swap(text, SOFTEN, 0.4, rng), "caution more", rng)


def _more_certain(text: str, rng: np.random.Generator) -> str:
    return _put(_swap(text, HARDEN, 0.8, rng), "caution less", rng)


_MARK = re.compile(r"^\s*(?:[-*•+]|\d{1,2}[.)])\s+")


def _as_list(text: str, rng: np.random.Generator) -> str:
    """The same sentences, or the parts of one sentence, as points, numbers or steps."""
    parts = sentences(text)
    if len(parts) == 1:
        parts = [part.strip() for part in re.split(r",\s+(?:and\s+)?|;\s+|\s+and\s+", text)]
    parts = [_MARK.sub("", part) for part in parts if part][:8]
    style = rng.integers(6)
    ordinals = WORDS["ordinals"]
    if style == 0:
        return " ".join(f"{ordinals[min(i, 4)]} {_lower(part)}" for i, part in enumerate(parts))
    if style == 1:
        return " ".join(f"{i}) {part.rstrip('.')}" for i, part in enumerate(parts, 1))
    if style == 2:
        return " → ".join(part.rstrip(".") for part in parts)
    if style == 3:
        return "\n".join(f"- {part}" for part in parts)
    if style == 4:
        return " ".join(f"{i}. {part}" for i, part in enumerate(parts, 1))
    return "\n".join(f"{i}. {part}" for i, part in enumerate(parts, 1))


def _as_prose(text: str, rng: np.random.Generator) -> str:
    """List lines as sentences of one paragraph."""
    parts = [_MARK.sub("", part) for part in sentences(text)]
    joined = " ".join(part if part[-1] in ".!?" else f"{part}." for part in parts if part)
    return _swap(joined, [(r"\b(?:First|Then|Next|Finally|After that),? ", "")], 0.8, rng)


def _shorter(text: str, rng: np.random.Generator) -> str:
    parts = sentences(text)
    if len(parts) > 1:
        return " ".join(parts[: max(1, len(parts) // int(rng.integers(2, 5)))])
    words = text.split()
    return " ".join(words[: max(1, len(words) // int(rng.integers(2, 4)))]).rstrip(",;:") + "."


def _longer(text: str, rng: np.random.Generator) -> str:
    """The text, and its last sentence said again in other company; a caller has real additions."""
    parts = sentences(text)
    again = parts[int(rng.integers(len(parts)))]
    return f"{text} {_pick(WORDS['additions'], rng)}{_lower(again)}"


RESTYLES: dict[tuple[str, int], Restyle] = {
    ("substance", 1): _longer,
    ("substance", -1): _shorter,
    ("structure", 1): _as_list,
    ("structure", -1): _as_prose,
    ("warmth", 1): _friendlier,
    ("warmth", -1): _more_formal,
    ("caution", 1): _more_careful,
    ("caution", -1): _more_certain,
}


def restyle(text: str, theme: str, pole: int, rng: np.random.Generator) -> str:
    """Rewrite a text (not empty) toward the pole (+1 more, -1 less) of a theme."""
    return RESTYLES[theme, pole](text, rng).strip() or text
