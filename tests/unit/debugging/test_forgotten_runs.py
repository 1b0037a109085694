"""Who is forgotten leaves the runs that were debugged about them, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import pgenrm

from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.errors import MemoryStoreError
from pgenrm_agent.graphs.run_store import ForgetRuns, default_store
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import EvaluationRequest, PreferencePair, StatedPreference, UserSignals
from pgenrm_agent.testing import ScriptedEngine

PAIR = PreferencePair(query="How?", chosen="So.", rejected="Thus.")


def begin(session: DebugSession, user: str, run: str, memory: object = None) -> None:
    request = EvaluationRequest.model_validate(
        {"user_id": user, "query": "How?", "candidates": [{"id": "a", "text": "So."}]}
    )
    labels = None if memory is None else {"memory": str(memory)}
    session.start(request, signals=UserSignals(user_id=user), run=run, labels=labels)


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


def test_where_nothing_was_debugged_there_is_nothing_to_forget(home: Path) -> None:
    assert ForgetRuns()("ada") == 0
    assert ForgetRuns(str(home / "nowhere.sqlite"))("ada") == 0
    assert list(home.iterdir()) == []


def test_a_store_that_cannot_be_read_is_told_of_and_the_user_is_gone(home: Path) -> None:
    default_store().write_bytes(b"no database, " * 100)
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
