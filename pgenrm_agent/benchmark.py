"""`pgenrm bench`: speed on this machine. What is compared is compared within one run.

Per engine, on the bundled model and the demonstration's first person:

- what graph, memory and parsing add to an evaluation of 8 samples: the time of the whole call, as
  its caller waits for it, less the time that the engine's own call took in that same evaluation;
- what the 8 samples of an evaluation cost against 1, in calls to the engine in turn.

And how long `import pgenrm_agent` and `pgenrm --help` take.
"""

from __future__ import annotations

import asyncio
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pgenrm_agent.demo import demo_data
from pgenrm_agent.engines import load_engine
from pgenrm_agent.engines.protocol import (
    Capabilities,
    Completion,
    Engine,
    Prompt,
    SamplingParams,
)
from pgenrm_agent.errors import ChainError, ConfigurationError
from pgenrm_agent.model_files import bundled_model, format_of
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Model, Scaling

__all__ = ["EngineMeasurements", "Figure", "SpeedReport", "measure_engine", "measure_speed"]

EngineName = Literal["transformers", "vllm"]

SAMPLES = 8
TRIES = 5
"""Start-up times are the least of this many: other work on the machine only adds to them."""
CACHE_BYTES = 2**30
"""Room for vLLM's keys and values on a CPU, where it takes most of the memory if not told."""


class Figure(Model):
    """One measured figure. `value` is in the unit that `shown` shows; `engine` None means any."""

    name: str
    engine: str | None
    value: float
    shown: str
    goal: str


class SpeedReport(Model):
    """What was measured, and on what. `repeats` is the number of evaluations per figure."""

    machine: str
    repeats: int
    figures: tuple[Figure, ...]


def measure_speed(
    engines: Sequence[str] = (),
    *,
    repeats: int,
    progress: Callable[[str], None] = lambda step: None,
) -> SpeedReport:
    """Measure overhead and the cost of more samples on each engine, and start-up times.

    engines: "transformers", "vllm"; empty means all that are installed.
    repeats: evaluations per figure; figures are medians.
    progress: told what is being measured.

    Raises:
        ConfigurationError: an engine that does not run the bundled model in this process.
        ChainError: the model wrote no readable chain in any evaluation.
    """
    figures: list[Figure] = []
    for engine in [_engine_name(name) for name in engines] or _installed():
        progress(f"measuring {engine}")
        figures += _engine_figures(engine, repeats)
    progress("measuring start-up times")
    importing = max(
        0.0,
        _seconds([sys.executable, "-P", "-c", "import pgenrm_agent"])
        - _seconds([sys.executable, "-c", ""]),
    )
    helping = _seconds([sys.executable, "-P", "-m", "pgenrm_agent.cli", "--help"])
    figures += [
        _figure("import pgenrm_agent", None, importing, "{:.2f} s", "under 0.3 s"),
        _figure("pgenrm --help", None, helping, "{:.2f} s", "under 0.6 s"),
    ]
    return SpeedReport(
        machine=f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        repeats=repeats,
        figures=tuple(figures),
    )


def _figure(name: str, engine: str | None, value: float, form: str, goal: str) -> Figure:
    title = name if engine is None else f"{engine}: {name}"
    return Figure(name=title, engine=engine, value=value, shown=form.format(value), goal=goal)


def _engine_name(name: str) -> EngineName:
    if name == "transformers":
        return "transformers"
    if name == "vllm":
        return "vllm"
    raise ConfigurationError(f"engine {name!r} cannot be measured: use transformers or vllm")


def _installed() -> list[EngineName]:
    return ["transformers", "vllm"] if find_spec("vllm") else ["transformers"]


