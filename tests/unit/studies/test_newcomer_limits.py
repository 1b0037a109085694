"""What others can do for somebody of whom nothing is known: never more than is shared by all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pgenrm_agent.training.bundled.simulation import Answers, World
from studies.limits.__main__ import app
from studies.limits.newcomers import SIZES, newcomer_limits


def test_more_users_tell_more_to_who_knows_them(test_answers: Answers) -> None:
    limits = newcomer_limits(
        World(), test_answers, newcomers=150, history=3, seed=1, populations=3, sizes=(1, 16, 160)
    )
    few, more, most = (limits[size].ideal.mean for size in (1, 16, 160))
    assert 0.48 < few < more
    assert most == pytest.approx(more, abs=0.03)
    for limit in limits.values():
        assert limit.teacher.mean <= limit.ideal.mean + 0.03
        assert limit.teacher.standard_error is not None


def test_who_shows_nothing_leaves_a_coin(test_answers: Answers) -> None:
    limits = newcomer_limits(
        World(), test_answers, newcomers=20, history=0, seed=1, populations=2, sizes=(4,)
    )
    assert limits[4].teacher.mean == 0.5


def test_it_is_told_by_number_of_users(few_answers: Path) -> None:
    done = CliRunner().invoke(
        app, ["--newcomers", "--data", str(few_answers), "--users", "5", "--json"]
    )
    assert done.exit_code == 0, done.output
    assert list(json.loads(done.stdout)) == [str(size) for size in SIZES]
