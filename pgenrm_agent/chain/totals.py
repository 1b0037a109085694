"""Read totals and the scores of judges: values of a JSON object, as models write them."""

from __future__ import annotations

import math
import re

from pgenrm_agent.chain.equations import as_number
from pgenrm_agent.chain.numbers import OUT_OF, SCALES, TEN, is_thousands
from pgenrm_agent.chain.words import UNIT

_TOTAL = re.compile(
    rf"\s*([+-]?\d{{1,6}}(?:[.,]\d{{1,30}})?)\s*{UNIT}?\s*"
    rf"(?:\(?(?:{OUT_OF}|de|of)\s*(\d{{1,3}})(?:[.,]0{{1,3}})?\s*{UNIT}?\)?)?\s*",
    re.IGNORECASE,
)
_SCORE_KEYS = ("score", "total", "weighted_total", "weighted_score", "overall")


def read_total(value: object) -> float | None:
    """A finite number, also from text such as "7,5" or "7/10" or {"score": 7}; None for others.

    What is out of another number than ten is converted: "85/100" is 8.5.
    """
    if isinstance(value, dict):
        inner = [value[name] for name in _SCORE_KEYS if name in value]
        return read_total(inner[0]) if len(inner) == 1 and not isinstance(inner[0], dict) else None
    if isinstance(value, str):
        match = _TOTAL.fullmatch(value[:60].strip("\"'*_ "))
        if match is None or is_thousands(match[1]):
            return None
        number, scale = as_number(match[1]), int(match[2] or TEN)
        if scale != TEN and (scale not in SCALES or number > scale):
            return None
        return number * TEN / scale
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def stated_top(value: object) -> float | None:
    """Return what a number in words, which `read_total` reads, is out of: 5 for "4/5"; None for "4"."""
    match = _TOTAL.fullmatch(value[:60].strip("\"'*_ ")) if isinstance(value, str) else None
    return float(match[2]) if match and match[2] else None
