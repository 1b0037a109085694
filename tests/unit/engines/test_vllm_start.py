"""What is known of vLLM's start without vLLM: how much memory it gets, and why it failed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pgenrm_agent.engines.vllm_start import ProcessLog, cpu_cache_bytes
from pgenrm_agent.errors import ConfigurationError

MIB, GIB = 2**20, 2**30
LOGGED = """\
(VllmWorker-0 pid=13309) ERROR 11-28 05:16:33 [loading.py:8] ImportError: no such thing, never mind
(VllmWorker-0 pid=13309) ERROR 11-28 05:16:33 [multiproc_executor.py:953] WorkerProc failed to start.
(VllmWorker-0 pid=13309) ERROR 11-28 05:16:33 [multiproc_executor.py:953] Traceback (most recent call last):
(VllmWorker-0 pid=13309) ERROR 11-28 05:16:33 [multiproc_executor.py:953]     raise ValueError(
(VllmWorker-0 pid=13309) ERROR 11-28 05:16:33 [multiproc_executor.py:953] ValueError: Available memory is low.
(EngineCore pid=13248) ERROR 11-28 05:16:35 [core.py:1510] EngineCore failed to start.
(EngineCore pid=13248) ERROR 11-28 05:16:35 [core.py:1510] RuntimeError: See stack trace for root cause.
"""


@pytest.mark.parametrize(
    ("context", "free", "weights", "expected"),
    [
        (14 * MIB, 20 * GIB, 7 * MIB, 224 * MIB),  # the bundled model
        (1 * MIB, 20 * GIB, 7 * MIB, 64 * MIB),
        (1 * GIB, 60 * GIB, 16 * GIB, 4 * GIB),
        (5 * GIB, 60 * GIB, 16 * GIB, 5 * GIB),
        (1 * GIB, 20 * GIB, 16 * GIB, 2 * GIB),
        (1 * MIB, 100 * MIB, 0, 50 * MIB),
    ],
)
def test_the_cache_has_room_for_a_few_contexts_within_half_of_the_memory(
    context: int, free: int, weights: int, expected: int
) -> None:
    assert cpu_cache_bytes(context, free=free, weights=weights) == expected


@pytest.mark.parametrize(("free", "weights"), [(20 * GIB, 16 * GIB), (4 * GIB, 16 * GIB)])
def test_a_context_without_room_is_refused_with_what_to_do(free: int, weights: int) -> None:
    with pytest.raises(ConfigurationError, match=r"takes 3\.00 GiB.*smaller max_model_len"):
        cpu_cache_bytes(3 * GIB, free=free, weights=weights)


@pytest.fixture
def log() -> Iterator[ProcessLog]:
    log = ProcessLog(shown=False)
    yield log
    log.remove()


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=False)


def test_processes_write_to_the_log_and_this_one_as_ever(
    log: ProcessLog, capfd: pytest.CaptureFixture[str]
) -> None:
    with log.catching():
        run("raise ValueError('of a process')")
        print("of this one", file=sys.stderr)
    run("import sys; sys.stderr.write('after it')")
    shown = capfd.readouterr().err
    assert "of a process" not in shown
    assert "of this one" in shown
    assert "after it" in shown
    assert log.cause(RuntimeError("see above")) == "ValueError: of a process"
    assert log.path is not None
    assert str(log.path) in log.pointer()


def test_the_cause_is_the_first_error_of_what_failed_first(log: ProcessLog) -> None:
    assert log.path is not None
    log.path.write_text(LOGGED)
    assert log.cause(RuntimeError()) == "ValueError: Available memory is low."


def test_a_killed_process_is_told_as_such(log: ProcessLog) -> None:
    error = RuntimeError(
        "Engine core initialization failed. Failed core proc(s): {'EngineCore': -9}"
    )
    assert "killed (signal 9)" in str(log.cause(error))
    assert log.cause(RuntimeError("Failed core proc(s): {}")) is None


def test_an_empty_log_is_not_pointed_to(log: ProcessLog) -> None:
    path = log.path
    assert path is not None
    assert log.pointer() == ""
    assert not path.exists()


def test_without_standard_error_nothing_is_caught() -> None:
    code = (
        "import os\n"
        "from pgenrm_agent.engines.vllm_start import ProcessLog\n"
        "os.close(2)\n"
        "log = ProcessLog(shown=False)\n"
        "with log.catching():\n"
        "    print('done', log.path)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "done None\n"


def test_with_a_level_of_ones_own_the_log_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    log = ProcessLog(shown=True)
    with log.catching():
        os.write(2, b"as it comes")
    assert "as it comes" in capfd.readouterr().err
    assert log.path is None
    assert "above" in log.pointer()
