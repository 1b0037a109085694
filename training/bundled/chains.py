"""Training examples for stage 1 (PSI): prompts of the chain format, answers of the teacher.

Three kinds, in the order in which a small model learns them:
    read    past choices and candidates with nothing but their readings: what an answer is like
    reason  whole chains whose readings are given and whose answers are left out: arithmetic only
    chain   whole chains
Whole chains pass rejection sampling: kept only when the teacher's favorite is the user's choice.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.schema import Message, PreferencePair, StatedPreference
from pgenrm_agent.training.bundled.attributes import levels, measure
from pgenrm_agent.training.bundled.simulation import (
    SHARPNESS,
    THEMES,
    Answers,
    SimulatedUser,
    World,
    as_pair,
    stated_preferences,
)
from pgenrm_agent.training.bundled.teacher import WISH_STRENGTH, reading, write_chain

__all__ = ["Example", "Task", "wishes_in", "write_examples"]

Task = Literal["read", "reason", "chain"]
IntArray = npt.NDArray[np.int64]

# How many past choices and candidates a training prompt shows, and how often.
HISTORY = ((0, 1, 2, 3, 4, 5, 6), (0.05, 0.08, 0.14, 0.55, 0.12, 0.03, 0.03))
CANDIDATES = ((1, 2, 3, 4), (0.05, 0.70, 0.15, 0.10))
READ_HISTORY = ((0, 1, 2, 3), (0.7, 0.15, 0.1, 0.05))
READ_CANDIDATES = ((1, 2, 3, 4), (0.5, 0.3, 0.1, 0.1))
STATED_SHARE = 0.25
COLLAGE_SHARE = 0.5
"""Share of answers to read that are put together from parts of several: there are many more of
those than answers, so that a model learns to count rather than to know answers by heart."""
COLLAGE_PARTS = 3
LONGEST_COLLAGE = 560
ABSENT = PreferencePair(query="...", chosen="+", rejected="-")
"""Stands in a "reason" prompt where a past choice would be."""


@dataclass(frozen=True)
class Example:
    """A prompt, the part of the answer that is given, and the part to learn.

    answers: the prompt's answers in their order; empty where it holds none. What a model should
        notice while it reads them is a second thing to learn.
    unlearned: prefixes of target lines that are context, not something to learn.
    """

    messages: tuple[Message, ...]
    given: str
    target: str
    answers: tuple[str, ...] = ()
    unlearned: tuple[str, ...] = ()


def wishes_in(stated: tuple[StatedPreference, ...]) -> npt.NDArray[np.int64]:
    """(4,) what stated wishes add to the tally: WISH_STRENGTH toward or away from a theme."""
    wishes = np.zeros(len(THEMES), dtype=np.int64)
    for statement in stated:
        for index, theme in enumerate(THEMES):
            if statement.text in theme.wishes_more:
                wishes[index] = WISH_STRENGTH
            elif statement.text in theme.wishes_less:
                wishes[index] = -WISH_STRENGTH
    return wishes


def _favorite(
    world: World,
    user: SimulatedUser,
    answers: Answers,
    query: int,
    shown: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> int:
    """Return the position of the user's noisy first choice (Luce's rule; Bradley-Terry for two)."""
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


def _draw(distribution: tuple[tuple[int, ...], tuple[float, ...]], rng: np.random.Generator) -> int:
    return int(rng.choice(distribution[0], p=distribution[1]))


_BREAK = re.compile(r"(?<=[.!?:])\s+|\n")


def _parts(text: str) -> list[str]:
    """Sentences and lines, with the white space that follows them."""
    ends = [match.end() for match in _BREAK.finditer(text)]
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True) if a < b]


def _answer_to_read(answers: Answers, rng: np.random.Generator) -> tuple[str, IntArray]:
    """A real answer, or a collage of parts of several, with its attribute levels."""
    index = int(rng.integers(len(answers.texts)))
    if rng.random() >= COLLAGE_SHARE:
        return answers.texts[index], answers.levels[index]
    pieces = []
    for _ in range(int(rng.integers(1, COLLAGE_PARTS + 1))):
        parts = _parts(answers.texts[int(rng.integers(len(answers.texts)))])
        start = int(rng.integers(len(parts)))
        pieces.append("".join(parts[start : start + int(rng.integers(1, 5))]))
    text = " ".join(pieces)[:LONGEST_COLLAGE].strip() or answers.texts[index]
    return text, levels(measure(text))


def _reading_example(
    answers: Answers, chain_format: ChainFormat, rng: np.random.Generator
) -> Example:
    history = _draw(READ_HISTORY, rng)
    width = _draw(READ_CANDIDATES, rng)
    drawn = [_answer_to_read(answers, rng) for _ in range(2 * history + width)]
    queries = [
        answers.queries[int(i)] for i in rng.integers(len(answers.queries), size=1 + history)
    ]
    messages = chain_format.messages(
        query=queries[-1],
        candidates=[text for text, _ in drawn[2 * history :]],
        history=[
            PreferencePair(query=queries[i], chosen=drawn[2 * i][0], rejected=drawn[2 * i + 1][0])
            for i in range(history)
        ],
        stated=(),
        conversation=(),
    )
    tags = [f"{i} {which}" for i in range(1, history + 1) for which in ("chosen", "rejected")]
    tags += [f"response {k}" for k in range(1, width + 1)]
    lines = [reading(tag, level) for tag, (_, level) in zip(tags, drawn, strict=True)]
    return Example(messages, "Readings:\n", "\n".join(lines), tuple(text for text, _ in drawn))


def _chain_example(
    task: Literal["reason", "chain"],
    world: World,
    user: SimulatedUser,
    answers: Answers,
    chain_format: ChainFormat,
    rng: np.random.Generator,
    outcomes: Counter[str],
) -> Example | None:
    count = _draw(HISTORY, rng)
    queries = rng.choice(len(answers.queries), count + 1, replace=False)
    past = [world.compare(user, answers, int(query), rng) for query in queries[:-1]]
    query = int(queries[-1])
    width = _draw(CANDIDATES, rng)
    if width == 2:
        pair = world.compare(user, answers, query, rng)
        shown = np.array([pair.chosen, pair.rejected])
        favorite = 0
        if rng.random() < 0.5:
            shown, favorite = shown[::-1].copy(), 1
    else:
        shown = rng.choice(answers.members[query], width, replace=False)
        favorite = _favorite(world, user, answers, query, shown, rng)
    stated: tuple[StatedPreference, ...] = ()
    if rng.random() < STATED_SHARE:
        stated = stated_preferences(user, rng, count=int(rng.integers(1, 3)))

    chain = write_chain(
        int(answers.kinds[query]),
        [
            (answers.levels[comparison.chosen], answers.levels[comparison.rejected])
            for comparison in past
        ],
        wishes_in(stated),
        list(answers.levels[shown]),
    )
    if task == "reason":
        messages = chain_format.messages(
            query=answers.queries[query],
            candidates=[ABSENT.query] * width,
            history=[ABSENT] * count,
            stated=stated,
            conversation=(),
        )
        return Example(messages, "", chain.text, unlearned=("[",))
    if width > 1:
        rivals = np.delete(chain.totals, favorite)
        if chain.totals[favorite] < rivals.max():
            outcomes["ranking disagrees with the choice"] += 1
            return None
        if chain.totals[favorite] == rivals.max():
            outcomes["tie"] += 1
            return None
    outcomes["kept"] += 1
    messages = chain_format.messages(
        query=answers.queries[query],
        candidates=[answers.texts[i] for i in shown],
        history=[as_pair(answers, comparison) for comparison in past],
        stated=stated,
        conversation=(),
    )
    order = [i for comparison in past for i in (comparison.chosen, comparison.rejected)] + [
        int(i) for i in shown
    ]
    return Example(messages, "", chain.text, tuple(answers.texts[i] for i in order))
