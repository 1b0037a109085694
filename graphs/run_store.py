"""Where debugged runs are kept: a SQLite file, PostgreSQL, or this process's memory. And how they go."""

from __future__ import annotations

import sqlite3
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pgenrm_agent.background_loop import BackgroundLoop
from pgenrm_agent.errors import ConfigurationError, MemoryStoreError
from pgenrm_agent.files import private_file
from pgenrm_agent.user_ids import valid_user_id

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

POSTGRES = ("postgresql://", "postgres://")
LOOPBACK = ("127.0.0.1", "::1")
MEMORY = "memory"
"""In the metadata of a run's first checkpoint: `UserMemory.where`, of the one that it was started on."""


def default_store() -> str:
    """Return where `pgenrm debug` keeps runs when no store is named.

    The setting `runs` (PGENRM_RUNS); else `runs.sqlite` beside the user memory: in the folder that the
    setting `home` (PGENRM_HOME) names, or in the user's data directory of the operating system.
    """
    from pgenrm_agent.settings import data_folder, read_settings

    return str(read_settings().runs or data_folder() / "runs.sqlite")


async def open_saver(where: str | None, resources: AsyncExitStack) -> BaseCheckpointSaver[str]:
    """LangGraph's checkpointer for `where`; closed with `resources`.

    where: a file, which is made; a PostgreSQL URL; None for memory.

    Raises ConfigurationError for a file that is no SQLite database or cannot be made, and for a
    package that is not installed.
    """
    from pgenrm_agent.graphs.checkpoints import in_memory, in_postgres, in_sqlite

    if where is None:
        return in_memory()
    if where.startswith(POSTGRES):
        return await resources.enter_async_context(in_postgres(where))
    try:
        return await resources.enter_async_context(in_sqlite(_made(Path(where))))
    except (OSError, ValueError, sqlite3.Error) as error:
        raise ConfigurationError(
            f"runs cannot be kept in {where} ({error}): name another file, or one that this library made"
        ) from error


def _made(path: Path) -> Path:
    path = path.expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    private_file(path)  # runs hold what people wrote and chose
    return path


@dataclass(frozen=True)
class ForgetRuns:
    """Deletes the runs about a user from a store, for `UserMemory.also_forget_whole`.

    store: a SQLite file or a PostgreSQL URL; None for the default, where there is one.
    memory: Where the memory is, whose users the runs have to be of; None for any.
    """

    store: str | None = None
    memory: str | None = None

    def __call__(self, user_id: str) -> int:
        """Delete every run about the user, and return how many that were.

        Raises:
            MemoryStoreError: The store cannot be read or written.
        """
        where = self.store or default_store()
        if not where.startswith(POSTGRES) and not Path(where).expanduser().exists():
            return 0

        async def forget() -> int:
            async with AsyncExitStack() as resources:
                saver = await open_saver(where, resources)
                return await forget_in(saver, user_id, self.memory)

        loop = BackgroundLoop("ForgetRuns")
        try:
            return loop.run_blocking(forget)
        except Exception as error:  # whatever a checkpointer raises
            raise MemoryStoreError(
                f"the debugging runs of a user could not be deleted from {where} ({error}): delete the"
                " store, or mend it and forget them again"
            ) from error
        finally:
            loop.close()


async def forget_in(
    saver: BaseCheckpointSaver[str], user_id: str, memory: str | None = None
) -> int:
    """Delete every run about the user, and return how many that were. A file keeps nothing of them.

    memory: see `ForgetRuns`.
    """
    from pgenrm_agent.graphs.checkpoints import emptied, skipping_refused

    user_id = valid_user_id(user_id)
    listing = skipping_refused(saver).alist(None, filter={"source": "input"})
    # All of them first: the SQLite checkpointer answers nothing else while it lists.
    runs = {
        root.config["configurable"]["thread_id"]
        async for root in listing
        if _user_of(root) == user_id and (memory is None or _is_of(root, memory))
    }
    for run in runs:
        await saver.adelete_thread(run)
    # Without runs, too: those of an earlier call may still be in the log, where that one failed.
    await emptied(saver)
    return len(runs)


def _user_of(root: CheckpointTuple) -> str | None:
    """Return whom a run is about, by the checkpoint that it was started with."""
    from langgraph.graph import START

    given = root.checkpoint.get("channel_values", {}).get(START)
    request = given.get("request") if isinstance(given, dict) else None
    user = request.get("user_id") if isinstance(request, dict) else None
    return user if isinstance(user, str) else None


def _is_of(root: CheckpointTuple, memory: str) -> bool:
    """Return whether a run was started on a memory; one that names none, on the default one."""
    from pgenrm_agent.memory import default_directory

    metadata = dict(root.metadata)
    named = metadata.get(MEMORY, metadata.get("label_memory"))
    return _place(named if isinstance(named, str) else str(default_directory())) == _place(memory)


def _place(named: str) -> str:
    """Return where a memory is, written in one way: the path of a folder, or the address of a server."""
    address = named[max(0, named.find("http")) :] if "://" in named else ""
    try:
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 8000)  # as `connect` has them
    except ValueError:
        return named
    if not parts.hostname:
        return str(Path(named).expanduser().resolve())
    host = "localhost" if parts.hostname in LOOPBACK else parts.hostname
    return f"{parts.scheme}://{host}:{port}"
