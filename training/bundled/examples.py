"""Training examples for stage 1 (PSI): prompts of the chain format, answers of the teacher.

Three kinds, in the order in which a small model learns them:
    read    past choices and candidates with nothing but their readings: what a text is like
    reason  whole chains whose readings are given and whose texts are left out: arithmetic only
    chain   whole chains
Whole chains pass rejection sampling: kept only when the teacher's favorite is the user's choice.

Texts and numbers of past choices and candidates are those of use: a word to a page, none to six
choices, one to four candidates; some are near-twins, and some are in other languages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.chain.signs import CAPS, THEMES
from pgenrm_agent.schema import Message, PreferencePair, StatedPreference
from pgenrm_agent.training.bundled.simulation import Answers
from pgenrm_agent.training.bundled.teacher import (
    EDITED_POINTS,
    WISH_STRENGTH,
    persona_of,
    reading,
    write_chain,
)
from pgenrm_agent.training.bundled.texts import (
    Text,
    answers_to,
    draw_length,
    draw_text,
    foreign,
    restyled,
)
from pgenrm_agent.training.bundled.words import WORDS

Task = Literal["read", "reason", "chain"]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Distribution = tuple[tuple[int, ...], tuple[float, ...]]

HISTORY: Distribution = ((0, 1, 2, 3, 4, 5, 6), (0.08, 0.22, 0.2, 0.26, 0.12, 0.06, 0.06))
CANDIDATES: Distribution = ((1, 2, 3, 4), (0.25, 0.25, 0.25, 0.25))
READ_HISTORY: Distribution = ((0, 1, 2, 3), (0.5, 0.25, 0.15, 0.1))
READ_CANDIDATES: Distribution = ((1, 2, 3, 4), (0.4, 0.3, 0.15, 0.15))
STATED_SHARE, STATED_ALONE_SHARE = 0.2, 0.6
OFF_TOPIC_SHARE = 0.2
EDITED_SHARE = 0.06
FOREIGN_SHARE = 0.04
TWIN_SHARE = 0.05
WHOLE_SHARE, CUT_SHARE = 0.3, 0.25
"""Shares of whole real answers, and of real answers cut short; what is left is restyled."""
PLAIN_SHARE = 0.35
"""Of the texts that could be restyled."""
SAME_SIZE_SHARE = 0.6
"""Of examples whose texts are all about as long."""
SPREADS = np.array([2.5, 1.8, 2.2, 1.7])
SHARPNESS = 2.0
ABSENT = PreferencePair(query="...", chosen="+", rejected="-")
"""Stands in a "reason" prompt where a past choice would be."""


@dataclass(frozen=True)
class Example:
    """A prompt, the part of the answer that is given, and the part to learn.

    answers: the prompt's texts in their order, None for one whose signs cannot be counted; empty
        where it holds none. What a model should notice while it reads them is a second thing to learn.
    unlearned: prefixes of target lines that are context, not something to learn.
    """

    messages: tuple[Message, ...]
    given: str
    target: str
    answers: tuple[str | None, ...] = ()
    unlearned: tuple[str, ...] = ()


def write_examples(
    task: Task,
    answers: Answers,
    chain_format: ChainFormat,
    *,
    seed: int,
    outcomes: Counter[str] | None = None,
) -> Iterator[Example]:
    """An endless stream of examples, the same for the same arguments.

    `outcomes` counts chains by "kept" and "ranking disagrees with the choice".
    """
    rng = np.random.default_rng(seed)
    counted: Counter[str] = Counter() if outcomes is None else outcomes
    while True:
        if task == "read":
            example = _reading_example(answers, chain_format, rng)
        elif task == "reason":
            example = _reasoning_example(answers, chain_format, rng)
        else:
            example = _chain_example(answers, chain_format, rng, counted)
        if example is not None:
            yield example


def _draw(distribution: Distribution, rng: np.random.Generator) -> int:
    return int(rng.choice(distribution[0], p=distribution[1]))


def _taste(rng: np.random.Generator) -> FloatArray:
    """(4,): one strong leaning, sometimes a second, weaker one, and a little of everything."""
    taste = rng.normal(0.0, 0.2, len(THEMES))
    first, second = rng.choice(len(THEMES), 2, replace=False)
    taste[first] += rng.choice([-2.0, 2.0])
    if rng.random() < 0.4:
        taste[second] += rng.choice([-1.0, 1.0])
    return taste


def _texts(
    answers: Answers,
    query: int,
    count: int,
    taste: FloatArray,
    size: int | None,
    rng: np.random.Generator,
) -> list[Text]:
    """Texts that answer one query and can be told apart, or nearly cannot.

    size: about how long they are; None for any length, each its own.
    """

    def length() -> int:
        return draw_length(rng) if size is None else max(3, int(size * rng.uniform(0.6, 1.6)))

    if rng.random() < TWIN_SHARE:
        base = draw_text(answers, query, length(), rng)
        return _twins(base, count)
    kind = rng.random()
    if kind < WHOLE_SHARE:
        drawn = answers_to(answers, query, count, rng)
    elif kind < WHOLE_SHARE + CUT_SHARE:
        drawn = [Text.of(draw_text(answers, query, length(), rng)) for _ in range(count)]
    else:
        drawn = _restyled(answers, query, count, taste, length, rng)
    if count > 1 and len({text.text for text in drawn}) == 1:
        return _twins(drawn[0].text, count)
    return drawn


def _twins(base: str, count: int) -> list[Text]:
    """The same words with a period behind them or not."""
    return [Text.of(base.rstrip(".") + "." * (i % 2)) for i in range(count)]


def _restyled(
    answers: Answers,
    query: int,
    count: int,
    taste: FloatArray,
    length: Callable[[], int],
    rng: np.random.Generator,
) -> list[Text]:
    """The same text, or several, rewritten toward the poles of a theme in turn."""
    strongest = int(np.abs(taste).argmax())
    theme = strongest if rng.random() < 0.7 else int(rng.integers(len(THEMES)))
    base = draw_text(answers, query, length(), rng)
    poles = rng.permutation([1 if i % 2 else -1 for i in range(count)])
    drawn = []
    for pole in poles:
        if rng.random() < 0.6:
            base = draw_text(answers, query, length(), rng)
        if rng.random() < PLAIN_SHARE:
            drawn.append(Text.of(base))
        else:
            drawn.append(Text.of(restyled(base, theme, int(pole), answers, query, rng)))
    return drawn


def _utility(taste: FloatArray, texts: Sequence[Text]) -> FloatArray:
    utility: FloatArray = SHARPNESS * np.array([text.values for text in texts]) / SPREADS @ taste
    return utility


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _wish(theme: int, pole: int, rng: np.random.Generator) -> str:
    return _pick(WORDS["wishes"][f"{THEMES[theme].key} {'more' if pole > 0 else 'less'}"], rng)


def _stated(taste: FloatArray, rng: np.random.Generator) -> tuple[list[str], IntArray]:
    """What they say, their strongest wish first, and what it adds to the tally."""
    wishes = np.zeros(len(THEMES), dtype=np.int64)
    kind = rng.random()
    said = [_pick(WORDS["off_topic"], rng)] if kind < OFF_TOPIC_SHARE else []
    if kind < OFF_TOPIC_SHARE / 2:
        return said, wishes
    for theme in np.argsort(-np.abs(taste))[: int(rng.integers(1, 3))]:
        pole = 1 if taste[theme] > 0 else -1
        said.append(_wish(int(theme), pole, rng))
        wishes[theme] = WISH_STRENGTH * pole
    return said, wishes


def _edited(rng: np.random.Generator) -> tuple[IntArray, str]:
    """A persona that somebody wrote: its points by theme, and its words."""
    points = np.zeros(len(THEMES), dtype=np.int64)
    drawn = rng.choice(len(THEMES), int(rng.integers(1, 3)), replace=False)
    for theme, strength in zip(drawn, EDITED_POINTS, strict=False):
        points[theme] = strength * int(rng.choice([-1, 1]))
    if rng.random() < 0.5:
        return points, persona_of(points)
    return points, " ".join(_wish(int(theme), int(points[theme]), rng) for theme in drawn)


def _tags(history: int, width: int) -> list[str]:
    past = [f"{i} {which}" for i in range(1, history + 1) for which in ("chosen", "rejected")]
    return past + [f"response {k}" for k in range(1, width + 1)]


def _prompt(
    chain_format: ChainFormat,
    queries: Sequence[str],
    texts: Sequence[Text],
    stated: Sequence[str] = (),
) -> tuple[Message, ...] | None:
    """The prompt; None where it has no room for all of that, or a choice is between equal texts.

    queries: of the past choices, and the one to judge for. texts: two for each choice, then candidates.
    """
    *past, query = queries
    if any(texts[2 * i].text == texts[2 * i + 1].text for i in range(len(past))):
        return None
    candidates = [text.text for text in texts[2 * len(past) :]]
    history = [
        PreferencePair(query=asked, chosen=texts[2 * i].text, rejected=texts[2 * i + 1].text)
        for i, asked in enumerate(past)
    ]
    said = [StatedPreference(text=text) for text in stated]
    shown, told = chain_format.fitting(query, candidates, history, said)
    cut = any(chain_format.beginning("answer", text.text) != text.text for text in texts)
    if cut or len(shown) < len(history) or len(told) < len(said):
        return None
    return chain_format.messages(query=query, candidates=candidates, history=history, stated=said)


def _countable(texts: Sequence[Text]) -> tuple[str | None, ...]:
    return tuple(text.text if text.english else None for text in texts)


def _reading_example(
    answers: Answers, chain_format: ChainFormat, rng: np.random.Generator
) -> Example | None:
    history, width = _draw(READ_HISTORY, rng), _draw(READ_CANDIDATES, rng)
    asked = rng.integers(len(answers.queries), size=history + 1)
    texts: list[Text] = []
    for number, query in enumerate(asked):
        count = 2 if number < history else width
        drawn = _texts(answers, int(query), count, _taste(rng), None, rng)
        texts += [foreign(rng) if rng.random() < FOREIGN_SHARE else text for text in drawn]
    lines = [
        reading(tag, text.values) for tag, text in zip(_tags(history, width), texts, strict=True)
    ]
    messages = _prompt(chain_format, [answers.queries[int(i)] for i in asked], texts)
    if messages is None:
        return None
    return Example(messages, "Readings:\n", "\n".join(lines), _countable(texts))


def _reasoning_example(
    answers: Answers, chain_format: ChainFormat, rng: np.random.Generator
) -> Example:
    history, width = _draw(HISTORY, rng), _draw(CANDIDATES, rng)
    chosen = rng.integers(0, CAPS + 1, size=(history, len(THEMES)))
    lean = np.rint(_taste(rng) * rng.uniform(0, 1.5)).astype(np.int64)
    rejected = np.clip(chosen - lean + rng.integers(-2, 3, size=chosen.shape), 0, CAPS)
    if rng.random() < TWIN_SHARE:
        rejected = chosen
    taste = _taste(rng)
    stated, wishes = _said(taste, history, rng)
    edited, persona = _edited(rng) if rng.random() < EDITED_SHARE else (None, None)
    chain = write_chain(
        list(zip(chosen, rejected, strict=True)),
        wishes,
        stated=bool(stated),
        candidates=list(rng.integers(0, CAPS + 1, size=(width, len(THEMES)))),
        edited=edited,
        persona=persona,
    )
    query = answers.queries[int(rng.integers(len(answers.queries)))]
    messages = chain_format.messages(
        query=query,
        candidates=[ABSENT.query] * width,
        history=[ABSENT] * history,
        stated=tuple(StatedPreference(text=text) for text in stated),
        conversation=(),
    )
    return Example(
        messages, "", chain.text, unlearned=("[", *([persona] if persona is not None else []))
    )


def _said(taste: FloatArray, history: int, rng: np.random.Generator) -> tuple[list[str], IntArray]:
    if rng.random() < (STATED_SHARE if history else STATED_ALONE_SHARE):
        return _stated(taste, rng)
    return [], np.zeros(len(THEMES), dtype=np.int64)


def _chain_example(
    answers: Answers, chain_format: ChainFormat, rng: np.random.Generator, outcomes: Counter[str]
) -> Example | None:
    history, width = _draw(HISTORY, rng), _draw(CANDIDATES, rng)
    asked = [int(i) for i in rng.choice(len(answers.queries), history + 1, replace=False)]
    taste = _taste(rng)
    size = draw_length(rng) if rng.random() < SAME_SIZE_SHARE else None
    texts: list[Text] = []
    for query in asked[:-1]:
        pair = _texts(answers, query, 2, taste, size, rng)
        if rng.random() < FOREIGN_SHARE:
            pair = [foreign(rng), foreign(rng)]
        utility = _utility(taste, pair) + rng.gumbel(size=2)
        texts += pair if utility[0] >= utility[1] else pair[::-1]
    shown = _texts(answers, asked[-1], width, taste, size, rng)
    if rng.random() < FOREIGN_SHARE:
        shown = [foreign(rng) for _ in shown]
    favorite = int((_utility(taste, shown) + rng.gumbel(size=width)).argmax())
    stated, wishes = _said(taste, history, rng)
    edited, persona = _edited(rng) if rng.random() < EDITED_SHARE else (None, None)
    chain = write_chain(
        [(texts[2 * i].values, texts[2 * i + 1].values) for i in range(history)],
        wishes,
        [text.values for text in shown],
        stated=bool(stated),
        edited=edited,
        persona=persona,
    )
    if edited is None and chain.points.any() and width > 1:
        rivals = np.delete(chain.totals, favorite)
        if chain.totals[favorite] < rivals.max() - 1e-9:
            outcomes["ranking disagrees with the choice"] += 1
            return None
    texts += shown
    messages = _prompt(chain_format, [answers.queries[i] for i in asked], texts, stated)
    if messages is None:
        return None
    outcomes["kept"] += 1
    return Example(
        messages, "", chain.text, _countable(texts), unlearned=() if persona is None else (persona,)
    )
