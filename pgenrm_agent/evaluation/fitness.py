"""Is a judge fit? From its records on obvious cases to a verdict.

A case is right when the preferred candidate alone comes first: a tie, and a candidate without a
score, make it wrong. The cases are the units: what a case is right in over runs is one value, and
the interval is over cases. A judge is

    fit      when the whole 95 % interval is at or above `FIT`
    not fit  when the whole interval is below it
    unsure   when the interval holds it: these cases are too few to tell
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, get_args

import numpy as np

from pgenrm_agent.evaluation.comparisons import (
    contradictory_share,
    credits_of,
    failures_of,
    samples_as_shown,
)
from pgenrm_agent.evaluation.datasets.obvious import ObviousCase, Taste
from pgenrm_agent.evaluation.metrics import (
    Interval,
    position_bias,
    question_credit,
    strict,
    wilson_interval,
)
from pgenrm_agent.evaluation.records import Record
from pgenrm_agent.fields import Model

FIT = 0.8
"""A judge that misses more than one obvious case in five is not to be trusted with other ones."""

Verdict = Literal["fit", "not fit", "unsure"]


class RightShare(Model):
    """In which share of the cases a judge was right, 0-1: the mean over cases of those over runs."""

    right: float
    interval: Interval
    cases: int


class Fitness(Model):
    """What a judge makes of the obvious cases; shares are 0-1.

    every: over all cases. chance: what a judge that draws a candidate would reach.
    splits: by kind of case, in the order of a table.
    tied: share of the answers in which the preferred candidate shares the first place. not_scored:
        in which a candidate has no score. Both are wrong.
    unreadable: share of the samples that could not be used; contradictory: those whose two readings
        disagree, which are among them. None for a judge that samples nothing.
    prefers_first: share of untied comparisons that a single sample decides for the one shown earlier.
    always_missed: ids of the cases that were wrong in every run.
    """

    judge: str
    verdict: Verdict
    every: RightShare
    chance: float
    runs: int
    splits: dict[str, RightShare]
    tied: float
    not_scored: float
    unreadable: float | None
    contradictory: float | None
    prefers_first: float | None
    always_missed: tuple[str, ...]


def assess_fitness(records: Iterable[Record], cases: Sequence[ObviousCase]) -> list[Fitness]:
    """Return what each judge makes of `cases`, in the order in which judges appear.

    records: of questions that were made from the cases; all judges answered all cases.
    """
    by_judge: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_judge[record.judge].append(record)
    return [_fitness(judge, judged, cases) for judge, judged in by_judge.items()]


def _fitness(judge: str, records: Sequence[Record], cases: Sequence[ObviousCase]) -> Fitness:
    by_case: defaultdict[str, list[float]] = defaultdict(list)
    for record in records:
        by_case[record.question].append(question_credit(credits_of([record])))
    right = {case.id: float(np.mean(strict(by_case[case.id]))) for case in cases}
    credits = [value for case in cases for value in by_case[case.id]]
    every = _share(list(right.values()))
    failed = sum(failures_of(records).values())
    sampled = failed + sum(len(record.verdict.totals) for record in records)
    return Fitness(
        judge=judge,
        verdict=_verdict(every.interval),
        every=every,
        chance=float(np.mean([1 / len(case.candidates) for case in cases])),
        runs=len({record.run for record in records}),
        splits={
            name: _share([right[case.id] for case in cases if belongs(case)])
            for name, belongs in _KINDS.items()
            if any(map(belongs, cases))
        },
        tied=sum(value == 0.5 for value in credits) / len(credits),
        not_scored=float(np.isnan(credits).mean()),
        unreadable=failed / sampled if sampled else None,
        contradictory=contradictory_share(records),
        prefers_first=position_bias(samples_as_shown(records)).prefers_first,
        always_missed=tuple(case.id for case in cases if not right[case.id]),
    )


def _verdict(interval: Interval) -> Verdict:
    if interval.low >= FIT:
        return "fit"
    return "not fit" if interval.high < FIT else "unsure"


def _share(right: Sequence[float]) -> RightShare:
    mean = float(np.mean(right))
    return RightShare(right=mean, interval=wilson_interval(mean, len(right)), cases=len(right))


def _few(case: ObviousCase) -> bool:
    return len(case.history) < 3


def _is(group: str, *, few: bool) -> Callable[[ObviousCase], bool]:
    return lambda case: case.group == group and _few(case) == few


def _offers(candidates: int) -> Callable[[ObviousCase], bool]:
    return lambda case: len(case.candidates) == candidates


def _likes(taste: str) -> Callable[[ObviousCase], bool]:
    return lambda case: case.taste == taste


_KINDS: dict[str, Callable[[ObviousCase], bool]] = {
    "30-500 characters, 3 choices": _is("long", few=False),
    "30-500 characters, 1-2 choices": _is("long", few=True),
    "3-70 characters, 3 choices": _is("short", few=False),
    "3-70 characters, 1-2 choices": _is("short", few=True),
    **{f"{count} candidates": _offers(count) for count in (2, 3, 4)},
    **{f"taste: {taste}": _likes(taste) for taste in get_args(Taste)},
}
"""The kinds of cases that are told apart, by the names of the table's lines."""
