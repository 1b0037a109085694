"""Training examples for stage 1 (PSI): prompts of the chain format, answers of the teacher.

Three kinds, in the order in which a small model learns them:
    read    a few candidates and their readings: what an answer is like
    short   whole chains over one past choice
    chain   whole chains over the full range of past choices and candidates
Whole chains pass rejection sampling: kept only when the teacher's favourite is the person's choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pgenrm_agent.training.simulation import (
    SHARPNESS,
    THEMES,
    Answers,
    SimulatedUser,
    World,
    as_pair,
    stated_preferences,
)
from pgenrm_agent.training.teacher import WISH_STRENGTH, candidate_lines, write_chain

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.schema import Message, StatedPreference

__all__ = ["Example", "Task", "wishes_in", "write_examples"]

Task = Literal["read", "short", "chain"]

# How many past choices and candidates a training prompt shows, and how often.
HISTORY = {
    "short": ((1,), (1.0,)),
    "chain": ((0, 1, 2, 3, 4, 5, 6), (0.05, 0.08, 0.14, 0.55, 0.12, 0.03, 0.03)),
}
CANDIDATES = ((1, 2, 3, 4), (0.05, 0.70, 0.15, 0.10))
READ_CANDIDATES = ((1, 2, 3, 4), (0.4, 0.3, 0.2, 0.1))
STATED_SHARE = 0.25


@dataclass(frozen=True)
class Example:
    """A prompt, the part of the answer that is given, and the part to learn."""

    messages: tuple[Message, ...]
    given: str
    target: str


def wishes_in(stated: tuple[StatedPreference, ...]) -> npt.NDArray[np.int64]:
    """(4,) what stated wishes add to the tally: WISH_STRENGTH towards or away from a theme."""
    wishes = np.zeros(len(THEMES), dtype=np.int64)
    for one in stated:
        for index, theme in enumerate(THEMES):
            if one.text in theme.wishes_more:
                wishes[index] = WISH_STRENGTH
            elif one.text in theme.wishes_less:
                wishes[index] = -WISH_STRENGTH
    return wishes


def _favourite(
    world: World,
    user: SimulatedUser,
    answers: Answers,
    query: int,
    shown: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> int:
    """Position of the person's noisy first choice (Luce's rule; Bradley-Terry for two)."""
    taste = user.taste + world.shift[answers.kinds[query]]
    utility = SHARPNESS * answers.x[shown] @ taste
    return int((utility + rng.gumbel(size=len(shown))).argmax())


def write_examples(
    task: Task,
    world: World,
    answers: Answers,
    chain_format: ChainFormat,
    *,
    split: str,
    seed: int,
    outcomes: Counter[str] | None = None,
) -> Iterator[Example]:
    """An endless stream of examples, the same for the same arguments.

    `outcomes` counts chains by "kept", "ranking disagrees with the choice" and "tie".
    """
    rng = np.random.default_rng(seed)
    counted: Counter[str] = Counter() if outcomes is None else outcomes
    users = world.users(split, 10**9)
    while True:
        if task == "read":
            yield _reading_example(answers, chain_format, rng)
        else:
            example = _chain_example(task, world, next(users), answers, chain_format, rng, counted)
            if example is not None:
                yield example


def _reading_example(
    answers: Answers, chain_format: ChainFormat, rng: np.random.Generator
) -> Example:
    query = int(rng.integers(len(answers.queries)))
    shown = rng.choice(
        answers.members[query],
        int(rng.choice(READ_CANDIDATES[0], p=READ_CANDIDATES[1])),
        replace=False,
    )
    messages = chain_format.messages(
        query=answers.queries[query],
        candidates=[answers.texts[i] for i in shown],
        history=(),
        stated=(),
        conversation=(),
    )
    return Example(
        messages, "## Part 2: Scoring\n", "\n".join(candidate_lines(answers.levels[shown]))
    )


def _chain_example(
    task: Literal["short", "chain"],
    world: World,
    user: SimulatedUser,
    answers: Answers,
    chain_format: ChainFormat,
    rng: np.random.Generator,
    outcomes: Counter[str],
) -> Example | None:
    count = int(rng.choice(HISTORY[task][0], p=HISTORY[task][1]))
    queries = rng.choice(len(answers.queries), count + 1, replace=False)
    past = [world.compare(user, answers, int(query), rng) for query in queries[:-1]]
    query = int(queries[-1])
    width = int(rng.choice(CANDIDATES[0], p=CANDIDATES[1]))
    if width == 2:
        pair = world.compare(user, answers, query, rng)
        shown = np.array([pair.chosen, pair.rejected])
        favourite = 0
        if rng.random() < 0.5:
            shown, favourite = shown[::-1].copy(), 1
    else:
        shown = rng.choice(answers.members[query], width, replace=False)
        favourite = _favourite(world, user, answers, query, shown, rng)
    stated: tuple[StatedPreference, ...] = ()
    if rng.random() < STATED_SHARE:
        stated = stated_preferences(user, rng, count=int(rng.integers(1, 3)))

    chain = write_chain(
        int(answers.kinds[query]),
        [(answers.levels[one.chosen], answers.levels[one.rejected]) for one in past],
        wishes_in(stated),
        list(answers.levels[shown]),
    )
    if width > 1:
        rivals = np.delete(chain.totals, favourite)
        if chain.totals[favourite] < rivals.max():
            outcomes["ranking disagrees with the choice"] += 1
            return None
        if chain.totals[favourite] == rivals.max():
            outcomes["tie"] += 1
            return None
    outcomes["kept"] += 1
    messages = chain_format.messages(
        query=answers.queries[query],
        candidates=[answers.texts[i] for i in shown],
        history=[as_pair(answers, one) for one in past],
        stated=stated,
        conversation=(),
    )
    return Example(messages, "", chain.text)
