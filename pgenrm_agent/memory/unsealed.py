"""Memories of schema version 1, which kept everything open: read once, into a sealed one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pydantic import JsonValue

from pgenrm_agent.errors import MemoryStoreError
from pgenrm_agent.memory.mark import FORMAT_FILE
from pgenrm_agent.memory.ownership import DirectoryLock
from pgenrm_agent.memory.reading import all_rows
from pgenrm_agent.memory.store import INTERACTIONS, MARK, USERS, chroma_settings, reported

if TYPE_CHECKING:
    from chromadb.api.client import Client

UNSEALED = 1  # the schema version


def unsealed_rows(directory: Path) -> Iterator[dict[str, JsonValue]]:
    """Yield all that an unsealed memory holds, as exported rows. It is left as it is.

    directory: of the memory, or of the Chroma server that kept it, which must not run.

    Raises:
        MemoryStoreError: The directory is no such memory, is in use, or cannot be read.
    """
    embedded = (directory / FORMAT_FILE).exists()
    chroma = directory / "chroma" if embedded else directory
    with ExitStack() as opened, reported("read the memory in", str(directory)):
        if not (chroma / "chroma.sqlite3").exists():
            raise MemoryStoreError(f"{directory} holds no memory: name its folder")
        if embedded:
            lock = DirectoryLock(directory)
            lock.acquire()
            opened.callback(lock.release)
        from chromadb import PersistentClient

        client = cast("Client", PersistentClient(chroma, settings=chroma_settings()))
        opened.callback(client.close)
        for name in (INTERACTIONS, USERS):
            collection = client.get_collection(name, embedding_function=None)
            version = (collection.metadata or {}).get(MARK)
            if version != UNSEALED:
                raise MemoryStoreError(
                    f"the memory in {directory} has schema version {version}, and only one of version "
                    f"{UNSEALED} is to be converted: open it as it is"
                )
            for _, metadata in all_rows(collection):
                yield _record(metadata)


def _record(metadata: dict[str, object]) -> dict[str, JsonValue]:
    user = str(metadata["user_id"])
    if "pair" in metadata:
        pair = json.loads(str(metadata["pair"]))
        return {"record": "preference_pair", "user_id": user, "pair": pair}
    if metadata.get("kind") == "stated":
        return {
            "record": "stated_preference",
            "user_id": user,
            "stated": json.loads(str(metadata["stated"])),
            "created_at": str(metadata["created_at"]),
        }
    return {"record": "consent", "user_id": user, "consent": metadata.get("consent") is True}
