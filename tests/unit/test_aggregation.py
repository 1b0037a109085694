"""From chains to scores: Eq. 9, spread, chance of being best, ranking."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgenrm_agent.aggregation import aggregate, best_of, count_reasons, leader_holds, rank
from pgenrm_agent.confidence import ChainNoise
from pgenrm_agent.schema import CandidateScore, ChainFailure, EvaluationChain, Level, Persona

Table = list[list[float | None]]

SPREAD_ALONE = ChainNoise(chains=1e-9, spread=1.0, bias=0.0, lapse=0.0)
"""Nothing is known of chains beforehand."""


def chain(
    totals: dict[str, float], level: Level = "individual", owner: str = "someone"
) -> EvaluationChain:
    return EvaluationChain(
        level=level,
        signals_of=owner,
        order=tuple(int(name.removeprefix("c")) for name in totals),
        persona=Persona(text="Likes short answers."),
        rubric=None,
        marks={},
        reported={},
        totals=totals,
        totals_from="reported",
        text="text",
        tokens=1,
        seed=0,
    )


def chains(
    table: Sequence[Sequence[float | None]], level: Level = "individual"
) -> list[EvaluationChain]:
    """One chain a row: all of the user themselves, or each of another neighbor."""
    return [
        chain(
            {f"c{i}": total for i, total in enumerate(row) if total is not None},
            level,
            "someone" if level == "individual" else f"neighbor-{number}",
        )
        for number, row in enumerate(table)
    ]


def failure(reason: str) -> ChainFailure:
    return ChainFailure(
        signals_of="someone", reason=reason, message="no", text="", tokens=0, seed=0, attempt=0
    )


def means(scores: Sequence[CandidateScore]) -> list[float | None]:
    return [score.mean for score in scores]


@st.composite
def tables(draw: st.DrawFn, columns: int, *, gaps: bool = True) -> Table:
    total = st.floats(1, 10, allow_nan=False)
    entry = st.one_of(total, total, total, st.none()) if gaps else total
    return draw(st.lists(st.lists(entry, min_size=columns, max_size=columns), max_size=9))


@settings(deadline=None, max_examples=60)
@given(data=st.data(), columns=st.integers(1, 5))
def test_means_and_errors_agree_with_an_independent_computation(
    data: st.DataObject, columns: int
) -> None:
    individual = data.draw(tables(columns, gaps=False))
    prototype = data.draw(tables(columns, gaps=False))
    ids = [f"c{i}" for i in range(columns)]
    scores = aggregate(ids, chains(individual) + chains(prototype, "prototype"))
    for column, score in enumerate(scores):
        mine = [row[column] for row in individual if row[column] is not None]
        theirs = [row[column] for row in prototype if row[column] is not None]
        levels = [np.asarray(level, dtype=np.float64) for level in (mine, theirs) if level]
        if not levels:
            assert score.outcome == "not_scored"
            continue
        # Eq. 9, divided by the number of levels present; a single neighbor has a quarter.
        shares = [1 / len(levels)] * len(levels)
        if len(levels) == 2 and len(theirs) == 1:
            shares = [3 / 4, 1 / 4]
        expected = sum(share * np.mean(x) for share, x in zip(shares, levels, strict=True))
        assert score.mean == pytest.approx(expected, abs=1e-9)
        assert score.chains == sum(len(x) for x in levels)
        spreads = [np.var(x, ddof=1) if len(x) > 1 else None for x in levels]
        known = [spread for spread in spreads if spread is not None]
        if not known:
            assert score.standard_error is None
            continue
        squared = sum(
            share**2 * (known[0] if spread is None else spread) / len(x)
            for share, x, spread in zip(shares, levels, spreads, strict=True)
        )
        assert score.standard_error == pytest.approx(math.sqrt(squared), abs=1e-7)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), columns=st.integers(1, 6))
def test_probabilities_of_being_best_sum_to_one_where_all_are_scored(
    data: st.DataObject, columns: int
) -> None:
    table = data.draw(tables(columns))
    scores = aggregate([f"c{i}" for i in range(columns)], chains(table), seed=1)
    chances = [score.probability_best for score in scores if score.probability_best is not None]
    assert all(0 <= chance <= 1 for chance in chances)
    enough = all(score.mean is not None and score.chains >= 2 for score in scores)
    assert len(chances) == (columns if enough else 0)
    if chances:
        assert sum(chances) == pytest.approx(1, abs=1e-9)
        assert max(chances) < 0.995 or columns == 1


def test_levels_weigh_the_same_however_many_chains_they_have() -> None:
    together = chains([[8.0, 2.0]] * 6) + chains([[2.0, 4.0]] * 2, "prototype")
    first, second = aggregate(["c0", "c1"], together)
    assert (first.mean, second.mean) == (5.0, 3.0)
    assert (first.individual_mean, first.prototype_mean) == (8.0, 2.0)
    assert second.chains == 8


@settings(deadline=None, max_examples=80)
@given(data=st.data(), columns=st.integers(1, 4), neighbors=st.integers(1, 9))
def test_one_neighbor_moves_no_mean_by_more_than_a_quarter_of_what_they_changed(
    data: st.DataObject, columns: int, neighbors: int
) -> None:
    row = st.lists(st.floats(1, 10), min_size=columns, max_size=columns)
    own = data.draw(st.lists(row, min_size=1, max_size=9))
    theirs = data.draw(st.lists(row, min_size=neighbors, max_size=neighbors))
    poisoned = [data.draw(row), *theirs[1:]]
    ids = [f"c{i}" for i in range(columns)]
    before, after = (
        aggregate(ids, chains(own) + chains(table, "prototype")) for table in (theirs, poisoned)
    )
    for column, (honest, moved) in enumerate(zip(before, after, strict=True)):
        assert honest.mean is not None
        assert moved.mean is not None
        change = abs(poisoned[0][column] - theirs[0][column])
        assert abs(moved.mean - honest.mean) <= change / 4 + 1e-9


def test_a_neighbor_with_several_chains_is_still_one_person() -> None:
    """Three of four chains are one neighbor's: the level weighs 1/3, and that neighbor a quarter."""
    theirs = [chain({"c0": 10.0}, "prototype", "loud")] * 3 + [
        chain({"c0": 4.0}, "prototype", "quiet")
    ]
    (score,) = aggregate(["c0"], [*chains([[1.0]]), *theirs])
    assert score.mean == pytest.approx(1.0 * 2 / 3 + 8.5 / 3)


