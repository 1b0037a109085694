"""How rows come into the memory and leave it: sealed, once each, and with nothing left of whoever goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pgenrm_agent.embedding import embedded
from pgenrm_agent.errors import EntryConflict
from pgenrm_agent.memory.choice_index import ChoiceIndex
from pgenrm_agent.memory.reading import delete, in_batches, rows_of
from pgenrm_agent.memory.records import (
    ConsentRecord,
    PairRecord,
    Record,
    StatedRecord,
    check_limits,
    same_content,
)
from pgenrm_agent.memory.rows import PSEUDONYM, Row, consent_in, pair_in, row_of
from pgenrm_agent.memory.store import Store, reported
from pgenrm_agent.memory.vault import UserKey, new_key

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection


Entered: TypeAlias = PairRecord | StatedRecord


@dataclass(frozen=True)
class Written:
    """How many records were new, and the keys of everybody they are of, by user id."""

    new: int
    keys: Mapping[str, UserKey]


def write_records(
    store: Store, records: Sequence[Record], where: Callable[[int], str] = lambda _: ""
) -> Written:
    """Store what is new of `records`. `where(index)` opens an error about that record.

    Raises:
        EntryConflict: A record says something else than one of its id does.
        EntryRefused: A record cannot be kept as it is.
        MemoryStoreError: The store cannot be written.
    """
    for record in records:
        check_limits(record)
    with store.writing(), reported("write to", store.where):
        users = {record.user_id for record in records}
        known = store.vault.keys_of(users)
        if len(records) > 1 and len(known) < len(users):
            # A refusal leaves nothing behind, no new user's id either: look with keys that are not kept.
            _fresh(store, records, {user: new_key(user) for user in users} | known, where)
        # Before the rows: a key outlives a kill before anything is sealed with it.
        keys = store.vault.keys_for(users)
        fresh = _fresh(store, records, keys, where)
        pairs = [(row, record) for row, record in fresh if isinstance(record, PairRecord)]
        names = {keys[record.user_id].pseudonym for _, record in fresh}
        with store.indexes.writing(names) as indexes:
            for some in in_batches(pairs, store.max_batch):
                vectors = embedded(store.embedder, [record.pair.query for _, record in some])
                rows = [row for row, _ in some]
                store.interactions.add(
                    ids=[row.id for row in rows],
                    embeddings=vectors,
                    metadatas=[row.metadata for row in rows],
                )
                for name, index in indexes.items():
                    own = [i for i, row in enumerate(rows) if row.metadata[PSEUDONYM] == name]
                    index.add(
                        [rows[i].id for i in own], [some[i][1].pair for i in own], vectors[own]
                    )
                store.wrote()
                if not store.embedded:
                    # `add` leaves a row alone that another process has just added.
                    _fresh(store, [record for _, record in some], keys, where)
            others = [row for row, record in fresh if not isinstance(record, PairRecord)]
            for batch in in_batches(others, store.max_batch):
                store.users.upsert(
                    ids=[row.id for row in batch],
                    # These rows are read by id and user only; Chroma wants a vector all the same.
                    embeddings=np.ones((len(batch), 1), dtype=np.float32),
                    metadatas=[row.metadata for row in batch],
                )
                store.wrote()
    return Written(len(fresh), keys)


def put_record(store: Store, record: PairRecord) -> None:
    """Store a choice, in the place of the one whose row has its id where there is one.

    Raises:
        EntryRefused: It cannot be kept as it is.
        MemoryStoreError: The store cannot be written.
    """
    check_limits(record)
    with store.writing(), reported("write to", store.where):
        key = store.vault.keys_for([record.user_id])[record.user_id]
        with store.indexes.writing([key.pseudonym]) as indexes:
            _put(store, row_of(record, key), record, indexes.get(key.pseudonym))


def exchange_record(store: Store, old: Entered, new: Entered) -> str | None:
    """Put a record in the place of one of the same user, and return the id of its row.

    None where that one is no longer there: who was forgotten meanwhile does not come back by it.

    Raises:
        EntryRefused: The new one cannot be kept as it is.
        MemoryStoreError: The store cannot be written.
    """
    check_limits(new)
    with store.writing(), reported("write to", store.where):
        key = store.vault.key_of(new.user_id)
        if key is None:
            return None
        row, before, collection = row_of(new, key), row_of(old, key), _collection_of(store, old)
        if not collection.get(ids=[before.id], include=[])["ids"]:
            return None
        with store.indexes.writing([key.pseudonym]) as indexes:
            index = indexes.get(key.pseudonym)
            _put(store, row, new, index)
            if before.id != row.id:
                delete(collection, [before.id])
                if index is not None:
                    index.remove(before.id)
                store.wrote()
    return row.id


def _put(store: Store, row: Row, record: Entered, index: ChoiceIndex | None) -> None:
    collection = _collection_of(store, record)
    vectors = (
        embedded(store.embedder, [record.pair.query])
        if isinstance(record, PairRecord)
        else np.ones((1, 1), dtype=np.float32)
    )
    collection.upsert(ids=[row.id], embeddings=vectors, metadatas=[row.metadata])
    if index is not None and isinstance(record, PairRecord):
        index.add([row.id], [record.pair], vectors)
    store.changed(collection)
    store.wrote()


def _collection_of(store: Store, record: Entered) -> Collection:
    return store.interactions if isinstance(record, PairRecord) else store.users


def remove_record(store: Store, record: Entered) -> None:
    """Remove the row of a record.

    Raises:
        MemoryStoreError: The store cannot be written.
    """
    with store.writing(), reported("forget an entry in", store.where):
        key = store.vault.key_of(record.user_id)
        if key is None:  # the user was forgotten meanwhile
            return
        collection, row_id = _collection_of(store, record), row_of(record, key).id
        with store.indexes.writing([key.pseudonym]) as indexes:
            delete(collection, [row_id])
            if (index := indexes.get(key.pseudonym)) is not None:
                index.remove(row_id)
        store.changed(collection)
        store.wrote()


def _fresh(
    store: Store,
    records: Sequence[Record],
    keys: Mapping[str, UserKey],
    where: Callable[[int], str],
) -> list[tuple[Row, Record]]:
    """Return the records that say something new, the last word per row; refuses contradictions."""
    rows = [row_of(record, keys[record.user_id]) for record in records]
    known: dict[str, Mapping[str, object]] = {}
    for collection, kinds in (
        (store.interactions, (PairRecord,)),
        (store.users, (StatedRecord, ConsentRecord)),
    ):
        ids = {
            row.id for row, record in zip(rows, records, strict=True) if isinstance(record, kinds)
        }
        for some in in_batches(sorted(ids), store.max_batch):
            known.update(rows_of(collection, ids=list(some)))
    fresh: dict[str, tuple[Row, Record]] = {}
    for index, (row, record) in enumerate(zip(rows, records, strict=True)):
        key = keys[record.user_id]
        before = fresh[row.id][0].metadata if row.id in fresh else known.get(row.id)
        if isinstance(record, PairRecord):
            if before is None:
                fresh[row.id] = row, record
            elif not same_content(pair_in(row.id, before, key), record.pair):
                raise EntryConflict(
                    f"{where(index)}user {record.user_id!r} already has a pair with the id "
                    f"{record.pair.id!r} and another content: give the new pair another id"
                )
        elif isinstance(record, ConsentRecord):
            if before is None or consent_in(row.id, before, key) is not record.consent:
                fresh[row.id] = row, record
        elif before is None:
            fresh[row.id] = row, record
    return list(fresh.values())
