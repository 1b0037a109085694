"""What a chain says, whichever way it was written."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pgenrm_agent.schema import Model, Persona, Rubric

__all__ = ["ParsedChain"]


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
