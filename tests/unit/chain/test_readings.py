"""What models write, read right or refused: every family of readings.jsonl, a line a member."""

from __future__ import annotations

from pathlib import Path

import pytest
from readings import CORPUS, Reading, readings, text_of

from pgenrm_agent.chain import parse_chain
from pgenrm_agent.errors import ChainError

# What the project's issues were filed with, where it lies beside a checkout.
GIVEN = Path(__file__).parents[4] / "shared" / "cases" / "readings.jsonl"


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


@pytest.mark.skipif(not GIVEN.exists(), reason="the issue's own cases are not beside this checkout")
def test_the_cases_that_the_issue_came_with_are_read_right_or_refused() -> None:
    for case in readings(GIVEN):
        ids = [str(name) for name in case["candidates"]]  # type: ignore[attr-defined]
        try:
            totals = parse_chain(str(case["text"]), ids).totals
        except ChainError:
            assert case["totals"] is None or "refused" in str(case["note"]), case["name"]
            continue
        right = case["totals"] or {"a": 6.2, "b": 4.8}
        assert totals == pytest.approx(right), case["name"]
        assert case["totals"] or "6.2 / 4.8" in str(case["note"]), case["name"]
