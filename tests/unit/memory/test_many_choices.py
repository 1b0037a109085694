"""Somebody with very many choices: what is recalled is the same, and takes neither long nor much room."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgenrm_agent.memory import UserMemory, choosing, reading, selection
from pgenrm_agent.memory.choice_index import ChoiceIndex, ChoiceIndexes
from pgenrm_agent.memory.selection import Selection, draws_of, lots_of, select
from pgenrm_agent.schema import PreferencePair, StatedPreference

FEW = 6
SELECTIONS: tuple[Selection, ...] = ("random", "similar", "recent")
QUERIES = ("How do I bake bread?", "how do i  bake bread?", "Which bicycle?", "Who are you?")


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserMemory]:
    """A memory to which half a dozen choices are many."""
    for module in (choosing, selection):
        monkeypatch.setattr(module, "MANY", FEW)
    with UserMemory(tmp_path / "memory") as opened:
        yield opened


def choice(number: int, chosen: str = "plain", rejected: str = "chatty") -> PreferencePair:
    return PreferencePair(
        id=f"c{number}",
        query=QUERIES[number % len(QUERIES)],
        chosen=chosen,
        rejected=rejected,
        created_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number // 3),
    )


def agrees_with_what_is_read_whole(memory: UserMemory, user: str) -> None:
    pairs = list(memory.history(user))
    query = "Tell me how to bake a bread"
    vectors = memory.embedder.embed([pair.query for pair in pairs] or ["x"])[: len(pairs)]
    likeness = vectors @ memory.embedder.embed([query])[0]
    for how in SELECTIONS:
        for limit in (1, 3, len(pairs) + 1):
            for seed in (0, 7):
                recalled = memory.recall(user, query=query, limit=limit, selection=how, seed=seed)
                expected = select(pairs, how, limit, seed=seed, similarity=likeness)
                assert recalled.history == expected, (how, limit, seed)
                assert recalled.choices_known == len(pairs)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["remember", "turn", "forget entry", "correct", "put", "many", "forget"]),
        st.integers(0, 30),
    ),
    min_size=3,
    max_size=12,
)


@settings(
    max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(steps=STEPS)
def test_an_index_recalls_what_all_choices_would(
    memory: UserMemory, steps: list[tuple[str, int]]
) -> None:
    memory.forget("ada")
    memory.remember_many("ada", [choice(number) for number in range(10)])
    memory.remember("bob", choice(1))
    agrees_with_what_is_read_whole(memory, "ada")
    for step, number in steps:
        there = {pair.id for pair in memory.history("ada")}
        if step == "remember" and f"c{number}" not in there:
            memory.remember("ada", choice(number, f"plain {number % 2}"))
        elif step == "turn" and f"t{number}" not in there:  # contradicts one of the first ones
            turned = choice(number % 10, "chatty", "plain")
            later = turned.created_at + timedelta(hours=number - 9)
            memory.remember(
                "ada", turned.model_copy(update={"id": f"t{number}", "created_at": later})
            )
        elif step == "forget entry":
            memory.forget_entry("ada", f"c{number}")
        elif step == "correct" and f"c{number}" in there:
            memory.correct("ada", f"c{number}", choice(number + 1, "chatty", "plain"))
        elif step == "put":
            memory.put("ada", choice(number, "chatty", "plain"))
        elif step == "many":
            memory.remember_many(
                "ada", [choice(100 + 10 * number + i) for i in range(9) if not there - {"x"}]
            )
        elif step == "forget":
            memory.forget("ada")
        agrees_with_what_is_read_whole(memory, "ada")


@pytest.mark.parametrize("count", [FEW + 2, FEW + 3])
def test_a_last_page_may_be_empty(
    memory: UserMemory, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(reading, "READ_AT_ONCE", 4)
    for number in range(count):
        memory.remember("ann", choice(number))
    agrees_with_what_is_read_whole(memory, "ann")


def test_an_index_made_while_choices_are_written_is_not_kept() -> None:
    indexes = ChoiceIndexes()
    with indexes.writing(["ada"]) as concerned:
        indexes.keep("ada", indexes.edition("ada"), ChoiceIndex(with_vectors=False))
    assert concerned == {}
    assert indexes.get("ada", with_vectors=False) is None
    indexes.keep("ada", indexes.edition("ada"), ChoiceIndex(with_vectors=False))
    with indexes.writing(["ada", "bob"]) as concerned:
        assert list(concerned) == ["ada"]
    assert indexes.get("ada", with_vectors=False) is concerned["ada"]


def test_choices_that_come_and_go_meanwhile_break_no_recall(memory: UserMemory) -> None:
    memory.remember_many("ada", [choice(number) for number in range(20)])
    failures: list[BaseException] = []
    done = threading.Event()

    def recall() -> None:
        try:
            while not done.is_set():
                for how in SELECTIONS:
                    memory.recall("ada", query=QUERIES[0], limit=3, selection=how)
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=recall) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(20, 50):
        memory.remember("ada", choice(number))
        memory.forget_entry("ada", f"c{number - 20}")
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    agrees_with_what_is_read_whole(memory, "ada")


def test_a_write_that_fails_leaves_no_index_behind(
    memory: UserMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.remember_many("ada", [choice(number) for number in range(10)])
    agrees_with_what_is_read_whole(memory, "ada")
    store = memory.shared_store()

    def full_disk() -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(store, "wrote", full_disk)
        with pytest.raises(Exception, match="no space left"):
            memory.remember("ada", choice(11))
    agrees_with_what_is_read_whole(memory, "ada")


def test_lots_are_even_and_of_different_seeds_unrelated() -> None:
    draws = draws_of(f"pair-{number}" for number in range(4000))
    shown = np.zeros(4000)
    for seed in range(400):
        shown[np.argsort(lots_of(draws, seed))[:1000]] += 1
    # 100 expected, standard deviation 8.7
    assert 60 < shown.min() < shown.max() < 140
    first = set(np.argsort(lots_of(draws, 1))[:1000])
    assert 190 < len(first & set(np.argsort(lots_of(draws, 2))[:1000])) < 310  # 250 expected


def test_statements_of_somebody_with_an_index_are_those_of_the_memory(memory: UserMemory) -> None:
    def texts() -> list[str]:
        return [stated.text for stated in memory.recall("ada", limit=1).stated]

    memory.remember_many("ada", [choice(number) for number in range(10)])
    assert texts() == texts() == []
    first = memory.state("ada", StatedPreference(text="Be brief."))
    memory.state("bob", StatedPreference(text="Be kind."))
    assert texts() == texts() == ["Be brief."]
    memory.correct("ada", first, StatedPreference(text="Be very brief."))
    assert texts() == texts() == ["Be very brief."]
    exported = [json.dumps(record) for record in memory.export("ada")]
    memory.forget("ada")
    assert texts() == []
    memory.import_(exported)
    assert texts() == texts() == ["Be very brief."]
    (entry_id,) = (entry.id for entry in memory.entries("ada") if entry.stated is not None)
    assert memory.forget_entry("ada", entry_id)
    assert texts() == []
