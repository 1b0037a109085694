"""Which chains and candidates are compared, where not every chain scores every candidate."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pgenrm_agent.aggregation import aggregate, best_of, rank
from pgenrm_agent.common_basis import common_basis
from pgenrm_agent.schema import EvaluationChain, Level, Persona

IDS = ("c0", "c1", "c2")


def chain(
    *totals: float | None, order: tuple[int, ...] = (0, 1, 2), level: Level = "individual"
) -> EvaluationChain:
    """A chain that was shown the candidates of `order`; None for one without a total."""
    scored = {
        f"c{place}": total for place, total in zip(order, totals, strict=True) if total is not None
    }
    return EvaluationChain(
        level=level,
        signals_of="ada",
        order=order,
        persona=Persona(text="Likes short answers."),
        rubric=None,
        marks={},
        reported=scored,
        totals=scored,
        totals_from="reported",
        text="text",
        tokens=1,
        seed=0,
    )


def test_chains_that_score_everybody_all_count() -> None:
    chains = [chain(5, 6, 7), chain(1, 2, 3)]
    assert common_basis(IDS, chains) == (tuple(chains), {})


def test_a_strict_chain_that_misses_a_candidate_does_not_lift_it() -> None:
    """c2 would lead, on the mild chains alone, although every chain that has it puts it last."""
    mild, strict = chain(9, 8, 7), chain(3, 2, None)
    scores = aggregate(IDS, [mild, mild, strict, strict])
    assert rank(scores) == ("c0", "c1", "c2")
    assert [score.mean for score in scores] == [9, 8, 7]
    assert [score.chains for score in scores] == [2, 2, 2]


def test_a_candidate_does_not_win_because_one_chain_misses_it() -> None:
    """Both are worth the same wherever both are; by all totals it would be 7.0 against 5.0."""
    both, one_missing = chain(7, 7, order=(0, 1)), chain(3, None, order=(0, 1))
    scores = aggregate(IDS[:2], [both, one_missing])
    assert [score.mean for score in scores] == [5.0, None]
    assert scores[1].reason == (
        "too few chains have scored it together with the others: 1 of 2 usable ones have scored it"
        " at all"
    )
    scores = aggregate(IDS[:2], [both, both, one_missing, one_missing])
    assert [score.mean for score in scores] == [7.0, 7.0]
    assert best_of(scores) is None


def test_a_candidate_that_few_chains_score_is_not_scored_and_says_why() -> None:
    chains = [chain(9, 8, 7), chain(3, 2, None), chain(5, 4, None)]
    scores = aggregate(IDS, chains)
    assert [score.outcome for score in scores] == ["scored", "scored", "not_scored"]
    assert scores[2].reason == "only 1 of 3 usable chains have scored it"
    assert scores[0].chains == 3


def test_half_of_the_chains_is_enough() -> None:
    chains = [chain(9, 8, 7), chain(3, 2, None)]
    assert common_basis(IDS, [*chains, *chains]) == ((chains[0], chains[0]), {})


def test_where_each_chain_misses_somebody_else_the_rarest_go_first() -> None:
    chains = [chain(9, 8, None), chain(9, None, 7), chain(9, 8, None)]
    basis = common_basis(IDS, chains)
    assert set(basis.left_out) == {"c2"}
    assert basis.chains == (chains[0], chains[2])


def test_candidates_of_another_group_are_not_missed() -> None:
    chains = [chain(9, 8, order=(0, 1)), chain(7, order=(2,)), chain(6, 5, order=(2, 0))]
    assert common_basis(IDS, chains) == (tuple(chains), {})


def test_a_group_in_which_each_chain_misses_somebody_keeps_whom_it_can() -> None:
    """Complete chains of the first group do not make up for those that the second lacks."""
    names = tuple(f"c{number}" for number in range(8))
    whole = [chain(5, 6, 7, 8, order=(0, 1, 2, 3)) for _ in range(4)]
    gaps = [
        chain(*(None if place == gap else 5 for place in range(4)), order=(4, 5, 6, 7))
        for gap in range(4)
    ]
    basis = common_basis(names, [*whole, *gaps])
    assert set(basis.left_out) == {"c6", "c7"}
    assert [score.outcome for score in aggregate(names, [*whole, *gaps])].count("scored") == 6


def test_the_users_own_chains_are_not_outvoted_by_complete_neighbors() -> None:
    own = [chain(*(None if place == gap else 3 for place in range(3))) for gap in (0, 1, 2)] * 3
    neighbors = [chain(9, 9, 9, level="prototype") for _ in range(2)]
    scores = aggregate(IDS, [*own, *neighbors])
    scored = [score for score in scores if score.outcome == "scored"]
    assert len(scored) == 2
    assert all(score.individual_mean == 3 for score in scored)


def test_a_chain_that_scores_only_who_is_left_out_explains_nothing() -> None:
    chains = [chain(9, 8, None), chain(9, 8, None), chain(9, 8, None), chain(None, None, 5)]
    assert common_basis(IDS, chains).chains == tuple(chains[:3])


def test_what_no_chain_scores_has_the_failures_for_a_reason() -> None:
    basis = common_basis(IDS, [chain(9, 8, None)])
    assert basis.left_out == {"c2": ""}
    assert aggregate(IDS, [chain(9, 8, None)])[2].reason


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.lists(st.one_of(st.floats(1, 10), st.none()), min_size=3, max_size=3), max_size=8)
)
def test_every_chain_that_counts_is_complete_over_what_is_compared(
    table: list[list[float | None]],
) -> None:
    chains = [chain(*row) for row in table if any(total is not None for total in row)]
    basis = common_basis(IDS, chains)
    compared = [name for name in IDS if name not in basis.left_out]
    for kept in basis.chains:
        assert all(name in kept.totals for name in compared)
    assert bool(basis.chains) == bool(chains and compared)
    scored = [score for score in aggregate(IDS, chains) if score.outcome == "scored"]
    assert bool(scored) == bool(basis.chains)
