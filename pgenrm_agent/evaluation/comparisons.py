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
    """Return one credit a readable sample and comparison that it shows; without any, "not scored"."""
    credits: list[float] = []
    for record in records:
        if record.verdict.totals:
            credits += [gained for gained, _ in samples_as_shown([record])]
        else:
            credits += pair_credits((None,) * len(record.grades), record.grades)
    return credits


def samples_as_shown(records: Iterable[Record]) -> list[tuple[float, bool]]:
    """Return each sample's (credit, whether the better answer was shown first), for position bias.

    Of pairs that it showed: a long list is dealt into groups, and what cannot be used is in none.
    """
    shown: list[tuple[float, bool]] = []
    for record in records:
        pairs = graded_pairs(record.grades)
        for order, totals in zip(record.verdict.orders, record.verdict.totals, strict=True):
            credited = zip(pairs, pair_credits(totals, record.grades), strict=True)
            shown += [
                (gained, order.index(better) < order.index(worse))
                for (better, worse), gained in credited
                if better in order and worse in order
            ]
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
