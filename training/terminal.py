"""What the training commands share at the terminal: an engine by name, a progress bar, a summary."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pgenrm_agent.engines.protocol import Engine
from pgenrm_agent.errors import ConfigurationError

__all__ = ["EngineOption", "JsonOption", "open_engine", "progress_bar", "show_summary"]

VLLM_CACHE_BYTES = 2**30
"""Room for vLLM's keys and values on a CPU, where it takes most of the memory if not told."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]
EngineOption = Annotated[str, typer.Option("--engine", help="transformers, vllm or openai.")]


def open_engine(name: str, model: str | Path, *, adapter: Path | None = None) -> Engine:
    """The engine that a command was told to use, with an adapter if it was told one.

    Raises ConfigurationError for an unknown name, and whatever `load_engine` raises.
    """
    from pgenrm_agent.engines import load_engine

    if name not in ("transformers", "vllm", "openai"):
        raise ConfigurationError(f"engine {name!r} is unknown: use transformers, vllm or openai")
    options: dict[str, object] = {} if adapter is None else {"adapter": adapter}
    if name == "vllm":
        import torch

        if not torch.cuda.is_available():
            options["kv_cache_memory_bytes"] = VLLM_CACHE_BYTES
    return load_engine(name, model, **options)  # type: ignore[arg-type]


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
