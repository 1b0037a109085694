"""`python -m studies.people`: prototypes on real people's choices, with a sentence encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgenrm_agent.cli.app import run

if TYPE_CHECKING:
    from studies.people.study import PeopleReport

__all__ = ["app"]

app = typer.Typer()

REPORT = "report.json"


@app.command()
def people(
    data: Annotated[
        str, typer.Option("--data", help="Real people's choices, such as people:FILE.")
    ],
    embedder: Annotated[
        str,
        typer.Option(help="A sentence-transformers model, or its folder; it has to know English."),
    ] = "sentence-transformers/all-MiniLM-L6-v2",
    out: Annotated[
        Path, typer.Option(help="Folder of the study; an unfinished one there continues.")
    ] = Path("runs/people"),
    k: Annotated[
        list[int] | None,
        typer.Option("-k", min=1, help="Number of prototypes to compare; repeat. 1, 10, 50, 100."),
    ] = None,
    past: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Past choices shown, at most; repeat. 0, 1, 2, 5, 10."),
    ] = None,
    drawn: Annotated[
        int | None, typer.Option(min=1, help="Past choices drawn in training, at most.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, max=5, help="Folds of held-out people, five in all.")
    ] = 5,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of the refinement.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-6, max=1.0, help="Of the refinement.")
    ] = None,
    whiten: Annotated[
        bool, typer.Option(help="Whiten the embeddings, by the texts that training people saw.")
    ] = True,
    validation: Annotated[
        bool,
        typer.Option(
            "--validation", help="Hold out people who are never tested, to choose settings."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Does refinement know more of a held-out person's choices than the crowd's majority does?

    Writes embeddings.npz, measured.jsonl and report.json into the folder.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from pgenrm_agent.embedding import SentenceTransformerEmbedder
    from studies.people.study import Setting, evaluate_people

    plain = Setting()
    constants = {"epochs": epochs, "learning_rate": learning_rate}
    refinement = plain.refinement.model_copy(
        update={name: value for name, value in constants.items() if value is not None}
    )
    settings = [
        Setting(
            k=one,
            pasts=tuple(sorted(set(past))) if past else plain.pasts,
            drawn=drawn or plain.drawn,
            whiten=whiten,
            refinement=refinement,
        )
        for one in k or (1, 10, 50, 100)
    ]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("epochs")
        report = evaluate_people(
            data,
            SentenceTransformerEmbedder(Path(embedder) if Path(embedder).is_dir() else embedder),
            out,
            settings=settings,
            seeds=seeds,
            validation=validation,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    (out / REPORT).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if as_json:
        typer.echo(report.model_dump_json())
    else:
        _print(report)


def _print(report: PeopleReport) -> None:
    from rich.console import Console
    from rich.table import Table

    from pgenrm_agent.training.bundled.evaluate import Accuracy
    from studies.people.study import METHODS

    def shown(value: Accuracy | None, form: str = ".1f") -> str:
        if value is None:
            return "-"
        error = f" ± {100 * value.standard_error:.1f}" if report.seeds > 1 else ""
        return f"{100 * value.mean:{form}}{error}"

    console = Console()
    console.print(
        f"{report.held_out} of {report.people} people held out in each of {report.seeds} seeds"
        f"{' (validation)' if report.validation else ''}, {report.choices:.0f} choices of theirs, "
        f"{report.against:.0f} against the majority; {report.encoder}. "
        "Accuracy in %, ± standard error over seeds."
    )
    for title in ("all choices", "choices against the majority"):
        table = Table("k", "past choices", title=title, title_justify="left")
        for name in METHODS:
            table.add_column(name, justify="right")
        if title == "all choices":
            table.add_column("refined - majority", justify="right")
        for row in report.rows:
            values = row.everything if title == "all choices" else row.against
            gain = [shown(row.gain, "+.1f")] if title == "all choices" else []
            table.add_row(
                str(row.setting.k),
                str(row.past),
                *(shown(values.get(name)) for name in METHODS),
                *gain,
            )
        console.print(table)


if __name__ == "__main__":
    run(app)
