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
def card(
    *,
    folder: Annotated[Path, typer.Option("--run", help="Folder of the run of the last stage.")],
    report: Annotated[Path, typer.Option(help="report.json of `evaluate`.")],
    data: AnswersOption,
    machine: Annotated[str, typer.Option(help="What the model was trained on, in words.")],
) -> None:
    """Write MODEL_CARD.md into the run's model folder, from what was measured."""
    from studies.bundled.card import write_card

    typer.echo(str(write_card(folder, report, data, machine)))


if __name__ == "__main__":
    run(app)
