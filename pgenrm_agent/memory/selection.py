"""Which of a user's pairs are shown, and in which order: pure functions over what was read.

The memory and the evaluation graph both choose here, so that the same choices are shown alike whether
they were remembered or passed along.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pgenrm_agent.arguments import text_of, whole_number
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.memory.agreement import overruled_choices
from pgenrm_agent.schema import PreferencePair

MANY = 2_000
"""Beyond so many choices lots are drawn for all at once, and the memory keeps an index."""

Selection: TypeAlias = Literal["random", "similar", "recent"]


def select(
    pairs: Sequence[PreferencePair],
    selection: Selection,
    limit: int | None,
    *,
    seed: int = 0,
    similarity: ArrayLike | None = None,
) -> tuple[PreferencePair, ...]:
    """Choose at most `limit` of the pairs (None: all); the order of `pairs` does not matter.

    A pair that a newer one contradicts is not chosen.

    random: in an order that follows from `seed` and the pairs' ids alone.
    similar: most similar first; equally similar pairs: newest first.
    recent: newest first.

    Args:
        pairs: a user's past choices, each with an id of its own.
        selection: how to choose.
        limit: how many, or None for all.
        seed: for "random".
        similarity: for "similar", the cosine similarity of each pair's query with the query at hand.

    Raises:
        ConfigurationError: "similar" without a similarity for each pair.
    """
    if selection == "random":
        # Each pair gets a lot of its own: fewer pairs are a prefix of more, and one new pair leaves
        # the order of the others as it was.
        if len(pairs) <= MANY:
            order = sorted(pairs, key=lambda pair: _lot(pair, seed))
        else:
            lots = lots_of(draws_of(pair.id for pair in pairs), seed)
            order = [pairs[place] for place in np.argsort(lots)]
    elif selection == "recent":
        order = oldest_first(pairs)[::-1]
    else:
        likeness = rounded([] if similarity is None else similarity)
        if likeness.shape != (len(pairs),):
            raise ConfigurationError(
                f"selection 'similar' got {likeness.size} similarities for {len(pairs)} pairs: "
                "give one for each"
            )
        ranked = sorted(
            zip(likeness.tolist(), pairs, strict=True),
            key=lambda entry: (entry[0], *_age(entry[1])),
            reverse=True,
        )
        order = [pair for _, pair in ranked]
    overruled = overruled_choices(pairs)
    return tuple([pair for pair in order if pair.id not in overruled][:limit])


def refuse_unusable(selection: object, limit: object, query: object, seed: object) -> None:
    """Refuse what `UserMemory.recall` cannot select by.

    Raises:
        ConfigurationError: The selection is unknown or lacks its query, or another is no number or
            text that can be used.
    """
    if selection not in get_args(Selection):
        raise ConfigurationError(
            f"selection {selection!r} is unknown: use one of {', '.join(get_args(Selection))}"
        )
    if limit is not None:
        whole_number(limit, "limit", least=0)
    if query is not None:
        text_of(query, "query")
    elif selection == "similar":
        raise ConfigurationError("selection 'similar' needs the query to be similar to")
    whole_number(seed, "seed", least=0)


def oldest_first(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    """Sort by time, and pairs of the same moment by id."""
    return sorted(pairs, key=_age)


def rounded(similarity: ArrayLike) -> NDArray[np.float64]:
    """Return similarities so that the last bits of a sum in another order change nothing."""
    similarities = np.asarray(similarity, dtype=np.float64)
    return np.asarray(np.round(similarities, 5), dtype=np.float64)


def draws_of(pair_ids: Iterable[str]) -> NDArray[np.uint64]:
    """Return a number for each choice, from which `lots_of` makes its lot for any seed."""
    digests = b"".join(
        hashlib.blake2b(pair_id.encode(), digest_size=8).digest() for pair_id in pair_ids
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def lots_of(draws: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Return the choices' lots; the smallest is drawn first. By the finalizer of SplitMix64."""
    lots = draws + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    lots = (lots ^ (lots >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    lots = (lots ^ (lots >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return lots ^ (lots >> np.uint64(31))


def _age(pair: PreferencePair) -> tuple[datetime, str]:
    return pair.created_at, pair.id


def _lot(pair: PreferencePair, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{pair.id}".encode(), digest_size=16).digest()
