"""Real vLLM on a CPU, started as somebody does who has read the README and nothing else.

The first test is the one with vLLM that `make test` runs, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SCORE = """
from pgenrm_agent import PGenRM, Scaling, UserSignals

{guard}
    with PGenRM(engine="vllm") as model:
        result = model.score(
            "ada", "How do I cook rice?", ["- Rinse it.\\n- Boil it.", "Just cook it."],
            signals=UserSignals(user_id="ada"), scaling=Scaling(individual=2, prototype=0, seed=1),
        )
        cache = model._engine._engine.vllm_config.cache_config.kv_cache_memory_bytes
    print("SCORED", len(result.chains), "CACHE", cache)
"""
FAIL = """
import sys
from pgenrm_agent.engines.vllm import VLLMEngine
from pgenrm_agent.errors import EngineUnavailable
from pgenrm_agent.model_files import bundled_model

if __name__ == "__main__":
    try:
        VLLMEngine(bundled_model(), kv_cache_memory_bytes=2**50, enforce_eager=True)
    except EngineUnavailable as error:
        print("ERROR", error)
    sys.stderr.write("still here")
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: vLLM's sockets lie in it, and their paths have 107 characters at most."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(code)
    hidden = ("VLLM_", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    environment |= {"HF_HUB_OFFLINE": "1", "PGENRM_HOME": str(folder), "TMPDIR": str(folder)}
    return subprocess.run(
        [sys.executable, script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def test_it_starts_with_a_small_cache_when_nothing_is_said(folder: Path) -> None:
    done = run(folder, SCORE.format(guard='if __name__ == "__main__":'))
    assert done.returncode == 0, done.stderr
    _, chains, _, cache = done.stdout.strip().splitlines()[-1].split()
    assert int(chains) == 2
    assert 2**26 <= int(cache) <= 2**29
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(folder.glob("pgenrm-vllm-*")), "the log of a good start is left behind"


@pytest.mark.long
def test_a_start_that_fails_is_one_error_with_the_cause(folder: Path) -> None:
    done = run(folder, FAIL)
    assert done.returncode == 0, done.stderr
    (message,) = [line for line in done.stdout.splitlines() if line.startswith("ERROR")]
    assert "ValueError: Available memory on node 0" in message
    assert "pass a smaller max_model_len, kv_cache_memory_bytes" in message
    (log,) = folder.glob("pgenrm-vllm-*.log")
    assert str(log) in message
    assert "Traceback" in log.read_text()
    assert "Traceback" not in done.stdout + done.stderr
    assert "still here" in done.stderr


@pytest.mark.long
def test_a_script_without_a_guard_is_told_to_have_one(folder: Path) -> None:
    done = run(folder, SCORE.format(guard="if True:"))
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "EngineUnavailable" in last
    assert "if __name__ ==" in last