@pytest.mark.parametrize(
    ("neighbors", "expected"), [(1, 3.25), (2, 5.5), (3, 5.5), (4, 5.5), (8, 5.5)]
)
def test_from_two_neighbors_on_levels_weigh_the_same(neighbors: int, expected: float) -> None:
    theirs = chains([[10.0]] * neighbors, "prototype")
    assert means(aggregate(["c0"], [*chains([[1.0]] * 8), *theirs])) == [expected]


def test_without_chains_of_the_users_own_neighbors_are_all_there_is() -> None:
    assert means(aggregate(["c0"], chains([[8.0]], "prototype"))) == [8.0]
    # What the user's own chains did not score is scored by its neighbor alone.
    mixed = chains([[2.0, None]]) + chains([[6.0, 6.0]], "prototype")
    assert means(aggregate(["c0", "c1"], mixed)) == [3.0, 6.0]


def test_a_single_chain_ranks_and_has_neither_error_nor_probability() -> None:
    scores = aggregate(["c0", "c1", "c2"], chains([[4.0, 7.0, 5.0]]))
    assert [score.probability_best for score in scores] == [None, None, None]
    assert [score.standard_error for score in scores] == [None, None, None]
    assert rank(scores) == ("c1", "c2", "c0")


def test_ties_of_a_single_chain_have_no_best() -> None:
    scores = aggregate(["c0", "c1", "c2"], chains([[7.0, 3.0, 7.0]]))
    assert rank(scores) == ("c0", "c2", "c1")
    assert best_of(scores) is None


def test_two_chains_of_which_each_lacks_somebody_tell_no_probability() -> None:
    scores = aggregate(["c0", "c1"], chains([[7.0, None], [None, 3.0]]))
    assert [score.probability_best for score in scores] == [None, None]


def test_candidates_with_the_same_totals_in_every_chain_share_their_chance() -> None:
    scores = aggregate(["c0", "c1", "c2"], chains([[6, 6, 2], [8, 8, 1], [7, 7, 5]]), seed=3)
    assert scores[0].probability_best == scores[1].probability_best


def test_ranking_ignores_differences_of_rounding() -> None:
    # On paper both are 3.3; in binary the sum is a little more.
    scores = aggregate(["c0", "c1"], chains([[3.3, 1.1 + 2.2]]))
    assert scores[0].mean != scores[1].mean
    assert rank(scores) == ("c0", "c1")
    assert best_of(scores) is None


