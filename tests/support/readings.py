"""The corpus of model outputs with their right reading, and the chains that it stands for."""

from __future__ import annotations

import json
from pathlib import Path

Reading = dict[str, object]
CORPUS = Path(__file__).parents[1] / "unit" / "chain" / "readings.jsonl"


def readings(path: Path) -> list[Reading]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def text_of(reading: Reading) -> str:
    """The whole text, or a chain around what the reading says of it."""
    if "text" in reading:
        return str(reading["text"])
    body = {"rationale": reading["rationale"], "better_response": reading.get("written", {})}
    section = f"### Criteria\n{reading['criteria']}\n" if reading["criteria"] else ""
    return (
        f"## Part 1: Analysis\n### Persona\nWants plain words.\n{section}## Part 2: Scoring\n"
        f"<JSON_START>\n{json.dumps(body)}\n<JSON_END>"
    )
