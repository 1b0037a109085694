"""From records to the table, by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.comparisons import sample_credits
from pgenrm_agent.evaluation.records import Record, Verdict
from pgenrm_agent.evaluation.report import failures_in_words
from pgenrm_agent.evaluation.summary import compare, summarize


def record(
    question: str,
    scores: Sequence[float | None],
    *,
    run: int = 0,
    user: str = "ada",
    grades: Sequence[float] = (1, 0),
    judge: str = "a",
    **verdict: object,
) -> Record:
    return Record(
        judge=judge,
        run=run,
        question=question,
        user_id=user,
        group=f"of {user}",
        grades=tuple(grades),
        candidates=tuple(f"system-{n}" for n in range(len(grades))),
        seed=1,
        seconds=2.0,
        verdict=Verdict.model_validate({"scores": tuple(scores), **verdict}),
    )


def test_what_no_second_reading_confirmed_is_told_beside_what_it_contradicted() -> None:
    both = [[8, 3], [8, 3], [7, 4]]
    words, chains = summarize(
        [
            record(
                "1",
                [8, 3],
                totals=both,
                orders=[[0, 1]] * 3,
                unchecked=2,
                failures={"contradictory": 1},
            ),
            record(
                "2",
                [8, 3],
                totals=both,
                orders=[[0, 1]] * 3,
                unchecked=1,
                failures={"truncated": 2},
            ),
            record("3", [None, None], unchecked=None, failures={"contradictory": 1}),
            record(
                "1",
                [8, 3],
                judge="words",
                totals=both,
                orders=[[0, 1]] * 3,
                failures={"no_scores": 1},
            ),
        ]
    )
    assert chains.failed_samples == {"contradictory": 2, "truncated": 2}
    assert chains.contradictory == 2 / 10
    assert chains.unchecked == 3 / 6
    assert (words.contradictory, words.unchecked) == (0.0, None)
    assert failures_in_words([chains, words]) == (
        "5 samples could not be used: 2 contradictory, 2 truncated, 1 no_scores."
    )
    assert failures_in_words([words.model_copy(update={"failed_samples": {}})]) == ""


def test_what_happened_is_counted() -> None:
    (row,) = summarize(
        [
            record("1", [8, 3], failures={"truncated": 1}, totals=[[8, 3]], orders=[[0, 1]]),
            record("2", [5, 5], failures={"truncated": 2}),
            record("3", [None, None], reason="unreadable"),
            record("4", [1, 2], user="bo", slips=1, compared=4),
        ]
    )
    assert row.accuracy is not None
    assert row.accuracy.mean == 0.5
    assert row.strict.mean == 0.25
    assert row.coverage == 0.75
    assert (row.comparisons, row.ties, row.not_scored) == (4, 1, 1)
    assert row.macro_user is not None
    assert row.macro_user.mean == (0.75 + 0.0) / 2
    assert row.groups == {"of ada": 0.75, "of bo": 0.0}
    assert row.failed_samples == {"truncated": 3}
    assert row.slips == 0.25
    assert (row.users, row.questions, row.seconds) == (2, 4, 8.0)


def test_runs_give_a_mean_and_its_error() -> None:
    (row,) = summarize(
        [
            record("1", [8, 3]),
            record("2", [8, 3]),
            record("1", [8, 3], run=1),
            record("2", [3, 8], run=1),
        ]
    )
    assert row.runs == 2
    assert row.accuracy is not None
    assert row.accuracy.mean == 0.75
    assert row.accuracy.standard_error == pytest.approx(0.25)


def test_a_coin_is_no_better_than_chance_and_a_good_judge_is() -> None:
    coin = [record(str(n), [8, 3] if n % 2 else [3, 8], user=f"u{n}") for n in range(40)]
    good = [record(str(n), [8, 3], user=f"u{n}", judge="b") for n in range(40)]
    rows = {row.judge: row for row in summarize([*coin, *good])}
    assert rows["a"].against_chance == "no better"
    assert rows["b"].against_chance == "better"
    (single,) = summarize([record("1", [8, 3])])
    assert single.against_chance == "unknown"


def test_more_samples_are_means_of_the_first_ones() -> None:
    totals = [[3, 8], [9, 1], [9, 1], [1, 2]]
    (row,) = summarize([record("1", [5.5, 3], totals=totals, orders=[[0, 1], [1, 0]] * 2)])
    assert row.by_samples == {1: 0.0, 2: 1.0, 4: 1.0}
    assert row.one_sample == 0.5
    assert row.position.better_first == 0.5
    assert row.position.better_later == 0.5
    # Right with the better answer first, wrong with it second: both times the first one won.
    assert row.position.prefers_first == pytest.approx(0.5)


def test_lists_are_ranked_and_so_are_systems() -> None:
    (row,) = summarize(
        [
            record("1", [3, 2, 1], grades=[3, 1, 2]),
            record("2", [3, 2, 1], grades=[3, 2, 1], user="bo"),
        ]
    )
    assert row.comparisons == 6
    assert row.accuracy is not None
    assert row.accuracy.mean == pytest.approx(5 / 6)
    assert row.kendall is not None
    assert row.kendall.mean == pytest.approx((1 / 3 + 1) / 2)
    assert row.spearman is not None
    assert row.spearman.mean == pytest.approx((0.5 + 1) / 2)
    # Mean grades of the systems: 3, 1.5, 1.5; mean scores 3, 2, 1.
    assert row.system_spearman is not None
    assert row.system_spearman.mean == pytest.approx(0.8660254)
    (pairs,) = summarize([record("1", [8, 3])])
    assert pairs.kendall is None


def test_ndcg_and_prototypes_are_means_of_means() -> None:
    (row,) = summarize(
        [
            record("1", [3, 2, 1], grades=[3, 2, 0], prototype="0"),
            record("2", [1, 2, 3], grades=[1, 0, 0], prototype="0"),
            record("3", [1, 2], grades=[1, 0], user="bo", prototype="1"),
            record("4", [9, 2], grades=[1, 0], user="bo"),  # matched to none
        ]
    )
    assert row.ndcg is not None
    assert row.ndcg.mean == pytest.approx((1 + 1 / math.log2(4)) / 2)
    # Prototype 0: three pairs right, two wrong; prototype 1: one wrong.
    assert row.macro_prototype is not None
    assert row.macro_prototype.mean == pytest.approx((3 / 5 + 0) / 2)


def test_every_pair_of_a_list_tells_of_position_bias() -> None:
    # Shown as b, c, a, and whatever stands earlier got more: b > c > a.
    shown = record("1", [1, 3, 2], grades=[3, 2, 1], totals=[[1, 3, 2]], orders=[[1, 2, 0]])
    (row,) = summarize([shown])
    assert row.position.samples == 3
    assert row.position.prefers_first == 1.0
    assert row.position.better_first == 1.0  # b over c
    assert row.position.better_later == 0.0  # a over b, a over c


def test_a_sample_speaks_of_the_pairs_that_it_shows() -> None:
    """Four answers in two groups, and a fifth that is in none, as one without any text."""
    shown = record(
        "1",
        [4, 3, 2, 1, None],
        grades=[5, 4, 3, 2, 1],
        totals=[[4, 3, None, None, None], [None, None, 1, 2, None]],
        orders=[[1, 0], [2, 3]],
    )
    (row,) = summarize([shown])
    assert row.position.samples == 2
    assert row.position.better_first == 0.0  # c over d, and d got more
    assert row.position.better_later == 1.0  # a over b
    assert sample_credits([shown]) == [1.0, 0.0]


def test_the_order_of_records_does_not_matter() -> None:
    records = [record(str(n), [n % 3, 1.1], user=f"u{n % 7}", run=n % 2) for n in range(30)]
    assert summarize(records) == summarize(records[::-1])


def test_two_judges_are_compared_on_what_both_were_asked() -> None:
    first = [record(str(n), [8, 3], user=f"u{n}") for n in range(12)]
    second = [record(str(n), [3, 8], user=f"u{n}") for n in range(2, 14)]
    gain = compare(first, second)
    assert (gain.comparisons, gain.difference) == (10, 1.0)
    assert gain.p_value < 0.01
    with pytest.raises(ConfigurationError, match="no question in common"):
        compare(first, [record("other", [1, 2])])
    with pytest.raises(ConfigurationError, match="question 0 is not the same in both: u0 is"):
        compare(first, [record("0", [8, 3], user="another")])


@pytest.mark.parametrize("scores", [[None, None], [4, 4], [2, 3]], ids=["silent", "tied", "wrong"])
def test_who_is_not_right_loses_against_who_is(scores: Sequence[float | None]) -> None:
    right = [record(str(n), [8, 3], user=f"u{n}") for n in range(4)]
    rest = [record(str(n), scores, user=f"u{n}", judge="b") for n in range(4)]
    gain = compare(right, rest)
    assert (gain.first, gain.second, gain.difference) == (1.0, 0.0, 1.0)
    strict = {row.judge: row.strict.mean for row in summarize([*right, *rest])}
    assert gain.difference == strict["a"] - strict["b"]


def test_the_first_in_the_table_is_right_most_often_and_not_the_one_that_says_least() -> None:
    rarely = [record(str(n), [8, 3] if n == 0 else [None, None], user=f"u{n}") for n in range(10)]
    often = [
        record(str(n), [8, 3] if n < 7 else [3, 8], user=f"u{n}", judge="b") for n in range(10)
    ]
    first, second = summarize([*rarely, *often])
    assert (first.judge, second.judge) == ("b", "a")
    assert second.accuracy is not None
    assert (second.accuracy.mean, second.strict.mean, second.coverage) == (1.0, 0.1, 0.1)
    assert first.interval is not None
    assert first.interval.low < first.strict.mean < first.interval.high
    assert second.against_chance == "worse"


def test_nothing_cannot_be_summarized() -> None:
    with pytest.raises(ConfigurationError, match="nothing was judged"):
        summarize([])
