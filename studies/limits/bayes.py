"""The best that any predictor could do from the same shown choices, in the simulated world.

Whoever knows how the world was made (its shared tastes, archetypes and shifts, and how noisy choices
are) can do no better than to weigh every possible user by how well they explain the shown choices,
and to predict what those users would choose on average. That is Bayes' rule; the integral over
users is taken by importance sampling from the world's own prior:

    P(a over b | shown) = sum_s w_s sigmoid(m_s(a, b)) / sum_s w_s,
    w_s = product over shown pairs of sigmoid(m_s(chosen, rejected)),

with m_s the log-odds of sampled user s. It reads the attributes exactly, so a model that reads text
can only come near it. Still, on finitely many comparisons a model can be above it by luck.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field

from pgenrm_agent.evaluation.metrics import CHANCE, Accuracy, credit
from pgenrm_agent.fields import Model
from pgenrm_agent.training.bundled.simulation import CLIP, SHARPNESS, Answers, Comparison, World
from studies.bundled.evaluate import Case, draw_cases

SAMPLED_USERS = 6_000
MOST_PAST_CHOICES = 6

FloatArray = npt.NDArray[np.float64]


class BayesReport(Model):
    """What the ideal predictor reached on some comparisons."""

    accuracy: Accuracy
    expected: float = Field(description="accuracy that its own probabilities promise, 0.5-1")
    fewest_effective: float = Field(
        description="least effective number of sampled users over the comparisons, (sum w)^2 / sum w^2"
    )


class IdealPredictor:
    """Knows the world, and infers the user from what is shown.

    users: how many are drawn from the world's prior to stand for all; an equal number serves every
        prediction, so that the same seed gives the same answers.
    """

    def __init__(self, world: World, *, seed: int, users: int = SAMPLED_USERS) -> None:
        self._shift = world.shift
        # Their own split: nobody among them is one of the users who are predicted.
        sampled = world.users(f"bayes-{seed}", users)
        self._tastes: FloatArray = np.array([user.taste for user in sampled])

    def predict(
        self, answers: Answers, shown: Sequence[Comparison], asked: Comparison
    ) -> tuple[float, float]:
        """Return P(`asked.chosen` is preferred), and the effective number of users behind it."""
        log_weights = np.zeros(len(self._tastes))
        for past in shown:
            log_weights -= np.logaddexp(0.0, -self._log_odds(answers, past))
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
        chance = 1.0 / (1.0 + np.exp(-self._log_odds(answers, asked)))
        return float(weights @ chance), float(1.0 / np.square(weights).sum())

    def _log_odds(self, answers: Answers, pair: Comparison) -> FloatArray:
        """Return (users,) of each sampled user, that they prefer the pair's chosen answer."""
        difference = np.clip(answers.x[pair.chosen] - answers.x[pair.rejected], -CLIP, CLIP)
        tastes = self._tastes + self._shift[answers.kinds[pair.query]]
        odds: FloatArray = SHARPNESS * tastes @ difference
        return odds


def measure_bayes(ideal: IdealPredictor, answers: Answers, cases: Sequence[Case]) -> BayesReport:
    """Return the ideal predictor's accuracy on cases of `draw_cases`; there must be some."""
    predicted = [ideal.predict(answers, case.shown, case.asked) for case in cases]
    return BayesReport(
        accuracy=Accuracy.of([credit(chance, CHANCE) for chance, _ in predicted]),
        expected=float(np.mean([max(chance, 1.0 - chance) for chance, _ in predicted])),
        fewest_effective=min(effective for _, effective in predicted),
    )


def bayes_by_history(
    world: World, answers: Answers, *, users: int, seed: int, sampled: int = SAMPLED_USERS
) -> dict[int, BayesReport]:
    """Return `measure_bayes` with 0 to 6 shown choices, on the comparisons that a model would get."""
    ideal = IdealPredictor(world, seed=seed, users=sampled)
    return {
        shown: measure_bayes(
            ideal,
            answers,
            draw_cases(world, answers, split="test", count=users, history=shown, seed=seed),
        )
        for shown in range(MOST_PAST_CHOICES + 1)
    }
