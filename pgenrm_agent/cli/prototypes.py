"""`pgenrm prototypes ...`: build them, see how stale they are, look at them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgenrm_agent.cli.costs import cost_line, open_ledger, prices_of, print_estimate
from pgenrm_agent.cli.engine_choice import EngineChoice, chooses_engine
from pgenrm_agent.cli.options import (
    BudgetOption,
    DryRunOption,
    EmbedderOption,
    FixedSeedOption,
    JsonOption,
    MemoryOption,
    ModelOption,
    PricesOption,
)
from pgenrm_agent.cli.output import print_json, show
from pgenrm_agent.cli.resources import open_memory, open_reward_model
from pgenrm_agent.extras import require
from pgenrm_agent.progress import counting_tasks, waiting

if TYPE_CHECKING:
    from pgenrm_agent.graphs.prototype_learning import LearnedPrototypes
    from pgenrm_agent.prototypes import PrototypeStatus

app = typer.Typer(no_args_is_help=True, help="Groups of users who judge alike.")


@app.command()
@chooses_engine
def build(
    *,
    memory: MemoryOption,
    k: Annotated[
        int | None, typer.Option("-k", min=1, help="Prototypes; by the personas' spectrum if none.")
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="Personas of each user.")] = 3,
    seed: FixedSeedOption,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do not go on with a build that was cut off.")
    ] = False,
    embedder: EmbedderOption,
    model: ModelOption,
    engine: EngineChoice,
    prices: PricesOption,
    budget: BudgetOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Group everybody who agreed to take part; a new version replaces the old when complete.

    A build that is cut off goes on where it was when the same command is given again.
    """
    from pgenrm_agent.graphs.prototype_learning import estimate_learning
    from pgenrm_agent.graphs.state import default_format
    from pgenrm_agent.settings import data_folder

    if not dry_run:
        require("learning prototypes", "sklearn", "aiosqlite")
    priced = prices_of(prices, budget)
    silent = engine.counting()
    chain_format = engine.format_for(model) or default_format(silent)
    with waiting("estimating the cost"), open_memory(memory) as store:
        estimate = asyncio.run(
            estimate_learning(
                store, chain_format, silent, queries=queries, seed=seed, prices=priced
            )
        )
    if dry_run:
        print_estimate(estimate, as_json=as_json)
        return
    ledger = open_ledger(estimate, priced, budget)
    with (
        open_reward_model(memory, model, engine, embedder=embedder, prices=priced) as reward_model,
        counting_tasks() as progress,
    ):
        learned = reward_model.learn_prototypes(
            k=k,
            queries=queries,
            seed=seed,
            keep=data_folder() / "prototype-learning.sqlite",
            fresh=fresh,
            on_progress=progress,
            ledger=ledger,
        )
    if as_json:
        print_json({**learned.model_dump(mode="json"), "estimate": estimate})
    else:
        _print_learned(learned)


@app.command()
def status(*, memory: MemoryOption, as_json: JsonOption = False) -> None:
    """Which version counts, and how far it has fallen behind."""
    from pgenrm_agent.prototypes import PrototypeStore

    with open_memory(memory, made=False) as store:
        show(PrototypeStore(store).status(), as_json, _print_status)


def _print_learned(learned: LearnedPrototypes) -> None:
    failed = f", {learned.failed} that could not be sampled" if learned.failed else ""
    typer.echo(
        f"version {learned.version}: {learned.prototypes} prototypes of {learned.users} users "
        f"({learned.personas} personas, {learned.unreadable} unreadable{failed})\n{learned.reason}"
    )
    if line := cost_line(learned.usage):
        typer.echo(line)


def _print_status(current: PrototypeStatus) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if current.version is None:
        typer.echo(
            f"no prototypes yet; {current.not_members} users agreed to take part: "
            "`pgenrm prototypes build` groups them"
        )
        return
    table = Table("prototype", "users", "its personas say", title=f"version {current.version}")
    for number, entry in enumerate(current.prototypes):
        table.add_row(str(number), str(entry.users), escape(entry.label))
    Console().print(table)
    typer.echo(
        f"built {current.built_at} with {current.embedder}; {current.users} users, "
        f"{current.joined} of them joined since; {current.not_members} agreed and are in none yet; "
        f"{current.pairs_since} choices since"
    )


@app.command()
def plot(
    out: Annotated[Path, typer.Argument(help="File to write: .png, .svg or .html.")],
    *,
    memory: MemoryOption,
    as_json: JsonOption = False,
) -> None:
    """Draw the map of users and prototypes, and the spectrum that tells how many there should be."""
    from pgenrm_agent.errors import ConfigurationError
    from pgenrm_agent.prototypes import PrototypeStore
    from pgenrm_agent.prototypes.picture import FORMATS, plot_prototypes

    if out.suffix not in FORMATS:
        raise typer.BadParameter(f"{out}: name a file that ends in {', '.join(FORMATS)}")
    with open_memory(memory, made=False) as store:
        version = PrototypeStore(store).current()
    if version is None:
        raise ConfigurationError("there are no prototypes: run `pgenrm prototypes build` first")
    plot_prototypes(version, out)
    show({"file": str(out)}, as_json, lambda written: typer.echo(written["file"]))
