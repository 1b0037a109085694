"""What a chain says, whichever way it was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from pgenrm_agent.errors import ChainError
from pgenrm_agent.fields import Model
from pgenrm_agent.schema import Criterion, Persona, Rubric

MARK_LOW, MARK_HIGH = 1, 10


class ParsedChain(Model):
    """What a chain says. Keys are candidate ids; see `EvaluationChain` for the other fields.

    totals_from: "marks" for marks x weights, with which the totals that the model wrote agree;
        "reported" for those alone, unchecked.
    notes: what the model worked out before the persona, where its format has a place for it.
    reasons: why a candidate got its marks, where the chain says so.
    missing: candidates without a total.
    """

    persona: Persona
    rubric: Rubric | None
    marks: dict[str, tuple[float | None, ...]]
    reported: dict[str, float]
    totals: dict[str, float]
    totals_from: Literal["marks", "reported"]
    reasons: dict[str, str] = Field(default_factory=dict)
    notes: str = ""
    repairs: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def incomplete(self) -> ChainError | None:
        """Why the chain does not count; None where it does.

        A chain counts with a mark for every candidate and criterion. One that gives totals for all
        and no marks at all counts, too, unchecked.

        The reason is "missing_candidates" or "missing_marks".
        """
        if self.missing:
            told = f"no total for {', '.join(self.missing)}"
            return ChainError(told, reason="missing_candidates")
        if not self.marks or self.rubric is None:
            return None
        nothing: tuple[None, ...] = (None,) * len(self.rubric.criteria)
        gaps = [
            f"{candidate_id} on {criterion.name}"
            for candidate_id in self.totals
            for criterion, mark in zip(
                self.rubric.criteria, self.marks.get(candidate_id, nothing), strict=True
            )
            if mark is None
        ]
        if not gaps:
            return None
        return ChainError(f"no mark for {', '.join(gaps)}", reason="missing_marks")


def weighted_total(criteria: Sequence[Criterion], row: Sequence[float | None]) -> float | None:
    """sum(weight * mark) / sum(weight) over the marked criteria (Eq. 2).

    None where nothing that weighs anything is marked.
    """
    share = total = 0.0
    for criterion, mark in zip(criteria, row, strict=True):
        if mark is not None:
            share += criterion.weight
            total += criterion.weight * mark
    return min(MARK_HIGH, max(MARK_LOW, total / share)) if share else None


def complete_totals(
    criteria: Sequence[Criterion], marks: Mapping[str, Sequence[float | None]]
) -> dict[str, float]:
    """Return the totals of the candidates that have a mark for every criterion."""
    return {
        candidate_id: total
        for candidate_id, row in marks.items()
        if None not in row and (total := weighted_total(criteria, row)) is not None
    }
