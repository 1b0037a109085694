"""From records to one table: what each judge achieved, and what one gains over another."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.metrics import (
    Difference,
    Interval,
    MeanError,
    PositionBias,
    Reliability,
    Scores,
    bootstrap_interval,
    graded_pairs,
    kendall,
    macro_mean,
    mean_over_runs,
    micro_mean,
    ndcg,
    pair_credits,
    paired_difference,
    position_bias,
    reliability,
    spearman,
    strict,
    top_label,
)
from pgenrm_agent.evaluation.records import Record
from pgenrm_agent.schema import Model

__all__ = ["JudgeSummary", "compare", "summarize"]

CHANCE = 0.5
BOOTSTRAP_SEED = 0


class JudgeSummary(Model):
    """One row of the table. Accuracies and shares are 0-1; means are over independent runs.

    accuracy: over scored comparisons, a tie counts one half. interval: from resampling people.
    strict: ties and comparisons that were not scored count as wrong.
    macro_user, macro_group, macro_prototype: mean over people, over groups and over prototypes of
        each one's accuracy.
    against_chance: whether the interval lies above 50 %, holds it, or lies below it; "unknown"
        with fewer than two people.
    comparisons, ties, not_scored: by comparison and run. failed_samples: unreadable ones, by reason.
    one_sample: accuracy of single samples of the same evaluations.
    by_samples: accuracy of the mean of the first 1, 2, 4, ... samples.
    kendall, ndcg, spearman: means over questions with more than two candidates.
    system_spearman: of the candidates' mean scores and mean grades, by candidate id, where all
        questions have the same ids (LaMP-QA: the answering systems).
    slips: share of the totals that the model wrote itself and that are off by more than 0.1.
    seconds: summed over questions, which overlap; it is not the time that the run took.
    """

    judge: str
    questions: int
    users: int
    runs: int
    comparisons: int
    accuracy: MeanError | None
    interval: Interval | None
    against_chance: Literal["better", "no better", "worse", "unknown"]
    strict: MeanError
    macro_user: MeanError | None
    macro_group: MeanError | None
    macro_prototype: MeanError | None
    groups: dict[str, float]
    ties: int
    not_scored: int
    samples: int
    failed_samples: dict[str, int]
    one_sample: float | None
    by_samples: dict[int, float]
    kendall: MeanError | None
    ndcg: MeanError | None
    spearman: MeanError | None
    system_spearman: MeanError | None
    calibration: Reliability | None
    position: PositionBias
    slips: float | None
    prompt_tokens: int
    completion_tokens: int
    seconds: float


def summarize(records: Iterable[Record]) -> list[JudgeSummary]:
    """One summary a judge, the most accurate first.

    Raises ConfigurationError without any record.
    """
    by_judge: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_judge[record.judge].append(record)
    if not by_judge:
        raise ConfigurationError("there are no records to summarize: nothing was judged")
    rows = [_summary(name, found) for name, found in by_judge.items()]
    return sorted(rows, key=lambda row: (-(row.accuracy.mean if row.accuracy else 0.0), row.judge))


def compare(first: Sequence[Record], second: Sequence[Record], *, seed: int = 0) -> Difference:
    """What one judge gains over another on the comparisons that both were asked for.

    A comparison's credit is its mean over runs; where a run did not score it, over the others.

    Raises ConfigurationError when the two share no comparison, or a question of one is another's in
    the other.
    """
    asked = {record.question: _about(record) for record in first}
    for record in second:
        if asked.get(record.question, _about(record)) != _about(record):
            raise ConfigurationError(
                f"question {record.question} is not the same in both: {asked[record.question][0]} is"
                f" asked there, {record.user_id} here; compare results on the same data"
            )
    one, other = _credits_by_comparison(first), _credits_by_comparison(second)
    shared = [key for key in one if key in other]
    if not shared:
        raise ConfigurationError(
            "the two results have no question in common: compare results on the same data"
        )
    users = {record.question: record.user_id for record in first}
    try:
        return paired_difference(
            [one[key] for key in shared],
            [other[key] for key in shared],
            [users[question] for question, _ in shared],
            seed=seed,
        )
    except ValueError as error:
        raise ConfigurationError(f"the two results cannot be compared: {error}") from None


def _about(record: Record) -> tuple[object, ...]:
    return record.user_id, record.group, record.candidates, record.grades


def _credits_by_comparison(records: Sequence[Record]) -> dict[tuple[str, int], float]:
    found: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    for record in records:
        for number, credit in enumerate(pair_credits(record.verdict.scores, record.grades)):
            found[record.question, number].append(credit)
    return {
        key: float("nan") if (mean := micro_mean(credits)) is None else mean
        for key, credits in found.items()
    }


def _summary(name: str, records: Sequence[Record]) -> JudgeSummary:
    # In a fixed order, so that sums do not depend on which question was answered first.
    records = sorted(records, key=lambda record: record.key)
    by_run: defaultdict[int, list[Record]] = defaultdict(list)
    for record in records:
        by_run[record.run].append(record)
    runs = list(by_run.values())
    comparisons = _credits_by_comparison(records)
    users = {record.question: record.user_id for record in records}
    owners = [users[question] for question, _ in comparisons]
    interval = bootstrap_interval(list(comparisons.values()), owners, seed=BOOTSTRAP_SEED)
    everything = [credit for record in records for credit in _credits(record)]
    failures: Counter[str] = Counter()
    for record in records:
        failures.update(record.verdict.failures)
    sure = [
        found
        for record in records
        if (found := top_label(record.verdict.probability_best, record.grades)) is not None
    ]
    compared = sum(record.verdict.compared for record in records)
    return JudgeSummary(
        judge=name,
        questions=len(users),
        users=len(set(users.values())),
        runs=len(runs),
        comparisons=len(everything),
        accuracy=_over_runs([micro_mean(_all_credits(run)) for run in runs]),
        interval=interval,
        against_chance=_against_chance(interval),
        strict=mean_over_runs([float(np.mean(strict(_all_credits(run)))) for run in runs]),
        macro_user=_over_runs([_macro(run, _user) for run in runs]),
        macro_group=_over_runs([_macro(run, _group) for run in runs]),
        macro_prototype=_over_runs([_macro(run, _prototype) for run in runs]),
        groups=_groups(records),
        ties=sum(credit == 0.5 for credit in everything),
        not_scored=int(np.isnan(everything).sum()),
        samples=sum(len(record.verdict.totals) for record in records),
        failed_samples=dict(sorted(failures.items())),
        one_sample=micro_mean(
            [
                credit
                for record in records
                for sample in record.verdict.totals
                for credit in pair_credits(sample, record.grades)
            ]
        ),
        by_samples=_by_samples(records),
        kendall=_over_runs([_mean_of(run, kendall) for run in runs]),
        ndcg=_over_runs([_mean_of(run, ndcg) for run in runs]),
        spearman=_over_runs([_mean_of(run, spearman) for run in runs]),
        system_spearman=_over_runs([_system_spearman(run) for run in runs]),
        calibration=reliability([one for one, _ in sure], [right for _, right in sure]),
        position=position_bias(_pairs_as_shown(records)),
        slips=sum(record.verdict.slips for record in records) / compared if compared else None,
        prompt_tokens=sum(record.verdict.prompt_tokens for record in records),
        completion_tokens=sum(record.verdict.completion_tokens for record in records),
        seconds=sum(record.seconds for record in records),
    )


def _credits(record: Record) -> list[float]:
    return pair_credits(record.verdict.scores, record.grades)


def _all_credits(records: Sequence[Record]) -> list[float]:
    return [credit for record in records for credit in _credits(record)]


def _over_runs(values: Sequence[float | None]) -> MeanError | None:
    known = [value for value in values if value is not None]
    return mean_over_runs(known) if known else None


def _against_chance(
    interval: Interval | None,
) -> Literal["better", "no better", "worse", "unknown"]:
    if interval is None:
        return "unknown"
    if interval.low > CHANCE:
        return "better"
    return "worse" if interval.high < CHANCE else "no better"


def _user(record: Record) -> str | None:
    return record.user_id


def _group(record: Record) -> str | None:
    return record.group


def _prototype(record: Record) -> str | None:
    return record.verdict.prototype


def _macro(records: Sequence[Record], of: Callable[[Record], str | None]) -> float | None:
    """Mean over groups; records without a group are left out."""
    pairs = [
        (credit, group)
        for record in records
        if (group := of(record)) is not None
        for credit in _credits(record)
    ]
    return macro_mean([credit for credit, _ in pairs], [group for _, group in pairs])


def _groups(records: Sequence[Record]) -> dict[str, float]:
    """Accuracy by group, all runs together."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.group is not None:
            found[record.group] += _credits(record)
    return {
        group: mean
        for group, credits in sorted(found.items())
        if (mean := micro_mean(credits)) is not None
    }


