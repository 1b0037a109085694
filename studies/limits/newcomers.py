"""What similar users can do for somebody of whom nothing is known, in the simulated world.

A newcomer is scored by the mean over n users drawn from the others (Eq. 9 with chains of prototypes
alone). Two judges do it with n users each:

    ideal     knows every user's utility: what is left is that n users are not all of them
    teacher   sees what each of them chose, and writes one chain of the bundled model's form

What all users share is all that a newcomer can be told, and the ideal judge over everybody tells it. Between
the judges lies what a chain of four themes, from a few choices, can say of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pgenrm_agent.chain.signs import read
from pgenrm_agent.evaluation.metrics import MeanError, mean_error
from pgenrm_agent.fields import Model
from pgenrm_agent.training.bundled.simulation import Answers, World, contrasting_pair
from pgenrm_agent.training.bundled.teacher import THEMES, kept_themes, marks_for, tally_of

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
SIZES = (1, 2, 4, 8, 16, 32, 64, 160)


class NewcomerLimit(Model):
    """How often each judge is right with so many users, 0-1; errors over populations."""

    ideal: MeanError
    teacher: MeanError


def newcomer_limits(
    world: World,
    answers: Answers,
    *,
    newcomers: int,
    history: int,
    seed: int,
    populations: int = 10,
    sizes: Sequence[int] = SIZES,
) -> dict[int, NewcomerLimit]:
    """Return by number of users what is expected of the newcomers' choices.

    Each population chooses on one half of the queries, its `newcomers` are asked about the other. A tie of
    the judge counts one half.
    """
    right = np.array(
        [
            _population(world, answers, newcomers, history, sizes, seed=seed, index=index)
            for index in range(populations)
        ]
    )
    return {
        size: NewcomerLimit(
            ideal=mean_error(right[:, 0, at].tolist()),
            teacher=mean_error(right[:, 1, at].tolist()),
        )
        for at, size in enumerate(sizes)
    }


def _population(
    world: World,
    answers: Answers,
    newcomers: int,
    history: int,
    sizes: Sequence[int],
    *,
    seed: int,
    index: int,
) -> FloatArray:
    """Expected accuracy (2, sizes) of the two judges over one population's newcomers."""
    rng = np.random.default_rng([seed, index])
    queries = rng.permutation(len(answers.queries))
    shown, asked = np.array_split(queries, 2)
    every = list(world.users(f"limits-{index:04d}", max(sizes) + newcomers))
    members, strangers = every[: max(sizes)], every[max(sizes) :]
    points = []
    for member in members:
        drawn = rng.choice(shown, min(history, len(shown)), replace=False)
        choices = [world.compare(member, answers, int(query), rng) for query in drawn]
        texts = [answers.texts[i] for c in choices for i in (c.chosen, c.rejected)]
        points.append(_points(read(texts)))
    right = np.zeros((2, len(sizes)))
    for stranger in strangers:
        query = int(rng.choice(asked))
        a, b = contrasting_pair(answers, query, rng)
        odds = world.margin(stranger, answers, query, a, b)
        values = read([answers.texts[a], answers.texts[b]])
        order = rng.permutation(len(members))
        margins = np.array(
            [
                [world.margin(members[i], answers, query, a, b) for i in order],
                [_margin(values, points[i]) for i in order],
            ]
        )
        for at, size in enumerate(sizes):
            side = np.sign(np.round(margins[:, :size].mean(axis=1), 9))
            right[:, at] += 1 / (1 + np.exp(-odds * side))
    return right / len(strangers)


def _points(values: IntArray) -> IntArray:
    """A member's signed points (4,), as the teacher draws them from the readings of the pairs (2 h, 4)."""
    pairs = list(zip(values[0::2], values[1::2], strict=True))
    tally = tally_of(pairs, np.zeros(len(THEMES), dtype=np.int64))
    kept = kept_themes(tally)
    points = np.zeros(len(THEMES), dtype=np.int64)
    points[kept] = tally[kept]
    return points


def _margin(values: IntArray, points: IntArray) -> float:
    """By how much a chain with these points puts the first of two answers above the second."""
    weights = np.abs(points)
    if not weights.any():
        return 0.0
    first, second = marks_for(values, points)
    return float((first - second) @ weights / weights.sum())
