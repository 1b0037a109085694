"""Which of a user's choices are recalled: read whole where there are few, by an index where there are many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pgenrm_agent.embedding import Vectors, embedded
from pgenrm_agent.memory.choice_index import ChoiceIndex
from pgenrm_agent.memory.reading import in_batches, pages, rows_of
from pgenrm_agent.memory.rows import PSEUDONYM, pair_in
from pgenrm_agent.memory.selection import MANY, Selection, select
from pgenrm_agent.memory.store import Store
from pgenrm_agent.memory.vault import UserKey
from pgenrm_agent.schema import PreferencePair

if TYPE_CHECKING:
    from chromadb.api.types import Include

TRIES = 3


def choices_in(store: Store, key: UserKey) -> list[PreferencePair]:
    """Return all choices of a user."""
    return [pair for _, pairs, _ in _pages(store, key, with_vectors=False) for pair in pairs]


def recalled(
    store: Store,
    key: UserKey,
    selection: Selection,
    limit: int | None,
    *,
    seed: int,
    query: str | None,
) -> tuple[tuple[PreferencePair, ...], int]:
    """Return the chosen choices, as `select` has them, and how many there are in all.

    limit: at least 1, or None for all.
    """
    similar = selection == "similar"
    vector = embedded(store.embedder, [query])[0] if similar and query is not None else None
    # A choice can go between its being chosen and its being read.
    for _ in range(TRIES if limit is not None else 0):
        index = store.indexes.get(key.pseudonym, with_vectors=similar)
        if index is None:
            edition = store.indexes.edition(key.pseudonym)
            read = _read(store, key, with_vectors=similar)
            if isinstance(read, _Few):
                return _selected(read, selection, limit, seed, vector)
            index = read
            if store.embedded:  # else another process may write
                store.indexes.keep(key.pseudonym, edition, index)
        elif len(index) <= MANY:
            store.indexes.drop(key.pseudonym)
            continue
        rows = index.select(selection, limit or 1, seed=seed, vector=vector)
        pairs = _opened(store, key, rows)
        if len(pairs) == len(rows):
            return pairs, len(index)
        store.indexes.drop(key.pseudonym)
    every = _Few()
    for _, pairs_, vectors in _pages(store, key, with_vectors=similar):
        every.add(pairs_, vectors)
    return _selected(every, selection, limit, seed, vector)


@dataclass
class _Few:
    """Choices that were read whole."""

    pairs: list[PreferencePair] = field(default_factory=list)
    vectors: list[Vectors] = field(default_factory=list)

    def add(self, pairs: list[PreferencePair], vectors: Vectors | None) -> None:
        self.pairs += pairs
        self.vectors += [] if vectors is None else [vectors]

    @property
    def every_vector(self) -> Vectors | None:
        return np.concatenate(self.vectors) if self.vectors else None


def _selected(
    read: _Few, selection: Selection, limit: int | None, seed: int, vector: Vectors | None
) -> tuple[tuple[PreferencePair, ...], int]:
    vectors = read.every_vector
    similarity = None if vector is None or vectors is None else vectors @ vector
    chosen = select(read.pairs, selection, limit, seed=seed, similarity=similarity)
    return chosen, len(read.pairs)


def _read(store: Store, key: UserKey, *, with_vectors: bool) -> _Few | ChoiceIndex:
    """Return a user's choices where they are few, and else an index of them; never all of many texts."""
    few, rows = _Few(), list[str]()
    index: ChoiceIndex | None = None
    for row_ids, pairs, vectors in _pages(store, key, with_vectors=with_vectors):
        if index is not None:
            index.add(row_ids, pairs, vectors)
            continue
        few.add(pairs, vectors)
        rows += row_ids
        if len(rows) > MANY:
            index = ChoiceIndex(with_vectors=with_vectors)
            index.add(rows, few.pairs, few.every_vector)
            few = _Few()
    return few if index is None else index


def _opened(store: Store, key: UserKey, row_ids: Sequence[str]) -> tuple[PreferencePair, ...]:
    """Return the choices in these rows, in this order, without those that are gone."""
    pairs: dict[str, PreferencePair] = {}
    for some in in_batches(row_ids, store.max_batch):
        for row_id, metadata in rows_of(store.interactions, ids=list(some)):
            pairs[row_id] = pair_in(row_id, metadata, key)
    return tuple(pairs[row_id] for row_id in row_ids if row_id in pairs)


def _pages(
    store: Store, key: UserKey, *, with_vectors: bool
) -> Iterator[tuple[list[str], list[PreferencePair], Vectors | None]]:
    include: Include = ["metadatas", "embeddings"] if with_vectors else ["metadatas"]
    for page in pages(store.interactions, include, {PSEUDONYM: key.pseudonym}):
        rows = zip(page["ids"], page["metadatas"] or (), strict=True)
        pairs = [pair_in(row_id, metadata, key) for row_id, metadata in rows]
        has_vectors = with_vectors and page["ids"]
        yield (
            page["ids"],
            pairs,
            np.asarray(page["embeddings"], dtype=np.float32) if has_vectors else None,
        )
