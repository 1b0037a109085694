"""What other users' votes tell of a user's: a factor model, as an upper reference.

It knows statements by their identity alone, not by their text, and fits one number a statement and
factor; so it needs many votes on every statement, and can say nothing of a new one. The paper has no
such model: it shows how much there is to be known from past choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

FACTORS = 4
ROUNDS = 25
NOISE = 0.7
"""Variance of one vote around what the factors say; a vote's own is at most 1."""
PRIOR = 3.0
"""Votes that a statement's loadings start with at zero."""


@dataclass(frozen=True)
class VoteFactors:
    """A vote is mean + loadings . z + noise, z standard normal by user.

    mean: (s,), -1 to 1. loadings: (s, r).
    """

    mean: FloatArray
    loadings: FloatArray

    def margins(self, past: IntArray, asked: IntArray) -> FloatArray:
        """(m,) expected vote for the chosen statement minus that for the rejected one.

        past: (p, 3) of query, chosen, rejected; p may be 0. asked: (m, 3).
        """
        statements, votes = _votes(past)
        z, _ = _factors(self.loadings[statements], votes - self.mean[statements])
        expected = self.mean + self.loadings @ z
        return np.asarray(expected[asked[:, 1]] - expected[asked[:, 2]], dtype=np.float64)


def fit_vote_factors(choices: Sequence[IntArray], statements: int, *, seed: int = 0) -> VoteFactors:
    """Fit by expectation-maximization over users' choices, each (n, 3) of query, chosen, rejected.

    statements: how many there are; the indices are below it.
    """
    total, met = np.zeros(statements), np.full(statements, 2.0)
    voted = [_votes(own) for own in choices]
    for which, votes in voted:
        total[which] += votes  # nobody votes twice on one statement
        met[which] += 1
    mean = total / met
    loadings = np.random.default_rng(seed).normal(scale=0.1, size=(statements, FACTORS))
    identity = np.eye(FACTORS)
    for _ in range(ROUNDS):
        squares = np.tile(PRIOR * identity, (statements, 1, 1))
        products = np.zeros_like(loadings)
        for which, votes in voted:
            residual = votes - mean[which]
            z, covariance = _factors(loadings[which], residual)
            squares[which] += np.outer(z, z) + covariance
            products[which] += residual[:, None] * z
        loadings = np.asarray(np.linalg.solve(squares, products[..., None])[..., 0], np.float64)
    return VoteFactors(mean, loadings)


def _votes(choices: IntArray) -> tuple[IntArray, FloatArray]:
    """Each statement once, and +1 where it was chosen, -1 where it was rejected."""
    which = np.concatenate([choices[:, 1], choices[:, 2]])
    votes = np.repeat([1.0, -1.0], len(choices))
    kept, first = np.unique(which, return_index=True)
    return kept, votes[first]


def _factors(loadings: FloatArray, residual: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean (r,) and covariance (r, r) of a user's factors, given their votes."""
    precision = np.eye(loadings.shape[1]) + loadings.T @ loadings / NOISE
    covariance = np.asarray(np.linalg.inv(precision), dtype=np.float64)
    return covariance @ loadings.T @ residual / NOISE, covariance