def _engine_figures(name: EngineName, repeats: int) -> list[Figure]:
    options: dict[str, object] = {}
    if name == "vllm" and not _has_gpu():
        options["kv_cache_memory_bytes"] = CACHE_BYTES
    engine = load_engine(name, bundled_model(), **options)
    with tempfile.TemporaryDirectory() as scratch:
        found = asyncio.run(measure_engine(engine, Path(scratch), repeats))
    overheads = found.overheads
    share = statistics.median(
        100 * gap / engine_time
        for gap, engine_time in zip(overheads, found.engine_times, strict=True)
    )
    added = 1000 * statistics.median(overheads)
    ratio = statistics.median(found.times[SAMPLES]) / statistics.median(found.times[1])
    rate = found.tokens / sum(found.times[SAMPLES])
    return [
        _figure(
            f"graph + memory + parsing over the engine, {SAMPLES} samples",
            name, share, "{:.2f} %", "at most 5 %",
        ),
        _figure("graph + memory + parsing, an evaluation", name, added, "{:.1f} ms", "at most 15 ms"),
        _figure(
            f"{SAMPLES} samples against 1", name, ratio, "{:.2f} x",
            "at most 2.5 x on a CPU" if name == "vllm" else "-",
        ),
        _figure(f"generated tokens a second, {SAMPLES} samples", name, rate, "{:.0f}", "-"),
    ]  # fmt: skip


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@dataclass
class EngineMeasurements:
    """Seconds. The two lists are by evaluation; `times` are the engine's alone, by samples."""

    overheads: list[float] = field(default_factory=list)
    engine_times: list[float] = field(default_factory=list)
    times: dict[int, list[float]] = field(default_factory=lambda: {1: [], SAMPLES: []})
    tokens: int = 0


class _Watched:
    """An engine that keeps the last call, and how long its calls took altogether."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.seconds = 0.0
        self.last: tuple[Sequence[Prompt], SamplingParams] | None = None

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def capabilities(self) -> Capabilities:
        return self._engine.capabilities

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        self.last = prompts, params
        started = time.perf_counter()
        try:
            return await self._engine.sample(prompts, params)
        finally:
            self.seconds += time.perf_counter() - started

    async def aclose(self) -> None:
        await self._engine.aclose()


async def measure_engine(engine: Engine, memory: Path, repeats: int) -> EngineMeasurements:
    """`repeats` evaluations after one to warm up, then `repeats` engine calls of each size."""
    data = demo_data()
    person = data.people[0]
    answers = list(data.candidates.values())
    found = EngineMeasurements()
    watched = _Watched(engine)
    unreadable: ChainError | None = None
    model = PGenRM(engine=watched, memory=memory, chain_format=format_of(bundled_model()))
    try:
        for pair in data.pairs(person):
            await model.aremember(person.id, pair)
        for seed in range(repeats + 1):
            # Without resamples: how often a model writes nonsense is not what is measured.
            scaling = Scaling(individual=SAMPLES, prototype=0, resamples=0, seed=seed)
            watched.seconds = 0.0
            started = time.perf_counter()
            try:
                await model.ascore(person.id, data.query, answers, scaling=scaling)
            except ChainError as error:
                unreadable = error
                continue
            total = time.perf_counter() - started
            if seed > 0:
                found.overheads.append(total - watched.seconds)
                found.engine_times.append(watched.seconds)
        if not found.overheads and unreadable is not None:
            raise unreadable
        if watched.last is None:
            raise ConfigurationError("the evaluations asked the engine for nothing")
        # The 8 samples of an evaluation are several prompts, one for each answer order.
        prompts, params = watched.last
        asked = {1: [prompts[0].model_copy(update={"n": 1})], SAMPLES: prompts}
        for seed in range(repeats + 1):
            for samples, times in found.times.items():
                seeded = [
                    prompt.model_copy(update={"seed": prompt.seed + seed})
                    for prompt in asked[samples]
                ]
                started = time.perf_counter()
                written = await engine.sample(seeded, params)
                if seed > 0:
                    times.append(time.perf_counter() - started)
                    if samples == SAMPLES:
                        found.tokens += sum(one.tokens for answer in written for one in answer)
    finally:
        await model.aclose()
        await engine.aclose()
    return found


def _seconds(command: Sequence[str]) -> float:
    times = []
    for _ in range(TRIES):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return min(times)
