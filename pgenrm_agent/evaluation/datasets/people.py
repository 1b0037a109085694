"""Choices of real people without given splits: users are held out by a hash of their ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.jsonl import Located, read_jsonl
from pgenrm_agent.evaluation.datasets.parsing import parse_row
from pgenrm_agent.evaluation.datasets.rows import PreferenceRow, Split

__all__ = ["place_of", "read_people", "read_people_topics", "split_by_user"]

# Shares of users without given splits, and of a held-out user's rows that are their history.
TEST_SHARE, VALIDATION_SHARE, HISTORY_SHARE = 0.2, 0.1, 0.5
TOPIC_SHARE = 0.25  # of topics, where they are held out


def read_people(file: str) -> list[PreferenceRow]:
    """Read JSONL of {user_id, query, chosen, rejected}; see `split_by_user`."""
    return split_by_user(read_jsonl(Path(file)))


def read_people_topics(file: str) -> list[PreferenceRow]:
    """Read the same with a topic each, and hold topics out together with users.

    Nobody is trained on held-out topics; held-out users are asked about nothing else, and their
    history is what they chose on other topics. A topic is what stands before the last underscore, so
    that the two sides of a debate, told apart behind it, are held out together.
    """
    rows = []
    for where, record in read_jsonl(Path(file)):
        row = parse_row(where, {**record, "split": "train"})
        if row.topic is None:
            raise ConfigurationError(
                f"{where}, field topic: missing, and people-topics: holds topics out; use people:"
            )
        held = place_of(row.topic.rpartition("_")[0] or row.topic) < TOPIC_SHARE
        split = _split_of_user(row.user_id)
        if split != "train":
            rows.append(row.model_copy(update={"split": split if held else "history"}))
        elif not held:
            rows.append(row)
    return rows


def split_by_user(records: Iterable[Located]) -> list[PreferenceRow]:
    """Split by user, by a hash of the id; the first half of a held-out user's choices is history."""
    by_user: dict[str, list[PreferenceRow]] = {}
    for where, record in records:
        row = parse_row(where, {**record, "split": "train"})
        by_user.setdefault(row.user_id, []).append(row)
    rows = []
    for user, own in by_user.items():
        split = _split_of_user(user)
        shown = round(len(own) * HISTORY_SHARE)
        rows += [
            row.model_copy(
                update={"split": "history" if split != "train" and number < shown else split}
            )
            for number, row in enumerate(own)
        ]
    return rows


def _split_of_user(user_id: str) -> Split:
    place = place_of(user_id)
    if place < TEST_SHARE:
        return "test"
    return "validation" if place < TEST_SHARE + VALIDATION_SHARE else "train"


def place_of(name: str) -> float:
    """Return where a name falls in [0, 1), evenly and always the same."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
