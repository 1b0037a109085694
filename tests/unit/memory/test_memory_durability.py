"""A pair whose `remember` returned is there after the process was killed, at whatever moment."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pgenrm_agent.memory import UserMemory, store
from pgenrm_agent.memory.vector_index import VectorIndexCopies
from pgenrm_agent.schema import PreferencePair

# argv: directory, prefix of the ids, number of writes, writes between two saves of the index.
REMEMBER = """
import sys
from pgenrm_agent.memory import UserMemory, store
from pgenrm_agent.schema import PreferencePair

store.SYNC_THRESHOLD = int(sys.argv[4])
with UserMemory(sys.argv[1]) as memory:
    print("ready", flush=True)
    for i in range(int(sys.argv[3])):
        pair = PreferencePair(
            query=f"question {i}", chosen="yes", rejected="no", id=f"{sys.argv[2]}-{i}"
        )
        print(memory.remember("ann", pair), flush=True)
"""


def killed_after(
    directory: Path, prefix: str, writes: int, *, sync: int = 500, delay_s: float = 0.0
) -> list[str]:
    """The ids that a child reported before it was killed, `delay_s` after its `writes`-th."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", REMEMBER, str(directory), prefix, "1000", str(sync)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    reported = [child.stdout.readline() for _ in range(writes)]
    time.sleep(delay_s)
    child.kill()
    reported += child.stdout.readlines()
    child.wait()
    assert child.returncode == -9
    # A line without its end was cut off by the kill.
    return [line.strip() for line in reported if line.endswith("\n")]


def test_no_pair_that_was_reported_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    reported = killed_after(tmp_path, "a", 40)
    assert len(reported) >= 40
    with UserMemory(tmp_path) as memory:
        remembered = {pair.id for pair in memory.history("ann")}
        assert remembered >= set(reported)
        assert len(remembered) <= len(reported) + 1  # the one that was being written
        assert len(memory.recall("ann", query="question", selection="similar").history) == len(
            remembered
        )


@pytest.mark.long
def test_no_kill_loses_a_pair_or_breaks_the_store(tmp_path: Path) -> None:
    """Three kills, with the index being saved at every third write."""
    reported: set[str] = set()
    for number, writes in enumerate((2, 7, 14)):
        reported |= set(killed_after(tmp_path, f"k{number}", writes, sync=3, delay_s=number * 0.01))
        with UserMemory(tmp_path) as memory:
            pairs = memory.recall("ann", query="question 1", selection="similar").history
            assert {pair.id for pair in pairs} >= reported


def remember(memory: UserMemory, prefix: str, count: int) -> None:
    for i in range(count):
        memory.remember(
            "ann",
            PreferencePair(query=f"{prefix} {i}", chosen="a", rejected="b", id=f"{prefix}-{i}"),
        )


def vector_folder(directory: Path) -> Path:
    """The folder of Chroma's vector index of the interactions."""
    with sqlite3.connect(directory / "chroma" / "chroma.sqlite3") as database:
        (segment,) = database.execute(
            "SELECT segments.id FROM segments JOIN collections ON segments.collection = "
            "collections.id WHERE collections.name = 'interactions' AND scope = 'VECTOR'"
        ).fetchone()
    return directory / "chroma" / str(segment)


@pytest.mark.parametrize("saves", [0, 1, 2])
def test_index_files_torn_by_a_kill_are_mended(
    tmp_path: Path, saves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files as a kill leaves them: some new, some old, some cut short."""
    monkeypatch.setattr(store, "SYNC_THRESHOLD", 4)
    with UserMemory(tmp_path) as memory:
        remember(memory, "a", 2 + 4 * saves)
    folder = vector_folder(tmp_path)
    assert (folder / "index_metadata.pickle").exists() == (saves > 0)
    header = bytearray((folder / "header.bin").read_bytes())
    header[20] += 3  # claims more elements than there are
    (folder / "header.bin").write_bytes(header)
    for name in ("data_level0.bin", "length.bin"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    with UserMemory(tmp_path) as memory:
        signals = memory.recall("ann", query="a 1", selection="similar")
        assert len(signals.history) == 2 + 4 * saves
        assert signals.history[0].query == "a 1"
        remember(memory, "b", 5)
    with UserMemory(tmp_path) as memory:
        assert len(memory.recall("ann", query="b 3", selection="similar").history) == 7 + 4 * saves


def test_a_kill_between_the_save_and_its_copy_keeps_the_saved_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SYNC_THRESHOLD", 4)
    with UserMemory(tmp_path) as memory:
        remember(memory, "a", 6)
        with monkeypatch.context() as killed:
            killed.setattr(VectorIndexCopies, "after_write", lambda self: None)
            remember(memory, "b", 6)
    with UserMemory(tmp_path) as memory:
        history = memory.recall("ann", query="b 3", selection="similar").history
        assert len(history) == 12
        assert history[0].query == "b 3"
    assert [path.name for path in (tmp_path / "index-copies").glob("*/*")]


def test_a_journal_left_by_a_kill_is_rolled_back(tmp_path: Path) -> None:
    with UserMemory(tmp_path) as memory:
        remember(memory, "a", 2)
    leave_a_journal = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")
database.execute("BEGIN")
database.execute("CREATE TABLE half (text)")
for _ in range(200):
    database.execute("INSERT INTO half VALUES (?)", ("x" * 4000,))
os.kill(os.getpid(), 9)
"""
    database = tmp_path / "chroma" / "chroma.sqlite3"
    subprocess.run([sys.executable, "-P", "-c", leave_a_journal, str(database)], check=False)
    assert (tmp_path / "chroma" / "chroma.sqlite3-journal").stat().st_size > 0
    with UserMemory(tmp_path) as memory:
        assert len(memory.history("ann")) == 2


def test_half_a_copy_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SYNC_THRESHOLD", 4)
    with UserMemory(tmp_path) as memory:
        remember(memory, "a", 6)
    (copy,) = (tmp_path / "index-copies" / vector_folder(tmp_path).name).iterdir()
    half = copy.with_name(f"{copy.name}.new")
    shutil.copytree(copy, half)
    (half / "header.bin").unlink()
    shutil.rmtree(copy)
    with UserMemory(tmp_path) as memory:
        remember(memory, "b", 4)
        assert len(memory.recall("ann", query="a", selection="similar").history) == 10
