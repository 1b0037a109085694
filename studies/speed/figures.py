"""The figures of `python -m studies.speed`: what each part of the library costs.

- memory: a store of N interactions;
- parser: reading chains;
- prototypes: an epoch of the refinement, and finding similar users;
- scheduling: the bundled model's chains asked for our way, and one request a sample;
- start: how long `import pgenrm_agent`, `pgenrm --help` and a first score on the command line take.

What is compared is compared within one run.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path

from pgenrm_agent.benchmarks.report import Figure, Series, SpeedReport, series_of
from pgenrm_agent.engine_names import EngineName
from pgenrm_agent.engines import load_engine
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.machine import describe_machine
from pgenrm_agent.model_files import bundled_model, format_of
from studies.speed.memory import MemoryMeasurements, measure_memory
from studies.speed.parser import measure_parser
from studies.speed.prototypes import measure_matching, measure_refinement
from studies.speed.scheduling import time_of_scheduling

PARTS = ("memory", "parser", "prototypes", "scheduling", "start")

OWN, NEIGHBORS = 8, 4
PARSES = 200
STORE_CALLS = 200
REFINED = 50_000
"""Samples of the measured epoch."""
TRIES = 5
"""Start-up times are the least of this many: other work on the machine only adds to them."""


def measure_parts(
    parts: Sequence[str] = PARTS,
    *,
    engine: EngineName | None = None,
    repeats: int = 3,
    interactions: Sequence[int] = (10_000,),
    members: int = 10_000,
    progress: Callable[[str], None] = lambda step: None,
) -> SpeedReport:
    """Measure what `parts` names; see the module's docstring.

    engine, repeats: of scheduling. interactions: sizes of the memory stores, each filled anew.
    members: personas in the version of prototypes to match against.

    Raises ConfigurationError for a part or engine that does not exist.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ConfigurationError(f"part {unknown[0]!r} is unknown: use {', '.join(PARTS)}")
    figures: list[Figure] = []
    series: list[Series] = []
    if "memory" in parts:
        measurements = _measure_memories(interactions, progress)
        for measured in measurements:
            figures += _memory_figures(measured)
        if len(measurements) > 1:
            p99 = {measured.interactions: measured.recall_random.p99 for measured in measurements}
            series.append(series_of("recall, random", "interactions", "p99, ms", p99))
    if "parser" in parts:
        progress("measuring the parser")
        figures += [
            Figure.of(f"parser, {name}", rate, "{:.1f} MB/s", "at least 20 MB/s")
            for name, rate in measure_parser(repeats=PARSES).items()
        ]
    if "prototypes" in parts:
        figures += _prototype_figures(members, progress)
    if "scheduling" in parts:
        progress("measuring scheduling")
        figures.append(asyncio.run(_scheduling_figure(engine, repeats)))
    if "start" in parts:
        progress("measuring start-up times")
        figures += _start_figures()
    return SpeedReport(machine=describe_machine(), figures=tuple(figures), series=tuple(series))


def _measure_memories(
    sizes: Sequence[int], progress: Callable[[str], None]
) -> list[MemoryMeasurements]:
    measurements = []
    for size in sizes:
        progress(f"measuring a memory of {size:,} interactions")
        with tempfile.TemporaryDirectory() as scratch:
            measurements.append(measure_memory(size, Path(scratch) / "memory", repeats=STORE_CALLS))
    return measurements


def _memory_figures(measured: MemoryMeasurements) -> list[Figure]:
    where = f"memory of {measured.interactions:,}"
    figures = []
    for what, times in (
        ("remember", measured.remember),
        ("recall, random", measured.recall_random),
        ("recall, similar", measured.recall_similar),
    ):
        goal = "p99 under 25 ms" if what.startswith("recall") else "-"
        figures += [
            Figure.of(f"{where}: {what}, p50", times.p50, "{:.1f} ms"),
            Figure.of(f"{where}: {what}, p99", times.p99, "{:.1f} ms", goal),
        ]
    return [
        *figures,
        Figure.of(f"{where}: filled", measured.filled_per_second, "{:.0f} a second"),
        Figure.of(f"{where}: disk", measured.disk_mb, "{:.0f} MB"),
        Figure.of(f"{where}: peak RSS", measured.rss_mb, "{:.0f} MB", "under 4096 MB"),
    ]


def _prototype_figures(members: int, progress: Callable[[str], None]) -> list[Figure]:
    progress("measuring the refinement of prototypes")
    seconds = measure_refinement(REFINED)
    progress(f"measuring {members:,} members of prototypes")
    with tempfile.TemporaryDirectory() as scratch:
        matching = measure_matching(members, Path(scratch) / "memory", repeats=STORE_CALLS)
    where = f"prototypes of {members:,} members"
    return [
        Figure.of(
            f"refinement of prototypes, an epoch of {REFINED:,} samples",
            seconds,
            "{:.1f} s",
            "under 60 s on 2 cores",
        ),
        Figure.of(f"{where}: similar users, p50", matching.p50, "{:.1f} ms", "under 10 ms"),
        Figure.of(f"{where}: similar users, p99", matching.p99, "{:.1f} ms"),
        Figure.of(f"{where}: first call, which loads them", matching.loading, "{:.1f} s"),
        Figure.of(f"{where}: written", matching.written_per_second, "{:.0f} a second"),
    ]


async def _scheduling_figure(engine: EngineName | None, repeats: int) -> Figure:
    folder = bundled_model()
    async with aclosing(load_engine(engine or "transformers", folder)) as runner:
        ours, obvious = await time_of_scheduling(
            runner, format_of(folder), own=OWN, neighbors=NEIGHBORS, repeats=repeats
        )
    return Figure.of(
        f"one request a sample against ours, {OWN} + {NEIGHBORS} chains",
        obvious / ours,
        "{:.2f} x the time",
        "at least 3 x",
    )


def _start_figures() -> list[Figure]:
    python = [sys.executable, "-P"]
    command = [*python, "-m", "pgenrm_agent.cli"]
    importing = _seconds([*python, "-c", "import pgenrm_agent"]) - _seconds([*python, "-c", ""])
    score = [*command, "score", "--user", "ada", "--query", "How?", "--individual", "1"]
    with tempfile.TemporaryDirectory() as scratch:
        memory = ["--seed", "1", "--memory", str(Path(scratch) / "memory")]
        first = _seconds([*score, *memory, "So.", "Like this."], tries=1)
    return [
        Figure.of("import pgenrm_agent", max(0.0, importing), "{:.2f} s", "under 0.3 s"),
        Figure.of("pgenrm --help", _seconds([*command, "--help"]), "{:.2f} s", "under 0.6 s"),
        Figure.of("first score on the command line", first, "{:.1f} s"),
    ]


def _seconds(command: Sequence[str], *, tries: int = TRIES) -> float:
    times = []
    for _ in range(tries):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return min(times)
