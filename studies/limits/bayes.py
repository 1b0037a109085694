"""The best that any predictor could do from the same shown choices, in the simulated world.

Whoever knows how the world was made (its shared tastes, archetypes and shifts, and how noisy choices
are) can do no better than to weigh every possible person by how well she explains the shown choices,
and to predict what those people would choose on average. That is Bayes' rule; the integral over
people is taken by importance sampling from the world's own prior:

    P(a over b | shown) = sum_s w_s sigmoid(m_s(a, b)) / sum_s w_s,
    w_s = product over shown pairs of sigmoid(m_s(chosen, rejected)),

with m_s the log-odds of sampled person s. It reads the attributes exactly, so a model that reads text
can only come near it. Still, on finitely many comparisons a model can be above it by luck.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field

from pgenrm_agent.schema import Model
from pgenrm_agent.training.bundled.evaluate import Accuracy, Case, credit, draw_cases
from pgenrm_agent.training.bundled.simulation import CLIP, SHARPNESS, Answers, Comparison, World

__all__ = [
    "MOST_PAST_CHOICES",
    "BayesReport",
    "IdealPredictor",
    "bayes_by_history",
    "measure_bayes",
]

SAMPLED_PEOPLE = 6_000
MOST_PAST_CHOICES = 6

FloatArray = npt.NDArray[np.float64]


class BayesReport(Model):
    """What the ideal predictor reached on some comparisons."""

    accuracy: Accuracy
    expected: float = Field(description="accuracy that its own probabilities promise, 0.5-1")
    fewest_effective: float = Field(
        description="least effective number of sampled people over the comparisons, (sum w)^2 / sum w^2"
    )


class IdealPredictor:
    """Knows the world, and infers the person from what is shown.

    people: how many are drawn from the world's prior to stand for all; an equal number serves every
        prediction, so that the same seed gives the same answers.
    """

    def __init__(self, world: World, *, seed: int, people: int = SAMPLED_PEOPLE) -> None:
        self._shift = world.shift
        # Their own split: nobody among them is one of the people who are predicted.
        sampled = world.users(f"bayes-{seed}", people)
        self._tastes: FloatArray = np.array([user.taste for user in sampled])

    def predict(
        self, answers: Answers, shown: Sequence[Comparison], asked: Comparison
    ) -> tuple[float, float]:
        """P(she prefers `asked.chosen`), and the effective number of people behind it."""
        log_weights = np.zeros(len(self._tastes))
        for one in shown:
            log_weights -= np.logaddexp(0.0, -self._log_odds(answers, one))
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
        chance = 1.0 / (1.0 + np.exp(-self._log_odds(answers, asked)))
        return float(weights @ chance), float(1.0 / np.square(weights).sum())

    def _log_odds(self, answers: Answers, pair: Comparison) -> FloatArray:
        """(people,): of each sampled person, that she prefers the pair's chosen answer."""
        difference = np.clip(answers.x[pair.chosen] - answers.x[pair.rejected], -CLIP, CLIP)
        tastes = self._tastes + self._shift[answers.kinds[pair.query]]
        odds: FloatArray = SHARPNESS * tastes @ difference
        return odds


def measure_bayes(ideal: IdealPredictor, answers: Answers, cases: Sequence[Case]) -> BayesReport:
    """The ideal predictor's accuracy on comparisons drawn by `draw_cases`; cases must not be empty."""
    found = [ideal.predict(answers, case.shown, case.asked) for case in cases]
    return BayesReport(
        accuracy=Accuracy.of([credit(chance - 0.5) for chance, _ in found]),
        expected=float(np.mean([max(chance, 1.0 - chance) for chance, _ in found])),
        fewest_effective=min(effective for _, effective in found),
    )


def bayes_by_history(
    world: World, answers: Answers, *, people: int, seed: int, sampled: int = SAMPLED_PEOPLE
) -> dict[int, BayesReport]:
    """`measure_bayes` with 0 to 6 shown choices, on the comparisons that a model would get."""
    ideal = IdealPredictor(world, seed=seed, people=sampled)
    return {
        shown: measure_bayes(
            ideal,
            answers,
            draw_cases(world, answers, split="test", count=people, history=shown, seed=seed),
        )
        for shown in range(MOST_PAST_CHOICES + 1)
    }
