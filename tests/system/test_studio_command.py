"""`pgenrm studio` itself: a process in a terminal, over the bundled model."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pexpect
import pytest
from scripted_person import PAIR, REQUEST
from studio_server import until

from pgenrm_agent.debugging import DebugSession

pytestmark = pytest.mark.long


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[pexpect.spawn]:
    """The command, as it runs until Ctrl-C."""
    opened = pexpect.spawn(
        sys.executable,
        ["-P", "-m", "pgenrm_agent.cli", "studio", "--store", str(tmp_path / "runs.sqlite")],
        env={**os.environ, "PGENRM_HOME": str(tmp_path), "COLUMNS": "200"},
        encoding="utf-8",
        timeout=240,
        dimensions=(50, 200),
        # A suite that runs in the background ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    yield opened
    opened.close(force=True)


def stop(terminal: pexpect.spawn) -> str:
    """What the terminal shows after Ctrl-C, once the process has ended."""
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    terminal.wait()
    return str(terminal.before)


def test_a_run_of_the_bundled_model_outlives_the_studio(
    terminal: pexpect.spawn, tmp_path: Path
) -> None:
    terminal.expect(r"(http://127\.0\.0\.1:\d+)/\?token=([\w-]{32,})\s")
    address, token = terminal.match.groups()
    with httpx.Client(base_url=address, follow_redirects=True, timeout=120) as client:
        assert client.get("/").status_code == 403
        page = client.get("/", params={"token": token})
        assert page.status_code == 200
        hidden = re.search(r'name="key" value="(\w+)"', page.text)
        assert hidden is not None
        key = {"key": hidden[1]}
        written = {
            "user": REQUEST.user_id,
            "query": REQUEST.query,
            "answer": [candidate.text for candidate in REQUEST.candidates],
            "chains": "2",
            "seed": "5",
            "past_query": PAIR.query,
            "past_chosen": PAIR.chosen,
            "past_rejected": PAIR.rejected,
        }
        begun = client.post("/runs", data={**key, **written})
        assert "stands before recall" in begun.text
        here = begun.url.path
        client.post(f"{here}/resume", data={**key, "break": "after:derive_persona"})
        until(lambda: "stopped: after:derive_persona" in client.get(here).text, 240, every=0.3)
        client.post(f"{here}/resume", data=key)  # and right away, while it proceeds:
    said = stop(terminal)
    assert "Traceback" not in said
    assert token not in said
    assert terminal.exitstatus == 130  # as the shell expects of what Ctrl-C ended

    run = here.rpartition("/")[2]
    with DebugSession(tmp_path / "runs.sqlite") as session:
        ran = [point.node for point in session.timeline(run) if point.node]
        assert ran[:2] == ["recall", "derive_persona"]
        if session.checkpoint(run).next:
            session.resume(run)
        assert session.checkpoint(run).finished
        # Nothing that the studio had done was done again.
        assert [point.node for point in session.timeline(run) if point.node] == list(session.nodes)


@pytest.mark.skipif(sys.platform != "linux", reason="only there 127.0.0.2 is this machine, too")
def test_only_one_loopback_address_listens(terminal: pexpect.spawn) -> None:
    terminal.expect(r"http://127\.0\.0\.1:(\d+)/")
    port = int(terminal.match[1])
    with socket.create_connection(("127.0.0.1", port), timeout=60):
        pass
    # A server on 0.0.0.0 would answer here.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=60)
    assert "Traceback" not in stop(terminal)
