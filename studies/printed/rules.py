"""What of an output is no news: ids, times and paths; and, on another machine, the numbers."""

from __future__ import annotations

import re

_VOLATILE = [
    (re.compile(pattern), name)
    for pattern, name in (
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?", "TIME"),
        (r"\d{8}T\d+-[0-9a-f]{6}\b", "VERSION"),
        (r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{8,32}\b|\b\d{8}\b", "ID"),
        (r"\d[\d.,]* s(?:econds)?\b", "SECONDS"),
        (r"(?<=seconds a question │ )[\d.,]+ *", "SECONDS "),
        (r"\b\d+:\d\d:\d\d\b", "DURATION"),
    )
]
_NUMBER = re.compile(r"(?<![\w-])[+-]?\d[\d,.]*%?|\bnot scored\b|\bnull\b")
_FREE = re.compile(
    r'\s*"?persona"?\b|\d+% [A-Z]|│ (?:persona|rubric|  )|│ [^\W\d][^│]*│ +\d+% |│ \d+ +│ \d+ +│[a-z, ]*│',
    re.IGNORECASE,
)
"""Lines whose words follow the sampled numbers: personas, rubrics, labels; and how they go on."""
_LINES = re.compile(r"[\s━─┏┓┗┛┡┩┳┻╇┃│┼├┤┴┬└┘]+")


def _steady(text: str) -> str:
    for pattern, name in _VOLATILE:
        text = pattern.sub(name, text)
    return text


def same(shown: str, printed: str) -> bool:
    """Return whether two outputs differ in nothing but ids, times and durations."""
    return _steady(shown) == _steady(printed)


def same_shape(shown: str, printed: str) -> bool:
    """Return whether they also agree when numbers, personas and rubrics are left out.

    These depend on the machine; which candidate comes first does not.
    """
    return _shape(shown) == _shape(printed)


def _shape(text: str) -> list[str]:
    lines = (line for line in _steady(text).splitlines() if not _FREE.match(line))
    shaped = (_LINES.sub(" ", _NUMBER.sub("#", line)).strip() for line in lines)
    return [line for line in shaped if line]
