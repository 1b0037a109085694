"""Commands that ask a server, and ports that commands take."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from command_line import pgenrm

from pgenrm_agent.cli.listening import address_of, listening
from pgenrm_agent.integrations.server import create_app
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Evaluation, Scaling, UserSignals
from pgenrm_agent.testing import ScriptedEngine, write_chain


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server without keys, on a memory of its own."""
    engine = ScriptedEngine(lambda prompt, number: write_chain([8, 8]))
    with (
        listening("127.0.0.1", 0) as bound,
        PGenRM(engine=engine, memory=tmp_path / "memory", scaling=Scaling(individual=1)) as rm,
    ):
        running = uvicorn.Server(uvicorn.Config(create_app(rm), log_level="error"))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]})
        thread.start()
        while not running.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield address_of(bound, "127.0.0.1")
        running.should_exit = True
        thread.join(30)


def test_users_are_the_servers(server: str, tmp_path: Path) -> None:
    env = {"PGENRM_SERVER": server, "PGENRM_HOME": str(tmp_path / "home")}
    choice = ("--query", "How?", "--chosen", "So.", "--rejected", "Not so.")
    assert pgenrm("users", "remember", "team/ada", *choice, env=env).returncode == 0
    assert pgenrm("users", "state", "team/ada", "Be brief.", env=env).returncode == 0
    assert pgenrm("users", "consent", "team/ada", "--give", env=env).returncode == 0
    shown = pgenrm("users", "show", "team/ada", "--json", env=env)
    known = UserSignals.model_validate_json(shown.stdout)
    assert (known.history[0].chosen, known.stated[0].text) == ("So.", "Be brief.")
    (listed,) = json.loads(pgenrm("users", "list", "--json", env=env).stdout)
    assert listed == {"user_id": "team/ada", "pairs": 1, "stated": 1, "consent": True}
    (choice_id, said) = (
        entry["id"]
        for entry in json.loads(pgenrm("users", "entries", "team/ada", "--json", env=env).stdout)
    )
    done = pgenrm("users", "correct", "team/ada", choice_id, "--chosen", "Thus.", env=env)
    # Its id followed from its content.
    corrected = done.stdout.strip()
    assert corrected not in ("", choice_id)
    entries = json.loads(pgenrm("users", "entries", "team/ada", "--json", env=env).stdout)
    assert corrected in [entry["id"] for entry in entries]
    gone = pgenrm("users", "forget", "team/ada", "--entry", said, "--yes", env=env)
    assert gone.stdout == "1 entry removed\n"
    again = pgenrm("users", "forget", "team/ada", "--entry", said, "--yes", env=env)
    assert (again.returncode, "nothing with the id" in again.complaint) == (1, True)
    assert pgenrm("users", "forget", "team/ada", "--yes", env=env).stdout == "2 entries removed\n"
    assert json.loads(pgenrm("users", "list", "--json", env=env).stdout) == []
    for command in (("export",), ("import", str(Path(__file__)))):
        done = pgenrm("users", *command, env=env)
        assert done.returncode == 1
        assert server in done.complaint
    assert not (tmp_path / "home").exists()


def test_score_and_rerank_are_the_servers(server: str) -> None:
    asked = ("-u", "ada", "-q", "How?", "--individual", 3, "--prototype", 0, "--json", "A.", "B.")
    scored = pgenrm("score", *asked, "--server", server)
    assert len(Evaluation.model_validate_json(scored.stdout).chains) == 3
    ranked = pgenrm("rerank", *asked, env={"PGENRM_SERVER": server})
    assert len(json.loads(ranked.stdout)["items"]) == 2
    assert "bundled model" not in ranked.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("score", "-u", "ada", "-q", "How?", "--memory", "here", "A.", "B."),
        ("rerank", "-u", "ada", "-q", "How?", "--model", "m", "A.", "B."),
        ("users", "list", "--memory", "here"),
        ("users", "forget", "ada", "--yes", "--cache", "file"),
        ("mcp", "--engine", "transformers"),
        ("mcp", "--http", "--tenant", "acme"),
    ],
)
def test_what_is_the_servers_business_is_refused(command: tuple[str, ...]) -> None:
    done = pgenrm(*command, env={"PGENRM_SERVER": "http://127.0.0.1:9"})
    assert done.returncode == 2, done
    assert "the business of the server" in done.complaint


@pytest.mark.parametrize("command", [("serve", "--no-keys"), ("mcp", "--http"), ("studio",)])
def test_a_port_that_is_taken_is_told_before_anything_is_served(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGENRM_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = pgenrm(*command, "--port", port)
    assert done.returncode == 2, done
    assert f"port {port} of 127.0.0.1 cannot be used" in done.complaint
    assert "serving" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_free_port_is_told_as_it_is() -> None:
    with listening("127.0.0.1", 0) as bound, listening("127.0.0.1", 0) as second:
        address = address_of(bound, "127.0.0.1")
        assert address == f"http://127.0.0.1:{bound.getsockname()[1]}" != address_of(second, "::1")
        assert address_of(second, "::1").startswith("http://[::1]:")


def test_the_shell_completes_commands_and_options() -> None:
    run = "import sys; sys.argv = ['pgenrm']; from pgenrm_agent.cli.app import main; main()"

    def completed(words: str, place: int) -> str:
        asks = {"_PGENRM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
        done = subprocess.run(
            [sys.executable, "-P", "-c", run],
            env={**os.environ, **asks},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert "Traceback" not in done.stderr
        return done.stdout

    assert "users" in completed("pgenrm us", 1)
    assert "--memory" in completed("pgenrm users list --me", 3)
