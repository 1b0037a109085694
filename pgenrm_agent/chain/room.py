"""How much of what is known a prompt has room for, where the model's context is small. Pure."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from pgenrm_agent.fields import Model

LETTER, DIGIT, SIGN = 0.3, 1.3, 1.0
"""Tokens a character, fitted on real answers with the bundled byte-level tokenizer."""


class Room(Model):
    """Tokens, by `estimated_tokens`.

    prompt: of all texts that a prompt shows; what does not fit is left out, the last choice first.
    text: of any one of them; what is longer is cut.
    """

    prompt: int
    text: int


def estimated_tokens(text: str) -> float:
    """Estimate the tokens of a byte-level tokenizer without asking one.

    Letters of English words share tokens, digits and signs do not, and a letter of another script
    takes as many as it has bytes.
    """
    return sum(map(_tokens_of, text))


def _tokens_of(char: str) -> float:
    if not char.isascii():
        return len(char.encode("utf-8", "replace"))
    if char.isalpha() or char == " ":
        return LETTER
    return DIGIT if char.isdigit() else SIGN


def within(text: str, tokens: int) -> str:
    """Return the longest beginning of a text of at most so many estimated tokens."""
    return text[: bisect_right(list(accumulate(map(_tokens_of, text))), tokens)]
