"""Runs kept in a real PostgreSQL: one that PGENRM_TEST_POSTGRES names, or one started here."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hostile import RUNS_CODE
from needs import needs
from scripted_person import begin, reply

from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.testing import ScriptedEngine

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    named = os.environ.get("PGENRM_TEST_POSTGRES")
    if named:
        yield named
        return
    programs = _programs()
    needs(programs, "needs PGENRM_TEST_POSTGRES=postgresql://..., or apt-get install postgresql")
    with (
        tempfile.TemporaryDirectory(prefix="pgenrm-pg-") as folder,
        _server(programs, Path(folder)) as address,
    ):
        yield address


@contextmanager
def _server(programs: Path, folder: Path) -> Iterator[str]:
    """A server that listens on a socket in `folder` alone."""
    owner: dict[str, str] = {}
    if os.geteuid() == 0:  # as which PostgreSQL refuses to run
        users = {user.pw_name for user in pwd.getpwall()}
        needs(
            "postgres" in users,
            "PostgreSQL does not run as root, and there is no user `postgres`",
        )
        owner = {"user": "postgres", "group": "postgres"}
        shutil.chown(folder, "postgres", "postgres")
    data = folder / "data"

    def call(program: str, *options: str) -> None:
        subprocess.run(
            [programs / program, *options],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            timeout=120,
            **owner,  # type: ignore[call-overload]
        )

    call("initdb", "-D", str(data), "-U", "tester", "-A", "trust", "--no-sync")
    settings = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    call("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", settings, "start")
    try:
        yield f"postgresql://tester@/postgres?host={folder}"
    finally:
        call("pg_ctl", "-D", str(data), "-m", "immediate", "stop")


def _programs() -> Path | None:
    program = shutil.which("pg_ctl")
    if program:
        return Path(program).resolve().parent
    # Debian keeps each version's programs in a folder of their own, off the path.
    kept = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return kept[-1].parent if kept else None


def test_a_run_in_postgres_outlives_its_session(url: str) -> None:
    engine = ScriptedEngine(reply)
    with DebugSession(url, engine=engine) as session:
        run = begin(session, f"run-{os.getpid()}")
        session.run_to(run, after="derive_persona")
    calls = len(engine.calls)
    with DebugSession(url, engine=engine) as session:
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
    url: str, tmp_path: Path, name: str, table: str
) -> None:
    import psycopg

    made = tmp_path / "made"
    bad, good = (f"{kind}-{name}-{table}" for kind in ("bad", "good"))
    with DebugSession(url, engine=ScriptedEngine(reply)) as session:
        for run in (bad, good):
            session.run_to(begin(session, run), after="derive_persona")
    with psycopg.connect(url) as opened:
        opened.execute(
            f"UPDATE checkpoint_{table} SET type = %s, blob = %s WHERE thread_id = %s",
            (*RUNS_CODE[name](str(made)), bad),
        )
    with DebugSession(url, engine=ScriptedEngine(reply)) as session:
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
