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
    TemperatureOption,
)
from pgenrm_agent.cli.output import print_json

if TYPE_CHECKING:
    from pgenrm_agent.evaluation.records import Record
    from studies.bundled.calibration import Calibration
    from studies.bundled.evaluate import EvaluationReport

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)


@app.command()
def evaluate(
    *,
    data: AnswersOption,
    model: ModelFolderOption,
    out: Annotated[
        Path, typer.Option(help="Folder for records.jsonl and report.json; continues there.")
    ],
    users: Annotated[int, typer.Option(min=2, help="Simulated users, one comparison each.")] = 1000,
    history: Annotated[int, typer.Option(min=0, max=6, help="Past choices shown.")] = 3,
    chains: Annotated[int, typer.Option(min=1, help="Samples per evaluation.")] = 8,
    temperature: TemperatureOption = 1.0,
    seed: FixedSeedOption,
    engine: EngineOption,
    adapter: Annotated[Path | None, typer.Option(help="Folder of a LoRA adapter to apply.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Accuracy on users and queries that training never saw, beside the baselines."""
    from pgenrm_agent.engines import load_engine
    from pgenrm_agent.evaluation.metrics import plus_minus
    from pgenrm_agent.files import write_json
    from pgenrm_agent.model_files import format_of
    from pgenrm_agent.progress import counting
    from pgenrm_agent.run_folder import refuse_other_settings, weights_of
    from pgenrm_agent.training.bundled.simulation import World, load_answers
    from studies.bundled.evaluate import evaluate_model

    settings = {
        "model": weights_of(model),
        "adapter": adapter and weights_of(adapter),
        "history": history,
        "chains": chains,
        "temperature": temperature,
        "seed": seed,
    }
    refuse_other_settings(out, settings, what="an evaluation")
    runner = load_engine(
        engine or "transformers", model, **({"adapter": adapter} if adapter else {})
    )

    async def measure() -> EvaluationReport:
        async with aclosing(runner):
            with counting("comparisons") as progress:
                return await evaluate_model(
                    runner,
                    format_of(model),
                    World(),
                    load_answers(data / "train.jsonl.gz"),
                    load_answers(data / "val.jsonl.gz"),
                    out,
                    users=users,
                    history=history,
                    chains=chains,
                    seed=seed,
                    temperature=temperature,
                    progress=progress,
                )

    report = asyncio.run(measure())
    write_json(out / "report.json", report.model_dump(mode="json"))
    if as_json:
        print_json(report)
        return
    title = f"{users} comparisons, {history} past choices"
    table = Table("", "strict, %", "accuracy, %", "coverage, %", title=title)
    for name, value in sorted(report.accuracy.items(), key=lambda item: item[1].strict.mean):
        shown = plus_minus(value.strict), plus_minus(value.accuracy), f"{100 * value.coverage:.1f}"
        table.add_row(name, *shown)
    Console().print(table)


@app.command()
def calibrate(
    *,
    data: AnswersOption,
    model: ModelFolderOption,
    out: Annotated[
        Path, typer.Option(help="Folder for records.jsonl and calibration.json; continues there.")
    ],
    users: Annotated[int, typer.Option(min=20, help="Simulated validation users.")] = 400,
    history: Annotated[int, typer.Option(min=0, max=6, help="Past choices shown.")] = 3,
    chains: Annotated[int, typer.Option(min=3, help="Samples per evaluation.")] = 8,
    seed: FixedSeedOption,
    engine: EngineOption,
    as_json: JsonOption = False,
) -> None:
    """Measure chains' noise, which the probability of being best allows for."""
    from pgenrm_agent.engines import load_engine
    from pgenrm_agent.files import write_json
    from pgenrm_agent.model_files import format_of
    from pgenrm_agent.progress import counting
    from pgenrm_agent.run_folder import refuse_other_settings, weights_of
    from pgenrm_agent.training.bundled.simulation import World, load_answers
    from studies.bundled.calibration import calibrate as measure
    from studies.bundled.calibration import sampled_of
    from studies.bundled.evaluate import chance, draw_cases, judge_cases

    settings = {"model": weights_of(model), "history": history, "chains": chains, "seed": seed}
    refuse_other_settings(out, settings, what="a calibration")
    answers = load_answers(data / "val.jsonl.gz")
    cases = draw_cases(
        World(), answers, split="validation", count=users, history=history, seed=seed
    )
    runner = load_engine(engine or "transformers", model)

    async def judge() -> list[Record]:
        async with aclosing(runner):
            with counting("comparisons") as progress:
                return await judge_cases(
                    runner,
                    format_of(model),
                    answers,
                    cases,
                    out,
                    chains=chains,
                    temperature=1.0,
                    seed=seed,
                    progress=progress,
                )

    records = asyncio.run(judge())
    calibration = measure(sampled_of(records, [chance(case, answers) for case in cases]))
    write_json(out / "calibration.json", calibration.model_dump(mode="json"))
    if as_json:
        print_json(calibration)
    else:
        _print_calibration(calibration)


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
    report: Annotated[Path, typer.Option(help="report.json of `evaluate`.")],
    data: AnswersOption,
    machine: Annotated[str, typer.Option(help="What the model was trained on, in words.")],
    calibration: Annotated[
        Path | None, typer.Option(help="calibration.json of `calibrate`.")
    ] = None,
) -> None:
    """Write MODEL_CARD.md into the run's model folder, from what was measured."""
    from studies.bundled.card import write_card

    typer.echo(str(write_card(folder, report, data, machine, calibration)))


if __name__ == "__main__":
    run(app)
