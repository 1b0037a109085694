"""Sums and products beside a mark: where an equation begins, and which factor of a product is a weight."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod

NUMBER = r"\d{1,6}(?:[.,]\d{1,6})?"
EQUATION = re.compile(
    r"(?<![\w.,])([\d(](?:[\d \t()%+*×x·÷/−–-]|[.,](?!\s)){0,80}?)"
    rf"\s?(?:=>?|→|->)\s?({NUMBER})(?![\w%])(?!\s?/)"
)
PRODUCT = re.compile(
    rf"(?<![\w.,])\(?({NUMBER}\s?%?)\)?\s?(?:\(?[*×x·]\s?\(?|\()({NUMBER}\s?%?)\)?(?![\w%]|[.,]\d)"
)
ROUNDED = 0.051
"""By how much what an equation comes to may be rounded."""
SAME_WEIGHT = 0.6
"""How near to a weight, in percent, what is a rounded form of it lies."""
LEAST_MARK = 1.0

# "9 (", "9 4": no operator stands between, so what follows is something else.
_APART = re.compile(r"[\d%)](?:\s*(?=\()|\s+(?=\d))")
_DASH = re.compile(r"\s[−–-]\s")
_SIGNS = re.compile(r"\s*([+−–-])\s*")
_FACTORS = re.compile(rf"{NUMBER}\s?%?(?:\s*[*×x·]\s*{NUMBER}\s?%?)*")
_FACTOR = re.compile(rf"({NUMBER})\s?(%?)")


def as_number(digits: str) -> float:
    """Return the number; a comma is a decimal one."""
    return float(digits.replace(",", "."))


def beginning(left: str, result: str) -> int:
    """Return where the left side of an equation begins: behind the mark in "9 (4.2 + 2.7 = 6.9".

    A dash parts a mark from a sum that comes to the result by itself: "8 - 5.6 + 0.6 = 6.2".
    """
    apart = [match.end() for match in _APART.finditer(left)]
    begin = apart[-1] if apart else 0
    for dash in _DASH.finditer(left, begin):
        if _is_sum(left[dash.end() :], as_number(result)):
            return dash.end()
    return begin


def _is_sum(terms: str, number: float) -> bool:
    """Whether several products come to a number; not so where they cannot be worked out."""
    first, *rest = _SIGNS.split(re.sub(r"[()]", " ", terms).strip())
    total = 0.0
    for sign, term in zip(["+", *rest[::2]], [first, *rest[1::2]], strict=True):
        if not _FACTORS.fullmatch(term):
            return False
        factors = (
            as_number(factor[1]) / (100 if factor[2] else 1) for factor in _FACTOR.finditer(term)
        )
        total += prod(factors) * (1 if sign == "+" else -1)
    return bool(rest) and abs(total - number) <= ROUNDED


def is_weight(number: str, weights: Sequence[float]) -> bool:
    """Whether a factor is one of the weights, in percent or as a share of 1."""
    if number.rstrip().endswith("%"):
        return True
    value = as_number(number.strip())
    return any(
        min(abs(value - weight), abs(value * 100 - weight)) < SAME_WEIGHT for weight in weights
    )


def mark_in(product: re.Match[str], weights: Sequence[float]) -> str | None:
    """Return the factor of a product, also as "8 (70%)", whose other one is the weight.

    None for neither, and where "10 (8)" may be a mark and what is said of it.
    """
    first, second = product[1], product[2]
    if _may_be_mark(first) and is_weight(second, weights):
        return first
    in_brackets = not any(sign in product[0] for sign in "*×x·")
    if not _may_be_mark(second) or not is_weight(first, weights):
        return None
    said_of_it = in_brackets and _may_be_mark(first) and as_number(first.strip()) <= 10
    return None if said_of_it else second


def _may_be_mark(number: str) -> bool:
    return "%" not in number and as_number(number.strip()) >= LEAST_MARK
