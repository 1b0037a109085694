"""From chains to scores: means by level, spread, the chance of being best, and the ranking.

Pure: the result is a function of the arguments. Only totals of readable chains enter; a candidate
that no chain gave a total stays "not scored" and is neither a zero nor a tie.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pgenrm_agent.common_basis import common_basis
from pgenrm_agent.confidence import (
    CHAIN_NOISE,
    TIE,
    ChainNoise,
    column_means,
    covariance_of_chains,
    probability_best,
)
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.schema import CandidateScore, ChainFailure, Evaluation, EvaluationChain, Level

Floats = NDArray[np.float64]

# Two neighbors have half of a score by Eq. 9, a quarter each; one alone would have half.
LARGEST_NEIGHBOR_SHARE = 1 / 4


def aggregate(
    candidate_ids: Sequence[str],
    chains: Sequence[EvaluationChain],
    failures: Sequence[ChainFailure] = (),
    *,
    unusable: Mapping[str, str] | None = None,
    level_weights: Mapping[Level, float] | None = None,
    seed: int = 0,
    noise: ChainNoise = CHAIN_NOISE,
) -> tuple[CandidateScore, ...]:
    """Score each candidate from the totals of its chains (paper Eq. 9); the request's order.

    Candidates are compared on the chains that are complete over them: see `common_basis`.

    The mean is `sum over levels of weight * mean of the level's chains`, where the weights are
    normalized over the levels that scored this candidate. By default they are equal: Eq. 9 divided
    by the number of levels present, on the marks' own 1-10 scale.

    No neighbor has more than LARGEST_NEIGHBOR_SHARE of a mean, so that one poisoned history cannot
    decide a score: with `w` the prototype level's normalized weight and `f` the largest part of its
    chains over the candidate that one neighbor has (1/n for n neighbors), the level weighs
    `min(w, LARGEST_NEIGHBOR_SHARE / f)`, and the user's own chains the rest. With equal weights that
    differs from Eq. 9 for a single neighbor only: 1/4 and 3/4. A candidate that the user's own chains
    did not score, or a weight of 0 for them, leaves nobody to give the rest to, and the bound is void.

    The standard error is that of this mean, from the unbiased variance of each level's chains. A
    level with a single chain borrows the other level's variance; None where no level has two.

    `probability_best` is the chance that the user likes the candidate best of all, from the chains'
    spread and what is known of chains' noise (`confidence`), drawn by `seed`. None where fewer than
    two chains count for some candidate, or where some candidate that was shown is not scored.

    unusable: candidates that were in no prompt, with the reason why. They are not scored, and the others
    are compared as if they were not there.

    Raises ConfigurationError for a weight that is negative or not finite, or for weights that are
    all 0.
    """
    weights = _check_weights(level_weights)
    usable = chains
    chains, left_out = common_basis(candidate_ids, usable)
    levels: list[Level] = [
        level for level in ("individual", "prototype") if any(c.level == level for c in chains)
    ]
    totals = [_totals(candidate_ids, [c for c in chains if c.level == level]) for level in levels]
    counts = [np.sum(~np.isnan(table), axis=0) for table in totals]
    per_level = [column_means(table) for table in totals]

    number = len(candidate_ids)
    compared = np.array([candidate_id not in left_out for candidate_id in candidate_ids])
    raw = np.zeros((len(levels), number))
    for row, level in enumerate(levels):
        raw[row] = np.where(compared & (counts[row] > 0), weights[level], 0.0)
    weight_sum = raw.sum(axis=0) if levels else np.zeros(number)
    scored = weight_sum > 0
    share = np.divide(raw, weight_sum, out=np.zeros_like(raw), where=scored)
    if len(levels) == 2:
        largest = _largest_part([c for c in chains if c.level == "prototype"], totals[1])
        bound = np.divide(
            LARGEST_NEIGHBOR_SHARE, largest, out=np.ones(number), where=(largest > 0) & (raw[0] > 0)
        )
        share[1] = np.minimum(share[1], bound)
        share[0] = np.where(raw[0] > 0, 1.0 - share[1], 0.0)
    means = np.zeros(number)
    for row in range(len(levels)):
        means += share[row] * np.where(share[row] > 0, per_level[row], 0.0)

    covariance = _covariance_of_means(totals, share)
    variances = np.diagonal(covariance)
    shown = np.array([candidate_id not in (unusable or {}) for candidate_id in candidate_ids])
    # Of a candidate that is shown and not scored nobody knows whether it is the best.
    chances = _chances(totals, share, shown, seed, noise) if scored[shown].all() else None

    means_of: dict[Level, Floats] = dict(zip(levels, per_level, strict=True))
    chain_counts = sum(counts, np.zeros(number, dtype=int))
    return tuple(
        CandidateScore(
            candidate_id=candidate_id,
            mean=float(means[column]),
            standard_error=_known(math.sqrt(max(variances[column], 0.0)))
            if not math.isnan(variances[column])
            else None,
            individual_mean=_level_mean(means_of, "individual", column),
            prototype_mean=_level_mean(means_of, "prototype", column),
            probability_best=None if chances is None else float(chances[column]),
            chains=int(chain_counts[column]),
        )
        if scored[column]
        else CandidateScore(
            candidate_id=candidate_id,
            outcome="not_scored",
            reason=(unusable or {}).get(candidate_id)
            or left_out.get(candidate_id)
            or _why_not(usable, failures),
        )
        for column, candidate_id in enumerate(candidate_ids)
    )


def rank(scores: Sequence[CandidateScore]) -> tuple[str, ...]:
    """Ids of the scored candidates, highest mean first; ties keep the order given."""
    scored = [(score.candidate_id, score.mean) for score in scores if score.mean is not None]
    # Rounding, rather than comparing with a tolerance, keeps "equal" transitive.
    return tuple(
        candidate_id for candidate_id, mean in sorted(scored, key=lambda item: -_rounded(item[1]))
    )


def best_of(scores: Sequence[CandidateScore]) -> str | None:
    """Id of the candidate with the highest mean; None when two share it, or none is scored."""
    means = {score.candidate_id: _rounded(score.mean) for score in scores if score.mean is not None}
    if not means:
        return None
    top = max(means.values())
    leaders = [candidate_id for candidate_id, mean in means.items() if mean == top]
    return leaders[0] if len(leaders) == 1 else None


def count_reasons(failures: Sequence[ChainFailure]) -> str:
    """The failures by reason, most frequent first: "truncated 3, unparseable 1"."""
    counts = Counter(failure.reason for failure in failures)
    return ", ".join(
        f"{reason} {count}" for reason, count in sorted(counts.items(), key=lambda i: (-i[1], i[0]))
    )


def typical_chain(
    evaluation: Evaluation, chains: Sequence[EvaluationChain] | None = None
) -> EvaluationChain:
    """The chain whose totals are nearest to the mean scores: the one to show as the reason why.

    The person's own chains go before those of similar people, chains over all candidates before
    those over a group of them, and chains with marks for every criterion before the others: their
    totals can be followed.

    chains: those to choose from, at least one; None means all of the evaluation's.
    """
    means = {score.candidate_id: score.mean for score in evaluation.scores}

    def distance(chain: EvaluationChain) -> float:
        gaps = [
            (total - mean) ** 2
            for candidate_id, total in chain.totals.items()
            if (mean := means[candidate_id]) is not None
        ]
        return sum(gaps) / len(gaps) if gaps else math.inf

    return min(
        evaluation.chains if chains is None else chains,
        key=lambda chain: (
            chain.level == "prototype",
            -len(chain.totals),
            _marks_missing(chain),
            distance(chain),
        ),
    )


def _marks_missing(chain: EvaluationChain) -> int:
    return sum(
        mark is None
        for candidate_id in chain.totals
        for mark in chain.marks.get(candidate_id, (None,) * _criteria(chain))
    )


def _criteria(chain: EvaluationChain) -> int:
    return len(chain.rubric.criteria) if chain.rubric else 1


def _check_weights(level_weights: Mapping[Level, float] | None) -> dict[Level, float]:
    weights: dict[Level, float] = {"individual": 1.0, "prototype": 1.0}
    if level_weights is None:
        return weights
    weights = {level: float(level_weights.get(level, 0.0)) for level in weights}
    bad = [f"{name}={w:g}" for name, w in weights.items() if not math.isfinite(w) or w < 0]
    if bad or not any(weights.values()):
        raise ConfigurationError(
            f"level_weights {', '.join(bad) or 'are all 0'}: pass finite weights of at least 0, "
            "one of them above 0"
        )
    return weights


def _totals(candidate_ids: Sequence[str], chains: Sequence[EvaluationChain]) -> Floats:
    """Chains x candidates; NaN where a chain has no total for the candidate."""
    return np.array(
        [
            [chain.totals.get(candidate_id, math.nan) for candidate_id in candidate_ids]
            for chain in chains
        ],
        dtype=np.float64,
    ).reshape(len(chains), len(candidate_ids))


def _largest_part(chains: Sequence[EvaluationChain], table: Floats) -> Floats:
    """Largest part that one person has in each candidate's totals; 0 where there are none."""
    present = ~np.isnan(table)
    owners = np.array([chain.signals_of for chain in chains])
    counts = np.array([present[owners == owner].sum(axis=0) for owner in np.unique(owners)])
    total = present.sum(axis=0)
    parts: Floats = np.divide(
        counts.max(axis=0), total, out=np.zeros(table.shape[1]), where=total > 0
    )
    return parts


