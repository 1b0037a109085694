"""What is known of chains' noise (`confidence.ChainNoise`), measured on simulated users.

    python -m studies.bundled measure --part calibration --model MODEL --data FOLDER --out FOLDER

Users of the split "validation", whom neither training nor the model card's figures know, choose
between two answers; the chains of each comparison are kept. From them follow the prior spread and
what it is worth, by moments, and bias and lapse, by the log loss of the probability of being best.
What a probability is worth is told by its expected calibration error (ECE), by how well it puts
right favorites before wrong ones (AUROC), and by its log loss; users choose anew in every figure, with
the probability that the simulation knows (`evaluate.chance`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

from pgenrm_agent.confidence import TIE, ChainNoise, posterior_of
from pgenrm_agent.evaluation.metrics import reliability
from pgenrm_agent.evaluation.records import Record
from pgenrm_agent.fields import Model

Floats: TypeAlias = npt.NDArray[np.float64]

SPREAD_ALONE = ChainNoise(chains=1e-6, spread=1.0, bias=0.0, lapse=0.0)
"""Nothing known beforehand: what the chains' own spread says, by a paired t."""
SIZES = (2, 4, 8)
"""Chains by which probabilities are told; each comparison counts with its first ones."""
BIASES = tuple(np.arange(0.0, 5.01, 0.25).tolist())
LAPSES = (0.02, 0.03, 0.05, 0.08, 0.12, 0.17, 0.23, 0.3)
"""None below 0.02: of two candidates the better one then has 99 % at most, however many chains agree."""
CLOSE = 0.005
"""Bias and lapse explain the same misses. Of pairs whose log loss is that near the best one's, the one
with the smallest lapse is taken: a lapse bounds what the clearest case can reach."""
MOST_CHAINS = 50.0
FOLDS = 2


class Sampled(NamedTuple):
    """A comparison of two answers.

    totals: chains x answers. chance: that the user prefers the first one. seed: of the draws.
    """

    totals: Floats
    chance: float
    seed: int


class Figures(Model):
    """What a probability of being best is worth. `right`: how often the favorite is preferred."""

    chains: int
    comparisons: int
    confidence: float
    right: float
    ece: float
    auroc: float
    log_loss: float


class Calibration(Model):
    """Before: by the chains' spread alone. After: with what was measured on the other half of the users.

    noise: measured on all of them, the fields of `ChainNoise`.
    """

    noise: dict[str, float]
    before: tuple[Figures, ...]
    after: tuple[Figures, ...]


def sampled_of(records: Sequence[Record], chances: Sequence[float]) -> list[Sampled]:
    """Return the comparisons with two complete chains at least.

    chances: by record, that the user prefers the answer with the higher grade.
    """
    sampled = []
    for record, chance in zip(records, chances, strict=True):
        rows = [row for row in record.verdict.totals if None not in row]
        if len(rows) < SIZES[0]:
            continue
        first = record.grades[0] > record.grades[1]
        totals = np.asarray(rows, dtype=np.float64)
        sampled.append(Sampled(totals, chance if first else 1.0 - chance, record.seed))
    return sampled


def calibrate(sampled: Sequence[Sampled]) -> Calibration:
    """Measure the noise, and the figures without it and with it; each user's by the others' noise."""
    folds = [sampled[start::FOLDS] for start in range(FOLDS)]
    fitted = [
        fit_noise([case for rest in folds if rest is not fold for case in rest]) for fold in folds
    ]
    sizes = [size for size in SIZES if any(len(case.totals) >= size for case in sampled)]
    return Calibration(
        noise=fit_noise(sampled)._asdict(),
        before=tuple(figures_of([(sampled, SPREAD_ALONE)], size) for size in sizes),
        after=tuple(figures_of(list(zip(folds, fitted, strict=True)), size) for size in sizes),
    )


def fit_noise(sampled: Sequence[Sampled]) -> ChainNoise:
    """Return the noise that the comparisons tell of."""
    chains, spread = _prior_spread(sampled)
    cases = [case for size in SIZES for case in _first(sampled, size)]
    chances = np.array([case.chance for case in cases])
    gaps, variances, degrees = _gaps(cases, ChainNoise(chains, spread, bias=0.0, lapse=0.0))

    def loss(bias: float, lapse: float) -> float:
        sure = _favoring_first(gaps, variances + 2 * bias**2, degrees)
        return _log_loss((1.0 - lapse) * sure + lapse / 2, chances)

    losses = {pair: loss(*pair) for pair in product(BIASES, LAPSES)}
    near = [pair for pair, value in losses.items() if value <= min(losses.values()) + CLOSE]
    least = min(lapse for _, lapse in near)
    bias, lapse = min((pair for pair in near if pair[1] == least), key=losses.__getitem__)
    return ChainNoise(chains, spread, bias, lapse)


