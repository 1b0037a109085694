"""The row that every dataset of choices becomes, and who may be shown what of it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Literal

from pgenrm_agent.fields import Model, UserId
from pgenrm_agent.sampling import derive_seed
from pgenrm_agent.schema import PreferencePair, StatedPreference

Split = Literal["train", "validation", "test", "history", "crowd"]


class PreferenceRow(Model):
    """One choice of one user.

    split: "history" rows of a held-out user may be shown as their past, and are not trained on.
        "crowd" rows are what others chose on prompts that are held out: they say what the crowd
        thinks there, and nothing is trained on them or asked about them.
    stated: the criteria that they put into words (E of the paper), withheld from a policy in CRE.
    topic, reason: what the choice was about, and why they made it, where the dataset tells.
    """

    user_id: UserId
    pair: PreferencePair
    split: Split
    stated: tuple[StatedPreference, ...] = ()
    topic: str | None = None
    reason: str | None = None


class Example(Model):
    """A choice to predict, and what may be shown of the user: their past, never the choice itself."""

    user_id: UserId
    history: tuple[PreferencePair, ...]
    stated: tuple[StatedPreference, ...] = ()
    asked: PreferencePair
    topic: str | None = None
    reason: str | None = None


def examples(
    rows: Iterable[PreferenceRow], *, split: Split, history: int, seed: int
) -> Iterator[Example]:
    """Make an example of each row of `split`, in the rows' order; the same for the same seed.

    history: at most this many past choices, drawn from the user's "train" and "history" rows; never
        the row itself, nor one that tells what became of it (`_gives_away`).
    """
    every = list(rows)
    past: dict[str, list[PreferencePair]] = {}
    for row in every:
        if row.split in ("train", "history"):
            past.setdefault(row.user_id, []).append(row.pair)
    for number, row in enumerate(every):
        if row.split != split:
            continue
        own = [pair for pair in past.get(row.user_id, []) if not _gives_away(pair, row.pair)]
        rng = random.Random(derive_seed(seed, "history", row.user_id, number))
        yield Example(
            user_id=row.user_id,
            history=tuple(rng.sample(own, min(history, len(own)))),
            stated=row.stated,
            asked=row.pair,
            topic=row.topic,
            reason=row.reason,
        )


def _gives_away(past: PreferencePair, asked: PreferencePair) -> bool:
    """Return whether a past choice says how the asked one ended.

    It is between one of the same answers to the same query, as where one answer was chosen over
    several; or it comes later in the same conversation, which went on with one of them.
    """
    answers = {asked.chosen, asked.rejected}
    if past.query == asked.query and answers & {past.chosen, past.rejected}:
        return True
    turns = past.conversation
    return any(
        question.content == asked.query and answer.content in answers
        for question, answer in pairwise(turns)
    )
