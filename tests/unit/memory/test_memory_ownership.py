"""One owner process for an embedded store, and what other processes are told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pgenrm_agent.errors import MemoryStoreError
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.memory.ownership import LOCK_FILE, OWNER_FILE, DirectoryLock
from pgenrm_agent.schema import PreferencePair

PAIR = PreferencePair(query="How do I bake bread?", chosen="a", rejected="b", id="p1")

HOLD = """
import sys, time
from pathlib import Path
from pgenrm_agent.memory.ownership import DirectoryLock

lock = DirectoryLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


def held_by_another_process(directory: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLD, str(directory)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_process_is_told_who_owns_the_store_and_what_to_do(tmp_path: Path) -> None:
    holder = held_by_another_process(tmp_path)
    try:
        with pytest.raises(MemoryStoreError) as refused:
            UserMemory(tmp_path)
        message = str(refused.value)
        assert f"process {holder.pid} on " in message
        assert f"chroma run --path {tmp_path}/chroma" in message
        assert f"url='http://127.0.0.1:8000', vault='{tmp_path}/vault.sqlite3'" in message
        assert "\n" not in message
    finally:
        holder.kill()
        holder.wait()


def test_a_killed_owner_does_not_block_the_next_one(tmp_path: Path) -> None:
    holder = held_by_another_process(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert json.loads((tmp_path / OWNER_FILE).read_text())["pid"] == holder.pid
    lock = DirectoryLock(tmp_path)
    lock.acquire()
    assert json.loads((tmp_path / OWNER_FILE).read_text())["pid"] == os.getpid()
    lock.release()


def test_a_damaged_owner_note_does_not_matter(tmp_path: Path) -> None:
    holder = held_by_another_process(tmp_path)
    (tmp_path / OWNER_FILE).write_text("{")
    try:
        with pytest.raises(MemoryStoreError, match="in use by another process"):
            DirectoryLock(tmp_path).acquire()
    finally:
        holder.kill()
        holder.wait()


def test_a_closed_memory_leaves_the_store_to_others(tmp_path: Path) -> None:
    memory = UserMemory(tmp_path)
    shared = UserMemory(str(tmp_path) + "/../" + tmp_path.name)
    memory.close()
    memory.close()
    shared.remember("ann", PAIR)  # the second object still holds the store
    with pytest.raises(MemoryStoreError, match="is closed"):
        memory.remember("ann", PAIR)
    shared.close()
    holder = held_by_another_process(tmp_path)
    holder.kill()
    holder.wait()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_may_not_use_the_memory_and_does_it_no_harm(tmp_path: Path) -> None:
    with UserMemory(tmp_path) as memory:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:  # no pytest in here: report, and leave without cleaning up
            said = []
            for attempt in (
                lambda: memory.recall("ann"),
                lambda: memory.remember("ann", PAIR),
                lambda: UserMemory(tmp_path),
            ):
                try:
                    attempt()
                    said.append("worked")
                except MemoryStoreError as error:
                    said.append(str(error))
                except BaseException as error:
                    said.append(repr(error))
            memory.close()
            os.write(writing, json.dumps(said).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            said = json.loads(pipe.read())
        assert os.waitpid(child, 0)[1] == 0
        assert len(said) == 3
        for message in said:
            assert f"opened in process {os.getpid()}" in message
            assert "forked" in message
        # The child closed its copy; the store is still ours alone, and works.
        memory.remember("ann", PAIR)
        refused = subprocess.run(
            [sys.executable, "-P", "-c", HOLD, str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"process {os.getpid()} on " in refused.stderr


def test_copying_the_directory_leaves_the_lock_where_it_is(tmp_path: Path) -> None:
    with UserMemory(tmp_path / "memory"):
        shutil.copytree(tmp_path / "memory", tmp_path / "copy")
        (tmp_path / "memory" / LOCK_FILE).read_bytes()
        refused = subprocess.run(
            [sys.executable, "-P", "-c", HOLD, str(tmp_path / "memory")],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert f"process {os.getpid()} on " in refused.stderr


def test_a_forked_child_that_lives_on_does_not_keep_the_directory_locked(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    lock.acquire()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)  # until the parent closes its end
        os._exit(0)
    os.close(reading)
    try:
        lock.release()
        holder = held_by_another_process(tmp_path)
        holder.kill()
        holder.wait()
    finally:
        os.close(writing)
        os.waitpid(child, 0)


# --- directories that are no memory ---


def test_a_directory_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(MemoryStoreError, match=r"not empty and no pgenrm memory.*holiday\.jpg"):
        UserMemory(tmp_path)
    with pytest.raises(MemoryStoreError, match="is a file"):
        UserMemory(tmp_path / "holiday.jpg")


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pgenrm-memory.json").write_text('{"format": "pgenrm-memory", "schema_version": 3}')
    with pytest.raises(MemoryStoreError, match=r"schema version 3.*upgrade pgenrm-agent"):
        UserMemory(tmp_path)


@pytest.mark.parametrize("lost", ["deleted", "emptied", "another database"])
def test_a_memory_that_has_lost_its_database_is_not_opened_as_an_empty_one(
    tmp_path: Path, lost: str
) -> None:
    with UserMemory(tmp_path) as memory:
        memory.remember("ann", PAIR)
    database = tmp_path / "chroma" / "chroma.sqlite3"
    kept = database.read_bytes()
    database.unlink()
    if lost == "emptied":
        database.touch()
    if lost == "another database":
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("CREATE TABLE notes (text)")
    for _ in range(2):
        with pytest.raises(MemoryStoreError, match=r"lost what it held.*chroma\.sqlite3"):
            UserMemory(tmp_path)
    database.write_bytes(kept)
    with UserMemory(tmp_path) as memory:
        assert memory.history("ann") == (PAIR,)


def test_a_memory_whose_making_was_cut_off_is_made_anew(tmp_path: Path) -> None:
    UserMemory(tmp_path).close()
    shutil.rmtree(tmp_path / "chroma")
    (tmp_path / "vault.sqlite3").unlink()
    (tmp_path / "pgenrm-memory.json").write_text('{"format": "pgenrm-memory", "schema_version": 2}')
    with UserMemory(tmp_path) as memory:
        assert memory.users() == []


def test_a_damaged_store_is_one_clear_line(tmp_path: Path) -> None:
    UserMemory(tmp_path).close()
    database = tmp_path / "chroma" / "chroma.sqlite3"
    database.write_bytes(b"this is no database " * 500)
    with pytest.raises(MemoryStoreError) as refused:
        UserMemory(tmp_path)
    assert "file is not a database" in str(refused.value)
    assert "restore it from a backup" in str(refused.value)
    assert "\n" not in str(refused.value)
    (tmp_path / "pgenrm-memory.json").write_text("{}")
    with pytest.raises(MemoryStoreError, match="is damaged"):
        UserMemory(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc exists on Linux only")
def test_a_place_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(MemoryStoreError, match="cannot open the memory in /proc/pgenrm"):
        UserMemory("/proc/pgenrm")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the platform has no user ids")
def test_a_read_only_directory_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("this user may write to read-only directories")
        with pytest.raises(MemoryStoreError, match=r"Permission denied.*is writable"):
            UserMemory(tmp_path)
    finally:
        tmp_path.chmod(0o755)


def test_a_chroma_that_does_not_close_is_told_and_the_directory_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = UserMemory(tmp_path)
    client = memory.shared_store().client

    def fail() -> None:
        raise RuntimeError("the disk went away")

    with monkeypatch.context() as patched:
        patched.setattr(client, "close", fail)
        with pytest.raises(MemoryStoreError, match=r"cannot close the memory in .*: the disk went"):
            memory.close()
    client.close()
    with UserMemory(tmp_path) as again:
        assert again.users() == []
