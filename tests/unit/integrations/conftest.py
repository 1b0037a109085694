"""A reward model whose marks are known beforehand: the number that an answer ends with."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator

import pytest

from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Scaling
from pgenrm_agent.testing import ScriptedEngine, write_chain

RESPONSE = re.compile(r"\[The Start of Response \d+\]\s*(.*?)\s*\[The End of Response", re.DOTALL)


def mark_of(text: str) -> int:
    """9 for "Rinse it. 9"; any other text has some mark of its own."""
    number = re.search(r"(?<!\d)(10|[1-9])\s*$", text)
    return int(number[1]) if number else 1 + zlib.crc32(text.encode()) % 10


def judge(prompt: Prompt, _: int = 0) -> str:
    """A chain that gives every response its mark."""
    return write_chain([mark_of(text) for text in RESPONSE.findall(prompt.messages[-1].content)])


SCALING = Scaling(individual=2, resamples=0, seed=1)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(judge)


@pytest.fixture(scope="session")
def make_engine() -> Callable[..., ScriptedEngine]:
    """Engines that judge so, with options of `ScriptedEngine`."""

    def make(**options: float) -> ScriptedEngine:
        return ScriptedEngine(judge, latency_s=options.get("latency_s", 0.0))

    return make


@pytest.fixture(scope="session")
def scaling() -> Scaling:
    return SCALING


@pytest.fixture(scope="module")
def rm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PGenRM]:
    memory = tmp_path_factory.mktemp("memory")
    with PGenRM(engine=ScriptedEngine(judge), memory=memory, scaling=SCALING) as reward_model:
        yield reward_model
