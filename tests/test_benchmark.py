"""`pgenrm bench`: what it compares, on a scripted engine whose own time is known."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from pgenrm_agent.benchmark import measure_engine, measure_speed
from pgenrm_agent.errors import ChainError, ConfigurationError
from pgenrm_agent.testing import ScriptedEngine, write_chain


async def test_only_what_the_engine_did_not_need_counts_as_overhead(tmp_path: Path) -> None:
    engine = ScriptedEngine(write_chain([8, 5, 3]), latency_s=0.2)
    found = await measure_engine(engine, tmp_path, 5)
    assert all(0.2 <= seconds < 0.4 for seconds in found.engine_times)
    # The goal is 15 ms; the bound allows for other work on the machine.
    assert 0 < statistics.median(found.overheads) < 0.06
    assert len(found.overheads) == 5


async def test_one_sample_and_eight_are_asked_for_in_turn(tmp_path: Path) -> None:
    engine = ScriptedEngine(write_chain([8, 5, 3]))
    found = await measure_engine(engine, tmp_path, 2)
    evaluations, raw = engine.calls[:3], engine.calls[3:]
    assert [sum(prompt.n for prompt in prompts) for prompts, _ in evaluations] == [8] * 3
    assert [sum(prompt.n for prompt in prompts) for prompts, _ in raw] == [1, 8] * 3
    assert {samples: len(times) for samples, times in found.times.items()} == {1: 2, 8: 2}
    assert engine.closed


async def test_a_model_that_writes_no_chain_cannot_be_measured(tmp_path: Path) -> None:
    with pytest.raises(ChainError):
        await measure_engine(ScriptedEngine("no chain"), tmp_path, 1)


def test_an_engine_that_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="abacus"):
        measure_speed(["abacus"], repeats=1)


@pytest.mark.slow
def test_the_command_prints_figures_for_the_bundled_model() -> None:
    done = subprocess.run(
        [
            sys.executable, "-P", "-m", "pgenrm_agent.cli", "bench", "--engine", "transformers",
            "--repeats", "1", "--json",
        ],
        capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    names = [figure["name"] for figure in report["figures"]]
    assert "transformers: 8 samples against 1" in names
    assert "import pgenrm_agent" in names
    assert all(figure["value"] >= 0 for figure in report["figures"])
