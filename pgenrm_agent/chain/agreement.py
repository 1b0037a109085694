"""Compare two readings of a chain: what marks and weights come to, and the totals that the model wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pgenrm_agent.chain.parsed import weighted_total
from pgenrm_agent.errors import ChainError
from pgenrm_agent.schema import Criterion

FURTHEST = 1.0
"""How far a total that the model wrote may be from marks x weights."""
CLEAR_GAP = 0.5
"""From here on a difference of two totals is an order, which both readings have to share."""


def compare_readings(
    criteria: Sequence[Criterion],
    marks: Mapping[str, Sequence[float | None]],
    reported: Mapping[str, float],
) -> None:
    """Compare what the marks come to, over the criteria that are marked, with the reported totals.

    Raises ChainError "contradictory" where they differ too far, or order two candidates otherwise.
    """
    pairs: list[tuple[float, float, str]] = []
    for candidate_id, row in marks.items():
        total = weighted_total(criteria, row)
        if total is None or candidate_id not in reported:
            continue
        own = reported[candidate_id]
        if abs(total - own) > FURTHEST:
            raise ChainError(
                f"the marks of candidate {candidate_id} come to {total:.2f}, and the model's own total"
                f" for it is {own:g}; one of the two was read or worked out wrong",
                reason="contradictory",
            )
        pairs.append((total, own, candidate_id))
    pairs.sort()
    # Behind each candidate, the highest total among those whose marks are clearly lower.
    behind = 0
    highest: tuple[float, float, str] | None = None
    for total, own, candidate_id in pairs:
        while total - pairs[behind][0] > CLEAR_GAP:
            if highest is None or pairs[behind][1] > highest[1]:
                highest = pairs[behind]
            behind += 1
        if highest and highest[1] - own > CLEAR_GAP:
            raise ChainError(
                f"the marks put candidate {candidate_id} ({total:.2f}) before {highest[2]}"
                f" ({highest[0]:.2f}), and the model's own totals put it behind ({own:g} and"
                f" {highest[1]:g}); one of the two was read or worked out wrong",
                reason="contradictory",
            )


def check_winner(winner: str | None, totals: Mapping[str, float]) -> None:
    """Compare the candidate that the model calls the best one, if it does, with the totals.

    Raises ChainError "contradictory" where another one is clearly better.
    """
    if (
        winner is not None
        and winner in totals
        and max(totals.values()) - totals[winner] > CLEAR_GAP
    ):
        raise ChainError(
            f"the model calls candidate {winner} the best one, and its scores do not",
            reason="contradictory",
        )
