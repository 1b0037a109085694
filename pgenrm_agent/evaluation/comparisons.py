"""From records to comparisons: the credits that every figure is counted from."""

from __future__ import annotations

from collections.abc import Iterable

from pgenrm_agent.evaluation.metrics import graded_pairs, pair_credits
from pgenrm_agent.evaluation.records import Record

__all__ = ["credits_of", "sample_credits", "samples_as_shown", "slip_share"]


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
