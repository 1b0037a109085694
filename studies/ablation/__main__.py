"""`python -m studies.ablation`: what each training stage buys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pgenrm_agent.cli.app import run
from pgenrm_agent.cli.options import (
    AnswersOption,
    EngineOption,
    JsonOption,
    OutOption,
    RecipeOption,
)
from pgenrm_agent.cli.output import print_json

if TYPE_CHECKING:
    from studies.ablation.study import AblationReport

app = typer.Typer()


@app.command()
def ablate(
    *,
    data: AnswersOption,
    base: Annotated[Path, typer.Option(help="Folder of the model that stage 1 starts from.")],
    psi: Annotated[
        Path | None,
        typer.Option(help="Folder of a stage-1 model to take instead of training one a seed."),
    ] = None,
    recipe: RecipeOption = "tiny-cpu",
    out: OutOption = Path("runs/ablation"),
    seed: Annotated[
        list[int] | None,
        typer.Option(
            help="Work on this seed of the recipe only, as one of several processes; repeat for more."
            " Once all are done, the command without it makes the report."
        ),
    ] = None,
    engine: EngineOption,
    as_json: JsonOption = False,
) -> None:
    """What each stage buys: base, PSI, PSI + CRE and its halves, all three, over several seeds.

    Trains and measures what is missing in the folder, and writes report.json and report.md there.
    """
    from pgenrm_agent.engines import load_engine
    from pgenrm_agent.progress import counting
    from studies.ablation.recipe import AblationRecipe
    from studies.ablation.study import REPORT, run_ablation

    console = Console(stderr=True)
    loaded = AblationRecipe.load(recipe)
    with counting("comparisons") as progress:
        report = run_ablation(
            loaded,
            data,
            base,
            out,
            open_engine=lambda model: load_engine(engine or "transformers", model),
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
        print_json(report)
        return
    _show(report)
    console.print(f"report: {out / REPORT}", markup=False)


def _show(report: AblationReport) -> None:
    from studies.ablation.study import columns, rows_of_table

    recipe = report.recipe
    table = Table(
        "",
        *columns(recipe.chains),
        title=f"{recipe.name}: {len(recipe.seeds)} seeds, {recipe.users} users each",
    )
    for row in rows_of_table(report):
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    run(app)
