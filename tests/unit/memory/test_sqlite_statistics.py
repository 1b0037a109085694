"""SQLite's statistics and the saves of the vector index, which reads of a large memory depend on."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pgenrm_agent.memory import UserMemory, sqlite_statistics, store
from pgenrm_agent.memory.sqlite_statistics import before_opening
from pgenrm_agent.schema import PreferencePair


def pairs(count: int) -> list[PreferencePair]:
    return [
        PreferencePair(id=f"p{number}", query=f"Question {number}", chosen="yes", rejected="no")
        for number in range(count)
    ]


def statistics(directory: Path) -> set[str]:
    with closing(sqlite3.connect(directory / "chroma" / "chroma.sqlite3")) as connection:
        if not connection.execute(
            "SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'"
        ).fetchone():
            return set()
        return {table for (table,) in connection.execute("SELECT tbl FROM sqlite_stat1")}


def plan(directory: Path) -> str:
    """How SQLite goes about what Chroma asks for one person's rows."""
    with closing(sqlite3.connect(directory / "chroma" / "chroma.sqlite3")) as connection:
        (segment,) = connection.execute(
            "SELECT segment_id FROM embeddings GROUP BY segment_id ORDER BY count(*) DESC"
        ).fetchone()
        steps = connection.execute(
            "EXPLAIN QUERY PLAN SELECT embedding_id FROM embeddings WHERE segment_id = ? AND id IN "
            "(SELECT id FROM embedding_metadata WHERE key = 'pseudonym' AND string_value = 'x')",
            (segment,),
        )
        return str(steps.fetchone()[3])


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_write_does_not_wait_for_the_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = "import time; time.sleep(600)"
    monkeypatch.setattr(sqlite_statistics, "_SCRIPT", endless)
    monkeypatch.setattr(sqlite_statistics, "_PATIENCE_S", 0.1)
    started = time.monotonic()
    with UserMemory(tmp_path) as memory:
        for number in range(store.FIRST_UPKEEP * 2):
            memory.remember_many(f"user-{number}", pairs(1))
        refresh = memory.shared_store()._refresh
        assert refresh is not None
        assert refresh.poll() is None
    assert refresh.poll() is not None  # nothing outlives the store
    assert time.monotonic() - started < 300


def test_others_write_while_the_statistics_are_being_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrote: list[bool] = []

    def start(database: Path) -> None:
        writer = threading.Thread(
            target=memory.remember_many, args=("other", pairs(1)), daemon=True
        )
        writer.start()
        writer.join(30)
        wrote.append(not writer.is_alive())

    monkeypatch.setattr(store, "FIRST_UPKEEP", 2)
    monkeypatch.setattr(store, "refresh_statistics", start)
    with UserMemory(tmp_path) as memory:
        memory.remember_many("ann", pairs(1))
    assert wrote
    assert all(wrote)


def test_a_memory_that_grows_gets_the_statistics_that_its_reads_need(tmp_path: Path) -> None:
    with UserMemory(tmp_path) as memory:
        for number in range(30):
            memory.remember_many(f"user-{number}", pairs(30))
        until(lambda: "embeddings" in statistics(tmp_path))
        # By the person's rows, not through everybody's.
        assert "rowid=?" in plan(tmp_path)
        assert len(memory.history("user-7")) == 30


def test_a_memory_without_statistics_gets_them_when_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "FIRST_UPKEEP", 10**9)
    with UserMemory(tmp_path) as memory:
        for number in range(30):
            memory.remember_many(f"user-{number}", pairs(30))
    assert statistics(tmp_path) == set()
    assert "rowid=?" not in plan(tmp_path)
    with UserMemory(tmp_path):
        assert "rowid=?" in plan(tmp_path)


@pytest.mark.filterwarnings("ignore:legacy embedding function config:DeprecationWarning")
def test_a_large_vector_index_is_saved_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SYNC_THRESHOLD", 5)
    with UserMemory(tmp_path) as memory:
        memory.remember_many("ann", pairs(200))
        assert threshold(memory) == 5
    with UserMemory(tmp_path) as memory:
        assert threshold(memory) == 10  # a twentieth
        assert len(memory.history("ann")) == 200


def threshold(memory: UserMemory) -> int:
    hnsw = memory.shared_store().interactions.configuration["hnsw"]
    assert hnsw is not None
    return int(hnsw["sync_threshold"])


def test_there_is_nothing_to_do_before_there_is_a_database(tmp_path: Path) -> None:
    assert before_opening(tmp_path / "chroma.sqlite3") == 0
    assert not (tmp_path / "chroma.sqlite3").exists()
    # Killed while it was made: SQLite leaves an empty file.
    (tmp_path / "chroma.sqlite3").touch()
    assert before_opening(tmp_path / "chroma.sqlite3") == 0
