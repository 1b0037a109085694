"""`pgenrm bench`: speed on this machine. What is compared is compared within one run.

Per engine, on the bundled model and the demonstration's people:

- overhead: what graph, memory and parsing add to an evaluation of 8 samples: the time of the whole
  call, as its caller waits for it, less the time that the engine's own call took in that same
  evaluation;
- samples: the time of one engine call by number of chains;
- callers: evaluations a second by number of callers at the same time;
- scheduling: the same chains asked for our way, and one request a sample, one after another.

And without an engine of its own: the memory store (memory), the parser (parser), an epoch of the
prototypes' refinement and finding similar people (prototypes), and how long `import pgenrm_agent`,
`pgenrm --help` and a first score from the command line take (start).
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from pgenrm_agent.benchmarks.load import (
    throughput_by_callers,
    time_by_samples,
    time_of_scheduling,
)
from pgenrm_agent.demo import demo_data
from pgenrm_agent.engines.protocol import (
    Capabilities,
    Completion,
    Engine,
    Prompt,
    SamplingParams,
)
from pgenrm_agent.errors import ChainError, ConfigurationError
from pgenrm_agent.local_engine import open_engine
from pgenrm_agent.machine import describe_machine
from pgenrm_agent.model_files import bundled_model, format_of
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Model, Scaling
from studies.speed.memory import measure_memory
from studies.speed.parser import measure_parser
from studies.speed.prototypes import measure_matching, measure_refinement

__all__ = [
    "PARTS",
    "EngineMeasurements",
    "Figure",
    "Series",
    "SpeedReport",
    "measure_engine",
    "measure_speed",
]

EngineName = Literal["transformers", "vllm"]

Part = Literal[
    "overhead", "samples", "callers", "scheduling", "memory", "parser", "prototypes", "start"
]
PARTS: tuple[Part, ...] = get_args(Part)
QUICK: tuple[Part, ...] = ("overhead", "samples", "parser", "start")
"""What is measured when nothing is named: a few minutes on two cores."""
ENGINE_PARTS: frozenset[Part] = frozenset(("overhead", "samples", "callers", "scheduling"))

SAMPLES = 8
SIZES = (1, 4, 8, 16, 24)
CALLERS = (1, 8, 32)
OWN, NEIGHBORS = 8, 4
PARSES = 200
STORE_CALLS = 200
REFINED = 50_000
"""Samples of the measured epoch."""
TRIES = 5
"""Start-up times are the least of this many: other work on the machine only adds to them."""


class Figure(Model):
    """One measured figure. `value` is in the unit that `shown` shows; `engine` None means any."""

    name: str
    engine: str | None
    value: float
    shown: str
    goal: str


class Series(Model):
    """Measured values over something that was varied: a line of a plot."""

    name: str
    x_label: str
    y_label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


class SpeedReport(Model):
    """What was measured, and on what. `repeats` is the number of evaluations per figure."""

    machine: str
    repeats: int
    figures: tuple[Figure, ...]
    series: tuple[Series, ...] = ()


def measure_speed(
    engines: Sequence[str] = (),
    *,
    repeats: int,
    parts: Sequence[str] = (),
    interactions: Sequence[int] = (10_000,),
    members: int = 10_000,
    progress: Callable[[str], None] = lambda step: None,
) -> SpeedReport:
    """Measure what `parts` names; see the module's docstring.

    engines: "transformers", "vllm"; empty means all that are installed.
    repeats: evaluations per figure; figures are medians.
    parts: some of PARTS, or "all"; empty means QUICK.
    interactions: sizes of the memory stores; each is filled anew.
    members: personas in the version of prototypes to match against.
    progress: told what is being measured.

    Raises:
        ConfigurationError: an unknown part, or an engine that does not run the bundled model in
            this process.
        ChainError: the model wrote no readable chain in any evaluation.
    """
    wanted = _parts(parts)
    names = [_engine_name(name) for name in engines] or _installed()
    figures: list[Figure] = []
    series: list[Series] = []
    for name in names if wanted & ENGINE_PARTS else ():
        progress(f"measuring {name}")
        if "overhead" in wanted:
            figures += _overhead_figures(name, repeats)
        if wanted & (ENGINE_PARTS - {"overhead"}):
            found = asyncio.run(_load_figures(name, wanted, repeats, progress))
            figures += found[0]
            series += found[1]
    if "memory" in wanted:
        found = _memory_figures(interactions, progress)
        figures += found[0]
        series += found[1]
    if "parser" in wanted:
        progress("measuring the parser")
        figures += [
            _figure(f"parser, {name}", None, rate, "{:.1f} MB/s", "at least 20 MB/s")
            for name, rate in measure_parser(repeats=PARSES).items()
        ]
    if "prototypes" in wanted:
        figures += _prototype_figures(members, progress)
    if "start" in wanted:
        progress("measuring start-up times")
        figures += _start_figures()
    return SpeedReport(
        machine=describe_machine(),
        repeats=repeats,
        figures=tuple(figures),
        series=tuple(series),
    )


def _parts(names: Sequence[str]) -> frozenset[Part]:
    found: set[Part] = set()
    for name in names or QUICK:
        matching = [part for part in PARTS if name in (part, "all")]
        if not matching:
            raise ConfigurationError(f"part {name!r} is unknown: use {', '.join(PARTS)} or all")
        found.update(matching)
    return frozenset(found)


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


async def _load_figures(
    name: EngineName, wanted: frozenset[Part], repeats: int, progress: Callable[[str], None]
) -> tuple[list[Figure], list[Series]]:
    """What depends on how the engine is loaded with work."""
    engine, chain_format = open_engine(name, bundled_model()), format_of(bundled_model())
    figures: list[Figure] = []
    series: list[Series] = []
    try:
        if "samples" in wanted:
            progress(f"measuring {name}: samples")
            times = await time_by_samples(engine, chain_format, SIZES, repeats)
            ratio = times[SIZES[-1]] / times[1]
            title = f"{SIZES[-1]} samples against 1"
            figures.append(_figure(title, name, ratio, "{:.2f} x", "at most 6 x on a CPU"))
            series.append(_series(name, "samples", "seconds", times))
        if "callers" in wanted:
            progress(f"measuring {name}: callers")
            with tempfile.TemporaryDirectory() as scratch:
                rates = await throughput_by_callers(
                    engine, chain_format, CALLERS, Path(scratch), repeats
                )
            for callers, rate in rates.items():
                title = f"evaluations a second, {callers} caller{'s' if callers > 1 else ''}"
                figures.append(_figure(title, name, rate, "{:.2f}", "-"))
            ratio = rates[CALLERS[-1]] / rates[1]
            title = f"throughput, {CALLERS[-1]} callers against 1"
            figures.append(_figure(title, name, ratio, "{:.2f} x", "at least 5 x"))
            series.append(_series(name, "callers", "evaluations a second", rates))
        if "scheduling" in wanted:
            progress(f"measuring {name}: scheduling")
            ours, obvious = await time_of_scheduling(
                engine, chain_format, own=OWN, neighbors=NEIGHBORS, repeats=repeats
            )
            figures.append(
                _figure(
                    f"one request a sample against ours, {OWN} + {NEIGHBORS} chains",
                    name,
                    obvious / ours,
                    "{:.2f} x the time",
                    "at least 3 x",
                )
            )
    finally:
        await engine.aclose()
    return figures, series


def _series(name: str, x_label: str, y_label: str, values: Mapping[int, float]) -> Series:
    return Series(
        name=name, x_label=x_label, y_label=y_label, x=tuple(values), y=tuple(values.values())
    )


def _memory_figures(
    sizes: Sequence[int], progress: Callable[[str], None]
) -> tuple[list[Figure], list[Series]]:
    figures = []
    p99: dict[int, float] = {}
    for size in sizes:
        progress(f"measuring a memory of {size:,} interactions")
        with tempfile.TemporaryDirectory() as scratch:
            found = measure_memory(size, Path(scratch) / "memory", repeats=STORE_CALLS)
        p99[size] = found.recall_random.p99
        where = f"memory of {size:,}"
        for what, times in (
            ("remember", found.remember),
            ("recall, random", found.recall_random),
            ("recall, similar", found.recall_similar),
        ):
            goal = "p99 under 25 ms" if what.startswith("recall") else "-"
            figures += [
                _figure(f"{where}: {what}, p50", None, times.p50, "{:.1f} ms", "-"),
                _figure(f"{where}: {what}, p99", None, times.p99, "{:.1f} ms", goal),
            ]
        figures += [
            _figure(f"{where}: filled", None, found.filled_per_second, "{:.0f} a second", "-"),
            _figure(f"{where}: disk", None, found.disk_mb, "{:.0f} MB", "-"),
            _figure(f"{where}: peak RSS", None, found.rss_mb, "{:.0f} MB", "under 4096 MB"),
        ]
    series = [_series("recall, random", "interactions", "p99, ms", p99)] if len(p99) > 1 else []
    return figures, series


def _prototype_figures(members: int, progress: Callable[[str], None]) -> list[Figure]:
    progress("measuring the refinement of prototypes")
    seconds = measure_refinement(REFINED)
    progress(f"measuring {members:,} members of prototypes")
    with tempfile.TemporaryDirectory() as scratch:
        found = measure_matching(members, Path(scratch) / "memory", repeats=STORE_CALLS)
    where = f"prototypes of {members:,} members"
    return [
        _figure(
            f"refinement of prototypes, an epoch of {REFINED:,} samples",
            None,
            seconds,
            "{:.1f} s",
            "under 60 s on 2 cores",
        ),
        _figure(f"{where}: similar people, p50", None, found.p50, "{:.1f} ms", "under 10 ms"),
        _figure(f"{where}: similar people, p99", None, found.p99, "{:.1f} ms", "-"),
        _figure(f"{where}: first call, which loads them", None, found.loading, "{:.1f} s", "-"),
        _figure(f"{where}: written", None, found.written_per_second, "{:.0f} a second", "-"),
    ]


def _start_figures() -> list[Figure]:
    importing = max(
        0.0,
        _seconds([sys.executable, "-P", "-c", "import pgenrm_agent"])
        - _seconds([sys.executable, "-c", ""]),
    )
    command = [sys.executable, "-P", "-m", "pgenrm_agent.cli"]
    with tempfile.TemporaryDirectory() as scratch:
        first = _seconds(
            [
                *command,
                "score",
                "--user",
                "ada",
                "--query",
                "How?",
                "--individual",
                "1",
                "--seed",
                "1",
                "--memory",
                str(Path(scratch) / "memory"),
                "So.",
                "Like this.",
            ],
            tries=1,
        )
    return [
        _figure("import pgenrm_agent", None, importing, "{:.2f} s", "under 0.3 s"),
        _figure("pgenrm --help", None, _seconds([*command, "--help"]), "{:.2f} s", "under 0.6 s"),
        _figure("first score from the command line", None, first, "{:.1f} s", "-"),
    ]


def _overhead_figures(name: EngineName, repeats: int) -> list[Figure]:
    engine = open_engine(name, bundled_model())
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
            name,
            share,
            "{:.2f} %",
            "at most 5 %",
        ),
        _figure(
            "graph + memory + parsing, an evaluation", name, added, "{:.1f} ms", "at most 15 ms"
        ),
        _figure(
            f"{SAMPLES} samples against 1",
            name,
            ratio,
            "{:.2f} x",
            "at most 2.5 x on a CPU" if name == "vllm" else "-",
        ),
        _figure(f"generated tokens a second, {SAMPLES} samples", name, rate, "{:.0f}", "-"),
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


def _seconds(command: Sequence[str], *, tries: int = TRIES) -> float:
    times = []
    for _ in range(tries):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return min(times)
