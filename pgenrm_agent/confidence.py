"""How sure chains make one of which candidate a user likes best. Pure.

Chains differ less from each other than all of them together do from the user: eight that agree can
be wrong in the same way. So the probability rests on the chains' spread and on what is known
beforehand of chains' noise (`ChainNoise`):

- The spread of few chains says little. It is combined with a prior spread, as if `chains` more
  chains had been seen that vary by `spread` (the conjugate prior of a variance), which also makes
  the distribution a Student t with that many degrees of freedom more.
- Even the mean of endlessly many chains misses the user's own judgement, by `bias` a candidate.
- In a share `lapse` of cases the chains say nothing of what the user chooses.

`python -m studies.bundled measure` measures the four on simulated users whom training never saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pgenrm_agent.sampling import derive_seed

Floats: TypeAlias = NDArray[np.float64]


class ChainNoise(NamedTuple):
    """What is known of chains before any is seen; totals are marks, 1-10.

    chains: how many chains the prior spread is worth, at least 1.
    spread: standard deviation of one candidate's totals, without what a chain gives to all alike.
    bias: standard deviation of what all chains together miss a candidate by.
    lapse: share of cases in which the chains say nothing, 0-1.
    """

    chains: float
    spread: float
    bias: float
    lapse: float


class Posterior(NamedTuple):
    """What is believed of the candidates' worth to the user: a multivariate Student t."""

    means: Floats
    covariance: Floats
    degrees: float


CHAIN_NOISE = ChainNoise(chains=7.2, spread=0.96, bias=2.25, lapse=0.02)
"""Measured with the bundled model on 400 validation users: see docs/notebook/log.md."""

SAMPLING_NOISE = CHAIN_NOISE._replace(bias=0.0, lapse=0.0)
"""The part of it that more chains take away."""

FEWEST_CHAINS = 2
"""Fewest chains by which a probability is told."""
# Totals are weighted means of integer marks; sums in another order differ in the last bits only.
TIE = 1e-9
# Antithetic pairs: the Monte Carlo error of a probability is below 0.006 (one standard deviation).
DRAW_PAIRS = 4096


def probability_best(
    totals: Sequence[Floats], share: Floats, *, seed: int, noise: ChainNoise = CHAIN_NOISE
) -> Floats | None:
    """Return each candidate's probability of being liked best; None with too few chains.

    Expected totals are drawn from a multivariate Student t around the candidates' means. Candidates
    scored in the same chains share those chains' moods (a strict chain is strict with all), which
    the covariance takes out, as a paired comparison does; candidates in different groups are
    independent. Candidates with the same totals in every chain have the same probability.

    Args:
        totals: By level, chains x candidates; NaN where a chain does not cover a candidate.
        share: By level, what the level weighs in each candidate's mean; columns sum to 1.
        seed: Of the draws.
        noise: What is known of chains beforehand.
    """
    posterior = posterior_of(totals, share, noise)
    if posterior is None:
        return None
    means, covariance, degrees = posterior
    number = len(means)
    # Pairwise covariances over different chains need not form a positive matrix: clip.
    values, vectors = np.linalg.eigh(covariance)
    spread = vectors * np.sqrt(np.clip(values, 0.0, None))
    generator = np.random.default_rng(derive_seed(seed, "probability_best"))
    normal = generator.standard_normal((DRAW_PAIRS, number))
    scale = np.sqrt(generator.chisquare(degrees, size=(DRAW_PAIRS, 1)) / degrees)
    offset = (normal / scale) @ spread.T
    shares = _shares(np.concatenate([means + offset, means - offset])).mean(axis=0)
    return (1.0 - noise.lapse) * _alike(shares, totals) + noise.lapse / number


def posterior_of(totals: Sequence[Floats], share: Floats, noise: ChainNoise) -> Posterior | None:
    """Return what chains say of the candidates' worth, lapses apart; arguments as in `probability_best`."""
    counts = [(~np.isnan(table)).sum(axis=0) for table in totals]
    if not counts or int(np.min(sum(counts))) < FEWEST_CHAINS:
        return None
    means = np.zeros(share.shape[1])
    for row, table in enumerate(totals):
        means += np.where(share[row] > 0, share[row] * np.nan_to_num(column_means(table)), 0.0)
    seen = sum(np.maximum(count - 1, 0) for count in counts)
    return Posterior(
        means=np.round(means / TIE) * TIE,
        covariance=_covariance(totals, share, noise),
        degrees=noise.chains + float(np.min(seen)),
    )


def column_means(table: Floats) -> Floats:
    """Return the mean of each column's numbers; NaN for a column without any."""
    present = ~np.isnan(table)
    count = present.sum(axis=0)
    total = np.where(present, table, 0.0).sum(axis=0)
    means: Floats = np.divide(total, count, out=np.full(table.shape[1], np.nan), where=count > 0)
    return means


def column_variances(table: Floats) -> Floats:
    """Return the unbiased variance of each column's numbers; NaN for one with fewer than two."""
    present = ~np.isnan(table)
    count = present.sum(axis=0)
    squares = np.where(present, (table - column_means(table)) ** 2, 0.0).sum(axis=0)
    variances: Floats = np.divide(
        squares, count - 1, out=np.full(table.shape[1], np.nan), where=count > 1
    )
    return variances


def covariance_of_chains(table: Floats) -> Floats:
    """Return the unbiased covariance of totals over the chains two candidates share; NaN below two."""
    present = ~np.isnan(table)
    seen = present.astype(np.float64)
    # Centring first keeps the one-pass formula exact to rounding.
    centered = np.where(present, table - np.nan_to_num(column_means(table)), 0.0)
    together = seen.T @ seen
    sums = centered.T @ seen
    cross = centered.T @ centered - np.divide(
        sums * sums.T, together, out=np.zeros_like(sums), where=together > 0
    )
    covariance: Floats = np.divide(
        cross, together - 1, out=np.full(cross.shape, np.nan), where=together > 1
    )
    return covariance


def _covariance(totals: Sequence[Floats], share: Floats, noise: ChainNoise) -> Floats:
    """Return the covariance of what the candidates' means tell of what the user thinks of them."""
    number = share.shape[1]
    covariance = noise.bias**2 * np.eye(number)
    prior = noise.chains * noise.spread**2 * np.eye(number)
    for row, table in enumerate(totals):
        present = (~np.isnan(table)).astype(np.float64)
        together = present.T @ present
        freedom = np.maximum(together - 1, 0.0)
        seen = freedom * np.nan_to_num(covariance_of_chains(table))
        weight = share[row] / np.maximum(present.sum(axis=0), 1.0)
        part = np.outer(weight, weight) * together
        covariance += part * (prior + seen) / (noise.chains + freedom)
    return covariance


def _shares(draws: Floats) -> Floats:
    """Return one row per draw: 1 for its highest entry, divided among equals."""
    top = draws.max(axis=1, keepdims=True)
    equal = draws >= top - TIE * (1.0 + np.abs(top))
    return np.asarray(equal / equal.sum(axis=1, keepdims=True), dtype=np.float64)


def _alike(shares: Floats, totals: Sequence[Floats]) -> Floats:
    """Return the shares, with those of candidates whose totals are the same in every chain evened out."""
    rounded = np.round(np.nan_to_num(np.concatenate(totals), nan=-1.0) / TIE)
    _, group = np.unique(rounded, axis=1, return_inverse=True)
    group = group.reshape(-1)
    evened: Floats = np.bincount(group, shares)[group] / np.bincount(group)[group]
    return evened
