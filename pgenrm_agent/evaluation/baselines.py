"""Judges that know nothing of the user and ask no model: what the reward model has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from pgenrm_agent.embedding import Embedder
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.questions import Question
from pgenrm_agent.evaluation.records import Verdict
from pgenrm_agent.schema import PreferencePair

__all__ = ["BradleyTerryJudge", "LengthJudge", "fit_bradley_terry"]

Floats = npt.NDArray[np.float64]


class LengthJudge:
    """The longer an answer, the better; or the shorter, which is right more often on some data."""

    settings: Mapping[str, object] = MappingProxyType({})

    def __init__(self, name: Literal["longest", "shortest"]) -> None:
        self._sign = 1.0 if name == "longest" else -1.0
        self.name: str = name

    def scores(self, answers: Sequence[str]) -> tuple[float, ...]:
        """Return the characters of each answer; of `shortest`, their negative."""
        return tuple(self._sign * len(answer) for answer in answers)

    async def judge(self, question: Question, *, seed: int, run_seed: int) -> Verdict:
        """Return the lengths; they are never more or less sure, so there are no probabilities."""
        return Verdict(scores=self.scores([candidate.text for candidate in question.candidates]))


class BradleyTerryJudge:
    """A Bradley-Terry fit on differences of embeddings, of P(chosen over rejected).

    Fitted on other users' choices, or the same users' earlier ones; it knows what users like on the
    whole and nothing of any one of them. `choices` are the training comparisons.
    """

    name = "bradley-terry"

    def __init__(
        self, choices: Sequence[PreferencePair], embedder: Embedder, *, penalty: float = 1.0
    ) -> None:
        """Fit at once; `penalty`, and what is raised, as for `fit_bradley_terry`.

        Raises ConfigurationError without any choice to fit, too.
        """
        if not choices:
            raise ConfigurationError(
                "there are no training choices to fit Bradley-Terry on: leave it out, or use data"
                " with a training split"
            )
        self._embedder = embedder
        self.settings: Mapping[str, object] = {
            "embedder": embedder.name,
            "penalty": penalty,
            "choices": len(choices),
        }
        self._weights = fit_bradley_terry(
            np.asarray(
                embedder.embed([pair.chosen for pair in choices])
                - embedder.embed([pair.rejected for pair in choices]),
                dtype=np.float64,
            ),
            penalty=penalty,
        )

    async def judge(self, question: Question, *, seed: int, run_seed: int) -> Verdict:
        """Return utilities as scores, and their softmax as the probability of being best."""
        texts = [candidate.text for candidate in question.candidates]
        utilities = self._embedder.embed(texts).astype(np.float64) @ self._weights
        odds = np.exp(utilities - utilities.max())
        return Verdict(
            scores=tuple(utilities.tolist()), probability_best=tuple((odds / odds.sum()).tolist())
        )


def fit_bradley_terry(differences: Floats, *, penalty: float = 1.0) -> Floats:
    """Return the weights (features,) under which the chosen answers are most likely.

    differences: (choices, features), the chosen answer's features minus the rejected one's.
    penalty: inverse strength of the L2 penalty, against twice the choices' losses.

    Raises ConfigurationError where scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ConfigurationError(
            "a Bradley-Terry fit needs scikit-learn: pip install 'pgenrm-agent[evaluation]'"
        ) from error

    # Each choice both ways round: a fit needs both outcomes, and no intercept remains.
    fit = LogisticRegression(C=penalty, fit_intercept=False, max_iter=1000)
    outcomes = np.repeat([1.0, 0.0], len(differences))
    fit.fit(np.concatenate([differences, -differences]), outcomes)
    return np.asarray(fit.coef_[0], dtype=np.float64)
