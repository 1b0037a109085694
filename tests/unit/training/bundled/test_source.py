"""Simulated users as a dataset source."""

from __future__ import annotations

from pathlib import Path

import pytest

import pgenrm_agent.training.bundled.source  # noqa: F401  (registers simulated:)
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.sources import load_rows


def test_simulated_users_are_the_same_every_time(few_answers: Path) -> None:
    rows = load_rows(f"simulated:{few_answers}:5")
    assert [row.split for row in rows[:7]] == ["history"] * 6 + ["test"]
    assert len({row.user_id for row in rows}) == 5
    assert rows == [
        row.model_copy(
            update={"pair": row.pair.model_copy(update={"created_at": old.pair.created_at})}
        )
        for row, old in zip(load_rows(f"simulated:{few_answers}:5"), rows, strict=True)
    ]


def test_nobody_is_trained_on_and_tested(few_answers: Path) -> None:
    trained = load_rows(f"simulated-train:{few_answers}:5")
    assert {row.split for row in trained} == {"train"}
    tested = load_rows(f"simulated:{few_answers}:5")
    assert not {row.user_id for row in trained} & {row.user_id for row in tested}
    assert not {row.pair.query for row in trained} & {row.pair.query for row in tested}


def test_what_simulated_sources_need_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"simulated:FOLDER\[:USERS\]"):
        load_rows("simulation:FOLDER")
