"""Runs kept in a real PostgreSQL."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hostile import RUNS_CODE
from scripted_person import begin, reply

from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.testing import ScriptedEngine

pytestmark = pytest.mark.long


def test_a_run_in_postgres_outlives_its_session(postgres: str) -> None:
    engine = ScriptedEngine(reply)
    with DebugSession(postgres, engine=engine) as session:
        run = begin(session, f"run-{os.getpid()}")
        session.run_to(run, after="derive_persona")
    calls = len(engine.calls)
    with DebugSession(postgres, engine=engine) as session:
        assert run in {summary.run for summary in session.runs()}
        session.edit_persona(run, "She loves red.")
        assert session.resume(run).checkpoint.ranking == ("red", "green")
        forked = session.fork(run, session.timeline(run)[3].id, name=f"{run}-other")
        assert session.resume(forked).checkpoint.ranking == ("green", "red")
        assert session.compare(run, forked).changes["red"] < 0
    assert len(engine.calls) == calls + 4  # two stages for each of the two branches


@pytest.mark.parametrize("name", ["one argument", "within a snapshot", "pickle", "json"])
@pytest.mark.parametrize("table", ["blobs", "writes"])
def test_a_run_that_would_run_code_is_refused_and_the_others_are_not(
    postgres: str, tmp_path: Path, name: str, table: str
) -> None:
    import psycopg

    made = tmp_path / "made"
    bad, good = (f"{kind}-{name}-{table}" for kind in ("bad", "good"))
    with DebugSession(postgres, engine=ScriptedEngine(reply)) as session:
        for run in (bad, good):
            session.run_to(begin(session, run), after="derive_persona")
    with psycopg.connect(postgres) as opened:
        opened.execute(
            f"UPDATE checkpoint_{table} SET type = %s, blob = %s WHERE thread_id = %s",
            (*RUNS_CODE[name](str(made)), bad),
        )
    with DebugSession(postgres, engine=ScriptedEngine(reply)) as session:
        listed = {summary.run: summary.error for summary in session.runs()}
        assert listed[good] is None
        for act in (session.timeline, session.export):
            with pytest.raises(ConfigurationError, match="not plain data"):
                act(bad)
        assert session.resume(good).reason == "finished"
        if table == "blobs":
            assert "not plain data" in (listed[bad] or "")
            for act in (session.checkpoint, session.resume):
                with pytest.raises(ConfigurationError, match="not plain data"):
                    act(bad)
    assert not made.exists()
