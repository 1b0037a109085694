"""Reading rows from a Chroma collection, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

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
    """Yield all rows, or those that a condition selects, some thousand at a time.

    All at once are too many from about 32,766 on: Chroma asks SQLite for them by their numbers.
    """
    offset = 0
    while True:
        page = settled(
            partial(
                collection.get,
                where=where,  # type: ignore[arg-type]
                limit=READ_AT_ONCE,
                offset=offset,
                include=include,
            )
        )
        yield page
        if len(page["ids"]) < READ_AT_ONCE:
            return
        offset += READ_AT_ONCE


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
