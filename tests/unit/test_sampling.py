"""The plan of chains: who, in which answer order, with which seed."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.sampling import (
    MAX_ORDERS,
    MAX_PLANNED,
    answer_orders,
    derive_seed,
    plan_chains,
    plan_rounds,
)

seeds = st.integers(min_value=0, max_value=2**31 - 1)


def positions(plan: tuple[tuple[int, ...], ...]) -> Counter[tuple[int, int]]:
    """How often each (candidate, position) occurs."""
    return Counter((candidate, place) for order in plan for place, candidate in enumerate(order))


@given(chains=st.integers(1, 40), candidates=st.integers(1, 24), seed=seeds)
def test_every_chain_shows_every_candidate_once_when_there_is_room(
    chains: int, candidates: int, seed: int
) -> None:
    plan = plan_chains(["ada"] * chains, candidates, seed=seed)
    assert len(plan) == chains
    assert all(sorted(chain.order) == list(range(candidates)) for chain in plan)


@given(times=st.integers(1, 8), candidates=st.integers(2, MAX_ORDERS), seed=seeds)
def test_each_candidate_is_in_each_position_equally_often(
    times: int, candidates: int, seed: int
) -> None:
    plan = plan_chains(["ada"] * (times * candidates), candidates, seed=seed)
    counts = positions(tuple(chain.order for chain in plan))
    assert counts == {
        (candidate, place): times for candidate in range(candidates) for place in range(candidates)
    }


@given(chains=st.integers(1, 30), candidates=st.integers(2, MAX_ORDERS), seed=seeds)
def test_positions_differ_by_one_at_most_for_any_number_of_chains(
    chains: int, candidates: int, seed: int
) -> None:
    plan = plan_chains(["ada"] * chains, candidates, seed=seed)
    counts = positions(tuple(chain.order for chain in plan))
    seen = [
        counts[candidate, place] for candidate in range(candidates) for place in range(candidates)
    ]
    assert max(seen) - min(seen) <= 1


@given(chains=st.integers(MAX_ORDERS, 30), candidates=st.integers(5, 30), seed=seeds)
def test_large_sets_spread_each_candidate_over_the_whole_list(
    chains: int, candidates: int, seed: int
) -> None:
    rounds = answer_orders(candidates, wanted=chains, seed=seed)
    assert len(rounds) == MAX_ORDERS
    for candidate in range(candidates):
        places = sorted(order.index(candidate) for (order,) in rounds)
        gaps = [b - a for a, b in pairwise(places)]
        assert min(gaps) >= candidates // MAX_ORDERS


@given(chains=st.integers(1, 64), candidates=st.integers(1, 24), seed=seeds)
def test_few_distinct_orders_so_that_encoded_prompts_are_shared(
    chains: int, candidates: int, seed: int
) -> None:
    plan = plan_chains(["ada"] * chains, candidates, seed=seed)
    assert len({chain.order for chain in plan}) <= min(candidates, MAX_ORDERS, chains)


@given(
    chains=st.integers(1, 12),
    candidates=st.integers(1, 30),
    room=st.integers(1, 8),
    seed=seeds,
)
def test_groups_cover_every_candidate_in_every_round(
    chains: int, candidates: int, room: int, seed: int
) -> None:
    plan = plan_chains(["ada"] * chains, candidates, seed=seed, max_candidates=room)
    covered = Counter(candidate for chain in plan for candidate in chain.order)
    assert covered == dict.fromkeys(range(candidates), chains)
    sizes = [len(chain.order) for chain in plan]
    assert max(sizes) <= room
    assert max(sizes) - min(sizes) <= 1
    assert len(plan) == chains * -(-candidates // room)
    assert all(len(set(chain.order)) == len(chain.order) for chain in plan)


def test_a_plan_that_nobody_could_wait_for_is_refused() -> None:
    assert len(plan_chains(["ada"] * 256, 1024, seed=1, max_candidates=4)) == MAX_PLANNED
    with pytest.raises(ConfigurationError, match=r"1,024 individual chains .* 262,144 texts"):
        plan_chains(["ada"] * 1024, 1024, seed=1, max_candidates=4)


def test_groups_are_dealt_anew_so_that_rivals_change() -> None:
    rounds = answer_orders(8, wanted=4, seed=1, max_candidates=4)
    groupings = {frozenset(frozenset(group) for group in groups) for groups in rounds}
    assert len(groupings) > 1


@given(candidates=st.sampled_from([8, 12, 16, 20]), seed=seeds)
def test_groups_of_four_keep_positions_balanced(candidates: int, seed: int) -> None:
    plan = plan_chains(["ada"] * 4, candidates, seed=seed, max_candidates=4)
    counts = positions(tuple(chain.order for chain in plan))
    assert counts == {
        (candidate, place): 1 for candidate in range(candidates) for place in range(4)
    }


def test_the_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    plan = plan_chains(["ada"] * 8, 4, seed=7)
    assert plan == plan_chains(["ada"] * 8, 4, seed=7)
    assert plan != plan_chains(["ada"] * 8, 4, seed=8)


def test_seeds_differ_between_chains_and_are_the_same_on_every_machine() -> None:
    plan = plan_chains(["ada"] * 64, 6, seed=0, max_candidates=3)
    assert len({chain.seed for chain in plan}) == len(plan)
    assert derive_seed(0) == 1137565557
    assert derive_seed(7, "chain", "individual", "ada", 0, 0) == 992165999


def test_a_longer_plan_begins_with_the_shorter_one_of_as_many_orders() -> None:
    assert plan_chains(["ada"] * 16, 3, seed=5)[:8] == plan_chains(["ada"] * 8, 3, seed=5)


def test_neighbors_get_one_chain_each_in_balanced_orders() -> None:
    plan = plan_chains(["u1", "u2", "u3", "u4"], 2, seed=3, level="prototype")
    assert [chain.signals_of for chain in plan] == ["u1", "u2", "u3", "u4"]
    assert {chain.level for chain in plan} == {"prototype"}
    assert set(Counter(chain.order for chain in plan).values()) == {2}


def test_nobody_to_sample_for_is_an_empty_plan() -> None:
    assert plan_chains([], 3, seed=1) == ()


def test_numbers_below_one_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="candidates is 0"):
        plan_chains(["ada"], 0, seed=1)
    with pytest.raises(ConfigurationError, match="max_candidates is 0"):
        plan_chains(["ada"], 2, seed=1, max_candidates=0)


@given(individual=st.integers(0, 64), prototype=st.integers(0, 32))
def test_rounds_grow_to_the_whole_budget(individual: int, prototype: int) -> None:
    rounds = plan_rounds(individual, prototype)
    assert rounds[-1] == (individual, prototype)
    assert len(rounds) <= 4
    assert list(rounds) == sorted(set(rounds))
    assert sum(rounds[0]) >= min(4, individual + prototype)
