"""What models write, read right or refused: every family of readings.jsonl, a line a member."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pgenrm_agent.chain import parse_chain
from pgenrm_agent.errors import ChainError

Reading = dict[str, object]
CORPUS = Path(__file__).with_name("readings.jsonl")
GIVEN = Path(__file__).parents[4] / "shared" / "cases" / "readings.jsonl"


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


@pytest.mark.parametrize("reading", readings(CORPUS), ids=lambda reading: str(reading["name"]))
def test_what_a_model_writes_is_read_right_or_refused(reading: Reading) -> None:
    ids = [str(name) for name in reading["candidates"]]  # type: ignore[attr-defined]
    if reading["totals"] is None:
        with pytest.raises(ChainError) as caught:
            parse_chain(text_of(reading), ids)
        assert caught.value.reason == reading["reason"]
        return
    chain = parse_chain(text_of(reading), ids)
    assert chain.totals == pytest.approx(reading["totals"])
    assert chain.totals_from == reading.get("from", "marks")
    assert set(reading.get("repairs", ())) <= set(chain.repairs)  # type: ignore[call-overload]
    if "persona" in reading:
        assert chain.persona.text == reading["persona"]


def test_the_corpus_is_no_smaller_than_it_was() -> None:
    names = [reading["name"] for reading in readings(CORPUS)]
    assert len(set(names)) == len(names) >= 100
