"""From records to comparisons: the credits that every figure is counted from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from pgenrm_agent.evaluation.metrics import graded_pairs, pair_credits
from pgenrm_agent.evaluation.records import Record

CONTRADICTORY = "contradictory"
"""Reason of a chain whose two readings, marks by weights and its own totals, do not agree."""


def credits_of(records: Iterable[Record]) -> list[float]:
    """Return one credit a comparison, record by record."""
    return [
        credit
        for record in records
        for credit in pair_credits(record.verdict.scores, record.grades)
    ]


def sample_credits(records: Iterable[Record]) -> list[float]:
    """Return one credit a comparison and readable sample; of a record without any, "not scored"."""
    return [
        credit
        for record in records
        for totals in record.verdict.totals or [(None,) * len(record.grades)]
        for credit in pair_credits(totals, record.grades)
    ]


def samples_as_shown(records: Iterable[Record]) -> list[tuple[float, bool]]:
    """Return each sample's (credit, whether the better answer was shown first), for position bias."""
    shown: list[tuple[float, bool]] = []
    for record in records:
        pairs = graded_pairs(record.grades)
        for order, totals in zip(record.verdict.orders, record.verdict.totals, strict=True):
            first = [order.index(better) < order.index(worse) for better, worse in pairs]
            shown += zip(pair_credits(totals, record.grades), first, strict=True)
    return shown


def slip_share(records: Iterable[Record]) -> float | None:
    """Return the share of the model's own totals that its marks do not give; None without any."""
    verdicts = [record.verdict for record in records]
    compared = sum(verdict.compared for verdict in verdicts)
    return sum(verdict.slips for verdict in verdicts) / compared if compared else None


def failures_of(records: Iterable[Record]) -> dict[str, int]:
    """Return how many samples could not be used, by reason."""
    failures: Counter[str] = Counter()
    for record in records:
        failures.update(record.verdict.failures)
    return dict(sorted(failures.items()))


def contradictory_share(records: Sequence[Record]) -> float | None:
    """Return the share of all samples whose marks and totals disagreed; None without samples."""
    failures = failures_of(records)
    sampled = sum(failures.values()) + sum(len(record.verdict.totals) for record in records)
    return failures.get(CONTRADICTORY, 0) / sampled if sampled else None


def unchecked_share(records: Iterable[Record]) -> float | None:
    """Return the share of readable chains that had one reading only; None without chains."""
    counted = [
        (record.verdict.unchecked, len(record.verdict.totals))
        for record in records
        if record.verdict.unchecked is not None
    ]
    chains = sum(samples for _, samples in counted)
    return sum(unchecked for unchecked, _ in counted) / chains if chains else None
