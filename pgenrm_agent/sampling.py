"""Which chains to sample: for whom, over which candidates, in which answer order, with which seed.

Pure: a plan is a function of its arguments, and the same arguments give the same plan on every
machine. Planning follows the paper's user-based scaling (Eq. 8) and adds what it leaves out: the
answer order is varied *within* one evaluation, so that position bias cancels in the mean.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.schema import Level

# Chains that share an answer order share one encoded prompt. More orders cancel position bias a
# little better and cost one more prompt each; with four cyclic shifts every candidate has been
# near the start, the middle and the end.
MAX_ORDERS = 4

MAX_PLANNED = 65_536
"""Most chains of one level in an evaluation, its groups of candidates counted."""

# With `stop_when_sure` the budget is spent in up to this many rounds; the first has at least this
# many chains, since fewer settle nothing (`aggregation.FEWEST_TO_HOLD`).
ROUNDS = 4
FEWEST_IN_FIRST_ROUND = 4


@dataclass(frozen=True, slots=True)
class PlannedChain:
    """One chain to sample. `order[k]` is the request's index of the candidate shown k-th."""

    level: Level
    signals_of: str
    order: tuple[int, ...]
    seed: int


def plan_rounds(individual: int, prototype: int) -> tuple[tuple[int, int], ...]:
    """The budget in rounds: how many chains of each level are there after round 1, 2, ...

    Levels grow in proportion; the last entry is the whole budget.
    """
    rounds = [
        (-(-individual * turn // ROUNDS), -(-prototype * turn // ROUNDS))
        for turn in range(1, ROUNDS + 1)
    ]
    enough = [size for size in rounds if sum(size) >= FEWEST_IN_FIRST_ROUND] or rounds[-1:]
    return tuple(dict.fromkeys(enough))


def derive_seed(seed: int, *parts: str | int) -> int:
    """A seed in [0, 2**31) that depends on `seed` and every part, equal on all platforms.

    A hash rather than arithmetic, so that neighboring seeds give unrelated streams.
    """
    text = "\x1f".join(str(part) for part in (seed, *parts))
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 2**31


def answer_orders(
    candidates: int, *, wanted: int, seed: int, max_candidates: int | None = None
) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Up to `wanted` rounds; each round shows every candidate once, in one or more groups.

    There is one group where the prompt format has room for all candidates; otherwise the fewest
    groups of nearly equal size (they differ by one at most), dealt anew in every round, so that
    candidates do not always meet the same rivals.

    With one group, the rounds are cyclic shifts of one seeded permutation: with as many rounds as
    candidates each candidate is in each position exactly once, and with fewer the shifts are spaced
    evenly. Two candidates have two orders, larger sets `MAX_ORDERS` at most.

    Raises ConfigurationError for numbers below 1.
    """
    for name, value in (("candidates", candidates), ("wanted", wanted)):
        if value < 1:
            raise ConfigurationError(f"{name} is {value}: pass at least 1")
    if max_candidates is not None and max_candidates < 1:
        raise ConfigurationError(f"max_candidates is {max_candidates}: pass at least 1, or None")

    room = candidates if max_candidates is None else min(max_candidates, candidates)
    groups = -(-candidates // room)
    size = -(-candidates // groups)
    rounds = min(wanted, size, MAX_ORDERS)
    shuffled = random.Random(derive_seed(seed, "order")).sample(range(candidates), candidates)
    return tuple(
        _deal(shuffled, groups=groups, shift=groups * round(turn * size / rounds), turn=turn)
        for turn in range(rounds)
    )


def _deal(
    shuffled: Sequence[int], *, groups: int, shift: int, turn: int
) -> tuple[tuple[int, ...], ...]:
    """Deal the shifted sequence like cards: row p holds what the groups show at position p.

    A shift by whole rows moves candidates to other positions; turning row p by p * `turn` places
    moves them to other groups.
    """
    count = len(shuffled)
    sequence = [shuffled[(place + shift) % count] for place in range(count)]
    hands: list[list[int]] = [[] for _ in range(groups)]
    for position, start in enumerate(range(0, count, groups)):
        row = sequence[start : start + groups]
        for column in range(len(row)):
            hands[column].append(row[(column + turn * position) % len(row)])
    return tuple(tuple(hand) for hand in hands)


def plan_chains(
    signals_of: Sequence[str],
    candidates: int,
    *,
    seed: int,
    level: Level = "individual",
    max_candidates: int | None = None,
) -> tuple[PlannedChain, ...]:
    """Plan one chain per entry of `signals_of` and group of candidates.

    For the individual level, `signals_of` names the person m times; for the prototype level, each
    similar user once (Eq. 8). Every candidate is covered by exactly `len(signals_of)` chains; where
    `max_candidates` is smaller than the number of candidates, each chain covers one group only.

    The rounds of `answer_orders` are dealt in turn, so any first part of the plan is balanced as
    well as it can be, too.

    Raises ConfigurationError for a plan of more than MAX_PLANNED chains.
    """
    if not signals_of:
        return ()
    rounds = answer_orders(
        candidates, wanted=len(signals_of), seed=seed, max_candidates=max_candidates
    )
    planned = len(signals_of) * len(rounds[0])
    if planned > MAX_PLANNED:
        raise ConfigurationError(
            f"{len(signals_of):,} {level} chains for each of {len(rounds[0]):,} groups of candidates"
            f" are {planned:,} texts to sample; at most {MAX_PLANNED:,} are: ask for fewer chains or"
            " fewer candidates"
        )
    return tuple(
        PlannedChain(
            level=level,
            signals_of=owner,
            order=order,
            seed=derive_seed(seed, "chain", level, owner, number, group),
        )
        for number, owner in enumerate(signals_of)
        for group, order in enumerate(rounds[number % len(rounds)])
    )
