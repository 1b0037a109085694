"""The one Bradley-Terry fit: weights under which the chosen answers are most likely."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import optimize

Floats = npt.NDArray[np.float64]

STEPS = 500
"""Of L-BFGS, at most; a fit on thousands of embeddings takes about a hundred."""


def fit_bradley_terry(
    differences: Floats, *, penalty: float = 1.0, prior: Floats | None = None
) -> Floats:
    """Return the weights (features,) under which the chosen answers are most likely.

    differences: (choices, features), the chosen answer's features minus the rejected one's; without
        any choice the prior is returned.
    penalty: inverse strength of the L2 penalty, against twice the choices' losses.
    prior: (features,), the weights that the penalty pulls to; zeros if not given.
    """
    start = np.zeros(differences.shape[1]) if prior is None else prior
    if not len(differences):
        return start

    def loss(weights: Floats) -> tuple[float, Floats]:
        margins = differences @ weights
        pull = weights - start
        # log(1 + exp(-m)), and its derivative, without overflow.
        losses = np.logaddexp(0.0, -margins)
        slopes = np.exp(-np.logaddexp(0.0, margins))
        value = 0.5 * float(pull @ pull) + 2 * penalty * float(losses.sum())
        return value, pull - 2 * penalty * (slopes @ differences)

    fit = optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS, "maxfun": 2 * STEPS}
    )
    return np.asarray(fit.x, dtype=np.float64)


def log_loss(margins: Floats) -> float:
    """Return the mean loss of choices whose chosen answer has these utilities over the other."""
    return float(np.logaddexp(0.0, -margins).mean())
