"""The figures of an evaluation, against values worked out by hand or by another library."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import ndcg_score

from pgenrm_agent.evaluation.list_metrics import kendall, ndcg, spearman
from pgenrm_agent.evaluation.metrics import (
    Accuracy,
    MeanError,
    bootstrap_interval,
    credit,
    macro_mean,
    mean_error,
    micro_mean,
    pair_credits,
    paired_difference,
    plus_minus,
    position_bias,
    reliability,
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


def test_a_margin_alone_has_a_credit_too() -> None:
    assert [credit(margin) for margin in (0.2, -0.2, 0.0, 1e-12)] == [1.0, 0.0, 0.5, 0.5]
    assert math.isnan(credit(None))


def test_ties_and_what_was_not_scored_are_strictly_wrong() -> None:
    counted = Accuracy.of([1.0, 0.5, 0.0, NAN, 1.0])
    assert counted.strict.mean == 2 / 5
    assert counted.accuracy is not None
    assert counted.accuracy.mean == 2.5 / 4
    assert (counted.coverage, counted.ties, counted.comparisons) == (4 / 5, 1, 5)
    assert micro_mean(strict([1.0, 0.5, 0.0, NAN])) == 0.25


def test_a_judge_that_scores_nothing_has_no_accuracy_and_is_strictly_never_right() -> None:
    silent = Accuracy.of([NAN, NAN])
    assert (silent.strict.mean, silent.accuracy, silent.coverage) == (0.0, None, 0.0)
    with pytest.raises(ValueError, match="no comparison"):
        Accuracy.of([])


def test_a_prediction_counts_with_the_chance_that_the_user_chooses_so_again() -> None:
    chances = [0.9, 0.8, 0.7, 0.6]
    counted = Accuracy.of([1.0, 0.0, 0.5, NAN], chances=chances)
    assert counted.strict.mean == pytest.approx((0.9 + 0.2 + 0 + 0) / 4)
    assert counted.accuracy is not None
    assert counted.accuracy.mean == pytest.approx((0.9 + 0.2 + 0.5) / 3)
    # A right prediction of a user who could as well choose the opposite is right half of the time.
    assert Accuracy.of([1.0], chances=[0.5]).strict.mean == 0.5


def test_over_seeds_the_error_is_that_of_the_seeds() -> None:
    seeds = [Accuracy.of([1.0, NAN]), Accuracy.of([NAN, NAN]), Accuracy.of([1.0, 1.0])]
    both = Accuracy.over(seeds)
    assert both.strict.mean == pytest.approx(0.5)
    assert both.strict.standard_error == pytest.approx(0.5 / math.sqrt(3))
    assert both.accuracy is not None
    assert both.accuracy.mean == 1.0
    assert (both.coverage, both.comparisons) == (0.5, 6)


def test_every_user_counts_the_same_in_the_macro_mean() -> None:
    credits, users = [1.0, 1.0, 1.0, 0.0, NAN], ["ada", "ada", "ada", "bo", "cy"]
    assert micro_mean(credits) == 0.75
    assert macro_mean(credits, users) == 0.5
    assert macro_mean([NAN], ["cy"]) is None


def test_mean_and_standard_error_over_runs() -> None:
    over_runs = mean_error([0.6, 0.7, 0.8])
    assert over_runs.mean == pytest.approx(0.7)
    assert over_runs.standard_error == pytest.approx(0.1 / math.sqrt(3))
    assert mean_error([0.6]).standard_error is None


def test_the_standard_error_is_that_of_resampling_whole_users() -> None:
    draw = np.random.default_rng(3)
    users = np.repeat(np.arange(25), draw.integers(1, 9, 25))
    credits = (draw.random(len(users)) < 0.2 + 0.6 * (users % 2)).astype(float)
    told = mean_error(credits.tolist(), users.tolist()).standard_error
    by_user = [credits[users == user] for user in range(25)]
    resampled = [
        np.concatenate([by_user[user] for user in draw.integers(0, 25, 25)]).mean()
        for _ in range(4000)
    ]
    assert told == pytest.approx(np.std(resampled) * math.sqrt(25 / 24), rel=0.06)
    # Choices of one user that are alike say less than as many of different users.
    alone = mean_error(credits.tolist()).standard_error
    assert alone is not None
    assert told > 1.5 * alone


def test_what_was_not_scored_is_in_no_mean() -> None:
    assert mean_error([1.0, NAN, 0.0]) == mean_error([1.0, 0.0])
    with pytest.raises(ValueError, match="no value"):
        mean_error([NAN])


def test_a_mean_is_told_with_its_error() -> None:
    value = MeanError(mean=0.7184, standard_error=0.0142)
    assert plus_minus(value) == "71.8 ± 1.4"
    assert plus_minus(value, form="+.1f", unit=" %") == "+71.8 ± 1.4 %"
    assert plus_minus(value, form=".3f", scale=1) == "0.718 ± 0.014"
    assert plus_minus(MeanError(mean=0.5, standard_error=None)) == "50.0"
    assert plus_minus(None) == "-"


def test_the_interval_of_one_choice_a_user_is_the_binomial_one() -> None:
    credits = [1.0] * 70 + [0.0] * 30
    interval = bootstrap_interval(credits, list(range(100)), seed=1)
    assert interval is not None
    low, high = stats.binom.ppf([0.025, 0.975], 100, 0.7) / 100
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.02)


def test_repeating_a_users_choices_does_not_narrow_the_interval() -> None:
    credits = [1.0] * 14 + [0.0] * 6
    once = bootstrap_interval(credits, list(range(20)), seed=1)
    often = bootstrap_interval(credits * 10, list(range(20)) * 10, seed=1)
    assert once is not None
    assert often is not None
    assert often.high - often.low == pytest.approx(once.high - once.low, abs=0.02)
    assert bootstrap_interval([1.0, 0.0], ["ada", "ada"], seed=1) is None
    assert bootstrap_interval([1.0] * 50, list(range(5)) * 10, seed=1) is None
    assert bootstrap_interval([1.0] * 50, [*range(6), *[0] * 44], seed=1) is not None


def test_a_paired_comparison_flips_every_users_sign() -> None:
    # Ten users, all better off: two of the 2**10 sign patterns are as extreme.
    gain = paired_difference([1.0] * 10, [0.0] * 10, list(range(10)), seed=1)
    assert gain.p_value == pytest.approx(2 / 2**10)
    assert (gain.difference, gain.users, gain.comparisons) == (1.0, 10, 10)


def test_equal_judges_do_not_differ() -> None:
    gain = paired_difference([1.0, 0.0, 1.0], [1.0, 0.0, 1.0], list("abc"), seed=1)
    assert (gain.difference, gain.p_value) == (0.0, 1.0)


def test_only_aligned_comparisons_can_be_paired() -> None:
    for first, second, users in (([1.0], [1.0, 0.0], ["a"]), ([1.0], [0.0], []), ([], [], [])):
        with pytest.raises(ValueError, match="do not align"):
            paired_difference(first, second, users, seed=1)


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
    calibration = reliability([0.55, 0.6, 0.95, 0.95], [1.0, 0.0, 1.0, 1.0])
    assert calibration is not None
    low, high = calibration.bins
    assert (low.count, low.confidence, low.accuracy) == (2, pytest.approx(0.575), 0.5)
    assert (high.count, high.confidence, high.accuracy) == (2, pytest.approx(0.95), 1.0)
    assert calibration.ece == pytest.approx(0.5 * 0.075 + 0.5 * 0.05)
    assert reliability([], []) is None


def test_confidence_drawn_from_the_truth_is_calibrated() -> None:
    draw = np.random.default_rng(0)
    sure = draw.uniform(0.5, 1.0, 20_000)
    calibration = reliability(sure.tolist(), (draw.random(20_000) < sure).astype(float).tolist())
    assert calibration is not None
    assert calibration.ece < 0.02


def test_a_judge_that_likes_the_first_answer_is_found_out() -> None:
    bias = position_bias([(1.0, True), (1.0, True), (0.0, False), (0.5, False)])
    assert (bias.better_first, bias.better_later) == (1.0, 0.25)
    assert bias.prefers_first == 1.0
    assert position_bias([]).prefers_first is None


def test_folds_are_joined_with_the_errors_of_their_users() -> None:
    draw = np.random.default_rng(6)
    users = np.repeat(np.arange(60), 5)
    credits = draw.choice([0.0, 0.5, 1.0, np.nan], size=300, p=[0.3, 0.1, 0.5, 0.1])
    whole = Accuracy.of(credits.tolist(), clusters=users.tolist())
    # Parts of unequal size, without a user in common.
    parts = [
        Accuracy.of(credits[part].tolist(), clusters=users[part].tolist())
        for part in (users < 30, (users >= 30) & (users < 40), users >= 40)
    ]
    joined = Accuracy.joined(parts)
    assert (joined.ties, joined.comparisons) == (whole.ties, whole.comparisons)
    assert joined.coverage == pytest.approx(whole.coverage)
    assert joined.strict.mean == pytest.approx(whole.strict.mean)
    assert whole.accuracy is not None
    assert joined.accuracy is not None
    assert joined.accuracy.mean == pytest.approx(whole.accuracy.mean)
    # The same but for what the parts' means differ.
    assert joined.strict.standard_error == pytest.approx(whole.strict.standard_error, rel=0.1)
    alone = Accuracy.of([1.0, 0.0], clusters=[1, 1])
    assert Accuracy.joined([parts[0], alone]).strict.standard_error is None
    nothing = Accuracy.of([math.nan], clusters=[1])
    assert Accuracy.joined([nothing, nothing]).accuracy is None
    assert Accuracy.joined([alone, nothing]).accuracy == alone.accuracy
