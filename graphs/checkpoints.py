"""The checkpointers that this library opens itself. They give back plain data, and nothing else.

LangGraph's serializer rebuilds objects: a checkpoint names a module and a function, and whoever reads
it calls that function. So a store from a stranger would run the stranger's code. States are plain
JSON data here, so none of this is needed, and a checkpoint that asks for it is refused.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.serde.jsonplus import EXT_DELTA_SNAPSHOT, JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.extras import require

TRIES, PAUSE_S = 30, 0.1
"""How often, and how long apart, a log is emptied that somebody reads at the moment."""

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver


class PlainData(JsonPlusSerializer):
    """Read and write plain data: what JSON has, and the one wrapper that LangGraph needs for itself."""

    def __init__(self) -> None:
        super().__init__(allowed_msgpack_modules=(), __unpack_ext_hook__=_unpack_extension)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Return the kind and the bytes of an object; an exception is kept as its `repr`."""
        # LangGraph keeps the exception that ended a node; some exceptions are data classes, which
        # would be written as objects to rebuild.
        return super().dumps_typed(repr(obj) if isinstance(obj, BaseException) else obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Raises ConfigurationError for what is not plain data; nothing of it is built or called."""
        kind = data[0]
        if kind in ("null", "msgpack"):  # never "json" and "pickle", which build objects, too
            try:
                return super().loads_typed(data)
            except (TypeError, ValueError):
                pass
        raise ConfigurationError(
            f"this store holds a checkpoint that is not plain data (type {str(kind)[:20]!r}), so it is"
            " not read: reading it could run code. Runs of this library hold plain data only; another"
            " program wrote this one, or the store is damaged. Delete the run, or name another store"
        )


class _Skipping(PlainData):
    """Reads what `PlainData` refuses as an empty mapping."""

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        try:
            return super().loads_typed(data)
        except ConfigurationError:
            return {}


def _unpack_extension(code: int, data: bytes) -> _DeltaSnapshot:
    if code != EXT_DELTA_SNAPSHOT:
        raise ValueError(f"msgpack extension type {code}")
    return _DeltaSnapshot(PlainData().loads_typed(("msgpack", data)))


def in_memory() -> BaseCheckpointSaver[str]:
    """Return a checkpointer that keeps everything in this process's memory."""
    from langgraph.checkpoint.memory import InMemorySaver

    return InMemorySaver(serde=PlainData())


@asynccontextmanager
async def in_sqlite(path: str | Path) -> AsyncIterator[BaseCheckpointSaver[str]]:
    """Open a checkpointer on a SQLite file, which is made when missing.

    Raises ConfigurationError when a package is missing, and sqlite3.Error for another kind of file.
    """
    require("keeping runs in a file", "aiosqlite", "langgraph.checkpoint.sqlite", extra="debugging")
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        saver.serde = PlainData()
        await saver.setup()
        # What is deleted, or replaced, is overwritten.
        await saver.conn.execute("PRAGMA secure_delete = ON")
        await _without_leftovers(saver)
        yield saver


async def _without_leftovers(saver: AsyncSqliteSaver) -> None:
    """Delete what nodes wrote whose run was deleted meanwhile: a process may have ended between the two."""
    await saver.conn.execute(
        "DELETE FROM writes WHERE NOT EXISTS"
        " (SELECT 1 FROM checkpoints WHERE checkpoints.thread_id = writes.thread_id)"
    )
    await saver.conn.commit()


async def emptied(saver: BaseCheckpointSaver[str]) -> None:
    """Take what was deleted out of the write-ahead log of a checkpointer on SQLite, too.

    Raises sqlite3.OperationalError when others go on reading the file for seconds.
    """
    import sqlite3

    try:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    except ImportError:
        return
    if not isinstance(saver, AsyncSqliteSaver):
        return
    async with saver.lock:
        await _without_leftovers(saver)
    for _ in range(TRIES):
        async with saver.lock, saver.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)") as cursor:
            row = await cursor.fetchone()
        if row is None or not row[0]:
            return
        await asyncio.sleep(PAUSE_S)
    raise sqlite3.OperationalError("somebody else is reading it")


@asynccontextmanager
async def in_postgres(url: str) -> AsyncIterator[BaseCheckpointSaver[str]]:
    """Open a checkpointer on a PostgreSQL database; its tables are made when missing.

    Raises ConfigurationError when a package is missing.
    """
    require(
        "keeping runs in PostgreSQL", "psycopg", "langgraph.checkpoint.postgres", extra="postgres"
    )
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

    async with AsyncPostgresSaver.from_conn_string(url, serde=PlainData()) as saver:
        await saver.setup()
        yield saver


def skipping_refused(saver: BaseCheckpointSaver[str]) -> BaseCheckpointSaver[str]:
    """Return the same store, read with an empty mapping in place of whatever is refused.

    For lists: one checkpoint that is refused would otherwise hide all those after it.
    """
    tolerant = copy.copy(saver)
    tolerant.serde = _Skipping()
    return tolerant
