"""What a kill would leave of an SQLite checkpointer's file, at every moment of a run."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver


@contextmanager
def every_moment(
    store: Path, folder: Path, progress: Callable[[], int]
) -> Iterator[list[tuple[Path, int]]]:
    """Copy `store` into `folder` after each write to it, with what `progress` says just then.

    Between two writes the file does not change, so these are all the states that a kill can leave:
    after a node's results and before the checkpoint that follows from them, for one.
    """
    folder.mkdir()
    copies: list[tuple[Path, int]] = []

    def then_copied(write: Callable[..., Any]) -> Callable[..., Any]:
        async def call(saver: AsyncSqliteSaver, *args: Any, **kwargs: Any) -> Any:
            result = await write(saver, *args, **kwargs)
            target = folder / f"{len(copies)}.sqlite"
            with (
                closing(sqlite3.connect(store)) as source,
                closing(sqlite3.connect(target)) as copy,
            ):
                source.backup(copy)
            copies.append((target, progress()))
            return result

        return call

    with (
        patch.object(AsyncSqliteSaver, "aput", then_copied(AsyncSqliteSaver.aput)),
        patch.object(AsyncSqliteSaver, "aput_writes", then_copied(AsyncSqliteSaver.aput_writes)),
    ):
        yield copies
