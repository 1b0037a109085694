"""`pgenrm bench`: how fast a model is on this machine, with the demonstration's users.

- overhead: what graph, memory and parsing add to an evaluation of 8 samples: the time of the whole
  call, as its caller waits for it, less the time that the engine's own call took in that same
  evaluation;
- samples: the time of one engine call by number of chains;
- callers: evaluations a second by number of callers at the same time.

What is compared is compared within one run.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pgenrm_agent.benchmarks.load import throughput_by_callers, time_by_samples
from pgenrm_agent.benchmarks.report import Figure, Series, SpeedReport, series_of
from pgenrm_agent.chain import ChainFormat
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
from pgenrm_agent.machine import describe_machine
from pgenrm_agent.model_files import bundled_model, format_of
from pgenrm_agent.opening import EngineName
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Scaling

__all__ = ["PARTS", "EngineMeasurements", "measure_engine", "measure_speed"]

PARTS = ("overhead", "samples", "callers")
QUICK = ("overhead", "samples")
"""What is measured when nothing is named: a few minutes with the bundled model on two cores."""

SAMPLES = 8
SIZES = (1, 4, 8, 16, 24)
CALLERS = (1, 8, 32)


def measure_speed(
    model: str | Path | None = None,
    engine: EngineName | None = None,
    *,
    parts: Sequence[str] = (),
    repeats: int,
    progress: Callable[[str], None] = lambda step: None,
) -> SpeedReport:
    """Measure what `parts` names; see the module's docstring.

    model: a folder or name; None means the bundled model.
    engine: "transformers", "vllm" or "openai"; None means "transformers".
    parts: some of PARTS; empty means QUICK.
    repeats: evaluations per figure; figures are medians.
    progress: told what is being measured.

    Raises:
        ConfigurationError: an unknown part or engine.
        EngineError: the model cannot be loaded or asked.
        ChainError: the model wrote no readable chain in any evaluation.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ConfigurationError(f"part {unknown[0]!r} is unknown: use {', '.join(PARTS)}")
    folder = model or bundled_model()
    runner = load_engine(engine or "transformers", folder)
    figures, series = asyncio.run(
        _measure(runner, format_of(folder), frozenset(parts or QUICK), repeats, progress)
    )
    return SpeedReport(
        machine=describe_machine(),
        model=Path(folder).name,
        engine=engine or "transformers",
        figures=figures,
        series=series,
    )


async def _measure(
    engine: Engine,
    chain_format: ChainFormat,
    parts: frozenset[str],
    repeats: int,
    progress: Callable[[str], None],
) -> tuple[tuple[Figure, ...], tuple[Series, ...]]:
    """The figures and series of an engine, which is closed at the end."""
    figures: list[Figure] = []
    series: list[Series] = []
    try:
        with tempfile.TemporaryDirectory() as scratch:
            if "overhead" in parts:
                progress("measuring overhead")
                measured = await measure_engine(
                    engine, chain_format, Path(scratch) / "overhead", repeats
                )
                figures += _overhead_figures(measured)
            if "samples" in parts:
                progress("measuring samples")
                times = await time_by_samples(engine, chain_format, SIZES, repeats)
                ratio = times[SIZES[-1]] / times[1]
                title = f"{SIZES[-1]} samples against 1"
                figures.append(Figure.of(title, ratio, "{:.2f} x", "at most 6 x on a CPU"))
                series.append(series_of(engine.name, "samples", "seconds", times))
            if "callers" in parts:
                progress("measuring callers")
                rates = await throughput_by_callers(
                    engine, chain_format, CALLERS, Path(scratch) / "callers", repeats
                )
                figures += [
                    Figure.of(
                        f"evaluations a second, {callers} caller{'s' if callers > 1 else ''}",
                        rate,
                        "{:.2f}",
                    )
                    for callers, rate in rates.items()
                ]
                ratio = rates[CALLERS[-1]] / rates[1]
                title = f"throughput, {CALLERS[-1]} callers against 1"
                figures.append(Figure.of(title, ratio, "{:.2f} x", "at least 5 x"))
                series.append(series_of(engine.name, "callers", "evaluations a second", rates))
    finally:
        await engine.aclose()
    return tuple(figures), tuple(series)


def _overhead_figures(measured: EngineMeasurements) -> list[Figure]:
    overheads = measured.overheads
    share = statistics.median(
        100 * gap / engine_time
        for gap, engine_time in zip(overheads, measured.engine_times, strict=True)
    )
    added = 1000 * statistics.median(overheads)
    ratio = statistics.median(measured.times[SAMPLES]) / statistics.median(measured.times[1])
    rate = measured.tokens / sum(measured.times[SAMPLES])
    return [
        Figure.of(
            f"graph + memory + parsing over the engine, {SAMPLES} samples",
            share,
            "{:.2f} %",
            "at most 5 %",
        ),
        Figure.of("graph + memory + parsing, an evaluation", added, "{:.1f} ms", "at most 15 ms"),
        Figure.of(
            f"{SAMPLES} samples against 1", ratio, "{:.2f} x", "at most 2.5 x, vLLM on a CPU"
        ),
        Figure.of(f"generated tokens a second, {SAMPLES} samples", rate, "{:.0f}"),
    ]


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


async def measure_engine(
    engine: Engine, chain_format: ChainFormat, memory: Path, repeats: int
) -> EngineMeasurements:
    """Time `repeats` evaluations after one to warm up, then `repeats` engine calls of each size."""
    measured = EngineMeasurements()
    watched = _Watched(engine)
    await _time_evaluations(watched, chain_format, memory, repeats, measured)
    if watched.last is None:
        raise ConfigurationError("the evaluations asked the engine for nothing")
    # The 8 samples of an evaluation are several prompts, one for each answer order.
    prompts, params = watched.last
    asked = {1: [prompts[0].model_copy(update={"n": 1})], SAMPLES: prompts}
    for seed in range(repeats + 1):
        for samples, times in measured.times.items():
            seeded = [
                prompt.model_copy(update={"seed": prompt.seed + seed}) for prompt in asked[samples]
            ]
            started = time.perf_counter()
            written = await engine.sample(seeded, params)
            if seed > 0:
                times.append(time.perf_counter() - started)
                if samples == SAMPLES:
                    measured.tokens += sum(
                        completion.tokens for completions in written for completion in completions
                    )
    return measured


async def _time_evaluations(
    watched: _Watched,
    chain_format: ChainFormat,
    memory: Path,
    repeats: int,
    measured: EngineMeasurements,
) -> None:
    """Add what evaluations take, and what the engine takes of it."""
    data = demo_data()
    user = data.users[0]
    answers = list(data.candidates.values())
    unreadable: ChainError | None = None
    async with PGenRM(engine=watched, memory=memory, chain_format=chain_format) as model:
        for pair in data.pairs(user):
            await model.aremember(user.id, pair)
        for seed in range(repeats + 1):
            # Without resamples: how often a model writes nonsense is not what is measured.
            scaling = Scaling(individual=SAMPLES, prototype=0, resamples=0, seed=seed)
            watched.seconds = 0.0
            started = time.perf_counter()
            try:
                await model.ascore(user.id, data.query, answers, scaling=scaling)
            except ChainError as error:
                unreadable = error
                continue
            total = time.perf_counter() - started
            if seed > 0:
                measured.overheads.append(total - watched.seconds)
                measured.engine_times.append(watched.seconds)
    if not measured.overheads and unreadable is not None:
        raise unreadable
