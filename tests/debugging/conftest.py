"""A session in memory over a scripted model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.testing import ScriptedEngine

sys.path.insert(0, str(Path(__file__).parent))  # for the module that the tests here share

from scripted_person import reply


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(reply)


@pytest.fixture
def session(engine: ScriptedEngine) -> Iterator[DebugSession]:
    with DebugSession(engine=engine) as opened:
        yield opened
