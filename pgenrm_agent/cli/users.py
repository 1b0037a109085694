"""`pgenrm users ...`: look after the user memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgenrm_agent.cli.options import (
    AnyUserArgument,
    CacheOption,
    ExportOption,
    ForceOption,
    JsonOption,
    MemoryOption,
    QueryOption,
    ServerOption,
    UserArgument,
)
from pgenrm_agent.cli.output import print_json
from pgenrm_agent.cli.output import show as show_result
from pgenrm_agent.cli.resources import (
    check_server,
    open_cache,
    open_client,
    open_memory,
    valid_input,
)
from pgenrm_agent.cli.score import text_or_file
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.progress import waiting
from pgenrm_agent.wording import counted

if TYPE_CHECKING:
    from pgenrm_agent.client import Client
    from pgenrm_agent.memory import UserMemory

app = typer.Typer(no_args_is_help=True, help="What is remembered of users.")


def _open(
    context: typer.Context, memory: str | None, server: str | None, *, made: bool = True
) -> UserMemory | Client:
    """Return what knows the users: the memory (`open_memory`), or a client of the server that owns it."""
    check_server(context, server)
    return open_memory(memory, made=made) if server is None else open_client(server)


def _refuse(server: str | None) -> None:
    if server is not None:
        raise ConfigurationError(
            f"exports are written and read where the memory is, and {server} has it: stop that server,"
            " and leave out --server and PGENRM_SERVER"
        )


@app.command("list")
def list_users(
    context: typer.Context,
    *,
    memory: MemoryOption,
    server: ServerOption,
    as_json: JsonOption = False,
) -> None:
    """Everyone in the memory."""
    with _open(context, memory, server, made=False) as store:
        users = store.users()
    from pgenrm_agent.cli.tables import print_users

    show_result(users, as_json, print_users)


@app.command()
def show(
    context: typer.Context,
    user: UserArgument,
    *,
    memory: MemoryOption,
    server: ServerOption,
    as_json: JsonOption = False,
) -> None:
    """One user's past choices and stated preferences."""
    from pgenrm_agent.memory import UserMemory

    with _open(context, memory, server, made=False) as store:
        if isinstance(store, UserMemory):
            signals = store.recall(user, selection="recent")
        else:
            signals = store.recall(user)
    from pgenrm_agent.cli.tables import print_signals

    show_result(signals, as_json, print_signals)


@app.command()
def remember(
    context: typer.Context,
    user: UserArgument,
    *,
    query: QueryOption,
    chosen: Annotated[str, typer.Option(help="The answer that the user preferred, or @FILE.")],
    rejected: Annotated[str, typer.Option(help="The answer that they liked less, or @FILE.")],
    memory: MemoryOption,
    server: ServerOption,
) -> None:
    """Remember one choice of a user, and print its id."""
    from pgenrm_agent.schema import PreferencePair

    with valid_input():
        pair = PreferencePair(
            query=query, chosen=text_or_file(chosen), rejected=text_or_file(rejected)
        )
    with _open(context, memory, server) as store:
        typer.echo(store.remember(user, pair))


@app.command()
def state(
    context: typer.Context,
    user: UserArgument,
    text: Annotated[str, typer.Argument(help="What they want, in their words.")],
    *,
    memory: MemoryOption,
    server: ServerOption,
) -> None:
    """Remember what a user says they want, and print its id."""
    from pgenrm_agent.memory import UserMemory
    from pgenrm_agent.schema import StatedPreference

    with valid_input():
        stated = StatedPreference(text=text)
    with _open(context, memory, server) as store:
        if isinstance(store, UserMemory):
            typer.echo(store.state(user, stated))
        else:
            typer.echo(store.state_preference(user, stated))


@app.command()
def entries(
    context: typer.Context,
    user: UserArgument,
    *,
    memory: MemoryOption,
    server: ServerOption,
    as_json: JsonOption = False,
) -> None:
    """One user's choices and statements with their ids, and what a newer one has overruled."""
    with _open(context, memory, server, made=False) as store:
        kept = store.entries(user)
    from pgenrm_agent.cli.tables import print_entries

    show_result(kept, as_json, print_entries)


