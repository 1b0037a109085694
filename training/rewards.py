"""Rewards for CRE and the curriculum: outcome, process, format (paper 4.1.2; method R = a PR + b OR).

The outcome says whether a chain prefers what the user chose; the process says how well its rubric
covers what the user stated, which the policy itself never sees. A text that is no chain earns neither and
pays FORMAT_PENALTY.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pgenrm_agent.chain import ParsedChain, parse_chain, split_reasoning
from pgenrm_agent.embedding import Embedder, Vectors, embedded
from pgenrm_agent.engines.protocol import Engine, Prompt, SamplingParams
from pgenrm_agent.errors import ChainError
from pgenrm_agent.schema import Message, StatedPreference

FORMAT_PENALTY = -0.1
RATING_TOKENS = 400
CHOSEN, REJECTED = "chosen", "rejected"


@dataclass(frozen=True)
class RatingTask:
    """A chain to rate, and what the user stated (E), which the policy was not shown."""

    chain: ParsedChain
    stated: tuple[StatedPreference, ...]


class Rater(Protocol):
    """Rates chains, in [0, 1] each; None for a user who stated nothing to be covered.

    name: of what rates, with its model; a run that goes on keeps to it.
    """

    name: str

    def can_rate(self, stated: Sequence[StatedPreference]) -> bool:
        """Return whether there is anything in `stated` that a chain could cover."""

    def rate(self, tasks: Sequence[RatingTask]) -> list[float | None]:
        """Return a rating for each task, in their order."""


def read_chain(text: str, *, chosen_first: bool, asks_totals: bool = True) -> ParsedChain | None:
    """The chain over the chosen and the rejected answer; None where the text is none, or not whole.

    chosen_first: whether the chosen answer was shown as response 1. asks_totals: whether the model was
    asked to work out totals, which its marks then have to agree with.
    """
    ids = (CHOSEN, REJECTED) if chosen_first else (REJECTED, CHOSEN)
    try:
        parsed = parse_chain(text, ids, asks_totals=asks_totals)
    except ChainError:
        return None
    return None if parsed.incomplete or "truncated" in parsed.repairs else parsed


def outcome_reward(chain: ParsedChain | None) -> float:
    """OR: 1 where the chosen answer got the higher total, else 0; a tie predicts nothing."""
    return float(chain is not None and chain.totals[CHOSEN] > chain.totals[REJECTED])


def total_reward(
    process: float | None, outcome: float, *, readable: bool, alpha: float, beta: float
) -> float:
    """R = alpha PR + beta OR, or FORMAT_PENALTY. Without a process reward its part is 0."""
    if not readable:
        return FORMAT_PENALTY
    return alpha * (process or 0.0) + beta * outcome


class RuleRater:
    """For simulated users: the share of the stated wishes that the rubric covers, by weight.

    A wish is covered in full when the criterion of its theme, in the wanted direction, has at least
    the weight that equal wishes would share (100 % over as many as they stated, at most half of the
    rubric each); with less it counts in proportion.
    """

    name = "rule"

    def __init__(self) -> None:
        from pgenrm_agent.training.bundled.simulation import THEMES

        self._criterion = {
            wish: name
            for theme in THEMES
            for name, wishes in ((theme.more, theme.wishes_more), (theme.less, theme.wishes_less))
            for wish in wishes
        }

    def can_rate(self, stated: Sequence[StatedPreference]) -> bool:
        """Return whether a wish of the simulation is among `stated`."""
        return any(statement.text in self._criterion for statement in stated)

    def rate(self, tasks: Sequence[RatingTask]) -> list[float | None]:
        """Return the share of the wishes that each rubric covers."""
        return [self._share(task) for task in tasks]

    def _share(self, task: RatingTask) -> float | None:
        wanted = [
            name for statement in task.stated if (name := self._criterion.get(statement.text))
        ]
        if not wanted:
            return None
        weights = {
            criterion.name.casefold(): criterion.weight
            for criterion in (task.chain.rubric.criteria if task.chain.rubric else ())
        }
        fair = min(50.0, 100.0 / len(wanted))
        covered = [min(1.0, weights.get(name.casefold(), 0.0) / fair) for name in wanted]
        return sum(covered) / len(covered)


class SimilarityRater:
    """How near the rubric is in meaning to what the user wrote, for lack of a model that reads.

    The mean over their texts of `sum over criteria of weight * max(0, cosine(text, criterion))`, with
    weights that sum to 1. What it is worth depends on the embedder; values are far below 1 even
    for a good rubric, since a criterion is a few words and a text a sentence.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.name = f"similarity:{embedder.name}"

    def can_rate(self, stated: Sequence[StatedPreference]) -> bool:
        """Return whether anything was stated."""
        return bool(stated)

    def rate(self, tasks: Sequence[RatingTask]) -> list[float | None]:
        """Return how near each rubric is; all texts are embedded in one call."""
        texts: dict[str, None] = {}
        for task in tasks:
            texts |= dict.fromkeys(wish.text for wish in task.stated)
            texts |= dict.fromkeys(name for name, _ in _weighted(task.chain))
        if not texts:
            return [None] * len(tasks)
        vectors = dict(zip(texts, embedded(self._embedder, list(texts)), strict=True))
        return [self._share(task, vectors) for task in tasks]

    def _share(self, task: RatingTask, vectors: Mapping[str, Vectors]) -> float | None:
        if not task.stated:
            return None
        near = [
            sum(
                weight * max(0.0, float(vectors[wish.text] @ vectors[name]))
                for name, weight in _weighted(task.chain)
            )
            for wish in task.stated
        ]
        return min(1.0, sum(near) / len(near))


