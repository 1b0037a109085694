"""The command line, an MCP server and a program, all at once on the memory of one `pgenrm serve`."""

from __future__ import annotations

import asyncio
import json
import os
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path

from mcp import Client as MCPClient
from mcp import StdioServerParameters
from serve_process import COMMAND, serving

from pgenrm_agent.client import Client
from pgenrm_agent.schema import PreferencePair, Scaling

QUERY = "How do I clean a kettle?"
ANSWERS = ["Use a good vinegar.", "Buy another."]
ROUNDS = 3


async def pgenrm(*arguments: str, env: dict[str, str]) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, env=env, stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def on_the_command_line(env: dict[str, str]) -> None:
    for number in range(ROUNDS):
        chosen = ("--chosen", "A good answer.", "--rejected", "Another.")
        asked = ("users", "remember", "ada", "--query", f"Typed {number}?", *chosen)
        code, _, told = await pgenrm(*asked, env=env)
        assert code == 0, told
    code, printed, told = await pgenrm(
        "rerank", "-u", "ada", "-q", QUERY, "--json", *ANSWERS, env=env
    )
    assert code == 0, told
    assert json.loads(printed)["items"][0]["index"] == 0


async def over_mcp(env: dict[str, str]) -> None:
    server = StdioServerParameters(
        command=COMMAND[0], args=[*COMMAND[1:], "mcp", "--user", "ada"], env=env
    )
    async with MCPClient(server) as client:
        for number in range(ROUNDS):
            choice = {"query": f"MCP {number}?", "chosen": "A good answer.", "rejected": "Another."}
            assert not (await client.call_tool("remember", choice)).is_error
            scored = await client.call_tool("score", {"query": QUERY, "candidates": ANSWERS})
            assert not scored.is_error, scored.content
            assert scored.structured_content is not None
            assert scored.structured_content["best"] == "answer-1"


async def in_a_program(url: str) -> None:
    async with Client(url) as client:
        for number in range(ROUNDS):
            pair = PreferencePair(query=f"Script {number}?", chosen="Good.", rejected="Another.")
            await client.aremember("ada", pair)
            scaling = Scaling(individual=2, prototype=0, seed=number)
            ranking = await client.arerank("ada", QUERY, ANSWERS, scaling=scaling)
            assert ranking[0].index == 0


async def test_three_ways_in_use_one_memory_at_once(
    tmp_path: Path, free_port: Callable[[], int], seeded_model: str
) -> None:
    memory = tmp_path / "memory"
    async with serving(memory, free_port()) as served:
        url = served.url
        env = {**os.environ, "PGENRM_SERVER": url, "PGENRM_HOME": str(tmp_path / "home")}
        async with asyncio.TaskGroup() as ways:
            ways.create_task(on_the_command_line(env))
            ways.create_task(over_mcp(env))
            ways.create_task(in_a_program(url))
        async with Client(url) as client:
            asked = {pair.query for pair in (await client.arecall("ada")).history}
        # Whoever goes past the server is told who has the memory.
        code, _, told = await pgenrm(
            "users", "list", "--memory", str(memory), env=os.environ.copy()
        )
    ways_in = ("Typed", "MCP", "Script")
    assert asked == {f"{way} {number}?" for way in ways_in for number in range(ROUNDS)}
    assert code == 1
    assert "PGENRM_SERVER" in told
    assert not (tmp_path / "home").exists()
