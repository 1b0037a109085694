"""Reading rows from a Chroma collection, a bounded number at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar
from uuid import UUID

import numpy as np

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection
    from chromadb.api.types import GetResult, Include

StoredRow: TypeAlias = tuple[str, dict[str, object]]
T = TypeVar("T")
READ_AT_ONCE = 2000
TRIES = 5
GONE = "Error finding id"
"""What Chroma says of a row that is deleted between finding and reading it."""


def rows_of(
    collection: Collection,
    *,
    ids: list[str] | None = None,
    where: dict[str, object] | None = None,
) -> list[StoredRow]:
    """Return the rows with these ids, or that a condition selects, as (id, metadata)."""
    if ids is not None:
        return _rows_in(settled(lambda: collection.get(ids=ids, include=["metadatas"])))
    return list(all_rows(collection, where))


def all_rows(collection: Collection, where: dict[str, object] | None = None) -> Iterator[StoredRow]:
    """Yield every row, or those that a condition selects, as (id, metadata)."""
    for page in pages(collection, ["metadatas"], where):
        yield from _rows_in(page)


def pages(
    collection: Collection, include: Include, where: dict[str, object] | None = None
) -> Iterator[GetResult]:
    """Yield all rows, or those that a condition selects, some thousand at a time, each once.

    All at once are too many from about 32,766 on: Chroma asks SQLite for them by their numbers. Rows that this
    process deletes meanwhile move those behind them up: it goes back by as many, so that none is passed over.
    """

    def read(offset: int) -> GetResult:
        return collection.get(
            where=where,  # type: ignore[arg-type]
            limit=READ_AT_ONCE,
            offset=offset,
            include=include,
        )

    page = settled(lambda: read(0))
    if len(page["ids"]) < READ_AT_ONCE:
        yield page
        return
    deletions = _deletions_in(collection)
    seen: set[str] = set()
    position = gone = 0
    while True:
        with deletions.lock:
            start = max(0, position - (deletions.rows - gone)) if seen else 0
            page, gone = read(start), deletions.rows
        position = start + len(page["ids"])
        yield _without(page, seen)
        seen.update(page["ids"])
        if len(page["ids"]) < READ_AT_ONCE:
            return


def delete(collection: Collection, ids: list[str]) -> None:
    """Delete rows, beside whoever reads pages of the collection."""
    deletions = _deletions_in(collection)
    with deletions.lock:
        deletions.rows += len(ids)
        collection.delete(ids=ids)


@dataclass
class _Deletions:
    """How many rows of a collection this process has deleted. lock: held while one is, and for a page."""

    rows: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


_deletions: dict[UUID, _Deletions] = {}


def _deletions_in(collection: Collection) -> _Deletions:
    return _deletions.setdefault(collection.id, _Deletions())


def _without(page: GetResult, seen: set[str]) -> GetResult:
    """The page without rows that were seen."""
    kept = [place for place, row_id in enumerate(page["ids"]) if row_id not in seen]
    if len(kept) == len(page["ids"]):
        return page
    metadatas, vectors = page["metadatas"], page["embeddings"]
    return {
        **page,
        "ids": [page["ids"][place] for place in kept],
        "metadatas": metadatas and [metadatas[place] for place in kept],
        "embeddings": None if vectors is None else np.asarray(vectors)[kept],
    }


def in_batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items in parts of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def settled(read: Callable[[], T]) -> T:
    """Return what Chroma answers; it is asked again where a row went while it was being read."""
    for _ in range(TRIES):
        try:
            return read()
        except Exception as error:
            if GONE not in str(error):
                raise
    return read()


def _rows_in(page: GetResult) -> list[StoredRow]:
    return [
        (row_id, dict(metadata))
        for row_id, metadata in zip(page["ids"], page["metadatas"] or (), strict=True)
    ]
