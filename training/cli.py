"""`pgenrm train ...`: train the bundled model, measure it, write its card."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from pgenrm_agent.training.evaluate import EvaluationReport

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Train the bundled model, measure it, write its card.")
_console = Console(stderr=True)

DataOption = Annotated[
    Path,
    typer.Option(
        "--data", envvar="PGENRM_RESPONSES", help="Folder with train.jsonl.gz and val.jsonl.gz."
    ),
]


@app.command()
def psi(
    data: DataOption,
    out: Annotated[
        Path, typer.Option(help="The run's folder; an unfinished run there continues.")
    ] = Path("runs/psi"),
    recipe: Annotated[
        str, typer.Option(help="Name of a bundled recipe, or a YAML file.")
    ] = "tiny-cpu",
    start_from: Annotated[
        Path | None, typer.Option(help="Folder of an earlier run whose weights are taken over.")
    ] = None,
    stop_after: Annotated[
        int | None,
        typer.Option(min=1, help="End after this step, and save the model as it is then."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Stage 1: supervised on the teacher's chains, from scratch. Resumes where it stopped."""
    from pgenrm_agent.training.psi import train_psi
    from pgenrm_agent.training.recipe import load_recipe

    result = train_psi(load_recipe(recipe), data, out, start_from=start_from, stop_after=stop_after)
    summary = {
        "model": str(result.folder),
        "steps": result.steps,
        "padded_tokens": result.tokens,
        "seconds": round(result.seconds, 1),
        "mean_loss": round(result.final_loss, 4),
        "chains": result.chains,
    }
    if as_json:
        typer.echo(json.dumps(summary))
        return
    table = Table("Stage 1 (PSI)", "", title=recipe)
    for key, value in summary.items():
        table.add_row(key, str(value))
    Console().print(table)


@app.command()
def evaluate(
    data: DataOption,
    model: Annotated[Path, typer.Option(help="Model folder.")],
    out: Annotated[
        Path, typer.Option(help="Folder for records.jsonl and report.json; continues there.")
    ],
    people: Annotated[int, typer.Option(min=2, help="Test people, one comparison each.")] = 1000,
    history: Annotated[int, typer.Option(min=0, max=6, help="Past choices shown.")] = 3,
    chains: Annotated[int, typer.Option(min=1, help="Samples per evaluation.")] = 8,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0, help="Of the samples.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    engine: Annotated[str, typer.Option(help="transformers or vllm.")] = "transformers",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Accuracy on people and queries that training never saw, beside the baselines."""
    from pgenrm_agent.training.evaluate import evaluate_model
    from pgenrm_agent.training.simulation import World, load_answers

    from pgenrm_agent.engines import load_engine
    from pgenrm_agent.errors import ConfigurationError
    from pgenrm_agent.model_files import format_of

    if engine not in ("transformers", "vllm"):
        raise ConfigurationError(
            f"engine {engine!r} cannot run a model folder: use transformers or vllm"
        )
    if engine == "vllm":
        import torch

        # On a CPU vLLM must be told how much memory its cache may take.
        sized = {} if torch.cuda.is_available() else {"kv_cache_memory_bytes": 2**30}
        runner = load_engine("vllm", model, **sized)
    else:
        runner = load_engine("transformers", model)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console) as bar:
        task = bar.add_task("comparisons", total=people)

        async def run() -> EvaluationReport:
            try:
                return await evaluate_model(
                    runner, format_of(model), World(),
                    load_answers(data / "train.jsonl.gz"), load_answers(data / "val.jsonl.gz"),
                    people=people, history=history, chains=chains, seed=seed,
                    temperature=temperature, records=out / "records.jsonl",
                    progress=lambda done, total: bar.update(task, completed=done, total=total),
                )  # fmt: skip
            finally:
                await runner.aclose()

        report = asyncio.run(run())
    (out / "report.json").write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if as_json:
        typer.echo(report.model_dump_json())
        return
    table = Table(
        "", "accuracy", "± standard error", title=f"{people} comparisons, {history} past choices"
    )
    for name, value in sorted(report.accuracy.items(), key=lambda item: item[1].mean):
        table.add_row(name, f"{value.mean:.1%}", f"{value.standard_error:.1%}")
    Console().print(table)


@app.command()
def card(
    run: Annotated[Path, typer.Option(help="Folder of the psi run.")],
    report: Annotated[Path, typer.Option(help="report.json of `pgenrm train evaluate`.")],
    data: DataOption,
    machine: Annotated[str, typer.Option(help="What the model was trained on, in words.")],
) -> None:
    """Write MODEL_CARD.md into the run's model folder, from what was measured."""
    from pgenrm_agent.training.card import write_card

    typer.echo(str(write_card(run, report, data, machine)))
