"""One memory, two app processes: a Chroma server for the rows, and a real PostgreSQL for the keys."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pgenrm_agent.errors import MemoryStoreError
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.memory.vault_opening import open_vault
from pgenrm_agent.schema import PreferencePair, StatedPreference

pytestmark = pytest.mark.long

# argv: URL of Chroma, URL of the vault. Does what a line of JSON says, and says what came of it.
APP = """
import json, sys
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.schema import PreferencePair

with UserMemory(url=sys.argv[1], vault=sys.argv[2]) as memory:
    print("ready", flush=True)
    for line in sys.stdin:
        do, user, *texts = json.loads(line)
        if do == "remember":
            pair = PreferencePair(query=texts[0], chosen="yes", rejected="no", id=texts[0])
            said = memory.remember(user, pair)
        elif do == "remember many":
            for number in range(10_000):
                pair = PreferencePair(query=f"{number}", chosen="yes", rejected="no", id=f"{number}")
                print(json.dumps(memory.remember(user, pair)), flush=True)
        elif do == "recall":
            said = [pair.query for pair in memory.history(user)]
        elif do == "users":
            said = [summary.user_id for summary in memory.users()]
        else:
            said = memory.forget(user)
        print(json.dumps(said), flush=True)
"""


class App:
    """An app process that shares the memory."""

    def __init__(self, chroma: str, vault: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", APP, chroma, vault],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def begin(self, *words: str) -> None:
        assert self.process.stdin is not None
        print(json.dumps(words), file=self.process.stdin, flush=True)

    def does(self, *words: str) -> object:
        self.begin(*words)
        return json.loads(self.line())

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_two_apps_share_users_and_who_is_forgotten_in_one_is_gone_in_the_other(
    empty_chroma: str, vault: str
) -> None:
    first, second = App(empty_chroma, vault), App(empty_chroma, vault)
    try:
        assert first.does("remember", "ann", "of ann") == "of ann"
        assert second.does("recall", "ann") == ["of ann"]
        assert second.does("remember", "ann", "more of ann") == "more of ann"
        assert second.does("remember", "ben", "of ben") == "of ben"
        assert first.does("users", "") == ["ann", "ben"]
        assert first.does("forget", "ann") == 2
        assert second.does("recall", "ann") == []
        assert second.does("users", "") == ["ben"]
        keys = open_vault(vault)
        assert [key.user_id for key in keys.everybody()] == ["ben"]
        keys.close()
        assert second.does("remember", "ann", "a new start") == "a new start"
        assert first.does("recall", "ann") == ["a new start"]
    finally:
        first.end()
        second.end()


def test_whoever_is_forgotten_while_another_app_writes_leaves_no_row_behind(
    empty_chroma: str, vault: str
) -> None:
    """Each row has its key, whoever came first."""
    writer = App(empty_chroma, vault)
    try:
        with UserMemory(url=empty_chroma, vault=vault) as memory:
            writer.begin("remember many", "ann")
            for _ in range(12):
                for _ in range(5):
                    writer.line()
                memory.forget("ann")
            writer.end()
            store = memory.shared_store()
            keys = {key.pseudonym for key in store.vault.everybody()}
            rows = store.interactions.get(include=["metadatas"])["metadatas"] or []
            assert {str(row["pseudonym"]) for row in rows} <= keys
            memory.forget("ann")
            assert store.interactions.count() == 0
            assert store.vault.everybody() == []
    finally:
        writer.end()


def test_an_app_that_is_killed_blocks_nobody_and_loses_no_key(
    empty_chroma: str, vault: str
) -> None:
    """Three kills in the middle of writing."""
    for kill in range(3):
        app = App(empty_chroma, vault)
        app.begin("remember many", f"user-{kill}")
        reported = [json.loads(app.line()) for _ in range(3 + 5 * kill)]
        app.end()
        with UserMemory(url=empty_chroma, vault=vault) as memory:
            assert {pair.id for pair in memory.history(f"user-{kill}")} >= set(reported)
            memory.state(f"user-{kill}", StatedPreference(text="short answers"))
            if kill == 1:
                assert memory.forget("user-0") >= 4
                assert memory.history("user-0") == ()


def test_processes_that_make_the_vault_or_a_key_at_once_get_the_same(vault: str) -> None:
    together = threading.Barrier(6)

    def make(_: int) -> tuple[str, str]:
        together.wait()
        keys = open_vault(vault)
        try:
            return keys.id, keys.keys_for(["ann"])["ann"].pseudonym
        finally:
            keys.close()

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(make, range(6)))) == 1


def test_a_vault_of_another_memory_is_refused(
    chroma_server: str, empty_chroma: str, vault: str
) -> None:
    UserMemory(url=empty_chroma, vault=vault).close()
    with pytest.raises(MemoryStoreError, match="belong to another memory"):
        UserMemory(url=chroma_server, vault=vault)


def test_a_database_that_is_not_there_is_one_line(postgres: str) -> None:
    started = time.monotonic()
    with pytest.raises(MemoryStoreError) as refused:
        open_vault("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1")
    assert "database none cannot be opened" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "refused" in str(refused.value)
    assert "nobody@" not in str(refused.value)
    assert time.monotonic() - started < 15


def test_keys_are_read_while_somebody_writes(vault: str) -> None:
    """Nobody waits for a writer but who forgets."""
    keys = open_vault(vault)
    ann = keys.keys_for(["ann"])["ann"]
    with keys.writing(alone=False), keys.writing(alone=False):
        assert keys.key_of("ann") == ann
        forgets = threading.Thread(target=lambda: _alone(vault))
        forgets.start()
        forgets.join(0.5)
        assert forgets.is_alive()
    forgets.join(30)
    assert not forgets.is_alive()
    keys.close()


def _alone(vault: str) -> None:
    keys = open_vault(vault)
    keys.close()


def test_a_pair_that_two_apps_remember_at_once_is_there_once(empty_chroma: str, vault: str) -> None:
    pair = PreferencePair(query="Tea?", chosen="Yes.", rejected="No.", id="same")
    memories = [UserMemory(url=empty_chroma, vault=vault) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(lambda memory: memory.remember("ann", pair), memories)) == {"same"}
    assert len(memories[0].history("ann")) == 1
    for memory in memories:
        memory.close()
