"""`pgenrm train ablate` and `pgenrm train bayes`: what each stage buys, and what nobody can beat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pgenrm_agent.training.terminal import EngineOption, JsonOption, progress_bar
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pgenrm_agent.training.ablation import AblationReport

__all__ = ["ablate", "bayes"]

DataOption = Annotated[
    Path,
    typer.Option(
        "--data", envvar="PGENRM_RESPONSES", help="Folder with train.jsonl.gz and val.jsonl.gz."
    ),
]


def ablate(
    data: DataOption,
    base: Annotated[Path, typer.Option(help="Folder of the model that stage 1 starts from.")],
    psi: Annotated[
        Path | None,
        typer.Option(help="Folder of a stage-1 model to take instead of training one a seed."),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="Name of a bundled recipe, or a YAML file.")
    ] = "tiny-cpu",
    out: Annotated[
        Path, typer.Option(help="Folder of the ablation; an unfinished one continues.")
    ] = Path("runs/ablation"),
    seed: Annotated[
        list[int] | None,
        typer.Option(
            help="Work on this seed of the recipe only, as one of several processes; repeat for more."
            " Once all are done, the command without it makes the report."
        ),
    ] = None,
    engine: EngineOption = "transformers",
    as_json: JsonOption = False,
) -> None:
    """What each stage buys: base, PSI, PSI + CRE and its halves, all three, over several seeds.

    Trains and measures what is missing in the folder, and writes report.json and report.md there.
    """
    from pgenrm_agent.training.ablation import REPORT, run_ablation
    from pgenrm_agent.training.ablation_recipe import load_ablation_recipe

    from pgenrm_agent.local_engine import open_engine

    console = Console(stderr=True)
    loaded = load_ablation_recipe(recipe)
    with progress_bar("comparisons") as progress:
        report = run_ablation(
            loaded,
            data,
            base,
            out,
            open_engine=lambda model: open_engine(engine, model),
            psi=psi,
            only=seed or (),
            say=lambda text: console.print(text, markup=False),
            progress=progress,
        )
    if report is None:
        console.print(
            f"done with seed {', '.join(map(str, seed or ()))}; the report is made without --seed"
        )
        return
    if as_json:
        typer.echo(report.model_dump_json())
        return
    _show(report)
    console.print(f"report: {out / REPORT}", markup=False)


def bayes(
    data: DataOption,
    people: Annotated[int, typer.Option(min=2, help="Test people, one comparison each.")] = 2000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    rules: Annotated[
        bool,
        typer.Option(
            "--rules",
            help="What rules of the teacher's form could reach from --history past choices.",
        ),
    ] = False,
    history: Annotated[int, typer.Option(min=0, max=6, help="Past choices, of --rules.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """The best that any predictor could do in the simulated world, by 0 to 6 past choices."""
    from pgenrm_agent.training.bayes import bayes_by_history
    from pgenrm_agent.training.rule_limits import rule_limits
    from pgenrm_agent.training.simulation import World, load_answers

    test = load_answers(data / "val.jsonl.gz")
    if rules:
        training = load_answers(data / "train.jsonl.gz")
        limits = rule_limits(World(), training, test, people=people, history=history, seed=seed)
        if as_json:
            typer.echo(json.dumps({name: one.model_dump() for name, one in limits.items()}))
            return
        table = Table(
            "rule",
            "accuracy",
            "± standard error",
            "choices to tell it from the teacher",
            title=f"{people} comparisons, {history} past choices",
        )
        for name, limit in limits.items():
            reached, needed = limit.accuracy, limit.choices_to_tell
            table.add_row(
                name,
                f"{reached.mean:.1%}",
                f"{reached.standard_error:.1%}",
                "-" if needed is None else f"{needed:,}",
            )
        Console().print(table)
        return
    found = bayes_by_history(World(), test, people=people, seed=seed)
    if as_json:
        typer.echo(json.dumps({shown: one.model_dump() for shown, one in found.items()}))
        return
    table = Table(
        "past choices", "accuracy", "± standard error", "expected", title=f"{people} comparisons"
    )
    for shown, one in found.items():
        table.add_row(
            str(shown),
            f"{one.accuracy.mean:.1%}",
            f"{one.accuracy.standard_error:.1%}",
            f"{one.expected:.1%}",
        )
    Console().print(table)


def _show(report: AblationReport) -> None:
    from pgenrm_agent.training.ablation import columns, rows_of_table

    recipe = report.recipe
    table = Table(
        "",
        *columns(recipe.chains),
        title=f"{recipe.name}: {len(recipe.seeds)} seeds, {recipe.people} people each",
    )
    for row in rows_of_table(report):
        table.add_row(*row)
    Console().print(table)
