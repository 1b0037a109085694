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

from pgenrm_agent.confidence import (
    CHAIN_NOISE,
    SAMPLING_NOISE,
    TIE,
    ChainNoise,
    column_means,
    column_variances,
    probability_best,
)
from pgenrm_agent.schema import CandidateScore, ChainFailure, Evaluation, EvaluationChain, Level

Floats = NDArray[np.float64]

# Two neighbors have half of a score by Eq. 9, a quarter each; one alone would have half.
LARGEST_NEIGHBOR_SHARE = 1 / 4
FEWEST_TO_HOLD = 4
"""Fewest chains by which a leader may be settled."""


def aggregate(
    candidate_ids: Sequence[str],
    chains: Sequence[EvaluationChain],
    failures: Sequence[ChainFailure] = (),
    *,
    unusable: Mapping[str, str] | None = None,
    seed: int = 0,
    noise: ChainNoise = CHAIN_NOISE,
) -> tuple[CandidateScore, ...]:
    """Score each candidate from the totals of its chains (paper Eq. 9); the request's order.

    A chain counts only with totals for all candidates that it was shown (`ParsedChain.incomplete`),
    so a strict chain is strict with all that it judges. Where candidates are judged in groups, each
    chain has those of its group.

    The mean is that of the levels' means, over the levels that scored this candidate: Eq. 9 divided
    by the number of levels present, on the marks' own 1-10 scale.

    No neighbor has more than LARGEST_NEIGHBOR_SHARE of a mean, so that one poisoned history cannot
    decide a score: with `f` the largest part of the prototype level's chains over the candidate that one
    neighbor has (1/n for n neighbors), that level weighs `min(1/2, LARGEST_NEIGHBOR_SHARE / f)`, and
    the user's own chains the rest. That differs from Eq. 9 for a single neighbor only: 1/4 and 3/4.
    Where the user's own chains did not score the candidate, nobody is there to take the rest, and the
    bound is void.

    The standard error is that of this mean, from the unbiased variance of each level's chains. A
    level with a single chain borrows the other level's variance; None where no level has two.

    `probability_best` is the chance that the user likes the candidate best of all, from the chains'
    spread and what is known of chains' noise (`confidence`), drawn by `seed`. None where fewer than
    two chains count for some candidate, or where some candidate that was shown is not scored.

    unusable: candidates that were in no prompt, with the reason why. They are not scored, and the others
    are compared as if they were not there.
    """
    levels: list[Level] = [
        level for level in ("individual", "prototype") if any(c.level == level for c in chains)
    ]
    totals = [_totals(candidate_ids, [c for c in chains if c.level == level]) for level in levels]
    counts = [np.sum(~np.isnan(table), axis=0) for table in totals]
    per_level = [column_means(table) for table in totals]

    number = len(candidate_ids)
    present = np.array([count > 0 for count in counts], dtype=float).reshape(len(levels), number)
    scored = present.sum(axis=0) > 0
    share = np.divide(present, present.sum(axis=0), out=np.zeros_like(present), where=scored)
    if len(levels) == 2:
        largest = _largest_part([c for c in chains if c.level == "prototype"], totals[1])
        bound = np.divide(
            LARGEST_NEIGHBOR_SHARE,
            largest,
            out=np.ones(number),
            where=(largest > 0) & (present[0] > 0),
        )
        share[1] = np.minimum(share[1], bound)
        share[0] = np.where(present[0] > 0, 1.0 - share[1], 0.0)
    means = np.zeros(number)
    for row in range(len(levels)):
        means += share[row] * np.where(share[row] > 0, per_level[row], 0.0)

    variances = _variances_of_means(totals, counts, share)
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
            reason=(unusable or {}).get(candidate_id) or _why_not(chains, failures),
        )
        for column, candidate_id in enumerate(candidate_ids)
    )


def leader_holds(
    candidate_ids: Sequence[str], chains: Sequence[EvaluationChain], *, seed: int = 0
) -> float:
    """Return the probability that further chains leave the same candidate in front, 0-1.

    Whether the user likes it best is another question (`CandidateScore.probability_best`), of which
    further chains tell little. 0 where a candidate has fewer than FEWEST_TO_HOLD chains, since two or
    three can agree by accident.

    candidate_ids: those that were shown.
    """
    scores = aggregate(candidate_ids, chains, seed=seed, noise=SAMPLING_NOISE)
    if min((score.chains for score in scores), default=0) < FEWEST_TO_HOLD:
        return 0.0
    return max(score.probability_best or 0.0 for score in scores)


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


def _variances_of_means(
    totals: Sequence[Floats], counts: Sequence[NDArray[np.int_]], share: Floats
) -> Floats:
    """Variances of the candidates' means. NaN where no spread is known."""
    spreads = [column_variances(table) for table in totals]
    variances = np.zeros(share.shape[1])
    for row, count in enumerate(counts):
        spread = spreads[row]
        for level_spread in spreads:
            spread = np.where(np.isnan(spread), level_spread, spread)
        # An absent level has no share and adds nothing, whatever its spread (0 * NaN is NaN).
        part = share[row] ** 2 / np.maximum(count, 1)
        variances += np.where(part > 0, part * spread, 0.0)
    return variances


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
