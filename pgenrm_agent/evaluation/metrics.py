"""How often a judge is right about people, and how sure one can be of that. Pure NumPy and SciPy.

A *comparison* is two candidates of one question with different grades. Its *credit* is 1 when the
better one got the higher score, 0 when the worse one did, 1/2 for a tie, and NaN when one of them
was not scored: not scored is its own outcome, in no mean and never hidden (see `strict`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from itertools import combinations
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

from pgenrm_agent.aggregation import TIE
from pgenrm_agent.schema import Model

__all__ = [
    "Difference",
    "Interval",
    "MeanError",
    "PositionBias",
    "Reliability",
    "ReliabilityBin",
    "Scores",
    "bootstrap_interval",
    "graded_pairs",
    "kendall",
    "macro_mean",
    "mean_over_runs",
    "micro_mean",
    "ndcg",
    "pair_credits",
    "paired_difference",
    "position_bias",
    "reliability",
    "spearman",
    "strict",
    "top_label",
]

Floats: TypeAlias = npt.NDArray[np.float64]
Scores: TypeAlias = Sequence[float | None]

CONFIDENCE = 0.95
RESAMPLES = 2000
PERMUTATIONS = 9999


class MeanError(Model):
    """Mean over independent runs, and its standard error; None with fewer than two runs."""

    mean: float
    standard_error: float | None


class Interval(Model):
    """A 95 % confidence interval."""

    low: float
    high: float


class Difference(Model):
    """What a judge gains over another on the same comparisons; accuracies are 0-1.

    p_value: two-sided, for "no difference", from flipping the sign of each person's difference.
    interval: from resampling people; None with fewer than two.
    dropped: comparisons that only one of the two scored; they take no part.
    """

    first: float
    second: float
    difference: float
    interval: Interval | None
    p_value: float
    users: int
    comparisons: int
    dropped: int


class ReliabilityBin(Model):
    """Predictions whose confidence lies in (low, high] (the first bin holds `low`, too)."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


class Reliability(Model):
    """Confidence against accuracy. `ece`: mean gap between the two, weighted by count, 0-1."""

    bins: tuple[ReliabilityBin, ...]
    ece: float
    count: int


class PositionBias(Model):
    """Accuracy by where the better answer of a pair stood, over single samples; None without any.

    better_first, better_later: 0-1, where it was shown before and after the worse one.
    prefers_first: share of untied comparisons in which the answer shown earlier scored higher.
    samples: comparisons; a sample over more than two answers holds several.
    """

    better_first: float | None
    better_later: float | None
    prefers_first: float | None
    samples: int


def graded_pairs(grades: Sequence[float]) -> list[tuple[int, int]]:
    """(better, worse) for each pair of candidates with different grades, in order of indices."""
    return [
        (i, j) if grades[i] > grades[j] else (j, i)
        for i, j in combinations(range(len(grades)), 2)
        if grades[i] != grades[j]
    ]


def pair_credits(scores: Scores, grades: Sequence[float]) -> list[float]:
    """One credit per pair of candidates with different grades, in the order of `graded_pairs`."""
    if len(scores) != len(grades):
        raise ValueError(f"{len(scores)} scores for {len(grades)} grades")
    credits = []
    for better, worse in graded_pairs(grades):
        high, low = scores[better], scores[worse]
        if high is None or low is None:
            credits.append(math.nan)
        elif _tied(high, low):
            credits.append(0.5)
        else:
            credits.append(1.0 if high > low else 0.0)
    return credits


def strict(credits: Sequence[float]) -> list[float]:
    """The same comparisons without mercy: a tie and "not scored" count as wrong."""
    return [1.0 if credit == 1.0 else 0.0 for credit in credits]


def micro_mean(credits: Sequence[float]) -> float | None:
    """Mean over the comparisons that were scored; None without any."""
    values = _scored(credits)
    return float(values.mean()) if values.size else None


def macro_mean(credits: Sequence[float], groups: Sequence[Hashable]) -> float | None:
    """Mean over groups (people, prototypes) of each one's mean; groups without a score are out."""
    sums, counts = _by_group(credits, groups)
    return float((sums / counts).mean()) if sums.size else None


def mean_over_runs(values: Sequence[float]) -> MeanError:
    """Mean and standard error of one figure per independent run; at least one.

    The error is the sample deviation divided by sqrt(runs).
    """
    error = float(stats.sem(values)) if len(values) > 1 else None
    return MeanError(mean=float(np.mean(values)), standard_error=error)


def bootstrap_interval(
    credits: Sequence[float], users: Sequence[Hashable], *, seed: int
) -> Interval | None:
    """95 % percentile interval of the micro mean, resampling whole people.

    People, not comparisons: the choices of one person are not independent of each other. None with
    fewer than two people.
    """
    sums, counts = _by_group(credits, users)
    if sums.size < 2:
        return None
    found = stats.bootstrap(
        (sums, counts),
        lambda total, number, axis: total.sum(axis=axis) / number.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
        batch=200,
    ).confidence_interval
    return Interval(low=float(found.low), high=float(found.high))


