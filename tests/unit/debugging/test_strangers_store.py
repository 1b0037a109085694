"""Opening a store that somebody else wrote runs none of their code, and loses none of one's own runs."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ormsgpack
import pytest
from hostile import REFUSED, RUNS_CODE, Payload, poison
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from scripted_person import begin, reply
from typer.testing import CliRunner

from pgenrm_agent.cli.debug import app
from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.graphs.checkpoints import PlainData
from pgenrm_agent.schema import Candidate
from pgenrm_agent.testing import ScriptedEngine

ACTIONS: dict[str, Callable[[DebugSession], object]] = {
    "state": lambda session: session.state("bad"),
    "checkpoint": lambda session: session.checkpoint("bad"),
    "timeline": lambda session: session.timeline("bad"),
    "step": lambda session: session.step("bad"),
    "resume": lambda session: session.resume("bad"),
    "rewind": lambda session: session.rewind("bad", 1),
    "fork": lambda session: session.fork("bad"),
    "edit": lambda session: session.edit_candidates("bad", [Candidate(id="a", text="A.")]),
    "compare": lambda session: session.compare("good", "bad"),
    "export": lambda session: session.export("bad"),
    "replay": lambda session: session.replay("bad"),
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with two runs, "good" and "bad", that stand behind their personas."""
    file = tmp_path / "runs.sqlite"
    with DebugSession(file, engine=ScriptedEngine(reply)) as session:
        for run in ("good", "bad"):
            session.run_to(begin(session, run), after="derive_persona")
    return file


@pytest.mark.parametrize("name", RUNS_CODE)
def test_these_payloads_do_run_code_where_everything_is_rebuilt(name: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    lax = JsonPlusSerializer(
        allowed_msgpack_modules=True, allowed_json_modules=True, pickle_fallback=True
    )
    lax.loads_typed(RUNS_CODE[name](str(made)))
    assert made.is_dir()


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_of_them_is_built(name: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    with pytest.raises(ConfigurationError, match="not plain data") as refused:
        PlainData().loads_typed(REFUSED[name](str(made)))
    assert not made.exists()
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        *((name, "checkpoints") for name in RUNS_CODE),
        *(("one argument", place) for place in ("state", "write")),
        *(("keyword arguments", place) for place in ("state", "write")),
        *((name, "write") for name in ("pickle", "json", "within a snapshot")),
    ],
)
def test_a_run_that_would_run_code_is_refused_and_the_others_are_not(
    store: Path, tmp_path: Path, name: str, place: str
) -> None:
    made = tmp_path / "made"
    poison(store, "bad", RUNS_CODE[name](str(made)), place)
    engine = ScriptedEngine(reply)
    with DebugSession(store, engine=engine) as session:
        listed = {summary.run: summary for summary in session.runs()}
        assert listed.keys() == {"good", "bad"}
        assert listed["good"].error is None
        assert listed["good"].query == "Which color?"
        assert "not plain data" in (listed["bad"].error or "")
        for action, act in ACTIONS.items():
            with pytest.raises(ConfigurationError, match="not plain data"):
                act(session)
            assert not made.exists(), action
        assert engine.calls == []
        assert session.resume("good").reason == "finished"
    assert not made.exists()


def test_the_command_line_lists_shows_and_resumes_without_running_it(
    store: Path, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    poison(store, "bad", RUNS_CODE["positional arguments"](str(made)), "checkpoints")

    def debug(*arguments: str) -> tuple[str, BaseException | None]:
        done = CliRunner().invoke(
            app,
            [*arguments, "--store", str(store)],
            obj=ScriptedEngine(reply),
            env={"COLUMNS": "150"},
        )
        return done.stdout, done.exception

    table, error = debug("list")
    assert error is None
    assert "cannot be read" in table
    assert "derive_persona" not in table
    assert "match_prototype" in table
    for command in ("show", "timeline", "resume", "export"):
        _, error = debug(command, "bad")
        assert isinstance(error, ConfigurationError)
        assert "not plain data" in str(error)
    shown, error = debug("show", "good")
    assert error is None
    assert "Wants short answers." in shown
    assert not made.exists()


def test_an_import_of_what_looks_like_a_call_is_refused(store: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    call = {"lc": 2, "type": "constructor", "id": ["os", "mkdir"], "args": [str(made)]}
    with DebugSession(store, engine=ScriptedEngine(reply)) as session:
        exported = json.loads(session.export("good"))
        for kept in exported["checkpoints"]:
            kept["checkpoint"]["channel_values"]["scaling"] = call
        with pytest.raises(ConfigurationError, match="no exported run"):
            session.import_(json.dumps(exported), run="imported")
        assert {summary.run for summary in session.runs()} == {"good", "bad"}
    assert not made.exists()


@dataclass
class Unusual(Exception):
    """An exception that LangGraph's serializer would keep as an object to rebuild."""

    told: str


def test_all_that_a_session_keeps_is_plain_data(store: Path) -> None:
    class Failing(ScriptedEngine):
        async def sample(self, prompts: object, params: object) -> list[list[object]]:  # type: ignore[override]
            raise Unusual("it rained")

    with DebugSession(store, engine=ScriptedEngine(reply)) as session:
        session.edit_persona("good", "She loves red.")
        session.resume("good")
        session.rewind("good", 2)
        session.fork("good", name="other")
    with DebugSession(store, engine=Failing(reply)) as session:
        with pytest.raises(Unusual):
            session.resume("bad")
        assert "it rained" in (session.checkpoint("bad").error or "")
    with sqlite3.connect(store) as opened:
        kept: list[Payload] = opened.execute(
            "SELECT type, checkpoint FROM checkpoints UNION ALL SELECT type, value FROM writes"
        ).fetchall()
    opened.close()
    assert len(kept) > 20
    assert {kind for kind, _ in kept} <= {"msgpack", "null"}
    for kind, packed in kept:
        if kind == "msgpack":
            ormsgpack.unpackb(packed)  # which knows no extension


def test_checkpointers_are_opened_in_one_place() -> None:
    root = next(up for up in Path(__file__).parents if (up / "pyproject.toml").exists())
    opening = {
        file.relative_to(root).as_posix()
        for folder in ("pgenrm_agent", "graphs", "training")
        for file in (root / folder).rglob("*.py")
        if re.search(
            r"\b(?:from|import) langgraph\.checkpoint\.(?:memory|sqlite|postgres|serde)\b",
            file.read_text(encoding="utf-8"),
        )
    }
    assert opening == {"graphs/checkpoints.py"}
