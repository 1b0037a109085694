"""Which chains and candidates are compared, where not every chain scores every candidate.

A strict chain is strict with all. If it leaves one candidate out, that one would be compared on the
mild chains and the rest on all: so candidates are compared on chains that are complete over them.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pgenrm_agent.schema import EvaluationChain

__all__ = ["CommonBasis", "common_basis"]

FEWEST = 0.5
"""Least share of the chains shown a candidate that must score it."""
ENOUGH = 2
"""Chains that tell how far they differ."""


class CommonBasis(NamedTuple):
    """The chains that count, and the candidates that cannot be compared.

    left_out: why a candidate is compared with no other, by its id; empty for one that no chain has
    scored.
    """

    chains: tuple[EvaluationChain, ...]
    left_out: dict[str, str]


def common_basis(candidate_ids: Sequence[str], chains: Sequence[EvaluationChain]) -> CommonBasis:
    """Return the chains on which the candidates are compared.

    A candidate that fewer than half of the usable chains shown it have scored is left out. So is,
    one by one, the candidate with the fewest totals, as long as fewer than two chains are complete
    over those that remain; among as few, the last one.
    """
    shown: dict[str, int] = dict.fromkeys(candidate_ids, 0)
    scored: dict[str, int] = dict.fromkeys(candidate_ids, 0)
    for chain in chains:
        for place in chain.order:
            shown[candidate_ids[place]] += 1
        for candidate_id in chain.totals:
            scored[candidate_id] += 1
    left_out = {
        candidate_id: f"only {scored[candidate_id]} of {count} usable chains have scored it"
        if scored[candidate_id]
        else ""
        for candidate_id, count in shown.items()
        if count and scored[candidate_id] < FEWEST * count
    }
    while True:
        complete = tuple(
            chain
            for chain in chains
            if all(
                candidate_ids[place] in chain.totals or candidate_ids[place] in left_out
                for place in chain.order
            )
            and any(candidate_id not in left_out for candidate_id in chain.totals)
        )
        remaining = [name for name in candidate_ids if shown[name] and name not in left_out]
        if len(complete) >= min(ENOUGH, len(chains)) or len(remaining) < 2:
            return CommonBasis(complete, left_out)
        rarest = min(reversed(remaining), key=lambda name: scored[name] / shown[name])
        if scored[rarest] == shown[rarest]:
            return CommonBasis(complete, left_out)
        left_out[rarest] = (
            f"too few chains have scored it together with the others: {scored[rarest]} of"
            f" {shown[rarest]} usable ones have scored it at all"
        )
