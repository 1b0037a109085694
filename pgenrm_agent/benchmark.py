"""`pgenrm bench`: speed on this machine. What is compared is compared within one run."""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pgenrm_agent.demo import demo_data
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Evaluation, Model, Scaling

__all__ = ["Figure", "SpeedReport", "measure_speed"]

TRIES = 5
"""Start-up times are the least of this many: other work on the machine only adds to them."""


class Figure(Model):
    """One measured figure. `value` is in the unit that `shown` shows."""

    name: str
    value: float
    shown: str
    goal: str


class SpeedReport(Model):
    """What was measured, and on what."""

    engine: str
    machine: str
    repeats: int
    figures: tuple[Figure, ...]


def measure_speed(engine: str, *, repeats: int) -> SpeedReport:
    """Measure overhead, the cost of more samples, and start-up times.

    Raises:
        ConfigurationError: an engine that does not run the bundled model in this process.
    """
    if engine not in ("transformers", "vllm"):
        raise ConfigurationError(f"engine {engine!r} cannot be measured: use transformers or vllm")
    with tempfile.TemporaryDirectory() as scratch:
        many, one = _evaluations(engine, Path(scratch), repeats)
    overheads = [result.timings["total"] - result.timings["engine"] for result in many]
    share = statistics.median(
        gap / result.timings["engine"] for gap, result in zip(overheads, many, strict=True)
    )
    ratio = _median_total(many) / _median_total(one)
    tokens = sum(result.usage.completion_tokens for result in many)
    rate = tokens / sum(result.timings["engine"] for result in many)
    starting = _seconds([sys.executable, "-P", "-c", "import pgenrm_agent"]) - _seconds(
        [sys.executable, "-c", ""]
    )
    helping = _seconds([sys.executable, "-P", "-m", "pgenrm_agent.cli", "--help"])
    return SpeedReport(
        engine=engine,
        machine=f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        repeats=repeats,
        figures=(
            Figure(
                name="graph + memory + parsing over the engine, 8 samples",
                value=100 * share, shown=f"{100 * share:.2f} %", goal="at most 5 %",
            ),
            Figure(
                name="graph + memory + parsing, an evaluation",
                value=1000 * statistics.median(overheads),
                shown=f"{1000 * statistics.median(overheads):.1f} ms", goal="at most 15 ms",
            ),
            Figure(
                name="8 samples against 1", value=ratio, shown=f"{ratio:.2f} x",
                goal="at most 2.5 x (vLLM on a CPU)",
            ),
            Figure(name="generated tokens a second, 8 samples", value=rate, shown=f"{rate:.0f}", goal="-"),
            Figure(name="import pgenrm_agent", value=starting, shown=f"{starting:.2f} s", goal="under 0.3 s"),
            Figure(name="pgenrm --help", value=helping, shown=f"{helping:.2f} s", goal="under 0.6 s"),
        ),
    )  # fmt: skip


def _evaluations(
    engine: str, memory: Path, repeats: int
) -> tuple[list[Evaluation], list[Evaluation]]:
    """The demo's request with 8 samples and with 1, in turn, after one to warm up."""
    data = demo_data()
    person = data.people[0]
    answers = list(data.candidates.values())
    found: dict[int, list[Evaluation]] = {8: [], 1: []}
    with PGenRM(engine=engine, memory=memory) as model:  # type: ignore[arg-type]
        for pair in data.pairs(person):
            model.remember(person.id, pair)
        for seed in range(-1, repeats):
            for samples, results in found.items():
                scaling = Scaling(individual=samples, prototype=0, seed=seed + 1)
                result = model.score(person.id, data.query, answers, scaling=scaling)
                if seed >= 0:
                    results.append(result)
    return found[8], found[1]


def _median_total(results: Sequence[Evaluation]) -> float:
    return statistics.median(result.timings["total"] for result in results)


def _seconds(command: Sequence[str]) -> float:
    times = []
    for _ in range(TRIES):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return min(times)
