"""`python -m studies.speed`: what each part of the library costs on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pgenrm_agent.cli.app import run
from pgenrm_agent.cli.bench import print_speed
from pgenrm_agent.cli.options import EngineOption, JsonOption
from pgenrm_agent.cli.output import print_json
from pgenrm_agent.progress import waiting
from studies.speed.figures import PARTS, measure_parts

app = typer.Typer()


@app.command()
def speed(
    *,
    part: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(PARTS)}; repeat for several. All of them if none."),
    ] = None,
    interactions: Annotated[
        list[int] | None,
        typer.Option(min=100, help="Size of a memory to fill and measure; repeat. 10,000."),
    ] = None,
    members: Annotated[
        int, typer.Option(min=100, help="Personas in the prototypes to find similar users among.")
    ] = 10_000,
    engine: EngineOption,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats, of scheduling.")] = 3,
    plot: Annotated[
        Path | None, typer.Option(help="Draw what was varied into this SVG file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What memory, parser, prototypes, scheduling and starting cost, as ratios within one run."""
    with waiting("measuring") as show:
        report = measure_parts(
            part or PARTS,
            engine=engine,
            repeats=repeats,
            interactions=interactions or (10_000,),
            members=members,
            progress=show,
        )
    if plot is not None:
        from pgenrm_agent.benchmarks.plot import draw_speed

        draw_speed(report, plot)
    if as_json:
        print_json(report)
    else:
        print_speed(report)


if __name__ == "__main__":
    run(app)