def test_chains_that_are_strict_with_all_do_not_blur_a_steady_preference() -> None:
    moods = [[2.0, 1.4], [5.0, 4.2], [9.0, 8.5], [6.0, 5.6], [3.0, 2.3]]
    paired = aggregate(["c0", "c1"], chains(moods), seed=1, noise=SPREAD_ALONE)
    apart = [{"c0": first} for first, _ in moods] + [{"c1": second} for _, second in moods]
    unpaired = aggregate(
        ["c0", "c1"], [chain(totals) for totals in apart], seed=1, noise=SPREAD_ALONE
    )
    assert paired[0].mean == unpaired[0].mean
    assert paired[0].probability_best is not None
    assert unpaired[0].probability_best is not None
    assert paired[0].probability_best > 0.99
    assert 0.5 < unpaired[0].probability_best < 0.8


@pytest.mark.parametrize(
    ("differences", "expected"),
    # P(mean difference > 0), Student t with n - 1 degrees of freedom; values from its closed forms:
    # one degree: 1/2 + atan(t)/pi; two degrees: 1/2 + t / (2 sqrt(2 + t^2)).
    [
        ([0.0, 2.0], 0.5 + math.atan(1.0) / math.pi),
        ([0.0, 1.0, 2.0], 0.5 + 3**0.5 / (2 * (2 + 3) ** 0.5)),
        ([-1.0, 1.0], 0.5),
    ],
)
def test_with_nothing_known_beforehand_two_candidates_are_compared_by_a_paired_t(
    differences: list[float], expected: float
) -> None:
    table = [[5.0 + difference, 5.0] for difference in differences]
    first, _ = aggregate(["c0", "c1"], chains(table), seed=11, noise=SPREAD_ALONE)
    assert first.probability_best == pytest.approx(expected, abs=0.02)


def test_the_same_seed_gives_the_same_probabilities() -> None:
    table = [[5.0, 6.0, 4.0], [7.0, 6.5, 6.0], [6.0, 7.0, 6.5]]
    ids = ["c0", "c1", "c2"]
    assert aggregate(ids, chains(table), seed=4) == aggregate(ids, chains(table), seed=4)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([[5.0, 4.0]] * 4, (0.90, 0.97)),
        ([[5.0, 4.0]] * 24, (0.995, 1.0)),  # what all chains say is not what one user thinks
        ([[9.0, 1.0]] * 4, (0.9999, 1.0)),
        ([[9.0, 1.0]] * 3, (0.0, 0.0)),  # three can agree by accident
        ([[5.0, 5.0]] * 24, (0.5, 0.5)),
        ([[9.0, 1.0], [1.0, 9.0]] * 4, (0.4, 0.6)),
        ([[9.0, 1.0, 1.0]] * 3 + [[9.0, 1.0]], (0.0, 0.0)),
        ([[9.0]] * 4, (1.0, 1.0)),
        ([], (0.0, 0.0)),
    ],
)
def test_a_leader_holds_that_further_chains_would_leave_in_front(
    table: Table, expected: tuple[float, float]
) -> None:
    ids = [f"c{i}" for i in range(len(table[0]) if table else 2)]
    least, most = expected
    assert least <= leader_holds(ids, chains(table), seed=3) <= most


def test_many_chains_settle_a_leader_and_not_what_the_user_thinks() -> None:
    many = chains([[5.5, 4.5], [6.0, 4.0]] * 100)
    assert leader_holds(["c0", "c1"], many) > 0.999
    assert 0.5 < (aggregate(["c0", "c1"], many)[0].probability_best or 0) < 0.8


def test_an_unscored_candidate_says_why_and_has_no_numbers() -> None:
    scores = aggregate(
        ["c0", "c1"],
        chains([[7.0, None], [6.0, None]]),
        [failure("truncated"), failure("unparseable"), failure("truncated")],
    )
    missing = scores[1]
    assert missing.outcome == "not_scored"
    assert missing.mean is None
    assert missing.probability_best is None
    assert missing.reason == (
        "none of the 2 readable chains gives it a total; 3 failed (truncated 2, unparseable 1)"
    )
    assert rank(scores) == ("c0",)
    assert best_of(scores) == "c0"
    assert scores[0].probability_best is None


def test_no_chain_at_all_scores_nobody() -> None:
    scores = aggregate(["c0", "c1"], [])
    assert [score.outcome for score in scores] == ["not_scored", "not_scored"]
    assert rank(scores) == ()
    assert best_of(scores) is None


def test_reasons_are_counted_most_frequent_first() -> None:
    assert count_reasons([failure("b"), failure("a"), failure("b")]) == "b 2, a 1"


def test_one_candidate_is_best_for_certain() -> None:
    (only,) = aggregate(["c0"], chains([[5.0], [9.0]]))
    assert only.probability_best == 1.0
    assert only.standard_error == pytest.approx(2.0)
