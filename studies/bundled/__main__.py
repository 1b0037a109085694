"""`python -m studies.bundled`: measure a model of the bundled kind, and write its card."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pgenrm_agent.cli.app import run
from pgenrm_agent.cli.options import (
    AnswersOption,
    EngineOption,
    FixedSeedOption,
    JsonOption,
    ModelFolderOption,
)
from pgenrm_agent.cli.output import print_json
from pgenrm_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from studies.bundled.calibration import Calibration
    from studies.bundled.measure import Measured

app = typer.Typer(no_args_is_help=True)


@app.command()
def measure(
    *,
    data: AnswersOption,
    model: ModelFolderOption,
    out: Annotated[
        Path, typer.Option(help="Folder for measured.json and the records; continues there.")
    ],
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="What to measure; repeat for several: test, obvious, pages, reasons, calibration, speed.",
            show_default="all",
        ),
    ] = None,
    users: Annotated[
        int, typer.Option(min=2, help="Simulated test users, one comparison each.")
    ] = 1000,
    validation: Annotated[int, typer.Option(min=20, help="Simulated validation users.")] = 400,
    history: Annotated[int, typer.Option(min=0, max=6, help="Past choices shown.")] = 3,
    chains: Annotated[int, typer.Option(min=1, help="Samples per evaluation.")] = 8,
    seed: FixedSeedOption,
    engine: EngineOption,
    adapter: Annotated[Path | None, typer.Option(help="Folder of a LoRA adapter to apply.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure all that the model card tells: test users, obvious cases, reasons, confidence, speed."""
    from pgenrm_agent.engines import load_engine
    from pgenrm_agent.model_files import format_of
    from pgenrm_agent.progress import counting_tasks
    from pgenrm_agent.run_folder import weights_of
    from studies.bundled.measure import PARTS, Sizes
    from studies.bundled.measure import measure as measure_parts

    unknown = [name for name in part or () if name not in PARTS]
    if unknown:
        raise ConfigurationError(f"part {unknown[0]!r} is unknown: use {', '.join(PARTS)}")
    sizes = Sizes(users=users, validation=validation, history=history, chains=chains, seed=seed)
    name = weights_of(model) + (f" with {weights_of(adapter)}" if adapter else "")
    runner = load_engine(
        engine or "transformers", model, **({"adapter": adapter} if adapter else {})
    )

    async def run_parts() -> Measured:
        async with aclosing(runner):
            with counting_tasks() as progress:
                return await measure_parts(
                    runner,
                    format_of(model),
                    name,
                    data,
                    out,
                    parts=[known for known in PARTS if not part or known in part],
                    sizes=sizes,
                    progress=progress,
                )

    measured = asyncio.run(run_parts())
    if as_json:
        print_json(measured)
        return
    _print_measured(measured)


def _print_measured(measured: Measured) -> None:
    from pgenrm_agent.evaluation.metrics import plus_minus
    from pgenrm_agent.evaluation.report import fitness_in_words

    console = Console()
    if report := measured.test:
        title = f"{report.users} comparisons, {report.history} past choices"
        table = Table("", "strict, %", "accuracy, %", "coverage, %", title=title)
        for name, value in sorted(report.accuracy.items(), key=lambda item: item[1].strict.mean):
            coverage = f"{100 * value.coverage:.1f}"
            table.add_row(name, plus_minus(value.strict), plus_minus(value.accuracy), coverage)
        console.print(table)
    for name, fitness in (("obvious cases", measured.obvious), ("pages", measured.pages)):
        if fitness:
            console.print(f"{name}: {fitness_in_words(fitness)}", markup=False)
    if measured.reasons:
        console.print(measured.reasons.model_dump(), markup=False)
    if measured.calibration:
        _print_calibration(measured.calibration)
    if measured.speed:
        console.print(
            f"{measured.speed.median:.1f} s an evaluation"
            f" ({measured.speed.least:.1f} to {measured.speed.most:.1f})"
        )


def _print_calibration(calibration: Calibration) -> None:
    noise = ", ".join(f"{name}={value:.2f}" for name, value in calibration.noise.items())
    table = Table("chains", "", "confidence, %", "right, %", "ECE", "AUROC", "log loss")
    for before, after in zip(calibration.before, calibration.after, strict=True):
        for name, figures in (("spread alone", before), ("with what is known", after)):
            table.add_row(
                str(figures.chains),
                name,
                f"{100 * figures.confidence:.1f}",
                f"{100 * figures.right:.1f}",
                f"{figures.ece:.3f}",
                f"{figures.auroc:.3f}",
                f"{figures.log_loss:.3f}",
            )
    console = Console()
    console.print(table)
    console.print(f"ChainNoise({noise})", highlight=False)


@app.command()
def card(
    *,
    folder: Annotated[Path, typer.Option("--run", help="Folder of the run of the last stage.")],
    measured: Annotated[Path, typer.Option(help="Folder of `measure`, with every part in it.")],
    data: AnswersOption,
    machine: Annotated[str, typer.Option(help="What the model was trained on, in words.")],
) -> None:
    """Write MODEL_CARD.md into the run's model folder, from what was measured."""
    from studies.bundled.card import write_card

    typer.echo(str(write_card(folder, measured, data, machine)))


if __name__ == "__main__":
    run(app)
