"""The figures of an evaluation, against values worked out by hand or by another library."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import ndcg_score

from pgenrm_agent.evaluation.metrics import (
    bootstrap_interval,
    kendall,
    macro_mean,
    mean_over_runs,
    micro_mean,
    ndcg,
    pair_credits,
    paired_difference,
    position_bias,
    reliability,
    spearman,
    strict,
    top_label,
)

NAN = math.nan


def test_a_comparison_is_won_lost_tied_or_not_scored() -> None:
    assert pair_credits([8, 3], [1, 0]) == [1.0]
    assert pair_credits([3, 8], [1, 0]) == [0.0]
    assert pair_credits([5, 5 + 1e-12], [1, 0]) == [0.5]
    assert math.isnan(pair_credits([5, None], [1, 0])[0])


def test_a_list_gives_every_pair_with_different_grades() -> None:
    # Pairs by index: (0,1) right, (0,2) wrong, (1,2) has equal grades and is none.
    assert pair_credits([5, 3, 7], [2, 1, 1]) == [1.0, 0.0]


def test_ties_count_half_and_strictly_nothing() -> None:
    credits = [1.0, 0.5, 0.0, NAN]
    assert micro_mean(credits) == 0.5
    assert micro_mean(strict(credits)) == 0.25
    assert micro_mean([NAN]) is None


def test_every_person_counts_the_same_in_the_macro_mean() -> None:
    credits, users = [1.0, 1.0, 1.0, 0.0, NAN], ["ada", "ada", "ada", "bo", "cy"]
    assert micro_mean(credits) == 0.75
    assert macro_mean(credits, users) == 0.5
    assert macro_mean([NAN], ["cy"]) is None


def test_mean_and_standard_error_over_runs() -> None:
    found = mean_over_runs([0.6, 0.7, 0.8])
    assert found.mean == pytest.approx(0.7)
    assert found.standard_error == pytest.approx(0.1 / math.sqrt(3))
    assert mean_over_runs([0.6]).standard_error is None


def test_the_interval_of_one_choice_a_person_is_the_binomial_one() -> None:
    credits = [1.0] * 70 + [0.0] * 30
    found = bootstrap_interval(credits, list(range(100)), seed=1)
    assert found is not None
    low, high = stats.binom.ppf([0.025, 0.975], 100, 0.7) / 100
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_repeating_a_persons_choices_does_not_narrow_the_interval() -> None:
    credits = [1.0] * 14 + [0.0] * 6
    once = bootstrap_interval(credits, list(range(20)), seed=1)
    often = bootstrap_interval(credits * 10, list(range(20)) * 10, seed=1)
    assert once is not None
    assert often is not None
    assert often.high - often.low == pytest.approx(once.high - once.low, abs=0.02)
    assert bootstrap_interval([1.0, 0.0], ["ada", "ada"], seed=1) is None


def test_a_paired_comparison_flips_every_persons_sign() -> None:
    # Ten people, all better off: two of the 2**10 sign patterns are as extreme.
    found = paired_difference([1.0] * 10, [0.0] * 10, list(range(10)), seed=1)
    assert found.p_value == pytest.approx(2 / 2**10)
    assert (found.difference, found.users, found.comparisons) == (1.0, 10, 10)


def test_equal_judges_do_not_differ() -> None:
    found = paired_difference([1.0, 0.0, 1.0], [1.0, 0.0, 1.0], list("abc"), seed=1)
    assert (found.difference, found.p_value) == (0.0, 1.0)


def test_what_only_one_of_two_scored_is_dropped_and_counted() -> None:
    found = paired_difference([1.0, NAN, 0.5], [0.0, 1.0, NAN], list("abc"), seed=1)
    assert (found.comparisons, found.dropped, found.difference) == (1, 2, 1.0)
    with pytest.raises(ValueError, match="no comparison"):
        paired_difference([NAN], [1.0], ["a"], seed=1)


def test_kendall_by_hand() -> None:
    # 1 > 2 > 3 against 1 > 3 > 2: two pairs agree, one does not.
    assert kendall([3, 2, 1], [3, 1, 2]) == pytest.approx(1 / 3)
    assert kendall([1, 1, 1], [3, 1, 2]) is None
    assert kendall([1, None, 2], [3, 1, 2]) is None


def test_spearman_by_hand() -> None:
    # 1 - 6 * sum(d^2) / (n (n^2 - 1)) with rank differences 0, 1, 1.
    assert spearman([3, 2, 1], [3, 1, 2]) == pytest.approx(1 - 6 * 2 / 24)


def test_ndcg_by_hand() -> None:
    # Shown order of the gains: 0, 2, 1.
    reached = 2 / math.log2(3) + 1 / math.log2(4)
    ideal = 2 + 1 / math.log2(3)
    assert ndcg([9, 5, 1], [0, 2, 1]) == pytest.approx(reached / ideal)
    assert ndcg([9, None], [1, 0]) is None
    assert ndcg([9, 5], [0, 0]) is None


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=8).filter(
        lambda rows: any(grade for _, grade in rows)
    )
)
def test_ndcg_agrees_with_scikit_learn(rows: list[tuple[int, int]]) -> None:
    scores, grades = [row[0] for row in rows], [row[1] for row in rows]
    assert ndcg(scores, grades) == pytest.approx(ndcg_score([grades], [scores]))


def test_the_best_candidate_is_predicted_with_a_confidence() -> None:
    assert top_label([0.8, 0.2], [1, 0]) == (0.8, 1.0)
    assert top_label([0.2, 0.8], [1, 0]) == (0.8, 0.0)
    assert top_label([0.5, 0.5], [1, 0]) == (0.5, 0.5)
    assert top_label([None, 0.5], [1, 0]) is None


def test_calibration_by_hand() -> None:
    found = reliability([0.55, 0.6, 0.95, 0.95], [1.0, 0.0, 1.0, 1.0])
    assert found is not None
    low, high = found.bins
    assert (low.count, low.confidence, low.accuracy) == (2, pytest.approx(0.575), 0.5)
    assert (high.count, high.confidence, high.accuracy) == (2, pytest.approx(0.95), 1.0)
    assert found.ece == pytest.approx(0.5 * 0.075 + 0.5 * 0.05)
    assert reliability([], []) is None


def test_confidence_drawn_from_the_truth_is_calibrated() -> None:
    draw = np.random.default_rng(0)
    sure = draw.uniform(0.5, 1.0, 20_000)
    found = reliability(sure.tolist(), (draw.random(20_000) < sure).astype(float).tolist())
    assert found is not None
    assert found.ece < 0.02


def test_a_judge_that_likes_the_first_answer_is_found_out() -> None:
    found = position_bias([(1.0, True), (1.0, True), (0.0, False), (0.5, False)])
    assert (found.better_first, found.better_later) == (1.0, 0.25)
    assert found.prefers_first == 1.0
    assert position_bias([]).prefers_first is None
