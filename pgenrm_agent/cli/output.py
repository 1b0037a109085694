"""What commands print: JSON, a summary as a table, and that they still wait for something.

Progress is pgenrm_agent/progress.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TypeVar

import typer
from rich.console import Console
from rich.table import Table

T = TypeVar("T")

NOTICE = (
    "The bundled model is small and was trained from scratch on simulated users: it knows four styles"
    " of English answers, and nothing of the world or of you. Its card says how often it is right."
)


def print_json(value: object) -> None:
    """Print a model of the library, or what holds several of them, as one line of JSON."""
    from pydantic import BaseModel

    def plain(part: object) -> object:
        if isinstance(part, BaseModel):
            return part.model_dump(mode="json")
        raise TypeError(f"{type(part).__name__} has no JSON")

    if isinstance(value, BaseModel):
        typer.echo(value.model_dump_json())
    else:
        typer.echo(json.dumps(value, ensure_ascii=False, default=plain))


def show(value: T, as_json: bool, printer: Callable[[T], None]) -> None:
    """Print a result as JSON, or let `printer` show it to people."""
    if as_json:
        print_json(value)
    else:
        printer(value)


def print_summary(summary: Mapping[str, object], title: str, *, as_json: bool) -> None:
    """Print what a command did, as a table or as one line of JSON."""
    if as_json:
        print_json(summary)
        return
    table = Table("", "", title=title, show_header=False)
    for key, value in summary.items():
        table.add_row(key, str(value))
    Console().print(table)


def print_notice() -> None:
    """Say on standard error what the bundled model is."""
    Console(stderr=True).print(NOTICE, style="dim")


def beginning(text: str, length: int = 60) -> str:
    """Return the beginning of a text, on one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= length else f"{flat[: length - 3]}..."
