"""What the tests here share: the token, an engine behind a gate, and the studio that runs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scripted_person import reply

from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.engines.protocol import Completion, Prompt, SamplingParams
from pgenrm_agent.testing import ScriptedEngine

TOKEN = "a-token-for-tests"


class GatedEngine(ScriptedEngine):
    """Waits at a gate before it samples, without blocking its loop, as an engine does that works."""

    def __init__(self) -> None:
        super().__init__(reply)
        self.open = threading.Event()
        self.open.set()

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        while not self.open.is_set():  # noqa: ASYNC110, a test sets it from its thread
            await asyncio.sleep(0.01)
        return await super().sample(prompts, params)


@dataclass
class Studio:
    address: str
    session: DebugSession
    engine: GatedEngine

    @property
    def entry(self) -> str:
        return f"{self.address}/?token={TOKEN}"


def until(holds: Callable[[], bool], seconds: float = 60, every: float = 0.02) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(every)
