"""How often a judge is right about users, and how sure that is. Pure NumPy and SciPy.

The only place that defines accuracy; `pgenrm eval`, the model card and the studies all count here.

A *comparison* is two candidates of one question with different grades. Its *credit* is 1 when the
better one got the higher score, 0 when the worse one did, 1/2 for a tie, and NaN when one of them
was not scored. Three figures follow, and the headline is the first:

    strict    over all comparisons; a tie and "not scored" count as wrong
    accuracy  over the scored comparisons; a tie counts one half
    coverage  the share of comparisons that was scored

A question with several comparisons counts as a whole in `question_credit`: it is right where all are.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from itertools import combinations
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

from pgenrm_agent.confidence import TIE
from pgenrm_agent.evaluation.questions import FEWEST_USERS
from pgenrm_agent.fields import Model

Floats: TypeAlias = npt.NDArray[np.float64]
Scores: TypeAlias = Sequence[float | None]

CHANCE = 0.5
"""What a coin reaches, by any of the three figures."""
CONFIDENCE = 0.95
RESAMPLES = 2000
PERMUTATIONS = 9999


class MeanError(Model):
    """A mean and its standard error over independent clusters; None with fewer than two of them."""

    mean: float
    standard_error: float | None


class Accuracy(Model):
    """How often a judge is right; all figures are 0-1, and `strict` is the headline.

    strict: over all comparisons; ties and "not scored" are wrong.
    accuracy: over scored comparisons, a tie one half; None where nothing was scored.
    coverage: share of comparisons that was scored.
    """

    strict: MeanError
    accuracy: MeanError | None
    coverage: float
    ties: int
    comparisons: int

    @classmethod
    def of(
        cls,
        credits: Sequence[float],
        *,
        chances: Sequence[float] | None = None,
        clusters: Sequence[Hashable] | None = None,
    ) -> Accuracy:
        """Count credits, one a comparison.

        chances: see `expected`; without them each comparison counts as it came out.
        clusters: what each comparison belongs to (its user), for the standard errors; every
            comparison is its own if not given.

        Raises ValueError without comparisons.
        """
        if not credits:
            raise ValueError("there is no comparison to count")
        counted = credits if chances is None else expected(credits, chances)
        scored = [not math.isnan(value) for value in credits]
        return cls(
            strict=mean_error(strict(credits, chances), clusters),
            accuracy=mean_error(counted, clusters) if any(scored) else None,
            coverage=sum(scored) / len(scored),
            ties=sum(value == 0.5 for value in credits),
            comparisons=len(credits),
        )

    @classmethod
    def over(cls, parts: Sequence[Accuracy]) -> Accuracy:
        """Return the mean of independent parts (runs, seeds); the errors are over these."""
        means = [part.accuracy.mean for part in parts if part.accuracy is not None]
        return cls(
            strict=mean_error([part.strict.mean for part in parts]),
            accuracy=mean_error(means) if means else None,
            coverage=micro_mean([part.coverage for part in parts]) or 0.0,
            ties=sum(part.ties for part in parts),
            comparisons=sum(part.comparisons for part in parts),
        )

    @classmethod
    def joined(cls, parts: Sequence[Accuracy]) -> Accuracy:
        """Count the comparisons of parts together that have no user in common, as of folds.

        The errors stay over users: those of the parts are independent of each other.
        """
        strict = [(part.strict, part.comparisons) for part in parts]
        scored = [
            (part.accuracy, round(part.coverage * part.comparisons))
            for part in parts
            if part.accuracy is not None
        ]
        comparisons = sum(part.comparisons for part in parts)
        return cls(
            strict=joined_error(strict),
            accuracy=joined_error(scored) if scored else None,
            coverage=sum(part.coverage * part.comparisons for part in parts) / comparisons,
            ties=sum(part.ties for part in parts),
            comparisons=comparisons,
        )


class Interval(Model):
    """A 95 % confidence interval."""

    low: float
    high: float


class Difference(Model):
    """What a judge gains over another on the same comparisons, by strict accuracy, 0-1.

    p_value: two-sided, for "no difference", from flipping the sign of each user's difference.
    interval: from resampling users; None with fewer than two.
    """

    first: float
    second: float
    difference: float
    interval: Interval | None
    p_value: float
    users: int
    comparisons: int


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
    """Return (better, worse) for each pair with different grades, in order of indices."""
    return [
        (i, j) if grades[i] > grades[j] else (j, i)
        for i, j in combinations(range(len(grades)), 2)
        if grades[i] != grades[j]
    ]


def pair_credits(scores: Scores, grades: Sequence[float]) -> list[float]:
    """Return one credit a pair with different grades, in the order of `graded_pairs`."""
    if len(scores) != len(grades):
        raise ValueError(f"{len(scores)} scores for {len(grades)} grades")
    return [credit(scores[better], scores[worse]) for better, worse in graded_pairs(grades)]


def credit(better: float | None, worse: float | None = 0.0) -> float:
    """Return the credit of one comparison, from the scores of its better and its worse candidate.

    Of a margin in favor of the better one, pass the margin alone.
    """
    if better is None or worse is None:
        return math.nan
    if abs(better - worse) <= TIE * (1.0 + max(abs(better), abs(worse))):
        return 0.5
    return 1.0 if better > worse else 0.0


def question_credit(credits: Sequence[float]) -> float:
    """Return the credit of a whole question from those of its comparisons: that of the worst one.

    With one candidate graded above all others, it is 1 where that candidate alone came first, 1/2
    where it shares the first place, and NaN where a candidate was not scored.
    """
    return math.nan if any(map(math.isnan, credits)) else min(credits)


def expected(credits: Sequence[float], chances: Sequence[float]) -> list[float]:
    """Return what each comparison would be credited with on average if the user chose again.

    chances: how probable it is that the user chooses as they did, 0-1; a simulation knows it. The
        mean is that of drawn choices without the luck of the draw. A tie stays one half.
    """
    return [
        value * chance + (1.0 - value) * (1.0 - chance)
        for value, chance in zip(credits, chances, strict=True)
    ]


def strict(credits: Sequence[float], chances: Sequence[float] | None = None) -> list[float]:
    """Return the same comparisons with a tie and "not scored" as wrong; `chances`: see `expected`."""
    counted = credits if chances is None else expected(credits, chances)
    return [
        right if value in (0.0, 1.0) else 0.0 for value, right in zip(credits, counted, strict=True)
    ]


def micro_mean(credits: Sequence[float]) -> float | None:
    """Return the mean over the comparisons that were scored; None without any."""
    values = _scored(credits)
    return float(values.mean()) if values.size else None


def macro_mean(credits: Sequence[float], groups: Sequence[Hashable]) -> float | None:
    """Return the mean over groups (users, prototypes) of their means; unscored groups are out."""
    sums, counts = _by_group(credits, groups)
    return float((sums / counts).mean()) if sums.size else None


def mean_error(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> MeanError:
    """Return the mean of all values and its standard error over clusters; NaN values are left out.

    The error is that of resampling whole clusters (users, runs, seeds), in closed form and with the
    correction for few of them. Where each value is its own cluster, as without `clusters`, it is the
    sample deviation divided by the root of their number.
    """
    sums, counts = _by_group(values, range(len(values)) if clusters is None else clusters)
    if not sums.size:
        raise ValueError("there is no value to take the mean of")
    mean = float(sums.sum() / counts.sum())
    if sums.size < 2:
        return MeanError(mean=mean, standard_error=None)
    spread = sums.size / (sums.size - 1) * float(np.square(sums - mean * counts).sum())
    return MeanError(mean=mean, standard_error=math.sqrt(spread) / float(counts.sum()))


def joined_error(parts: Sequence[tuple[MeanError, int]]) -> MeanError:
    """Return the mean over parts without a common cluster, each with its number of values.

    A part with a single cluster has no error of its own; then the whole has none.
    """
    total = sum(count for _, count in parts)
    errors = [part.standard_error for part, _ in parts]
    known = [error for error in errors if error is not None]
    weights = [count / total for _, count in parts]
    return MeanError(
        mean=sum(weight * part.mean for weight, (part, _) in zip(weights, parts, strict=True)),
        standard_error=math.hypot(*np.multiply(weights, known))
        if len(known) == len(errors)
        else None,
    )


def plus_minus(
    value: MeanError | None, *, form: str = ".1f", scale: float = 100.0, unit: str = ""
) -> str:
    """Return a mean and its standard error in words, as "71.8 ± 1.4"; "-" where there is none.

    form: of the mean; the error has as many decimals. scale: 100 turns shares into percent.
    """
    if value is None:
        return "-"
    error = value.standard_error
    after = "" if error is None else f" ± {scale * error:{form.lstrip('+')}}"
    return f"{scale * value.mean:{form}}{after}{unit}"


def bootstrap_interval(
    credits: Sequence[float], users: Sequence[Hashable], *, seed: int
) -> Interval | None:
    """Return the 95 % percentile interval of the micro mean, resampling whole users.

    Users, not comparisons: the choices of one user are not independent of each other. None with
    fewer than FEWEST_USERS.
    """
    sums, counts = _by_group(credits, users)
    if sums.size < FEWEST_USERS:
        return None
    interval = stats.bootstrap(
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
    return Interval(low=float(interval.low), high=float(interval.high))


def wilson_interval(share: float, count: int) -> Interval:
    """Return the 95 % score interval (Wilson 1927) of the mean of `count` values of 0-1.

    Unlike a resampled one it has a width where all values are equal. Of values between 0 and 1, such
    as means over runs, it is too wide rather than too narrow: none spread more than 0s and 1s.
    """
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    center = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    spread = share * (1 - share) / count + z**2 / (4 * count**2)
    reach = z * math.sqrt(spread) / (1 + z**2 / count)
    return Interval(low=max(0.0, center - reach), high=min(1.0, center + reach))


def paired_difference(
    first: Sequence[float], second: Sequence[float], users: Sequence[Hashable], *, seed: int
) -> Difference:
    """Compare two judges by their strict credits of the same comparisons; all three are aligned.

    Raises ValueError without comparisons, or where the lengths differ.
    """
    if not first or not len(first) == len(second) == len(users):
        raise ValueError(f"{len(first)}, {len(second)} credits and {len(users)} users do not align")
    gaps = np.subtract(first, second)
    sums, _ = _by_group(gaps.tolist(), users)
    return Difference(
        first=float(np.mean(first)),
        second=float(np.mean(second)),
        difference=float(gaps.mean()),
        interval=bootstrap_interval(gaps.tolist(), users, seed=seed),
        p_value=_sign_flip_p(sums, seed),
        users=int(sums.size),
        comparisons=len(first),
    )


def top_label(
    probabilities: Sequence[float | None], grades: Sequence[float]
) -> tuple[float, float] | None:
    """Return (confidence, correctness) of the candidate thought best, for `reliability`.

    Where several are thought best with equal probability, correctness is the share of them that is
    best, and so it is where the grades name several best. None where a probability is missing.
    """
    if not probabilities or any(probability is None for probability in probabilities):
        return None
    values = np.asarray(probabilities, dtype=np.float64)
    chosen = values >= values.max() - TIE
    best = np.asarray(grades) == max(grades)
    return float(values.max()), float(best[chosen].mean())


def reliability(
    confidences: Sequence[float], correct: Sequence[float], *, bins: int = 10
) -> Reliability | None:
    """Return accuracy by confidence in `bins` equal parts of 0-1; None without predictions."""
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
    """Return the bias in single samples' (credit, whether the better one was shown first)."""
    first = [value for value, better_first in samples if better_first]
    later = [value for value, better_first in samples if not better_first]
    prefers = [float((value == 1.0) == shown) for value, shown in samples if value in (0.0, 1.0)]
    return PositionBias(
        better_first=micro_mean(first),
        better_later=micro_mean(later),
        prefers_first=micro_mean(prefers),
        samples=len(samples),
    )


def _sign_flip_p(differences: Floats, seed: int) -> float:
    """Two-sided p-value of the sum, when each user's difference could as well be its negative."""
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


def _scored(credits: Sequence[float]) -> Floats:
    values = np.asarray(credits, dtype=np.float64)
    scored: Floats = values[~np.isnan(values)]
    return scored


def _by_group(credits: Sequence[float], groups: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Return sum and number of the scored credits of each group, in order of appearance."""
    if len(credits) != len(groups):
        raise ValueError(f"{len(credits)} credits for {len(groups)} group labels")
    sums: dict[Hashable, list[float]] = {}
    for value, group in zip(credits, groups, strict=True):
        if not math.isnan(value):
            sums.setdefault(group, []).append(value)
    return (
        np.array([sum(values) for values in sums.values()], dtype=np.float64),
        np.array([len(values) for values in sums.values()], dtype=np.float64),
    )
