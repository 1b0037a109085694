"""Where runs are kept: a SQLite file, PostgreSQL, or this process's memory."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from pgenrm_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

POSTGRES = ("postgresql://", "postgres://")


def default_store() -> Path:
    """Return the file that `pgenrm debug` uses when none is named.

    `runs.sqlite` beside the user memory: in the folder that the setting `home` (PGENRM_HOME) names,
    else in the user's data directory of the operating system.
    """
    from pgenrm_agent.settings import data_folder

    return data_folder() / "runs.sqlite"


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
    import sqlite3

    try:
        return await resources.enter_async_context(in_sqlite(_made(Path(where))))
    except (OSError, ValueError, sqlite3.Error) as error:
        raise ConfigurationError(
            f"runs cannot be kept in {where} ({error}): name another file, or one that this library made"
        ) from error


def _made(path: Path) -> Path:
    path = path.expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)  # runs hold what people wrote and chose
    return path
