"""`pgenrm bench`: how fast a model is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgenrm_agent.cli.engine_choice import EngineChoice, chooses_engine
from pgenrm_agent.cli.options import JsonOption, ModelOption
from pgenrm_agent.cli.output import show
from pgenrm_agent.extras import require
from pgenrm_agent.progress import waiting

if TYPE_CHECKING:
    from pgenrm_agent.benchmarks.report import SpeedReport


@chooses_engine
def bench(
    *,
    model: ModelOption,
    engine: EngineChoice,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="overhead, samples or callers; repeat for several. overhead and samples if none."
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Evaluations per figure.")] = 3,
    plot: Annotated[
        Path | None, typer.Option(help="Draw what was varied into this SVG file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how fast a model is on this machine: alone, with more samples, with more callers."""
    from pgenrm_agent.benchmarks.speed import measure_speed

    if plot is not None:
        require("--plot", "matplotlib")
    with waiting("measuring") as tell:
        report = measure_speed(
            model,
            engine.name,
            engine_options=engine.options,
            chain_format=engine.format_for(model),
            parts=part or (),
            repeats=repeats,
            progress=tell,
        )
    if plot is not None:
        from pgenrm_agent.benchmarks.plot import draw_speed

        draw_speed(report, plot)
    show(report, as_json, print_speed)


def print_speed(report: SpeedReport) -> None:
    """Print the figures as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "measured", "goal", title=report.machine, title_justify="left")
    for figure in report.figures:
        table.add_row(figure.name, figure.shown, figure.goal)
    Console().print(table)
