"""Inputs that people bring, and what comes of them at every door: one table, for tests and docs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DOORS = ("library", "CLI", "HTTP", "client", "MCP", "LangChain")
FILE = Path(__file__).with_suffix(".json")
OUTCOMES = {
    "scored": "Every answer is scored.",
    "refused": "It is refused.",
    "not_scored": "It is `not_scored`, with the reason; the rest is scored.",
}
NONE_SCORED = "All are `not_scored`, with the reason."


@dataclass(frozen=True)
class Row:
    """One input, and its outcome.

    which: places of answers that are not scored. says: what the reason or the error has to name.
    best: None where no answer may be the best. choices: how many past choices of the user have to count.
    not_at: doors at which it cannot come in, and why.
    """

    input: str
    outcome: str
    user_id: object = "ada"
    query: str = "How do I clean a cast-iron pan?"
    candidates: tuple[object, ...] = ("Rinse it. 9", "Soak it. 3")
    which: tuple[int, ...] = ()
    says: str = ""
    note: str = ""
    best: str | None = "any"
    choices: int | None = None
    not_at: Mapping[str, str] = field(default_factory=dict)

    @property
    def asked(self) -> dict[str, Any]:
        """The input as the arguments of a call."""
        return {
            "user_id": self.user_id,
            "query": self.query,
            "candidates": list(self.candidates),
        }


def _whole(value: Any) -> Any:
    """Write out what the file abbreviates: a long text, many answers."""
    if isinstance(value, dict) and "repeat" in value:
        return value["repeat"] * value["times"]
    if isinstance(value, dict) and "count" in value:
        return tuple(f"Answer {number} of them." for number in range(value["count"]))
    if isinstance(value, list):
        return tuple(map(_whole, value))
    return value


ROWS = tuple(
    Row(**{name: _whole(value) for name, value in row.items()})
    for row in json.loads(FILE.read_text(encoding="utf-8"))
)


def table() -> str:
    """The rows as a Markdown table."""
    return "\n".join(["| What comes in | What comes of it |", "|---|---|", *map(_line, ROWS), ""])


def _line(row: Row) -> str:
    all_of_them = len(row.which) == len(row.candidates) and row.which
    said = NONE_SCORED if all_of_them else OUTCOMES[row.outcome]
    text = " ".join([said, *filter(None, [row.note]), *_exceptions(row)])
    return f"| {row.input.replace('|', chr(92) + '|')} | {text} |"


def _exceptions(row: Row) -> Iterator[str]:
    for door, why in row.not_at.items():
        yield f"({door}: {why}.)"
