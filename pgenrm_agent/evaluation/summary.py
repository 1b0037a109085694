"""From records to one table: what each judge achieved, and what one gains over another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.comparisons import (
    contradictory_share,
    credits_of,
    failures_of,
    sample_credits,
    samples_as_shown,
    slip_share,
    unchecked_share,
)
from pgenrm_agent.evaluation.list_metrics import kendall, ndcg, spearman
from pgenrm_agent.evaluation.metrics import (
    CHANCE,
    Accuracy,
    Difference,
    Interval,
    MeanError,
    PositionBias,
    Reliability,
    Scores,
    bootstrap_interval,
    macro_mean,
    mean_error,
    micro_mean,
    pair_credits,
    paired_difference,
    position_bias,
    reliability,
    strict,
    top_label,
)
from pgenrm_agent.evaluation.records import Record
from pgenrm_agent.fields import Model

BOOTSTRAP_SEED = 0


class JudgeSummary(Model):
    """One row of the table. Accuracies and shares are 0-1; means are over independent runs.

    strict, accuracy, coverage: as `metrics` defines them; the headline is `strict`.
    interval: of `strict`, from resampling users.
    against_chance: whether the interval lies above 50 %, holds it, or lies below it; "unknown"
        with fewer than FEWEST_USERS users.
    macro_user, macro_group, macro_prototype: mean of the accuracies of users, of groups and of
        prototypes.
    comparisons, ties, not_scored: by comparison and run. failed_samples: those that could not be used,
        by reason. contradictory: share of all samples whose marks and totals disagree, which are
        among the failed. unchecked: share of readable chains that had totals and no marks.
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
    strict: MeanError
    interval: Interval | None
    against_chance: Literal["better", "no better", "worse", "unknown"]
    accuracy: MeanError | None
    coverage: float
    macro_user: MeanError | None
    macro_group: MeanError | None
    macro_prototype: MeanError | None
    groups: dict[str, float]
    ties: int
    not_scored: int
    samples: int
    failed_samples: dict[str, int]
    contradictory: float | None
    unchecked: float | None
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
    """Return one summary a judge, the most accurate first.

    Raises ConfigurationError without any record.
    """
    by_judge: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_judge[record.judge].append(record)
    if not by_judge:
        raise ConfigurationError("there are no records to summarize: nothing was judged")
    rows = [_summary(name, judged) for name, judged in by_judge.items()]
    return sorted(rows, key=lambda row: (-row.strict.mean, row.judge))


def compare(first: Sequence[Record], second: Sequence[Record], *, seed: int = 0) -> Difference:
    """Return what one judge gains over another on the comparisons that both were asked for.

    A comparison's credit is the mean of its strict credits over runs.

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
    ours, theirs = _strict_by_comparison(first), _strict_by_comparison(second)
    shared = [comparison for comparison in ours if comparison in theirs]
    if not shared:
        raise ConfigurationError(
            "the two results have no question in common: compare results on the same data"
        )
    users = {record.question: record.user_id for record in first}
    return paired_difference(
        [ours[comparison] for comparison in shared],
        [theirs[comparison] for comparison in shared],
        [users[question] for question, _ in shared],
        seed=seed,
    )


def strict_interval(records: Sequence[Record]) -> tuple[float, Interval | None]:
    """Return a judge's strict accuracy over comparisons, 0-1, and its interval over users."""
    comparisons = _strict_by_comparison(records)
    users = {record.question: record.user_id for record in records}
    right = list(comparisons.values())
    owners = [users[question] for question, _ in comparisons]
    return float(np.mean(right)), bootstrap_interval(right, owners, seed=BOOTSTRAP_SEED)


def _about(record: Record) -> tuple[object, ...]:
    return record.user_id, record.group, record.candidates, record.grades