def _weighted(chain: ParsedChain) -> list[tuple[str, float]]:
    """Criteria and their weights, 0-1."""
    criteria = chain.rubric.criteria if chain.rubric else ()
    return [(criterion.name, criterion.weight / 100) for criterion in criteria]


class EngineRater:
    """A language model rates how well a chain covers what the user stated, from 0 to 10.

    Blocking, for a trainer's thread; all chains of a step go into one engine call. An answer without
    a number is None: not rated, rather than a guess.
    """

    def __init__(self, engine: Engine) -> None:
        from pgenrm_agent.background_loop import BackgroundLoop

        self._engine = engine
        self.name = engine.name
        self._params = SamplingParams(temperature=0.0, max_tokens=RATING_TOKENS)
        self._loop = BackgroundLoop("EngineRater")

    def can_rate(self, stated: Sequence[StatedPreference]) -> bool:
        """Return whether anything was stated."""
        return bool(stated)

    def rate(self, tasks: Sequence[RatingTask]) -> list[float | None]:
        """Return the model's ratings, 10 as 1."""
        asked = [number for number, task in enumerate(tasks) if task.stated]
        ratings: list[float | None] = [None] * len(tasks)
        if not asked:
            return ratings
        prompts = [Prompt(messages=_question(tasks[number])) for number in asked]
        answers = self._loop.run_blocking(lambda: self._engine.sample(prompts, self._params))
        for number, (answer,) in zip(asked, answers, strict=True):
            ratings[number] = _rating(answer.text)
        return ratings

    def close(self) -> None:
        """End the rater's thread; the engine stays its owner's."""
        self._loop.close()


_INSTRUCTIONS = (
    "You check evaluations. A person said what they want from answers; somebody else, who did not "
    "know that, wrote a description of the person and weighted criteria. Say how well description "
    "and criteria cover what the person said: 10 when everything said is covered with fitting "
    "weight, 0 when nothing is or the opposite is. End with a line `Rating: N`."
)
_RATING = re.compile(r"rating\W{1,8}(\d{1,2}(?:\.\d+)?)", re.IGNORECASE)


def _question(task: RatingTask) -> tuple[Message, ...]:
    criteria = task.chain.rubric.criteria if task.chain.rubric else ()
    said = "\n".join(f"- {statement.text}" for statement in task.stated)
    listed = "\n".join(
        f"- {criterion.name} ({criterion.weight:.0f} %): {criterion.reason}"
        for criterion in criteria
    )
    return (
        Message(role="system", content=_INSTRUCTIONS),
        Message(
            role="user",
            content=f"The person said:\n{said}\n\nDescription:\n{task.chain.persona.text}\n\n"
            f"Criteria:\n{listed or '(none)'}",
        ),
    )


def _rating(text: str) -> float | None:
    numbers = _RATING.findall(split_reasoning(text).answer)
    return min(float(numbers[-1]), 10.0) / 10 if numbers else None
