"""`pgenrm serve` and `pgenrm mcp` as processes on a socket; what they refuse; and `pgenrm keys`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from command_line import pgenrm
from httpx2 import AsyncClient
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from pgenrm_agent.integrations.keys import KeyRing
from pgenrm_agent.memory import UserMemory


def test_a_key_is_made_listed_and_revoked(tmp_path: Path) -> None:
    file = ("--keys", str(tmp_path / "keys.jsonl"))
    key = pgenrm("keys", "add", "acme", *file).stdout.strip()
    ring = KeyRing(tmp_path / "keys.jsonl")
    assert ring.tenant_of(key) == "acme"
    (listed,) = json.loads(pgenrm("keys", "list", "--json", *file).stdout)
    assert listed["tenant"] == "acme"
    assert "digest" not in listed
    assert pgenrm("keys", "revoke", listed["id"], *file).returncode == 0
    assert ring.tenant_of(key) is None
    again = pgenrm("keys", "revoke", listed["id"], *file)
    assert again.returncode == 1
    assert "has no key" in again.stderr


def test_a_server_that_would_answer_nobody_does_not_start(tmp_path: Path) -> None:
    done = pgenrm("serve", "--keys", str(tmp_path / "keys.jsonl"), "--memory", str(tmp_path))
    assert done.returncode == 1
    assert "pgenrm keys add" in done.stderr


def test_a_server_whose_model_cannot_be_loaded_says_so_in_one_line(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    place = ("--memory", str(tmp_path / "memory"), "--port", str(free_port()))
    done = pgenrm("serve", "--no-keys", "--model", str(tmp_path / "missing"), *place)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert str(tmp_path / "missing") in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "", "192.168.1.7", "fe80::1", "box.local", "localhost.example", "127.1"],
)
@pytest.mark.parametrize("command", ["serve --no-keys", "mcp --http"])
def test_no_door_is_opened_to_other_machines_without_a_key(command: str, host: str) -> None:
    done = pgenrm(*command.split(), "--host", host)
    assert done.returncode == 1
    assert f"--host {host} can be reached from other machines" in done.stderr
    assert "pgenrm keys add TENANT" in done.stderr


def test_the_refusal_to_serve_others_without_a_key_is_one_line() -> None:
    done = pgenrm("serve", "--no-keys", "--host", "0.0.0.0")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --host 0.0.0.0")


def test_mcp_is_not_opened_to_other_machines_without_a_key(tmp_path: Path) -> None:
    file = ("--keys", str(tmp_path / "keys.jsonl"))
    open_to_all = pgenrm("mcp", "--http", "--host", "0.0.0.0", *file)
    assert open_to_all.returncode == 1
    assert "--tenant" in open_to_all.stderr
    keyless = pgenrm("mcp", "--http", "--tenant", "acme", *file)
    assert keyless.returncode == 1
    assert "pgenrm keys add acme" in keyless.stderr
    piped = pgenrm("mcp", "--tenant", "acme", *file)
    assert piped.returncode == 2


def test_serve_answers_on_the_bundled_model_and_finishes_what_runs_when_stopped(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """The command as a user starts it, and SIGTERM as an orchestrator stops it."""
    ring = KeyRing(tmp_path / "keys.jsonl")
    key, _ = ring.issue("acme")
    port = free_port()
    options = ["--keys", str(ring.path), "--memory", str(tmp_path / "tenants"), "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "pgenrm_agent.cli", "serve", *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    asked = {
        "user_id": "ada",
        "query": "How do I cook rice?",
        "candidates": ["Two parts water, 12 minutes.", "Rice is such a joy!"],
        "scaling": {"individual": 8, "seed": 1},
    }
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=120) as client:
            told_at_start = []
            while not told_at_start or told_at_start[-1] != (200, 200):
                assert process.poll() is None, "the server ended"
                told_at_start += statuses(url, "healthz", "readyz")
                time.sleep(0.05)
            # Alive while it loads the model, so that nobody restarts it for being slow.
            assert (200, 503) in told_at_start
            with client.stream("POST", f"{url}/v1/score/stream", json=asked) as events:
                lines = events.iter_lines()
                # It runs, and is stopped.
                assert next(line for line in lines if line[:6] == "event:") == "event: progress"
                process.terminate()
                told = [line.removeprefix("event: ") for line in lines if line[:6] == "event:"]
        assert told[-1] == "result"
        assert process.wait(60) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        _, said = process.communicate()
    assert "Traceback" not in said


def statuses(url: str, *paths: str) -> list[tuple[int, ...]]:
    """One row with what each path answers; none while nobody listens."""
    try:
        return [tuple(httpx.get(f"{url}/{path}").status_code for path in paths)]
    except httpx.TransportError:
        return []


async def test_pgenrm_mcp_answers_before_it_loads_a_model(tmp_path: Path) -> None:
    """In CPU seconds, which a busy machine does not change: 1.5 where this was written, of 10 in all."""
    command = [sys.executable, "-P", "-m", "pgenrm_agent.cli", "mcp", "--memory", str(tmp_path)]
    server = await asyncio.create_subprocess_exec(
        *command,
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        env={**os.environ, "PGENRM_MCP_USER": "ada"},
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        hello = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        }
        call = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
        server.stdin.write(json.dumps(call).encode() + b"\n")
        answer = json.loads(await asyncio.wait_for(server.stdout.readline(), 60))
        process = Path(f"/proc/{server.pid}")
        # Fields 14 and 15, user and system; what stands before the last parenthesis is the name.
        ticks = process.joinpath("stat").read_text().rpartition(")")[2].split()[11:13]
        used = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        assert answer["result"]["serverInfo"]["name"] == "pgenrm"
        assert used < 2.5
        assert "torch" not in process.joinpath("maps").read_text()
        call = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}
        ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        server.stdin.write(json.dumps(ready).encode() + b"\n" + json.dumps(call).encode() + b"\n")
        listed = json.loads(await asyncio.wait_for(server.stdout.readline(), 60))
        for tool in listed["result"]["tools"]:
            assert "user_id" not in tool["inputSchema"]["properties"]
    finally:
        server.kill()
        await server.wait()


@pytest.mark.long
async def test_pgenrm_mcp_serves_the_tenants_own_memory(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """The real command: acme's key, acme's folder."""
    ring = KeyRing(tmp_path / "keys.jsonl")
    key, _ = ring.issue("acme")
    port = free_port()
    command = [sys.executable, "-P", "-m", "pgenrm_agent.cli", "mcp", "--http", "--tenant", "acme"]
    options = ["--port", str(port), "--keys", str(ring.path), "--memory", str(tmp_path / "all")]
    process = await asyncio.create_subprocess_exec(*command, *options, stderr=DEVNULL)
    choice = {"query": "How?", "chosen": "So.", "rejected": "Not so.", "user_id": "ada"}
    url = f"http://127.0.0.1:{port}/mcp"
    try:
        # The port is taken before the server answers.
        async with AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=60) as http:
            await listens(process, port)
            assert (await http.post(url, headers={"Authorization": "Bearer no"})).status_code == 401
            async with Client(streamable_http_client(url, http_client=http)) as client:
                assert not (await client.call_tool("remember", choice)).is_error
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 60)
    with UserMemory(tmp_path / "all" / "acme") as memory:
        assert [user.user_id for user in memory.users()] == ["ada"]


async def listens(process: Process, port: int) -> None:
    while True:
        assert process.returncode is None, "the server ended"
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.2)
        else:
            writer.close()
            return
