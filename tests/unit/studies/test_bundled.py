"""The simulated world as `python -m studies.bundled` measures it."""

from __future__ import annotations

import pytest

from pgenrm_agent.training.bundled.simulation import Answers, World
from studies.bundled.evaluate import baselines, draw_cases


def test_the_world_is_as_hard_as_published_benchmarks(training_answers: Answers) -> None:
    world = World()
    cases = draw_cases(world, training_answers, split="difficulty", count=2000, history=3, seed=5)
    accuracies = baselines(world, training_answers, training_answers, cases, 0)
    assert accuracies["Bradley-Terry, not personal"].strict.mean == pytest.approx(0.60, abs=0.04)
    assert accuracies["true utility"].strict.mean == pytest.approx(0.86, abs=0.03)
    assert (
        accuracies["Bradley-Terry, not personal"].accuracy.mean + 0.05
        < accuracies["teacher"].accuracy.mean
    )
