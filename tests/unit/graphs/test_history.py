"""Past choices are shown alike, whether they were remembered or came with the request."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgenrm_agent.embedding import HashingEmbedder
from pgenrm_agent.graphs.state import EvaluationContext, EvaluationState, known_signals
from pgenrm_agent.memory import Selection, UserMemory
from pgenrm_agent.schema import PreferencePair, StatedPreference

ZONES = [None, UTC, timezone(timedelta(hours=-9)), timezone(timedelta(hours=5, minutes=30))]
TOPICS = ["bread", "tax", "football", "Bread!", "How do I bake bread?", "and the tax return?"]

# Few moments and few topics, so that ties are common.
moments = st.builds(
    lambda hour, zone: datetime(2026, 1, 5, hour, tzinfo=zone),
    st.integers(0, 3),
    st.sampled_from(ZONES),
)
histories = st.lists(
    st.builds(
        PreferencePair,
        query=st.sampled_from(TOPICS),
        chosen=st.sampled_from(["short", "long"]),
        rejected=st.just("neither"),
        id=st.sampled_from([f"p{number}" for number in range(20)]),
        created_at=moments,
    ),
    max_size=8,
    unique_by=lambda pair: pair.id,
)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserMemory]:
    with UserMemory(tmp_path_factory.mktemp("memory")) as opened:
        yield opened


@pytest.fixture(scope="module")
def memory_by_other_vectors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserMemory]:
    where = tmp_path_factory.mktemp("other")
    with UserMemory(where, embedder=HashingEmbedder(dimension=16)) as opened:
        yield opened


@pytest.mark.parametrize("selection", get_args(Selection))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(history=histories, limit=st.integers(0, 9), seed=st.integers(0, 99))
def test_passed_and_remembered_choices_are_shown_in_the_same_order(
    memory: UserMemory,
    memory_by_other_vectors: UserMemory,
    selection: Selection,
    history: list[PreferencePair],
    limit: int,
    seed: int,
) -> None:
    for source in (memory, memory_by_other_vectors):
        user = uuid.uuid4().hex
        source.remember_many(user, history)
        source.state(user, StatedPreference(text="Be brief."))
        remembered = state(user, selection, limit)
        passed: EvaluationState = {
            **remembered,
            "history": [pair.model_dump(mode="json") for pair in history],
            "stated": [{"text": "Be brief."}],
        }
        context = EvaluationContext(memory=source)
        assert known_signals(passed, context, seed) == known_signals(remembered, context, seed)


def state(user: str, selection: Selection, limit: int) -> EvaluationState:
    return {
        "request": {
            "user_id": user,
            "query": "What bread is best?",
            "candidates": [{"id": "a", "text": "a"}],
        },
        "scaling": {"history": limit, "history_selection": selection},
    }


def test_of_passed_choices_the_recent_are_found_with_and_without_a_time_zone() -> None:
    history = [
        {"query": "old", "chosen": "a", "rejected": "b", "created_at": "2026-01-01T00:00:00Z"},
        {"query": "new", "chosen": "a", "rejected": "b", "created_at": "2026-01-03T00:00:00"},
        {
            "query": "then",
            "chosen": "a",
            "rejected": "b",
            "created_at": "2026-01-02T00:00:00+09:00",
        },
    ]
    given: EvaluationState = {**state("ada", "recent", 2), "history": list(history)}
    shown = known_signals(given, EvaluationContext(), 1).history
    assert [pair.query for pair in shown] == ["new", "then"]
