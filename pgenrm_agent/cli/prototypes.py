"""`pgenrm prototypes ...`: build them, see how stale they are, look at them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.progress import TaskID

    from pgenrm_agent.embedding import Embedder
    from pgenrm_agent.prototypes import PrototypeStore

__all__ = ["app", "embedder_named"]

app = typer.Typer(no_args_is_help=True, help="Groups of people who judge alike.")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
MemoryOption = Annotated[
    str | None,
    typer.Option("--memory", help="Folder of the user memory, or the URL of a Chroma server."),
]
EmbedderOption = Annotated[
    str | None,
    typer.Option(
        "--embedder",
        help="A sentence-transformers model, such as Qwen/Qwen3-Embedding-0.6B; else the bundled "
        "model's own token embeddings.",
    ),
]


@app.command()
def build(
    memory: MemoryOption = None,
    k: Annotated[
        int | None, typer.Option("-k", min=1, help="Prototypes; by the personas' spectrum if none.")
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="Personas of each person.")] = 3,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do not go on with a build that was cut off.")
    ] = False,
    embedder: EmbedderOption = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Model folder or name; the bundled one if none.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="transformers, vllm or openai.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Group everybody who agreed to take part; a new version replaces the old when complete.

    A build that is cut off goes on where it was when the same command is given again.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from pgenrm_agent.memory import default_directory
    from pgenrm_agent.reward_model import PGenRM

    if engine not in (None, "transformers", "vllm", "openai"):
        raise typer.BadParameter(f"engine {engine!r}: use transformers, vllm or openai")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with (
        PGenRM(
            model,
            engine=engine,  # type: ignore[arg-type]
            memory=memory,
            persona_embedder=embedder_named(embedder),
        ) as rm,
        Progress(*columns, console=Console(stderr=True)) as bar,
    ):
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what)
            bar.update(tasks[what], completed=done, total=total)

        learned = rm.learn_prototypes(
            k=k,
            queries=queries,
            seed=seed,
            keep=default_directory().parent / "prototype-learning.sqlite",
            fresh=fresh,
            on_progress=show,
        )
    if as_json:
        typer.echo(learned.model_dump_json())
        return
    typer.echo(
        f"version {learned.version}: {learned.prototypes} prototypes of {learned.people} people "
        f"({learned.personas} personas, {learned.unreadable} unreadable)\n{learned.reason}"
    )


@app.command()
def status(memory: MemoryOption = None, as_json: JsonOption = False) -> None:
    """Which version counts, and how far it has fallen behind."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    with _store(memory) as store:
        found = store.status()
    if as_json:
        typer.echo(found.model_dump_json())
        return
    if found.version is None:
        typer.echo(
            f"no prototypes yet; {found.not_members} people agreed to take part: "
            "`pgenrm prototypes build` groups them"
        )
        return
    table = Table("prototype", "people", "its personas say", title=f"version {found.version}")
    for number, (size, label) in enumerate(zip(found.sizes, found.labels, strict=True)):
        table.add_row(str(number), str(size), escape(label))
    Console().print(table)
    typer.echo(
        f"built {found.built_at} with {found.embedder}; {found.people} people, {found.joined} of "
        f"them joined since; {found.not_members} agreed and are in none yet; "
        f"{found.pairs_since} choices since"
    )


@app.command()
def plot(
    out: Annotated[Path, typer.Argument(help="File to write: .png, .svg or .html.")],
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw the map of people and prototypes, and the spectrum that tells how many there should be."""
    from pgenrm_agent.errors import ConfigurationError
    from pgenrm_agent.prototypes.picture import FORMATS, plot_prototypes

    if out.suffix not in FORMATS:
        raise typer.BadParameter(f"{out}: name a file that ends in {', '.join(FORMATS)}")
    with _store(memory) as store:
        found = store.current()
    if found is None:
        raise ConfigurationError("there are no prototypes: run `pgenrm prototypes build` first")
    plot_prototypes(found, out)
    typer.echo(json.dumps({"file": str(out)}) if as_json else str(out))


def embedder_named(name: str | None) -> Embedder | None:
    """The sentence-transformers model of that name, or in that folder; None for the default."""
    if name is None:
        return None
    from pgenrm_agent.embedding import SentenceTransformerEmbedder

    return SentenceTransformerEmbedder(Path(name) if Path(name).is_dir() else name)


@contextmanager
def _store(memory: str | None) -> Iterator[PrototypeStore]:
    from pgenrm_agent.memory import UserMemory
    from pgenrm_agent.prototypes import PrototypeStore

    url = memory if memory and memory.startswith(("http://", "https://")) else None
    with UserMemory(None if url else memory, url=url) as kept:
        yield PrototypeStore(kept)
