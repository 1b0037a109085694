"""What Chroma's SQLite file needs as it grows, so that reading one person's rows stays fast.

Chroma (1.5.9) finds rows by metadata in SQLite. Without statistics of its tables SQLite's planner
goes through all rows of the collection for that: 28 ms among 60,000, where it takes 4 with them.
Chroma never gathers any. SQLite's own ANALYZE does, from a few hundred rows of each table, within
milliseconds, and connections that are open take them up.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

__all__ = ["before_opening", "refresh_statistics"]

_STATISTICS = "PRAGMA analysis_limit = 400; ANALYZE;"
_WAIT_S = 30
_SCRIPT = (
    "import sqlite3, sys; "
    f"sqlite3.connect(sys.argv[1], timeout={_WAIT_S}).executescript({_STATISTICS!r})"
)


def before_opening(database: Path) -> int:
    """Refresh the statistics of a file that nobody has open; how many rows were ever put there.

    Raises sqlite3.Error when the file cannot be read.
    """
    if not database.exists():
        return 0
    # "rw", not to make a file that is gone by now; a kill may have left a journal to roll back.
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True)) as connection:
        if not connection.execute(
            "SELECT 1 FROM sqlite_master WHERE name = 'embeddings'"
        ).fetchone():
            return 0  # killed while Chroma was setting the database up; it will go on
        connection.executescript(_STATISTICS)
        (rows,) = connection.execute("SELECT max(id) FROM embeddings").fetchone()
    return int(rows or 0)


def refresh_statistics(database: Path) -> None:
    """Refresh the statistics of a file that this process has open.

    In another process: Chroma brings an SQLite of its own, and two of them in one process do not
    see each other's locks. Where that is impossible, reads are slower and nothing else.
    """
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", _SCRIPT, str(database)],
            capture_output=True,
            timeout=2 * _WAIT_S,
            check=False,
        )