@app.command()
def correct(
    context: typer.Context,
    user: UserArgument,
    entry: Annotated[str, typer.Argument(help="Its id, as `pgenrm users entries` shows it.")],
    text: Annotated[
        str | None, typer.Argument(help="Of a statement: what they want, in their words.")
    ] = None,
    *,
    query: Annotated[str | None, typer.Option(help="Of a choice: what was asked.")] = None,
    chosen: Annotated[str | None, typer.Option(help="The answer they preferred, or @FILE.")] = None,
    rejected: Annotated[
        str | None, typer.Option(help="The answer they liked less, or @FILE.")
    ] = None,
    memory: MemoryOption,
    server: ServerOption,
) -> None:
    """Put a choice, or a statement, in the place of one, and print its id.

    What is not said of a choice stays as it is.
    """
    from pgenrm_agent.memory import entry_of

    with _open(context, memory, server, made=False) as store, valid_input():
        new = entry_of(store.entries(user), entry).changed(
            text=text,
            query=query,
            chosen=None if chosen is None else text_or_file(chosen),
            rejected=None if rejected is None else text_or_file(rejected),
        )
        typer.echo(store.correct(user, entry, new))


@app.command()
def forget(
    context: typer.Context,
    user: UserArgument,
    *,
    entry: Annotated[
        str | None,
        typer.Option(help="Only this choice or statement; `pgenrm users entries` shows the ids."),
    ] = None,
    memory: MemoryOption,
    server: ServerOption,
    cache: CacheOption,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove every trace of a user, or one entry of theirs; from the cache and debugging runs, too."""
    check_server(context, server)
    what = f"everything about {user}" if entry is None else f"{entry} of {user}"
    if not yes:
        typer.confirm(f"Forget {what}?", abort=True)
    from pgenrm_agent.graphs.run_store import ForgetRuns
    from pgenrm_agent.memory import UserMemory

    with (
        open_cache(None if server else cache) as kept,
        _open(context, memory, server, made=False) as store,
    ):
        if isinstance(store, UserMemory):
            store.also_forget_whole.add(ForgetRuns(memory=store.where))
            if kept is not None:
                store.also_forget.add(kept.forget)
        if entry is None:
            typer.echo(f"{counted(store.forget(user), 'entry')} removed")
        elif store.forget_entry(user, entry):
            typer.echo("1 entry removed")
        else:
            raise ConfigurationError(
                f"nothing with the id {entry!r} is remembered of this user: `pgenrm users entries`"
                " shows what is"
            )


@app.command()
def consent(
    context: typer.Context,
    user: UserArgument,
    *,
    give: Annotated[
        bool | None, typer.Option("--give/--withdraw", help="May others learn from them? Needed.")
    ] = None,
    memory: MemoryOption,
    server: ServerOption,
) -> None:
    """Say whether a user's choices may take part in the evaluations of similar users."""
    if give is None:
        raise typer.BadParameter(
            "--give or --withdraw is needed: may others learn from them? `pgenrm users list` shows who"
            " has given it"
        )
    with _open(context, memory, server) as store:
        store.set_consent(user, give)
    typer.echo(f"{user}: {'may' if give else 'may not'} take part in evaluations of similar users")


@app.command("export")
def export_users(
    user: AnyUserArgument = None,
    *,
    memory: MemoryOption,
    server: ServerOption,
    out: ExportOption = None,
    force: ForceOption = False,
) -> None:
    """Write the memory, one JSON object a line."""
    _refuse(server)
    if out is not None:
        with waiting("writing"), open_memory(memory, made=False) as store:
            typer.echo(f"{store.export_jsonl(out, user, replace=force)} entries written", err=True)
        return
    # On a terminal the rows themselves show that it goes on.
    hidden = sys.stdout.isatty()
    with waiting("writing", shown=not hidden) as tell, open_memory(memory, made=False) as store:
        for number, row in enumerate(store.export(user), start=1):
            print_json(row)
            tell(f"{number} entries written")


@app.command("import")
def import_users(
    file: Annotated[
        Path,
        typer.Argument(
            help="What `pgenrm users export` wrote; or choices, one JSON object a line with user_id, query,"
            " chosen and rejected."
        ),
    ],
    *,
    memory: MemoryOption,
    server: ServerOption,
) -> None:
    """Read an export back, or a file of choices."""
    _refuse(server)
    if not file.is_file():
        raise typer.BadParameter(f"{file}: {'it is a folder' if file.is_dir() else 'no such file'}")
    with waiting("reading"), open_memory(memory) as store:
        read = store.import_jsonl(file)
    typer.echo(f"{counted(read, 'new entry')} read")
