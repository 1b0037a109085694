"""Forgetting a user: every row of theirs, their key, and whatever else has to forget them, too."""

from __future__ import annotations

from collections.abc import Callable

from pgenrm_agent.errors import MemoryStoreError
from pgenrm_agent.memory.reading import delete
from pgenrm_agent.memory.rows import PSEUDONYM
from pgenrm_agent.memory.store import Store, reported


def forget_rows(store: Store, user_id: str) -> int:
    """Remove every row of a user, and at last their key; returns how many rows that were.

    Raises:
        MemoryStoreError: The store cannot be written. Their key is still there then.
    """
    forgotten = 0
    with store.writing(alone=True), reported("forget a user in", store.where):
        key = store.vault.key_of(user_id)
        if key is None:
            return 0
        store.indexes.drop(key.pseudonym)
        for collection in store.collections():
            before = forgotten
            while ids := collection.get(
                where={PSEUDONYM: key.pseudonym}, limit=store.max_batch, include=[]
            )["ids"]:
                delete(collection, ids)
                forgotten += len(ids)
            if forgotten > before:
                store.changed(collection)
        store.indexes.drop(key.pseudonym)
        store.wrote()
        store.vault.remove(user_id)
    return forgotten


def tell_forgotten(listeners: set[Callable[[str], object]], user_id: str) -> None:
    """Call all that have to forget a user, too; one that fails does not keep the others from it.

    Raises:
        MemoryStoreError: One of them failed.
    """
    failed: Exception | None = None
    for forget in tuple(listeners):
        try:
            forget(user_id)
        except Exception as error:
            failed = error
    if isinstance(failed, MemoryStoreError):
        raise failed
    if failed is not None:
        raise MemoryStoreError(
            f"what else holds something of a user could not be told to forget them ({failed}): forget them"
            " again"
        ) from failed
