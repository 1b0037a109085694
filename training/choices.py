"""Real people's choices: which are learned from, the teacher's chains about them, and which are held out.

The teacher reads the four themes off the shown texts, as it does for simulated users. It knows nothing
of content: where its favorite is not what the person chose, the chain is left out (rejection sampling),
so what is learned of real people is how far the themes carry.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.chain.layout import Turn
from pgenrm_agent.chain.signs import THEMES, read
from pgenrm_agent.evaluation.datasets.rows import Example as Choice
from pgenrm_agent.evaluation.datasets.rows import PreferenceRow
from pgenrm_agent.evaluation.datasets.rows import examples as choices_of
from pgenrm_agent.fields import Model
from pgenrm_agent.files import write_text
from pgenrm_agent.sampling import derive_seed
from pgenrm_agent.schema import PreferencePair, StatedPreference
from pgenrm_agent.training.bundled.examples import HISTORY, Example
from pgenrm_agent.training.bundled.teacher import write_chain

MOST_HISTORY = max(HISTORY[0])


class HeldOut(Model):
    """A choice to ask about: of which dataset and user, what is shown, and the chosen answer first."""

    source: str
    user_id: str
    query: str
    history: tuple[PreferencePair, ...]
    stated: tuple[StatedPreference, ...]
    answers: tuple[str, str]

    def turn(self, chain_format: ChainFormat, *, chosen_first: bool) -> Turn:
        """Return what to ask for a whole chain."""
        return chain_format.turn(
            "scores",
            query=self.query,
            candidates=self.answers if chosen_first else self.answers[::-1],
            history=self.history,
            stated=self.stated,
        )


def drawn(choices: Iterable[Choice], count: int | None, *, seed: int) -> list[Choice]:
    """Return so many choices, or all, in an order drawn from the seed.

    Files are often sorted by user: their first choices would be those of a few people. More choices
    begin with the fewer of the same seed.
    """
    every = list(choices)
    random.Random(derive_seed(seed, "drawn")).shuffle(every)
    return every[:count]


def write_choices(
    rows: Sequence[PreferenceRow], chain_format: ChainFormat, *, seed: int
) -> Iterator[Example]:
    """Return an endless stream of chains about "train" choices, the same for the same arguments.

    Nothing comes where the teacher agrees with no choice at all.
    """
    epoch, kept = 0, True
    while kept:
        kept = False
        draws = random.Random(derive_seed(seed, "choices", epoch))
        asked = list(
            choices_of(rows, split="train", history=MOST_HISTORY, seed=draws.getrandbits(31))
        )
        draws.shuffle(asked)
        for choice in asked:
            example = _chain_about(choice, chain_format, draws)
            if example is not None:
                kept = True
                yield example
        epoch += 1


def held_out(
    source: str, rows: Sequence[PreferenceRow], *, choices: int, history: int, seed: int
) -> list[HeldOut]:
    """Return some of the "test" choices of a dataset, as many of each user's as of every other's."""
    draws = random.Random(derive_seed(seed, "held out", source))
    by_user: dict[str, list[Choice]] = {}
    for choice in choices_of(rows, split="test", history=history, seed=seed):
        if not choice.asked.conversation:
            by_user.setdefault(choice.user_id, []).append(choice)
    for own in by_user.values():
        draws.shuffle(own)
    users = sorted(by_user)
    draws.shuffle(users)
    rounds = max((len(own) for own in by_user.values()), default=0)
    in_turn = [by_user[user][n] for n in range(rounds) for user in users if n < len(by_user[user])]
    return [
        HeldOut(
            source=source,
            user_id=choice.user_id,
            query=choice.asked.query,
            history=choice.history,
            stated=choice.stated,
            answers=(choice.asked.chosen, choice.asked.rejected),
        )
        for choice in in_turn[:choices]
    ]


def write_held_out(path: Path, choices: Sequence[HeldOut]) -> None:
    """Write choices, one a line."""
    write_text(path, "".join(f"{choice.model_dump_json()}\n" for choice in choices))


def read_held_out(path: Path) -> list[HeldOut]:
    """Read what `write_held_out` wrote.

    Raises InvalidInput for a line that is no choice.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    return [HeldOut.model_validate_json(line) for line in lines if line]


def _chain_about(choice: Choice, chain_format: ChainFormat, draws: random.Random) -> Example | None:
    """A chain whose favorite is the user's; None where there is none."""
    asked = choice.asked
    if asked.conversation:
        return None
    answers = [asked.chosen, asked.rejected]
    favorite = draws.randrange(2)
    if favorite:
        answers.reverse()
    wanted = draws.choices(HISTORY[0], HISTORY[1])[0]
    past = [pair for pair in choice.history if not pair.conversation][:wanted]
    history, stated = chain_format.fitting(asked.query, answers, past, choice.stated)
    pairs = [(pair.chosen, pair.rejected) for pair in history]
    texts = [
        chain_format.beginning("answer", text)
        for text in (*(text for pair in pairs for text in pair), *answers)
    ]
    if any(texts[i] == texts[i + 1] for i in range(0, len(texts), 2)):
        return None
    values = read(texts)
    chain = write_chain(
        [(values[2 * i], values[2 * i + 1]) for i in range(len(history))],
        np.zeros(len(THEMES), dtype=np.int64),
        list(values[2 * len(history) :]),
        stated=bool(stated),
    )
    if chain.totals[favorite] <= chain.totals[1 - favorite]:
        return None
    messages = chain_format.messages(
        query=asked.query, candidates=answers, history=history, stated=stated
    )
    return Example(messages, "", chain.text, tuple(texts))
