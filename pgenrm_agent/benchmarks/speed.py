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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pgenrm_agent.benchmarks.load import throughput_by_callers, time_by_samples
from pgenrm_agent.benchmarks.report import Figure, Series, SpeedReport, series_of
from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.demo import demo_data
from pgenrm_agent.engine_names import EngineName
from pgenrm_agent.engines import Engine, load_engine
from pgenrm_agent.errors import ChainError, ConfigurationError
from pgenrm_agent.machine import describe_machine
from pgenrm_agent.model_files import bundled_model, format_of
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Scaling

PARTS = ("overhead", "samples", "callers")
QUICK = ("overhead", "samples")
"""What is measured when nothing is named: a few minutes with the bundled model on two cores."""

SAMPLES = 8
SIZES = (1, 4, 8, 16, 24)
GOALS = {8: "at most 2.5 x, vLLM on a CPU", 24: "at most 6 x on a CPU"}
"""What some sizes may take, in the time of one sample."""
CALLERS = (1, 8, 32)


def measure_speed(
    model: str | Path | None = None,
    engine: EngineName | None = None,
    *,
    engine_options: Mapping[str, object] | None = None,
    chain_format: ChainFormat | None = None,
    parts: Sequence[str] = (),
    repeats: int,
    progress: Callable[[str], None] = lambda step: None,
) -> SpeedReport:
    """Measure what `parts` names; see the module's docstring.

    model: a folder or name; None means the bundled model.
    engine: "transformers", "vllm" or "openai"; None means "transformers".
    engine_options: for the engine's constructor.
    chain_format: None means the model's.
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
    runner = load_engine(engine or "transformers", folder, **(engine_options or {}))
    figures, series = asyncio.run(
        _measure(
            runner, chain_format or format_of(folder), frozenset(parts or QUICK), repeats, progress
        )
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
                measured = await measure_overhead(
                    engine, chain_format, Path(scratch) / "overhead", repeats
                )
                figures += measured.figures()
            if "samples" in parts:
                progress("measuring samples")
                times = await time_by_samples(engine, chain_format, SIZES, repeats)
                figures += [
                    Figure.of(f"{size} samples against 1", times[size] / times[1], "{:.2f} x", goal)
                    for size, goal in GOALS.items()
                ]
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


@dataclass
class OverheadMeasurements:
    """Seconds by evaluation: of the whole call less the engine's part, and of that part."""

    overheads: list[float] = field(default_factory=list)
    engine_times: list[float] = field(default_factory=list)
    tokens: int = 0

    def figures(self) -> list[Figure]:
        """Return what there is to show: shares and times are medians."""
        shares = zip(self.overheads, self.engine_times, strict=True)
        share = statistics.median(100 * overhead / engine for overhead, engine in shares)
        added = 1000 * statistics.median(self.overheads)
        rate = self.tokens / sum(self.engine_times)
        name = f"graph + memory + parsing over the engine, {SAMPLES} samples"
        return [
            Figure.of(name, share, "{:.2f} %", "at most 5 %"),
            Figure.of(
                "graph + memory + parsing, an evaluation", added, "{:.1f} ms", "at most 15 ms"
            ),
            Figure.of(f"generated tokens a second, {SAMPLES} samples", rate, "{:.0f}"),
        ]


async def measure_overhead(
    engine: Engine, chain_format: ChainFormat, memory: Path, repeats: int
) -> OverheadMeasurements:
    """Time `repeats` evaluations after one to warm up.

    Raises ChainError where the model wrote no readable chain in any of them.
    """
    data = demo_data()
    user = data.users[0]
    answers = list(data.candidates.values())
    measured = OverheadMeasurements()
    unreadable: ChainError | None = None
    async with PGenRM(engine=engine, memory=memory, chain_format=chain_format) as model:
        for pair in data.pairs(user):
            await model.aremember(user.id, pair)
        for seed in range(repeats + 1):
            # Without resamples: how often a model writes nonsense is not what is measured.
            scaling = Scaling(individual=SAMPLES, prototype=0, resamples=0, seed=seed)
            started = time.perf_counter()
            try:
                evaluation = await model.ascore(user.id, data.query, answers, scaling=scaling)
            except ChainError as error:
                unreadable = error
                continue
            total = time.perf_counter() - started
            if seed > 0:
                asking = evaluation.timings["engine"]
                measured.overheads.append(total - asking)
                measured.engine_times.append(asking)
                measured.tokens += evaluation.usage.completion_tokens
    if not measured.overheads and unreadable is not None:
        raise unreadable
    return measured
