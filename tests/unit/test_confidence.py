"""The probability of being best: shrunk by what is known of chains, never certain, ties kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgenrm_agent.confidence import CHAIN_NOISE, ChainNoise, probability_best


def told(
    rows: list[list[float]], noise: ChainNoise = CHAIN_NOISE, *, seed: int = 1
) -> list[float] | None:
    """Probabilities by one level of chains."""
    table = np.asarray(rows, dtype=np.float64)
    chances = probability_best([table], np.ones((1, table.shape[1])), seed=seed, noise=noise)
    return None if chances is None else chances.tolist()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 5).flatmap(
        lambda columns: st.lists(
            st.lists(st.floats(1, 10), min_size=columns, max_size=columns), min_size=2, max_size=16
        )
    )
)
def test_no_chains_make_certain(rows: list[list[float]]) -> None:
    chances = told(rows)
    assert chances is not None
    assert sum(chances) == pytest.approx(1)
    assert all(0.0 < chance < 0.995 for chance in chances)


def test_eight_chains_that_could_not_agree_more_are_not_printed_as_certain() -> None:
    chances = told([[10.0, 1.0]] * 8)
    assert chances is not None
    assert chances[0] > 0.9
    assert f"{chances[0]:.0%}" != "100%"


def test_fewer_than_two_chains_tell_nothing() -> None:
    assert told([[10.0, 1.0]]) is None
    assert told([[10.0, np.nan], [np.nan, 1.0]]) is None


def test_one_chain_of_each_level_is_two() -> None:
    own, others = np.array([[8.0, 2.0]]), np.array([[7.0, 3.0]])
    chances = probability_best([own, others], np.full((2, 2), 0.5), seed=1)
    assert chances is not None
    assert 0.5 < chances[0] < 0.98


@pytest.mark.parametrize(
    "rows",
    [
        [[6.0, 6.0, 2.0], [8.0, 8.0, 1.0]],
        [[5.0, 5.0, 5.0]] * 4,
        [[3.3, 1.1 + 2.2, 1.0], [4.0, 4.0, 9.0]],
    ],
)
def test_ties_stay_ties(rows: list[list[float]]) -> None:
    chances = told(rows)
    assert chances is not None
    assert chances[0] == chances[1]


def test_two_candidates_with_one_mean_are_as_likely_the_best() -> None:
    chances = told([[3.0, 7.0], [7.0, 3.0], [4.0, 4.0]])
    assert chances == pytest.approx([0.5, 0.5], abs=1e-3)


def test_more_chains_that_agree_say_more_and_a_wider_gap_does() -> None:
    def first(rows: list[list[float]]) -> float:
        chances = told(rows)
        assert chances is not None
        return chances[0]

    assert first([[6, 5]] * 2) < first([[6, 5]] * 8)
    assert first([[6, 5]] * 4) < first([[8, 5]] * 4)
    wavering = [[9.0, 3.0], [3.0, 6.0], [9.0, 3.0], [3.0, 6.0]]
    assert first(wavering) < first([[6.0, 4.5]] * 4)


@pytest.mark.parametrize(
    ("less", "more"),
    [
        (CHAIN_NOISE._replace(bias=3.0), CHAIN_NOISE._replace(bias=0.5)),
        (CHAIN_NOISE._replace(spread=4.0), CHAIN_NOISE._replace(spread=0.1)),
        (CHAIN_NOISE._replace(lapse=0.4), CHAIN_NOISE._replace(lapse=0.02)),
    ],
)
def test_more_known_noise_makes_less_sure(less: ChainNoise, more: ChainNoise) -> None:
    rows = [[6.5, 5.0], [6.0, 5.5], [7.0, 5.5]]
    (unsure, sure) = told(rows, less), told(rows, more)
    assert unsure is not None
    assert sure is not None
    assert 0.5 < unsure[0] < sure[0]


def test_a_chains_mood_is_no_noise() -> None:
    """What a chain gives to all alike takes nothing away from a steady preference."""
    moods = told([[2.0, 1.4], [5.0, 4.4], [9.0, 8.4], [6.0, 5.4]])
    steady = told([[5.0, 4.4]] * 4)
    assert moods == pytest.approx(steady, abs=0.01)
