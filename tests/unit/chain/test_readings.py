"""What models write, read right or refused: every family of readings.jsonl, a line a member."""

from __future__ import annotations

from pathlib import Path

import pytest
from readings import CORPUS, Reading, readings, text_of

from pgenrm_agent.chain import parse_chain
from pgenrm_agent.errors import ChainError

# What the project's issues were filed with, where it lies beside a checkout.
GIVEN = Path(__file__).parents[4] / "shared" / "cases" / "readings.jsonl"


# They mention others, examples, conditions and corrections, and introduce none.
ORDINARY = (
    "If in doubt, they take the short one.",
    "For example, they took the short text in choice 2.",
    "Most users would want both, for example.",
    "A typical user wants both, so this one stands out.",
    "Unlike most users, they skip introductions.",
    "Compared with other users, they are strict.",
    "Instead of long texts they choose short ones; they would rather read those.",
    "If they were in a hurry, they left early.",
    "Actually, they like lists too, and wait times matter to them.",
    "No, they do not like jokes, and they adjust their style often.",
    "The final answer should stand first.",
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


@pytest.mark.parametrize("sentence", ORDINARY)
def test_an_ordinary_sentence_beside_the_criteria_changes_nothing(sentence: str) -> None:
    for reading in readings(CORPUS):
        if not reading.get("criteria"):
            continue
        read = outcome(reading)
        for criteria in (
            f"{sentence}\n{reading['criteria']}",
            f"{reading['criteria']}\n{sentence}",
        ):
            assert outcome({**reading, "criteria": criteria}) == read, reading["name"]


@pytest.mark.parametrize("sentence", ORDINARY)
def test_an_ordinary_sentence_beside_an_object_changes_nothing(sentence: str) -> None:
    for reading in readings(CORPUS):
        text = str(reading.get("text", ""))
        if not text.startswith("{") or reading["totals"] is None:
            continue
        read = outcome(reading)
        for around in (f"{sentence}\n{text}", f"{text}\n{sentence}"):
            assert outcome({**reading, "text": around}) == read, reading["name"]


def outcome(reading: Reading) -> object:
    ids = [str(name) for name in reading["candidates"]]  # type: ignore[attr-defined]
    try:
        return parse_chain(text_of(reading), ids).totals
    except ChainError as refusal:
        return refusal.reason


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
