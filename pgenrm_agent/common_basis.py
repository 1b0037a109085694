"""Which chains and candidates are compared, where not every chain scores every candidate.

A strict chain is strict with all. If it leaves one candidate out, that one would be compared on the
mild chains and the rest on all: so candidates are compared on chains that are complete over them.
Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from pgenrm_agent.schema import EvaluationChain

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
    one by one, the candidate with the fewest totals, as long as somebody has fewer than two chains
    that are complete over those that remain, or none of a level that scored them; among as few, the
    last one.
    """
    shown = Counter(candidate_ids[place] for chain in chains for place in chain.order)
    scored = Counter(candidate_id for chain in chains for candidate_id in chain.totals)
    left_out = {
        candidate_id: f"only {scored[candidate_id]} of {shown[candidate_id]} usable chains have scored it"
        if scored[candidate_id]
        else ""
        for candidate_id in candidate_ids
        if shown[candidate_id] and scored[candidate_id] < FEWEST * shown[candidate_id]
    }

    covering: defaultdict[str, list[EvaluationChain]] = defaultdict(list)
    for chain in chains:
        for candidate_id in chain.totals:
            covering[candidate_id].append(chain)

    def missing_in(chain: EvaluationChain) -> set[str]:
        return (
            {candidate_ids[place] for place in chain.order} - chain.totals.keys() - left_out.keys()
        )

    while True:
        complete = tuple(
            chain
            for chain in chains
            if not missing_in(chain) and chain.totals.keys() - left_out.keys()
        )
        compared = [name for name in candidate_ids if shown[name] and name not in left_out]
        kept = set(map(id, complete))
        short = {
            name
            for name in compared
            if _is_short(covering[name], [chain for chain in covering[name] if id(chain) in kept])
        }
        # Only who is missing where somebody else is scored stands in their way.
        in_the_way = {
            name for chain in chains if chain.totals.keys() & short for name in missing_in(chain)
        }
        if not in_the_way or len(compared) < 2:
            return CommonBasis(complete, left_out)
        rarest = min(
            (name for name in reversed(compared) if name in in_the_way),
            key=lambda name: scored[name] / shown[name],
        )
        left_out[rarest] = (
            f"too few chains have scored it together with the others: {scored[rarest]} of"
            f" {shown[rarest]} usable ones have scored it at all"
        )


def _is_short(covering: Sequence[EvaluationChain], complete: Sequence[EvaluationChain]) -> bool:
    """Whether too few of the chains that scored a candidate would count."""
    there = Counter(chain.level for chain in covering)
    kept = Counter(chain.level for chain in complete)
    enough = min(ENOUGH, there.total())
    return kept.total() < enough or any(not kept[level] for level in there)
