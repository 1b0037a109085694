"""`python -m studies.people`: prototypes on real people's choices, with a sentence encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgenrm_agent.cli.app import run
from pgenrm_agent.cli.options import JsonOption, OutOption
from pgenrm_agent.cli.output import print_json

if TYPE_CHECKING:
    from studies.people.study import PeopleReport

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
    out: OutOption = Path("runs/people"),
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
        int, typer.Option(min=1, max=5, help="Folds of held-out users, five in all.")
    ] = 5,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of the refinement.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-6, max=1.0, help="Of the refinement.")
    ] = None,
    whiten: Annotated[
        bool, typer.Option(help="Whiten the embeddings, by the texts that training users saw.")
    ] = True,
    validation: Annotated[
        bool,
        typer.Option(
            "--validation", help="Hold out users who are never tested, to choose settings."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Does refinement know more of a held-out user's choices than the crowd's majority does?

    Writes embeddings.npz, measured.jsonl and report.json into the folder.
    """
    from pgenrm_agent.embedding import SentenceTransformerEmbedder
    from pgenrm_agent.files import write_json
    from pgenrm_agent.progress import counting
    from studies.people.study import Setting, evaluate_people

    plain = Setting()
    constants = {"epochs": epochs, "learning_rate": learning_rate}
    refinement = plain.refinement.model_copy(
        update={name: value for name, value in constants.items() if value is not None}
    )
    settings = [
        Setting(
            k=prototypes,
            pasts=tuple(sorted(set(past))) if past else plain.pasts,
            drawn=drawn or plain.drawn,
            whiten=whiten,
            refinement=refinement,
        )
        for prototypes in k or (1, 10, 50, 100)
    ]
    with counting("epochs") as progress:
        report = evaluate_people(
            data,
            SentenceTransformerEmbedder(Path(embedder) if Path(embedder).is_dir() else embedder),
            out,
            settings=settings,
            seeds=seeds,
            validation=validation,
            progress=progress,
        )
    write_json(out / REPORT, report.model_dump(mode="json"))
    if as_json:
        print_json(report)
    else:
        _print(report)


def _print(report: PeopleReport) -> None:
    from rich.console import Console
    from rich.table import Table

    from pgenrm_agent.evaluation.metrics import Accuracy, plus_minus
    from studies.people.study import METHODS

    def strict(value: Accuracy | None) -> str:
        return plus_minus(value.strict if value else None)

    def accuracy(value: Accuracy | None) -> str:
        return plus_minus(value.accuracy if value else None)

    console = Console()
    console.print(
        f"{report.held_out} of {report.users} users held out by {report.seeds} seeds"
        f"{' (validation)' if report.validation else ''}, {report.choices} choices of theirs in all, "
        f"{report.against} against the majority; {report.encoder}. In %, ± standard error over"
        " users; strict: a tie is wrong, accuracy: a tie is one half."
    )
    for title, rows, shown in (
        ("all choices, strict", [row.everything for row in report.rows], strict),
        ("all choices, accuracy", [row.everything for row in report.rows], accuracy),
        ("choices against the majority, strict", [row.against for row in report.rows], strict),
    ):
        table = Table("k", "past choices", title=title, title_justify="left")
        for name in METHODS:
            table.add_column(name, justify="right")
        table.add_column("refined - majority", justify="right")
        for row, values in zip(report.rows, rows, strict=True):
            gain = plus_minus(row.gain, form="+.1f") if title == "all choices, strict" else ""
            table.add_row(
                str(row.setting.k),
                str(row.past),
                *(shown(values.get(name)) for name in METHODS),
                gain,
            )
        console.print(table)


if __name__ == "__main__":
    run(app)
