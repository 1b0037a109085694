"""Who is forgotten leaves the runs that were debugged about them, and nobody else's."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from command_line import pgenrm
from leftovers import files_holding
from scripted_person import reply

from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.engines.protocol import Completion, Prompt, SamplingParams
from pgenrm_agent.errors import ConfigurationError, MemoryStoreError
from pgenrm_agent.graphs.run_store import ForgetRuns, default_store
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import (
    Candidate,
    EvaluationRequest,
    PreferencePair,
    Scaling,
    StatedPreference,
    UserSignals,
)
from pgenrm_agent.testing import ScriptedEngine

PAIR = PreferencePair(query="How?", chosen="So.", rejected="Thus.")


def asked(user: str) -> EvaluationRequest:
    return EvaluationRequest(
        user_id=user, query="How?", candidates=(Candidate(id="a", text="Red."),)
    )


def begin(session: DebugSession, user: str, run: str, memory: object = None) -> None:
    labels = None if memory is None else {"memory": str(memory)}
    session.start(asked(user), signals=UserSignals(user_id=user), run=run, labels=labels)


def kept() -> set[str]:
    with DebugSession(default_store()) as session:
        return {run.run for run in session.runs()}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PGENRM_HOME", str(tmp_path))
    return tmp_path


def test_runs_on_the_same_memory_go_and_those_on_another_stay(home: Path) -> None:
    elsewhere = home / "elsewhere"
    with DebugSession(default_store()) as session:
        begin(session, "ada", "unnamed")
        begin(session, "ada", "here", home / "memory")
        begin(session, "ada", "elsewhere", elsewhere)
        begin(session, "ada", "on a server", "http://127.0.0.1:8000")
        begin(session, "bob", "bob's")
    with PGenRM(engine=ScriptedEngine(""), memory=home / "memory") as rm:
        pair = rm.remember("ada", PAIR)
        rm.forget_entry("ada", pair)
        assert len(kept()) == 5
        rm.forget("ada")
    assert kept() == {"elsewhere", "on a server", "bob's"}
    with UserMemory(elsewhere) as memory:
        memory.state("ada", StatedPreference(text="Be brief."))
    done = pgenrm("users", "forget", "ada", "--yes", "--memory", elsewhere)
    assert done.stdout.strip() == "1 entry removed"
    assert kept() == {"on a server", "bob's"}
    assert ForgetRuns(memory="the Chroma server at http://127.0.0.1:8000")("ada") == 1
    assert ForgetRuns()("bob") == 1
    assert kept() == set()


def test_a_run_on_a_memory_of_its_session_goes_whoever_forgets(home: Path) -> None:
    with UserMemory(home / "elsewhere") as memory, UserMemory(home / "memory") as default:
        with DebugSession(default_store(), memory=memory) as session:
            begin(session, "ada", "elsewhere")
        with DebugSession(default_store(), memory=default) as session:
            begin(session, "ada", "here")
    for folder, left in (("elsewhere", {"here"}), ("memory", set())):
        pgenrm("users", "forget", "ada", "--yes", "--memory", home / folder)
        assert kept() == left


def test_a_label_of_ones_own_hides_no_run_from_forgetting(home: Path) -> None:
    with UserMemory(home / "elsewhere") as memory:
        with DebugSession(default_store(), memory=memory) as session:
            begin(session, "ada", "labeled", memory="long-term")
        assert kept() == {"labeled"}
    pgenrm("users", "forget", "ada", "--yes", "--memory", home / "elsewhere")
    assert kept() == set()


@pytest.mark.parametrize(
    ("named", "same"),
    [
        ("http://127.0.0.1:8000/", True),
        ("http://localhost", True),
        ("http://LOCALHOST:8000", True),
        ("http://[::1]:8000", True),
        ("https://127.0.0.1:8000", False),
        ("http://127.0.0.1:8001", False),
        ("http://memory.example:8000", False),
        ("http://[", False),
        ("http", False),
    ],
)
def test_a_server_is_the_same_however_its_address_is_written(
    home: Path, named: str, same: bool
) -> None:
    with DebugSession(default_store()) as session:
        begin(session, "ada", "hers", named)
    assert ForgetRuns(memory="the Chroma server at http://127.0.0.1:8000")("ada") == same


def test_runs_in_the_store_that_the_setting_names_go_too(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGENRM_RUNS", str(home / "kept" / "runs.sqlite"))
    with DebugSession(home / "kept" / "runs.sqlite") as session:
        begin(session, "ada", "hers")
    with UserMemory(home / "memory") as memory:
        memory.state("ada", StatedPreference(text="Be brief."))
    pgenrm("users", "forget", "ada", "--yes")
    assert kept() == set()
    assert not (home / "runs.sqlite").exists()


def test_where_nothing_was_debugged_there_is_nothing_to_forget(home: Path) -> None:
    assert ForgetRuns()("ada") == 0
    assert ForgetRuns(str(home / "nowhere.sqlite"))("ada") == 0
    assert list(home.iterdir()) == []


def test_a_store_that_cannot_be_read_is_told_of_and_the_user_is_gone(home: Path) -> None:
    Path(default_store()).write_bytes(b"no database, " * 100)
    with PGenRM(engine=ScriptedEngine(""), memory=home / "memory") as rm:
        rm.remember("ada", PAIR)
        with pytest.raises(MemoryStoreError, match=r"debugging runs .* could not be deleted"):
            rm.forget("ada")
        assert rm.memory.users() == []


def test_runs_kept_in_memory_go_while_their_session_is_open(tmp_path: Path) -> None:
    with UserMemory(tmp_path / "memory") as memory:
        memory.remember("ada", PAIR)
        with DebugSession(memory=memory) as session:
            begin(session, "ada", "hers")
            begin(session, "bob", "his")
            memory.forget("ada")
            assert [run.run for run in session.runs()] == ["his"]
        assert memory.also_forget_whole == set()
        memory.forget("bob")


def test_who_is_forgotten_again_after_somebody_was_reading_is_out_of_the_log_too(
    tmp_path: Path,
) -> None:
    store = tmp_path / "runs.sqlite"
    with UserMemory(tmp_path / "memory") as memory:
        memory.remember(USER, HERS)
        with DebugSession(store, engine=ScriptedEngine(reply), memory=memory) as opened:
            opened.start(asked(USER), scaling=SCALING, run="hers")
            opened.run_to("hers", after="recall")
            with closing(sqlite3.connect(store)) as reader:
                reader.execute("BEGIN")
                assert reader.execute("SELECT COUNT(*) FROM checkpoints").fetchone()[0] > 1
                with pytest.raises(MemoryStoreError, match="is reading it"):
                    memory.forget(USER)
            assert opened.runs() == ()
            assert files_holding(tmp_path, TRACES) != set()  # in the log, as was said
            assert memory.forget(USER) == 0
            assert files_holding(tmp_path, TRACES) == set()


def test_what_a_node_wrote_for_a_run_that_is_gone_goes_when_the_store_is_opened(
    tmp_path: Path,
) -> None:
    """As a process leaves it that is killed between the two."""
    store = tmp_path / "runs.sqlite"
    with DebugSession(store, engine=ScriptedEngine(reply)) as session:
        begin(session, "ada", "hers")
        begin(session, "bob", "his")
        session.run_to("hers", after="generate_rubric")
        session.run_to("his", after="generate_rubric")
    with closing(sqlite3.connect(store)) as left:
        left.execute("DELETE FROM checkpoints WHERE thread_id = 'hers'")
        left.commit()
        assert left.execute("SELECT 1 FROM writes WHERE thread_id = 'hers'").fetchall()
    store.chmod(0o644)
    with DebugSession(store, engine=ScriptedEngine(reply)) as session:
        assert [run.run for run in session.runs()] == ["his"]
    assert store.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(store)) as left:
        threads = left.execute("SELECT DISTINCT thread_id FROM writes").fetchall()
        assert threads == [("his",)]


# --- forgotten while something of a run is written ---

USER = "canary@example.org"
HERS = PreferencePair(query="canary-query", chosen="canary-chosen", rejected="never", id="hers")
TRACES = [USER, HERS.query, HERS.chosen]
SCALING = Scaling(individual=2, prototype=0, seed=1)


class Forgetting(ScriptedEngine):
    """Has the user forgotten before it answers for them, or fails to."""

    def __init__(self, memory: UserMemory, *, fails: bool = False) -> None:
        super().__init__(reply)
        self._memory = memory
        self._fails = fails

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        await asyncio.to_thread(self._memory.forget, USER)
        if self._fails:
            raise RuntimeError("the machine was switched off")
        return await super().sample(prompts, params)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("stored", [True, False])
def test_whoever_is_forgotten_while_a_node_runs_does_not_come_back_with_it(
    tmp_path: Path, stored: bool, fails: bool
) -> None:
    with UserMemory(tmp_path / "memory") as memory:
        memory.remember(USER, HERS)
        store = tmp_path / "runs.sqlite" if stored else None
        engine = Forgetting(memory, fails=fails)
        with DebugSession(store, engine=engine, memory=memory) as opened:
            opened.start(asked(USER), scaling=SCALING, run="hers")
            begin(opened, "bob", "his")
            with pytest.raises(RuntimeError if fails else ConfigurationError) as raised:
                opened.resume("hers")
            assert fails or "run hers was deleted meanwhile" in str(raised.value)
            assert files_holding(tmp_path, TRACES) == set()
            assert [run.run for run in opened.runs()] == ["his"]
            with pytest.raises(ConfigurationError, match="no run 'hers'"):
                opened.state("hers")
    assert files_holding(tmp_path, TRACES) == set()


def test_whoever_is_forgotten_while_a_run_begins_does_not_come_back_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        UserMemory(tmp_path / "memory") as memory,
        DebugSession(
            tmp_path / "runs.sqlite", engine=ScriptedEngine(reply), memory=memory
        ) as opened,
    ):
        memory.remember(USER, HERS)
        write, puts = opened._saver.aput, []

        async def written(*given: Any, **further: Any) -> Any:
            puts.append(given)
            if len(puts) == 2:  # the root is there, and what follows it is not
                await asyncio.to_thread(memory.forget, USER)
            return await write(*given, **further)

        monkeypatch.setattr(opened._saver, "aput", written)
        with pytest.raises(ConfigurationError, match="deleted meanwhile"):
            opened.start(asked(USER), scaling=SCALING, run="hers")
        assert len(puts) >= 2
        assert opened.runs() == ()
        assert files_holding(tmp_path, TRACES) == set()
        opened.close()
        assert opened._forget(USER) == 0


WRITES: dict[str, Callable[[DebugSession], object]] = {
    "edit": lambda opened: opened.edit_candidates("hers", [Candidate(id="a", text="A.")]),
    "rewind": lambda opened: opened.rewind("hers", 1),
    "fork": lambda opened: opened.fork("hers", name="fork"),
}


@pytest.mark.parametrize("name", WRITES)
def test_whoever_is_forgotten_while_a_run_is_changed_does_not_come_back_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with UserMemory(tmp_path / "memory") as memory:
        memory.remember(USER, HERS)
        with DebugSession(
            tmp_path / "runs.sqlite", engine=ScriptedEngine(reply), memory=memory
        ) as opened:
            opened.start(asked(USER), scaling=SCALING, run="hers")
            opened.run_to("hers", after="derive_persona")

            def forgetting_before(write: Callable[..., Any]) -> Callable[..., Any]:
                async def written(*given: Any, **further: Any) -> Any:
                    await asyncio.to_thread(memory.forget, USER)
                    return await write(*given, **further)

                return written

            # Just before what is written gets to the store.
            for method in ("aput", "aput_writes"):
                write = getattr(opened._saver, method)
                monkeypatch.setattr(opened._saver, method, forgetting_before(write))
            with pytest.raises(ConfigurationError, match="deleted meanwhile"):
                WRITES[name](opened)
            assert opened.runs() == ()
            assert files_holding(tmp_path, TRACES) == set()