def _strict_by_comparison(records: Sequence[Record]) -> dict[tuple[str, int], float]:
    """Return the mean over runs, by question and number of the comparison in it."""
    by_comparison: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    for record in records:
        for number, value in enumerate(strict(credits_of([record]))):
            by_comparison[record.question, number].append(value)
    return {key: float(np.mean(values)) for key, values in by_comparison.items()}


def _summary(name: str, records: Sequence[Record]) -> JudgeSummary:
    # In a fixed order, so that sums do not depend on which question was answered first.
    records = sorted(records, key=lambda record: record.key)
    by_run: defaultdict[int, list[Record]] = defaultdict(list)
    for record in records:
        by_run[record.run].append(record)
    runs = list(by_run.values())
    _, interval = strict_interval(records)
    users = {record.question: record.user_id for record in records}
    accuracy = Accuracy.over([Accuracy.of(credits_of(run)) for run in runs])
    told = [
        label
        for record in records
        if (label := top_label(record.verdict.probability_best, record.grades)) is not None
    ]
    return JudgeSummary(
        judge=name,
        questions=len(users),
        users=len(set(users.values())),
        runs=len(runs),
        comparisons=accuracy.comparisons,
        strict=accuracy.strict,
        interval=interval,
        against_chance=_against_chance(interval),
        accuracy=accuracy.accuracy,
        coverage=accuracy.coverage,
        macro_user=_over_runs([_macro(run, _user) for run in runs]),
        macro_group=_over_runs([_macro(run, _group) for run in runs]),
        macro_prototype=_over_runs([_macro(run, _prototype) for run in runs]),
        groups=_groups(records),
        ties=accuracy.ties,
        not_scored=int(np.isnan(credits_of(records)).sum()),
        samples=sum(len(record.verdict.totals) for record in records),
        failed_samples=failures_of(records),
        contradictory=contradictory_share(records),
        unchecked=unchecked_share(records),
        one_sample=micro_mean(sample_credits(records)),
        by_samples=_by_samples(records),
        kendall=_over_runs([_mean_of(run, kendall) for run in runs]),
        ndcg=_over_runs([_mean_of(run, ndcg) for run in runs]),
        spearman=_over_runs([_mean_of(run, spearman) for run in runs]),
        system_spearman=_over_runs([_system_spearman(run) for run in runs]),
        calibration=reliability([sure for sure, _ in told], [right for _, right in told]),
        position=position_bias(samples_as_shown(records)),
        slips=slip_share(records),
        prompt_tokens=sum(record.verdict.prompt_tokens for record in records),
        completion_tokens=sum(record.verdict.completion_tokens for record in records),
        seconds=sum(record.seconds for record in records),
    )


def _over_runs(values: Sequence[float | None]) -> MeanError | None:
    known = [value for value in values if value is not None]
    return mean_error(known) if known else None


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
        for credit in credits_of([record])
    ]
    return macro_mean([credit for credit, _ in pairs], [group for _, group in pairs])


def _groups(records: Sequence[Record]) -> dict[str, float]:
    """Accuracy by group, all runs together."""
    by_group: defaultdict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.group is not None:
            by_group[record.group] += credits_of([record])
    return {
        group: mean
        for group, credits in sorted(by_group.items())
        if (mean := micro_mean(credits)) is not None
    }


def _by_samples(records: Sequence[Record]) -> dict[int, float]:
    """Accuracy of the plain mean of the first k samples, k = 1, 2, 4, ... and all."""
    most = max((len(record.verdict.totals) for record in records), default=0)
    sizes = sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | {most})
    accuracies = {}
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
            accuracies[size] = mean
    return accuracies


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
        for candidate, score, grade in zip(
            record.candidates, record.verdict.scores, record.grades, strict=True
        ):
            if score is not None:
                scores[candidate].append(score)
                grades[candidate].append(grade)
    return spearman(
        [float(np.mean(scores[candidate])) for candidate in sorted(scores)],
        [float(np.mean(grades[candidate])) for candidate in sorted(scores)],
    )
