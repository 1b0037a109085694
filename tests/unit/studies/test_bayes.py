"""The best possible predictor: it is Bayes' rule, and nobody who sees as much does better."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pgenrm_agent.training.bundled.simulation import Answers, Comparison, World
from studies.bundled.evaluate import Case, baselines, draw_cases
from studies.limits.__main__ import app
from studies.limits.bayes import IdealPredictor, bayes_by_history, measure_bayes

WORLD = World()
USERS = 800


@pytest.fixture(scope="module")
def cases(test_answers: Answers) -> list[Case]:
    return draw_cases(WORLD, test_answers, split="test", count=USERS, history=3, seed=4)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize("shown", [0, 1, 3])
def test_it_is_the_sum_over_all_users_of_a_small_world(test_answers: Answers, shown: int) -> None:
    """The same by enumeration: each user, each choice, one at a time."""
    ideal = IdealPredictor(WORLD, seed=8, users=7)
    everyone = list(WORLD.users("bayes-8", 7))

    def likes(user: int, pair: Comparison) -> float:
        margin = WORLD.margin(everyone[user], test_answers, pair.query, pair.chosen, pair.rejected)
        return sigmoid(margin)

    for case in draw_cases(WORLD, test_answers, split="test", count=20, history=shown, seed=1):
        explains = [math.prod(likes(who, pair) for pair in case.shown) for who in range(7)]
        joint = [weight * likes(who, case.asked) for who, weight in enumerate(explains)]
        chance, effective = ideal.predict(test_answers, case.shown, case.asked)
        assert chance == pytest.approx(sum(joint) / sum(explains), rel=1e-9)
        assert effective == pytest.approx(sum(explains) ** 2 / sum(w * w for w in explains))
        turned = Comparison(case.asked.query, case.asked.rejected, case.asked.chosen)
        assert ideal.predict(test_answers, case.shown, turned)[0] == pytest.approx(1 - chance)


def test_other_users_from_the_same_world_say_the_same(
    test_answers: Answers, cases: list[Case]
) -> None:
    first, second = (IdealPredictor(WORLD, seed=seed) for seed in (1, 2))
    differences = [
        first.predict(test_answers, case.shown, case.asked)[0]
        - second.predict(test_answers, case.shown, case.asked)[0]
        for case in cases[:200]
    ]
    assert np.sqrt(np.mean(np.square(differences))) < 0.01


def test_no_predictor_beats_it_and_its_probabilities_hold(
    test_answers: Answers, cases: list[Case]
) -> None:
    best = measure_bayes(IdealPredictor(WORLD, seed=0), test_answers, cases)
    # Bradley-Terry is even fitted on the answers that are asked about.
    others = {
        name: accuracy.strict.mean
        for name, accuracy in baselines(WORLD, test_answers, test_answers, cases, seed=0).items()
    }
    reached, error = best.accuracy.strict.mean, best.accuracy.strict.standard_error
    assert error is not None
    for name in ("longest answer", "shortest answer", "Bradley-Terry, not personal", "teacher"):
        assert others[name] < reached + 2 * error
    assert others["teacher"] > others["Bradley-Terry, not personal"]
    # Only who knows the user's own taste can do better.
    assert others["true utility"] > reached
    assert abs(best.expected - reached) < 3 * error
    assert best.fewest_effective > 30


def test_every_past_choice_helps_a_little(test_answers: Answers) -> None:
    reports = bayes_by_history(WORLD, test_answers, users=300, seed=2, sampled=1000)
    assert list(reports) == [0, 1, 2, 3, 4, 5, 6]
    expected = [report.expected for report in reports.values()]
    assert expected == sorted(expected)
    assert reports[6].accuracy.strict.mean > reports[0].accuracy.strict.mean


def test_the_best_possible_is_told_by_number_of_past_choices(few_answers: Path) -> None:
    done = CliRunner().invoke(app, ["--data", str(few_answers), "--users", "20", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert list(told) == [str(shown) for shown in range(7)]
    assert {report["accuracy"]["comparisons"] for report in told.values()} == {20}
    expected = [report["expected"] for report in told.values()]
    assert 0.5 < expected[0] < expected[6] < 1
