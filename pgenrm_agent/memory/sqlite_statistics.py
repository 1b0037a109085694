"""What Chroma's SQLite file needs as it grows, so that reading one user's rows stays fast.

Chroma (1.5.9) finds rows by metadata in SQLite. Without statistics of its tables SQLite's planner
goes through all rows of the collection for that: 28 ms among 60,000, where it takes 4 with them.
Chroma never gathers any. SQLite's own ANALYZE does, from a few hundred rows of each table, within
milliseconds, and connections that are open take them up.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Set
from contextlib import closing
from pathlib import Path

_STATISTICS = "PRAGMA analysis_limit = 400; ANALYZE;"
_WAIT_S = 30
_PATIENCE_S = 2
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


def holds_collections(database: Path, names: Set[str]) -> bool:
    """Return whether these collections are in a file that nobody has open.

    Raises sqlite3.Error when the file cannot be read.
    """
    if not database.exists():
        return False
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True)) as connection:
        tables = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'collections'")
        if not tables.fetchone():
            return False
        return names <= {name for (name,) in connection.execute("SELECT name FROM collections")}


def refresh_statistics(database: Path) -> subprocess.Popen[bytes] | None:
    """Start to refresh the statistics of a file that this process has open; do not wait for it.

    In another process: Chroma brings an SQLite of its own, and two of them in one process do not
    see each other's locks. Where that is impossible (None), reads are slower and nothing else.
    """
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _SCRIPT, str(database)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None


def end_refresh(refresh: subprocess.Popen[bytes] | None) -> None:
    """Let a refresh that was started end, or end it: what it did not do, the next opening does."""
    if refresh is None:
        return
    try:
        refresh.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        refresh.kill()  # SQLite rolls a half-done ANALYZE back
        refresh.wait()