def _by_samples(records: Sequence[Record]) -> dict[int, float]:
    """Accuracy of the plain mean of the first k samples, k = 1, 2, 4, ... and all."""
    most = max((len(record.verdict.totals) for record in records), default=0)
    sizes = sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | {most})
    found = {}
    for size in sizes if most > 1 else ():
        credits = []
        for record in records:
            first = [
                [np.nan if score is None else score for score in sample]
                for sample in record.verdict.totals[:size]
            ]
            if first and not np.isnan(first).any():
                credits += pair_credits(np.mean(first, axis=0).tolist(), record.grades)
        mean = micro_mean(credits)
        if mean is not None:
            found[size] = mean
    return found


def _mean_of(
    records: Sequence[Record], measure: Callable[[Scores, Sequence[float]], float | None]
) -> float | None:
    """Mean over the questions with more than two candidates for which `measure` is defined."""
    values = [
        value
        for record in records
        if len(record.grades) > 2
        and (value := measure(record.verdict.scores, record.grades)) is not None
    ]
    return float(np.mean(values)) if values else None


def _system_spearman(records: Sequence[Record]) -> float | None:
    ids = {frozenset(record.candidates) for record in records}
    if len(ids) != 1 or len(next(iter(ids))) < 3:
        return None
    scores: defaultdict[str, list[float]] = defaultdict(list)
    grades: defaultdict[str, list[float]] = defaultdict(list)
    for record in records:
        for one, score, grade in zip(
            record.candidates, record.verdict.scores, record.grades, strict=True
        ):
            if score is not None:
                scores[one].append(score)
                grades[one].append(grade)
    return spearman(
        [float(np.mean(scores[one])) for one in sorted(scores)],
        [float(np.mean(grades[one])) for one in sorted(scores)],
    )


def _pairs_as_shown(records: Sequence[Record]) -> list[tuple[float, bool]]:
    """(credit, whether the better answer was shown before the worse) of every sample's pairs."""
    found: list[tuple[float, bool]] = []
    for record in records:
        pairs = graded_pairs(record.grades)
        for order, totals in zip(record.verdict.orders, record.verdict.totals, strict=True):
            before = [order.index(better) < order.index(worse) for better, worse in pairs]
            found += zip(pair_credits(totals, record.grades), before, strict=True)
    return found
