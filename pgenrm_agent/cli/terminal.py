"""What the training commands share at the terminal: options, a progress bar, a summary."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

__all__ = ["EngineOption", "JsonOption", "progress_bar", "show_summary"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]
EngineOption = Annotated[str, typer.Option("--engine", help="transformers, vllm or openai.")]


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the error stream; call what it gives with how much is done, and of how much."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show_summary(summary: Mapping[str, object], title: str, *, as_json: bool) -> None:
    """Print what a command did, as a table or as one line of JSON."""
    if as_json:
        typer.echo(json.dumps(summary))
        return
    table = Table("", "", title=title, show_header=False)
    for key, value in summary.items():
        table.add_row(key, str(value))
    Console().print(table)
