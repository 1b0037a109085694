"""Which choices a run learns from, where there are more than it takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pgenrm_agent.cli.train import app
from pgenrm_agent.evaluation.datasets.rows import Example
from pgenrm_agent.model_files import bundled_model
from pgenrm_agent.schema import PreferencePair
from pgenrm_agent.testing import ScriptedEngine
from pgenrm_agent.training.choices import drawn
from pgenrm_agent.training.recipe import GrpoRecipe

USERS, EACH = 50, 8


def by_user() -> list[Example]:
    """Choices as files have them: all of a user's together."""
    return [
        Example(
            user_id=f"u{user}",
            history=(),
            asked=PreferencePair(query=f"q{user}-{number}", chosen="yes", rejected="no"),
        )
        for user in range(USERS)
        for number in range(EACH)
    ]


def queries(choices: Sequence[Example]) -> list[str]:
    return [choice.asked.query for choice in choices]


def test_choices_are_drawn_from_all_people_by_the_seed() -> None:
    some = drawn(by_user(), 40, seed=1)
    assert len({choice.user_id for choice in some}) > 20
    assert queries(drawn(by_user(), 40, seed=1)) == queries(some)
    assert set(queries(drawn(by_user(), 40, seed=2))) != set(queries(some))


def test_a_larger_draw_has_the_smaller_one_in_it() -> None:
    every = queries(drawn(by_user(), None, seed=1))
    assert sorted(every) == sorted(queries(by_user()))
    assert queries(drawn(by_user(), 10, seed=1)) == every[:10]
    assert queries(drawn(by_user(), 100, seed=1)) == every[:100]


class Stopped(Exception):
    """The choices are there: nothing needs to be trained."""


@pytest.mark.parametrize("command", ["cre", "chains"])
def test_commands_draw_them(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "choices.jsonl"
    rows = [
        {
            "user_id": choice.user_id,
            "query": choice.asked.query,
            "chosen": choice.asked.chosen,
            "rejected": choice.asked.rejected,
            "split": "train",
        }
        for choice in by_user()
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    taken: list[Example] = []

    def take(first: object, second: object, third: object, *more: Any, **options: Any) -> None:
        taken.extend(more[0] if command == "cre" else third)  # type: ignore[call-overload]
        raise Stopped

    monkeypatch.setattr("pgenrm_agent.training.grpo.train_grpo", take)
    monkeypatch.setattr("pgenrm_agent.training.chain_dataset.sample_chains", take)
    monkeypatch.setattr("pgenrm_agent.engines.load_engine", lambda *_, **__: ScriptedEngine(""))
    own = {
        "cre": ["--model", str(bundled_model()), "--rater", "none"],
        "chains": ["--teacher", str(bundled_model()), "--limit", "64"],
    }
    done = CliRunner().invoke(
        app, [command, "--data", str(data), *own[command], "--out", str(tmp_path / "out")]
    )
    assert isinstance(done.exception, Stopped), done.output
    wanted = 64 if command == "chains" else GrpoRecipe.load("tiny-cpu").choices
    assert len(taken) == min(wanted, USERS * EACH)
    assert len({choice.user_id for choice in taken[:64]}) > 25