def _covariance_of_means(totals: Sequence[Floats], share: Floats) -> Floats:
    """Covariance of the candidates' means. NaN on the diagonal where no spread is known."""
    number = share.shape[1]
    spreads = [covariance_of_chains(table) for table in totals]
    covariance = np.zeros((number, number))
    for row, table in enumerate(totals):
        spread = spreads[row]
        for level_spread in spreads:
            spread = np.where(np.isnan(spread), level_spread, spread)
        # A pair that never met twice tells nothing of a covariance: take none.
        off_diagonal = ~np.eye(number, dtype=bool)
        spread = np.where(off_diagonal & np.isnan(spread), 0.0, spread)
        present = (~np.isnan(table)).astype(np.float64)
        together = present.T @ present
        count = np.maximum(present.sum(axis=0), 1.0)
        part = np.outer(share[row] / count, share[row] / count) * together
        # An absent level has no share and adds nothing, whatever its spread (0 * NaN is NaN).
        covariance += np.where(part > 0, part * spread, 0.0)
    return covariance


def _chances(
    totals: Sequence[Floats], share: Floats, shown: NDArray[np.bool_], seed: int, noise: ChainNoise
) -> Floats | None:
    """`probability_best` of the candidates that were shown; NaN for the others."""
    among = probability_best(
        [table[:, shown] for table in totals], share[:, shown], seed=seed, noise=noise
    )
    if among is None:
        return None
    chances = np.full(len(shown), np.nan)
    chances[shown] = among
    return chances


def _level_mean(means: Mapping[Level, Floats], level: Level, column: int) -> float | None:
    return _known(float(means[level][column])) if level in means else None


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _rounded(mean: float) -> int:
    return round(mean / TIE)


def _why_not(chains: Sequence[EvaluationChain], failures: Sequence[ChainFailure]) -> str:
    reason = f"none of the {len(chains)} readable chains gives it a total"
    return f"{reason}; {len(failures)} failed ({count_reasons(failures)})" if failures else reason
