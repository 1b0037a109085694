"""Which of a person's pairs are shown: pure functions over what was read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from pgenrm_agent.embedding import Vectors
from pgenrm_agent.schema import PreferencePair

__all__ = ["Selection", "drawn", "moment", "most_recent", "most_similar", "oldest_first"]

Selection: TypeAlias = Literal["random", "similar", "recent"]


def drawn(pairs: Sequence[PreferencePair], seed: int) -> list[PreferencePair]:
    """All pairs in a random order that follows from `seed` and the pairs' ids alone.

    Each pair gets a lot of its own, so the order of the rows does not matter, fewer pairs are a
    prefix of more, and one new pair leaves the order of the others as it was.
    """

    def lot(pair: PreferencePair) -> bytes:
        return hashlib.blake2b(f"{seed}:{pair.id}".encode(), digest_size=16).digest()

    return sorted(pairs, key=lot)


def most_recent(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    """Newest first."""
    return oldest_first(pairs)[::-1]


def oldest_first(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    return sorted(pairs, key=lambda pair: (moment(pair.created_at), pair.id))


def most_similar(
    pairs: Sequence[PreferencePair], vectors: Vectors, query: Vectors
) -> list[PreferencePair]:
    """By cosine similarity of the pairs' queries with `query` (unit vectors), most similar first.

    Equally similar pairs: newest first.
    """
    similarity = vectors @ query
    order = sorted(
        range(len(pairs)),
        # Rounded, so that the last bits of a sum in another order change nothing.
        key=lambda i: (
            round(float(similarity[i]), 5),
            moment(pairs[i].created_at),
            pairs[i].id,
        ),
        reverse=True,
    )
    return [pairs[i] for i in order]


def moment(time: datetime) -> datetime:
    """Comparable times: one without a time zone is read as UTC."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
