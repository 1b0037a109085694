"""Simulated users as a dataset source: `simulated:` and `simulated-train:`, once this is imported.

simulated:FOLDER[:USERS]         test users (200 if not said) over the answers in val.jsonl.gz
simulated-train:FOLDER[:USERS]   other users, to train on, over the answers in train.jsonl.gz
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pgenrm_agent.evaluation.datasets.rows import PreferenceRow, Split
from pgenrm_agent.evaluation.datasets.sources import register_source
from pgenrm_agent.training.bundled.simulation import World, as_pair, load_answers, stated_preference

USERS = 200
HISTORY = 6


def simulated_rows(folder: Path, users: int, *, to_train_on: bool) -> list[PreferenceRow]:
    """Draw users of the simulated world, seven choices each; of a test user's, the last is asked.

    Test users choose among answers to queries that training never saw.
    """
    name = "train" if to_train_on else "test"
    answers = load_answers(folder / ("train.jsonl.gz" if to_train_on else "val.jsonl.gz"))
    world = World()
    rows = []
    for index, user in enumerate(world.users(name, users)):
        rng = np.random.default_rng([1, index])
        queries = rng.choice(len(answers.queries), HISTORY + 1, replace=False)
        pairs = [
            as_pair(answers, world.compare(user, answers, int(query), rng)) for query in queries
        ]
        stated = (stated_preference(user, rng),)
        rows += [
            PreferenceRow(
                user_id=user.user_id,
                pair=pair.model_copy(update={"id": f"{user.user_id}-{number}"}),
                split=_split(number, to_train_on=to_train_on),
                stated=stated,
                topic=user.archetype,
            )
            for number, pair in enumerate(pairs)
        ]
    return rows


def _split(number: int, *, to_train_on: bool) -> Split:
    if to_train_on:
        return "train"
    return "test" if number == HISTORY else "history"


def _read(rest: str, *, to_train_on: bool) -> list[PreferenceRow]:
    folder, _, users = rest.rpartition(":")
    if not (folder and users.isdecimal()):
        folder, users = rest, str(USERS)
    return simulated_rows(Path(folder), int(users), to_train_on=to_train_on)


USAGE = "FOLDER[:USERS]"
register_source("simulated", lambda rest: _read(rest, to_train_on=False), usage=USAGE)
register_source("simulated-train", lambda rest: _read(rest, to_train_on=True), usage=USAGE)
