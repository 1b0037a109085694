"""What rules of the teacher's form could reach: between the teacher and whoever knows the world."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pgenrm_agent.training.bundled.evaluate import (
    baselines,
    chance,
    draw_cases,
    expected_accuracy,
)
from pgenrm_agent.training.bundled.simulation import Answers, World
from studies.limits.__main__ import app
from studies.limits.bayes import IdealPredictor
from studies.limits.rules import rule_limits

WORLD = World()
PEOPLE = 1500


def test_a_fitted_rule_is_better_than_the_teacher_and_no_better_than_bayes(
    training_answers: Answers, test_answers: Answers
) -> None:
    limits = rule_limits(
        WORLD,
        training_answers,
        test_answers,
        people=PEOPLE,
        history=3,
        seed=2,
        training_people=4000,
    )
    found = {name: limit.accuracy for name, limit in limits.items()}
    cases = draw_cases(WORLD, test_answers, split="test", count=PEOPLE, history=3, seed=2)
    ideal = IdealPredictor(WORLD, seed=0)
    best = expected_accuracy(
        test_answers,
        cases,
        [ideal.predict(test_answers, one.shown, one.asked)[0] - 0.5 for one in cases],
    )
    noise = 2 * best.standard_error
    assert found["teacher"].mean < found["tally, themes weighted"].mean
    assert all(one.mean < best.mean + noise for one in found.values())
    # The same people's drawn choices, which are as much noisier as one draw is.
    drawn = baselines(WORLD, training_answers, test_answers, cases, 2)["teacher"]
    assert abs(drawn.mean - found["teacher"].mean) < 3 * drawn.standard_error
    assert found["teacher"].standard_error < drawn.standard_error
    # A lead of two points in a hundred, where one in six answers differs, takes more than a few hundred choices.
    assert limits["teacher"].choices_to_tell is None
    easier, harder = (
        limits[name].choices_to_tell for name in ("twelve attributes", "tally, themes weighted")
    )
    assert easier is not None
    assert harder is not None
    assert 100 < easier < harder


def test_who_is_never_scored_is_never_right(test_answers: Answers) -> None:
    cases = draw_cases(WORLD, test_answers, split="test", count=4, history=0, seed=1)
    likely = [chance(case, test_answers) for case in cases]
    found = expected_accuracy(test_answers, cases, [1.0, -1.0, 0.0, None])
    assert found.mean == pytest.approx(np.mean([likely[0], 1 - likely[1], 0.5, 0.0]))


def test_the_command_prints_a_row_a_rule(few_answers: Path) -> None:
    command = ["--data", str(few_answers), "--people", "20", "--rules"]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert next(iter(told)) == "teacher"
    for one in told.values():
        assert 0 <= one["accuracy"]["mean"] <= 1
        assert one["accuracy"]["comparisons"] == 20
    assert "twelve attributes" in CliRunner().invoke(app, command).stdout
