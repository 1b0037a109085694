"""`python -m studies.limits`: what nobody can beat in the simulated world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pgenrm_agent.cli.app import run
from pgenrm_agent.cli.options import JsonOption

__all__ = ["app"]

app = typer.Typer()

DataOption = Annotated[
    Path,
    typer.Option(
        "--data", envvar="PGENRM_RESPONSES", help="Folder with train.jsonl.gz and val.jsonl.gz."
    ),
]


@app.command()
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
    from pgenrm_agent.training.bundled.simulation import World, load_answers
    from studies.limits.bayes import bayes_by_history
    from studies.limits.rules import rule_limits

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


if __name__ == "__main__":
    run(app)