def paired_difference(
    first: Sequence[float],
    second: Sequence[float],
    users: Sequence[Hashable],
    *,
    seed: int,
) -> Difference:
    """Compare two judges on the same comparisons; the three sequences are aligned.

    Raises ValueError when no comparison was scored by both.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != other.shape or one.size != len(users):
        raise ValueError(f"{one.size}, {other.size} credits and {len(users)} users do not align")
    both = ~(np.isnan(one) | np.isnan(other))
    if not both.any():
        raise ValueError("no comparison was scored by both")
    gaps = np.where(both, one - other, np.nan)
    sums, _ = _by_group(gaps.tolist(), users)
    return Difference(
        first=float(one[both].mean()),
        second=float(other[both].mean()),
        difference=float((one - other)[both].mean()),
        interval=bootstrap_interval(gaps.tolist(), users, seed=seed),
        p_value=_sign_flip_p(sums, seed),
        users=int(sums.size),
        comparisons=int(both.sum()),
        dropped=int((np.isnan(one) ^ np.isnan(other)).sum()),
    )


def kendall(scores: Scores, grades: Sequence[float]) -> float | None:
    """Kendall's tau-b between scores and grades, -1 to 1.

    None where a candidate was not scored, or all scores or all grades are equal.
    """
    values = _complete(scores, grades)
    return None if values is None else float(stats.kendalltau(values, grades).statistic)


def spearman(scores: Scores, grades: Sequence[float]) -> float | None:
    """Spearman's rank correlation, -1 to 1; None as for `kendall`. LaMP-QA counts with it."""
    values = _complete(scores, grades)
    return None if values is None else float(stats.spearmanr(values, grades).statistic)


def ndcg(scores: Scores, grades: Sequence[float]) -> float | None:
    """Normalized discounted cumulative gain of the whole list, 0-1; gains are the grades (>= 0).

    Candidates with equal scores share the mean discount of their places, so that the order in which
    they were listed does not count. None where a candidate was not scored or all grades are 0.
    """
    if any(score is None for score in scores) or not any(grades):
        return None
    gains = np.asarray(grades, dtype=np.float64)
    discounts = 1 / np.log2(np.arange(2, gains.size + 2))
    ideal = float(np.sort(gains)[::-1] @ discounts)
    # "min" ranks are the first place of a group of equals, "max" its last one.
    first = stats.rankdata(-np.asarray(scores, dtype=np.float64), method="min").astype(int)
    last = stats.rankdata(-np.asarray(scores, dtype=np.float64), method="max").astype(int)
    reached = np.concatenate([[0.0], np.cumsum(discounts)])
    shared = (reached[last] - reached[first - 1]) / (last - first + 1)
    return float(gains @ shared / ideal)


def top_label(
    probabilities: Sequence[float | None], grades: Sequence[float]
) -> tuple[float, float] | None:
    """(confidence, correctness) of the candidate thought best, for `reliability`.

    Where several are thought best with equal probability, correctness is the share of them that is
    best, and so it is where the grades name several best. None where a probability is missing.
    """
    if not probabilities or any(one is None for one in probabilities):
        return None
    values = np.asarray(probabilities, dtype=np.float64)
    chosen = values >= values.max() - TIE
    best = np.asarray(grades) == max(grades)
    return float(values.max()), float(best[chosen].mean())


def reliability(
    confidences: Sequence[float], correct: Sequence[float], *, bins: int = 10
) -> Reliability | None:
    """Accuracy by confidence in `bins` equal parts of 0-1; None without predictions."""
    if not confidences:
        return None
    edges = np.linspace(0.0, 1.0, bins + 1)
    sure = np.asarray(confidences, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    place = np.clip(np.searchsorted(edges, sure, side="left") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    filled = counts > 0
    mean_sure = np.bincount(place, sure, bins)[filled] / counts[filled]
    mean_right = np.bincount(place, right, bins)[filled] / counts[filled]
    share = counts[filled] / sure.size
    return Reliability(
        bins=tuple(
            ReliabilityBin(
                low=float(edges[at]),
                high=float(edges[at + 1]),
                count=int(counts[at]),
                confidence=float(confidence),
                accuracy=float(accuracy),
            )
            for at, confidence, accuracy in zip(
                np.flatnonzero(filled), mean_sure, mean_right, strict=True
            )
        ),
        ece=float(share @ np.abs(mean_right - mean_sure)),
        count=sure.size,
    )


def position_bias(samples: Sequence[tuple[float, bool]]) -> PositionBias:
    """From single samples' comparisons: (credit, whether the better one was shown first)."""
    first = [credit for credit, better_first in samples if better_first]
    later = [credit for credit, better_first in samples if not better_first]
    prefers = [float((credit == 1.0) == shown) for credit, shown in samples if credit in (0.0, 1.0)]
    return PositionBias(
        better_first=micro_mean(first),
        better_later=micro_mean(later),
        prefers_first=micro_mean(prefers),
        samples=len(samples),
    )


def _sign_flip_p(differences: Floats, seed: int) -> float:
    """Two-sided p-value of the sum, when each person's difference could as well be its negative."""
    if differences.size < 2:
        return 1.0  # both signs are equally far from zero
    test = stats.permutation_test(
        (differences,),
        lambda total, axis: total.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=500,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def _tied(one: float, other: float) -> bool:
    return abs(one - other) <= TIE * (1.0 + max(abs(one), abs(other)))


def _scored(credits: Sequence[float]) -> Floats:
    values = np.asarray(credits, dtype=np.float64)
    scored: Floats = values[~np.isnan(values)]
    return scored


def _by_group(credits: Sequence[float], groups: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Sum and number of the scored credits of each group, groups in order of appearance."""
    if len(credits) != len(groups):
        raise ValueError(f"{len(credits)} credits for {len(groups)} group labels")
    sums: dict[Hashable, list[float]] = {}
    for credit, group in zip(credits, groups, strict=True):
        if not math.isnan(credit):
            sums.setdefault(group, []).append(credit)
    return (
        np.array([sum(values) for values in sums.values()], dtype=np.float64),
        np.array([len(values) for values in sums.values()], dtype=np.float64),
    )


def _complete(scores: Scores, grades: Sequence[float]) -> Floats | None:
    if any(score is None for score in scores):
        return None
    values = np.asarray(scores, dtype=np.float64)
    constant = bool(np.all(values == values[:1])) or len(set(grades)) < 2
    return None if constant else values
