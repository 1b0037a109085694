"""A session in memory over a scripted model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scripted_person import reply

from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.testing import ScriptedEngine


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(reply)


@pytest.fixture
def session(engine: ScriptedEngine) -> Iterator[DebugSession]:
    with DebugSession(engine=engine) as opened:
        yield opened
