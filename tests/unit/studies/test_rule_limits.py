"""What rules of the teacher's form could reach: between the teacher and whoever knows the world."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pgenrm_agent.evaluation.metrics import CHANCE, credit
from pgenrm_agent.training.bundled.simulation import Answers, World, load_answers
from studies.bundled.evaluate import (
    baselines,
    chance,
    draw_cases,
    expected_accuracy,
)
from studies.limits.__main__ import app
from studies.limits.bayes import IdealPredictor
from studies.limits.rules import rule_limits

WORLD = World()
USERS = 1500


def test_a_fitted_rule_is_better_than_the_teacher_and_no_better_than_bayes(
    training_answers: Answers, test_answers: Answers
) -> None:
    limits = rule_limits(
        WORLD,
        training_answers,
        test_answers,
        users=USERS,
        history=3,
        seed=2,
        training_users=4000,
    )
    reached = {name: limit.accuracy.strict for name, limit in limits.items()}
    cases = draw_cases(WORLD, test_answers, split="test", count=USERS, history=3, seed=2)
    ideal = IdealPredictor(WORLD, seed=0)
    best = expected_accuracy(
        test_answers,
        cases,
        [credit(ideal.predict(test_answers, case.shown, case.asked)[0], CHANCE) for case in cases],
    ).strict
    assert best.standard_error is not None
    assert reached["teacher"].mean < reached["tally, themes weighted"].mean
    assert all(rule.mean < best.mean + 2 * best.standard_error for rule in reached.values())
    # The same users' drawn choices, which are as much noisier as a single draw is.
    drawn = baselines(WORLD, training_answers, test_answers, cases, 2)["teacher"].strict
    assert drawn.standard_error is not None
    assert abs(drawn.mean - reached["teacher"].mean) < 3 * drawn.standard_error
    assert (reached["teacher"].standard_error or 0.0) < drawn.standard_error
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
    margins = (0.3, -0.3, 0.0, None)
    counted = expected_accuracy(test_answers, cases, [credit(margin) for margin in margins])
    assert counted.strict.mean == pytest.approx((likely[0] + 1 - likely[1]) / 4)
    assert counted.accuracy is not None
    assert counted.accuracy.mean == pytest.approx((likely[0] + 1 - likely[1] + 0.5) / 3)
    assert (counted.coverage, counted.ties) == (0.75, 1)


def test_the_command_prints_what_was_measured(few_answers: Path) -> None:
    command = ["--data", str(few_answers), "--users", "20", "--rules", "--history", "1"]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    training, test = (load_answers(few_answers / f"{name}.jsonl.gz") for name in ("train", "val"))
    limits = rule_limits(WORLD, training, test, users=20, history=1, seed=0)
    assert told == {name: limit.model_dump() for name, limit in limits.items()}
    assert next(iter(told)) == "teacher"
    assert len(told) == 5
    # Rules that read other features are other rules.
    assert len({rule["accuracy"]["strict"]["mean"] for rule in told.values()}) > 1
    shown = CliRunner().invoke(app, command).stdout
    for name, rule in told.items():
        assert re.search(
            rf"{re.escape(name)} .*{100 * rule['accuracy']['strict']['mean']:.1f}", shown
        )