def figures_of(parts: Sequence[tuple[Sequence[Sampled], ChainNoise]], size: int) -> Figures:
    """Return the figures over all parts, each with its noise, by the first `size` chains."""
    told, chances = [], []
    for sampled, noise in parts:
        cases = _first(sampled, size)
        sure = _favoring_first(*_gaps(cases, noise))
        told.append((1.0 - noise.lapse) * sure + noise.lapse / 2)
        chances += [case.chance for case in cases]
    first, chance = np.concatenate(told), np.array(chances)
    sure = np.maximum(first, 1.0 - first)
    right = np.where(first > 0.5 + TIE, chance, np.where(first < 0.5 - TIE, 1.0 - chance, 0.5))
    calibration = reliability(sure.tolist(), right.tolist())
    assert calibration is not None
    return Figures(
        chains=size,
        comparisons=len(chance),
        confidence=float(sure.mean()),
        right=float(right.mean()),
        ece=calibration.ece,
        auroc=area_under_curve(sure, right),
        log_loss=_log_loss(first, chance),
    )


def area_under_curve(sure: Floats, right: Floats) -> float:
    """Return how probable it is that a right favorite was told with more confidence than a wrong one.

    right: by comparison, the probability that its favorite is right. Equal confidence counts half.
    """
    levels, place = np.unique(sure, return_inverse=True)
    rights = np.bincount(place.reshape(-1), right, levels.size)
    wrongs = np.bincount(place.reshape(-1), 1.0 - right, levels.size)
    below = np.cumsum(wrongs) - wrongs
    pairs = float(rights.sum() * wrongs.sum())
    return float(rights @ (below + wrongs / 2)) / pairs if pairs else math.nan


def _prior_spread(sampled: Sequence[Sampled]) -> tuple[float, float]:
    """Return how many chains the prior spread is worth, and the spread.

    If comparisons' variances follow a scaled inverse chi-square with that many degrees of freedom,
    mean and variance of the variances seen tell both.
    """
    cases = [case.totals for case in sampled if len(case.totals) > 2]
    if not cases:
        raise ValueError("no comparison has three complete chains, so their spread is not known")
    # A difference of two totals varies twice as much as one of them without the chain's mood.
    variances = np.array([np.var(table[:, 0] - table[:, 1], ddof=1) / 2 for table in cases])
    mean = float(variances.mean())
    if not mean:
        return MOST_CHAINS, 0.0
    luck = float(np.mean([2 / (len(table) - 1) for table in cases]))
    between = (float(variances.var()) / mean**2 - luck) / (1 + luck)
    chains = min(MOST_CHAINS, 4 + 2 / between) if between > 0 else MOST_CHAINS
    return chains, math.sqrt(mean * (chains - 2) / chains)


def _first(sampled: Sequence[Sampled], size: int) -> list[Sampled]:
    return [
        case._replace(totals=case.totals[:size]) for case in sampled if len(case.totals) >= size
    ]


def _gaps(cases: Sequence[Sampled], noise: ChainNoise) -> tuple[Floats, Floats, Floats]:
    """Return how far each comparison's first answer leads, that lead's variance, and its degrees."""
    gaps = []
    for case in cases:
        posterior = posterior_of([case.totals], np.ones((1, 2)), noise)
        assert posterior is not None
        (first, second), covariance, degrees = posterior
        variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
        gaps.append((first - second, max(variance, 0.0), degrees))
    leads, variances, freedoms = np.array(gaps, dtype=np.float64).reshape(-1, 3).T
    return leads, variances, freedoms


def _favoring_first(gaps: Floats, variances: Floats, degrees: Floats) -> Floats:
    """Return `confidence.probability_best` of the first of two answers, exactly and without lapses."""
    error = np.sqrt(np.maximum(variances, TIE**2))
    sure: Floats = stats.t.cdf(gaps / error, degrees)
    return sure


def _log_loss(told: Floats, chances: Floats) -> float:
    kept = np.clip(told, 1e-3, 1 - 1e-3)
    return float(-np.mean(chances * np.log(kept) + (1 - chances) * np.log1p(-kept)))
