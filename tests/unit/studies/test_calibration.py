"""Chains' noise, measured on chains whose noise is known."""

from __future__ import annotations

import numpy as np
import pytest

from pgenrm_agent.confidence import ChainNoise, probability_best
from pgenrm_agent.evaluation.records import Record, Verdict
from studies.bundled.calibration import (
    SPREAD_ALONE,
    Sampled,
    area_under_curve,
    calibrate,
    figures_of,
    fit_noise,
    sampled_of,
)


def simulate(count: int, *, bias: float, lapse: float = 0.0, chains: int = 8) -> list[Sampled]:
    """Comparisons whose chains vary around what users think, and miss it by `bias` altogether."""
    draw = np.random.default_rng(3)
    sampled = []
    for number in range(count):
        truth = draw.normal(5.0, 1.5, size=2)
        said = truth + draw.normal(0.0, bias, size=2)
        if draw.random() < lapse:
            said = draw.normal(5.0, 1.5, size=2)
        mood = draw.normal(0.0, 1.0, size=(chains, 1))
        totals = said + mood + draw.normal(0.0, 0.8, size=(chains, 2))
        sampled.append(Sampled(np.clip(totals, 1.0, 10.0), float(truth[0] > truth[1]), number))
    return sampled


def test_a_judge_with_an_error_of_its_own_is_told_with_less_confidence() -> None:
    calibration = calibrate(simulate(2000, bias=2.0))
    before, after = calibration.before[-1], calibration.after[-1]
    assert before.chains == after.chains == 8
    assert before.ece > 0.1
    assert after.ece < 0.05
    assert after.auroc > before.auroc - 0.01
    assert after.log_loss < before.log_loss


def test_the_noise_that_was_put_in_comes_out() -> None:
    noise = fit_noise(simulate(1000, bias=1.5))
    assert noise.spread == pytest.approx(0.8, abs=0.1)
    # What users think varies by 1.5, too, so what chains say is half as far from even as it seems.
    assert 1.0 <= noise.bias <= 2.5
    unbiased = fit_noise(simulate(1000, bias=0.1))
    assert unbiased.bias < noise.bias


def test_a_judge_that_often_says_nothing_is_never_sure() -> None:
    noise = fit_noise(simulate(1000, bias=0.1, lapse=0.4))
    assert noise.lapse + noise.bias > 0.3
    sure = figures_of([(simulate(50, bias=0.1), noise)], 8)
    assert sure.confidence < 0.99


def test_the_area_counts_equal_confidence_half() -> None:
    def area(sure: list[float], right: list[float]) -> float:
        return area_under_curve(np.array(sure), np.array(right))

    assert area([0.9, 0.6], [1.0, 0.0]) == 1.0
    assert area([0.6, 0.9], [1.0, 0.0]) == 0.0
    assert area([0.7, 0.7], [1.0, 0.0]) == 0.5
    assert area([0.9, 0.8, 0.7, 0.6], [1.0, 0.0, 1.0, 0.0]) == 0.75


def test_comparisons_are_read_from_records_whichever_answer_stands_first() -> None:
    def record(grades: tuple[float, float], totals: list[tuple[float | None, float]]) -> Record:
        return Record(
            judge="model",
            run=0,
            question="q",
            user_id="u",
            group=None,
            grades=grades,
            candidates=("a", "b"),
            seed=4,
            seconds=0.0,
            verdict=Verdict(scores=(1.0, 1.0), totals=tuple(totals)),
        )

    records = [
        record((1.0, 0.0), [(5.0, 4.0), (6.0, 4.0), (None, 3.0)]),
        record((0.0, 1.0), [(5.0, 4.0), (6.0, 4.0)]),
        record((1.0, 0.0), [(5.0, 4.0), (None, 4.0)]),
    ]
    first, second = sampled_of(records, [0.8, 0.8, 0.8])
    assert (first.chance, second.chance) == pytest.approx((0.8, 0.2))
    assert first.totals.tolist() == [[5.0, 4.0], [6.0, 4.0]]


def test_without_a_prior_two_answers_are_compared_by_a_paired_t() -> None:
    totals = np.array([[5.0, 5.0], [6.0, 5.0], [7.0, 5.0]])
    figures = figures_of([([Sampled(totals, 1.0, 1)], SPREAD_ALONE)], 3)
    assert figures.confidence == pytest.approx(0.887, abs=0.02)


@pytest.mark.parametrize("noise", [ChainNoise(5.0, 1.1, 1.5, 0.05), ChainNoise(8.0, 0.5, 0.0, 0.3)])
def test_the_study_tells_the_probability_that_the_library_tells(noise: ChainNoise) -> None:
    for case in simulate(5, bias=0.5, chains=4):
        told = probability_best([case.totals], np.ones((1, 2)), seed=1, noise=noise)
        assert told is not None
        figures = figures_of([([case], noise)], 4)
        assert figures.confidence == pytest.approx(float(told.max()), abs=0.015)
