"""`pgenrm serve` as a process of its own, as a user starts it."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

COMMAND = (sys.executable, "-P", "-m", "pgenrm_agent.cli")
START_S = 240


@dataclass(frozen=True)
class Served:
    """A server that answers at `url`."""

    url: str
    process: asyncio.subprocess.Process


@asynccontextmanager
async def serving(
    memory: object, port: int, *options: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[Served]:
    """A server without keys on a memory, whose model is the chat server that OPENAI_BASE_URL names."""
    model = ("--engine", "openai", "--model", "m", "--prototype", "0", "--individual", "2")
    command = (*COMMAND, "serve", "--no-keys", "--memory", str(memory), "--port", str(port))
    process = await asyncio.create_subprocess_exec(
        *command, *model, *options, stderr=PIPE, env={**os.environ, **(env or {})}
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(START_S):
            told = []
            while (line := await process.stderr.readline()) != b"ready\n":
                told.append(line.decode())
                assert line, "the server ended: " + "".join(told)
        yield Served(f"http://127.0.0.1:{port}", process)
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 60)
