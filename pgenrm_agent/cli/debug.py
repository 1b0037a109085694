"""`pgenrm debug ...`: stop a run, read it, edit it, go on, go back, try another way.

Every action is one command, so all of it can be scripted; with `--json` each prints one JSON value.
Model, engine and memory that a run was started with are kept with it and used again.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from pgenrm_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

    from pgenrm_agent.debugging.session import DebugSession
    from pgenrm_agent.debugging.views import Checkpoint, Stop
    from pgenrm_agent.engines.protocol import Engine
    from pgenrm_agent.schema import Model, PreferencePair

__all__ = ["StoreOption", "app", "open_session"]

M = TypeVar("M", bound="Model")

app = typer.Typer(
    no_args_is_help=True,
    help="Step through a run: look, edit, resume, rewind, fork.",
    pretty_exceptions_enable=False,
)

RunArgument = Annotated[str, typer.Argument(help="The run's id, as `pgenrm debug list` shows it.")]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="PGENRM_RUNS",
        help="SQLite file, or PostgreSQL URL, with the runs; runs.sqlite in the user's data"
        " directory if not given.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
AtOption = Annotated[
    str | None, typer.Option("--at", help="A checkpoint: its id, or the end of it.")
]
BreakOption = Annotated[
    list[str] | None,
    typer.Option(
        "--break",
        "-b",
        help="before:NODE, after:NODE, parse-failure, disagreement>NUMBER or rank-change; repeatable.",
    ),
]
What = Literal["persona", "rubric", "neighbors", "history", "candidates"]
_CRITERION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%?\s+([^:]+?)\s*(?::\s*(.*?))?\s*")


@app.command("list")
def list_runs(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """The runs of a store, newest first."""
    with _session(store) as session:
        found = session.runs()
    if as_json:
        _print([one.model_dump() for one in found])
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("run", "person", "asked", "answers", "stands before", "begun")
    for one in found:
        table.add_row(
            escape(one.run),
            escape(one.user_id),
            escape(_start(one.error or one.query, 40)),
            str(one.candidates),
            "cannot be read" if one.error else escape(", ".join(one.next)) or "end",
            one.created_at[:19],
        )
    _console().print(table)


@app.command()
def start(
    context: typer.Context,
    user: Annotated[str, typer.Option("--user", "-u", help="Whose taste counts.")],
    query: Annotated[str, typer.Option("--query", "-q", help="What was asked.")],
    candidates: Annotated[list[str], typer.Argument(metavar="ANSWER...", help="The answers.")],
    individual: Annotated[int, typer.Option(min=1, max=1024, help="Chains to sample.")] = 8,
    prototype: Annotated[
        int, typer.Option(min=0, max=1024, help="Chains of similar people, one each.")
    ] = 0,
    seed: Annotated[int | None, typer.Option(min=0, max=2**31 - 1)] = None,
    history: Annotated[
        Path | None,
        typer.Option(help="JSON list of past choices (query, chosen, rejected), not the memory's."),
    ] = None,
    memory: Annotated[str | None, typer.Option(help="Folder or URL of the user memory.")] = None,
    model: Annotated[str | None, typer.Option(help="Model folder or name.")] = None,
    engine: Annotated[str | None, typer.Option(help="transformers, vllm or openai.")] = None,
    run: Annotated[str | None, typer.Option(help="An id of your choice.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Begin a run; it stops before its first node."""
    from pgenrm_agent.schema import Candidate, EvaluationRequest, Scaling

    labels = {
        key: value
        for key, value in (("model", model), ("engine", engine), ("memory", memory))
        if value is not None
    }
    if prototype:
        labels["similar"] = "yes"
    try:
        request = EvaluationRequest(
            user_id=user,
            query=query,
            candidates=tuple(
                Candidate(id=f"answer-{number}", text=text)
                for number, text in enumerate(candidates, start=1)
            ),
        )
    except ValueError as error:
        raise ConfigurationError(f"this request cannot be used: {error}") from None
    pairs = None if history is None else _history(_read(history))
    with _session(store, context.obj) as session:
        name = session.start(
            request,
            scaling=Scaling(individual=individual, prototype=prototype, seed=seed),
            history=pairs,
            run=run,
            labels=labels,
        )
        _show_checkpoint(session.checkpoint(name), as_json)


@app.command()
def step(
    context: typer.Context, run: RunArgument, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """Run the next node."""
    with _session(store, context.obj, run) as session:
        _show_checkpoint(session.step(run), as_json)


@app.command()
def resume(
    context: typer.Context,
    run: RunArgument,
    breakpoints: BreakOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run on to the end, or until a breakpoint is met."""
    with _session(store, context.obj, run) as session:
        stop = session.resume(
            run, breakpoints or (), on_step=None if as_json else lambda one: _progress(one)
        )
        _show_stop(stop, as_json)


@app.command()
def show(
    run: RunArgument,
    at: AtOption = None,
    raw: Annotated[bool, typer.Option("--raw", help="The whole texts of the chains.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """A checkpoint: personas, rubrics, marks and scores as far as they are written."""
    from pgenrm_agent.debugging.views import chain_views

    with _session(store) as session:
        point = session.checkpoint(run, at)
        state = session.state(run, at)
    views = chain_views(state)
    if as_json:
        chains = [one.model_dump() for one in views]
        _print({"checkpoint": point.model_dump(), "chains": chains, "state": state})
        return
    _show_checkpoint(point, False)
    console = _console()
    for one in views:
        console.rule(f"chain {one.index}, {one.level}, {one.status}", align="left")
        if raw:
            console.print(one.text, markup=False, highlight=False)
            continue
        console.print(one.persona or "no persona yet", markup=False, highlight=False)
        for place, (name, weight, why) in enumerate(one.rubric):
            marks = "  ".join(
                f"{candidate} {_mark(row, place)}" for candidate, row in one.marks.items()
            )
            console.print(
                f"  {weight:.0f}% {name}{': ' + why if why else ''}  {marks}",
                markup=False,
                highlight=False,
            )
        if one.totals:
            totals = ", ".join(f"{name} {total:.2f}" for name, total in one.totals.items())
            console.print(f"  totals: {totals}", markup=False, highlight=False)
        if one.problem:
            console.print(f"  not scored: {one.problem}", markup=False, highlight=False)


@app.command()
def timeline(run: RunArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Every checkpoint of a run, abandoned branches included."""
    with _session(store) as session:
        found = session.timeline(run)
    if as_json:
        _print([one.model_dump() for one in found])
        return
    from rich.table import Table

    table = Table("", "checkpoint", "after", "what", "next", "tokens", "ranking")
    ends = {one.id: one.id[-8:] for one in found}
    for one in found:
        table.add_row(
            ">" if one.current else "",
            one.id[-8:],
            ends.get(one.parent or "", ""),
            _what(one),
            ", ".join(one.next) or "end",
            str(one.tokens),
            " > ".join(one.ranking),
        )
    _console().print(table)


@app.command()
def edit(
    context: typer.Context,
    run: RunArgument,
    what: Annotated[What, typer.Argument(help="What to edit.")],
    text: Annotated[
        str | None, typer.Option(help="The new text; $EDITOR opens if neither this nor --file.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Read the new text from a file.")] = None,
    chain: Annotated[
        int | None, typer.Option(min=0, help="One chain's persona or rubric; all if not given.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Edit the persona, rubric, neighbors, history or candidates; what follows is written anew.

    A rubric is one criterion a line, as "40% Clarity: why". Neighbors are one name a line: those
    left out take no part. History and candidates are JSON lists.
    """
    with _session(store, context.obj, run) as session:
        given = text if text is not None else _read(file) if file is not None else None
        if given is None:
            given = _in_editor(_editable(session, run, what, chain), what)
        if what == "persona":
            made = session.edit_persona(run, given, chain=chain)
        elif what == "rubric":
            made = session.edit_rubric(run, _criteria(given), chain=chain)
        elif what == "neighbors":
            made = session.edit_neighbors(run, given.split())
        elif what == "history":
            made = session.edit_history(run, _history(given))
        else:
            from pgenrm_agent.schema import Candidate

            made = session.edit_candidates(
                run, [_valid(Candidate, row, what) for row in _json_list(given, what)]
            )
        _show_checkpoint(made, as_json)


@app.command()
def rewind(
    run: RunArgument,
    steps: Annotated[int, typer.Option(min=1, help="How many checkpoints to go back.")] = 1,
    to: Annotated[str | None, typer.Option(help="A checkpoint's id instead.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on from an earlier checkpoint; what came after it is kept."""
    with _session(store) as session:
        _show_checkpoint(session.rewind(run, to or steps), as_json)


@app.command()
def fork(
    run: RunArgument,
    at: AtOption = None,
    name: Annotated[str | None, typer.Option(help="The new run's id.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new run of what a run has up to a checkpoint."""
    with _session(store) as session:
        _show_checkpoint(session.checkpoint(session.fork(run, at, name=name)), as_json)


@app.command()
def diff(
    run: RunArgument,
    before: Annotated[str, typer.Argument(help="A checkpoint's id.")],
    after: Annotated[str | None, typer.Argument(help="Another; the current one if none.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Where two checkpoints of a run differ."""
    with _session(store) as session:
        found = session.diff(run, before, after)
    if as_json:
        _print([one.model_dump() for one in found])
        return
    console = _console()
    for one in found:
        console.print(one.path, style="bold", markup=False, highlight=False)
        console.print(f"- {one.before}", style="red", markup=False, highlight=False)
        console.print(f"+ {one.after}", style="green", markup=False, highlight=False)


@app.command()
def compare(
    left: RunArgument,
    right: Annotated[str, typer.Argument(help="Another run.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Two runs side by side."""
    with _session(store) as session:
        found = session.compare(left, right)
    if as_json:
        _print(found.model_dump())
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("", escape(left), escape(right), "change")
    for name in dict.fromkeys([*found.left.means, *found.right.means]):
        sides = [side.means.get(name) for side in (found.left, found.right)]
        change = found.changes.get(name)
        table.add_row(
            escape(name),
            *("-" if mean is None else f"{mean:.2f}" for mean in sides),
            "" if change is None else f"{change:+.2f}",
        )
    sides_of = (found.left, found.right)
    table.add_section()
    table.add_row("ranking", *(escape(" > ".join(one.ranking)) for one in sides_of))
    table.add_row("persona", *(escape(next(iter(one.personas), "")) for one in sides_of))
    table.add_row(
        "rubric",
        *(
            escape(", ".join(f"{weight:.0f}% {name}" for name, weight, _ in one.rubric))
            for one in sides_of
        ),
    )
    table.add_row("tokens", *(str(one.tokens) for one in sides_of))
    _console().print(table)


@app.command("export")
def export_run(run: RunArgument, store: StoreOption = None) -> None:
    """Write a run to standard output as one JSON text, what is known of the person included."""
    with _session(store) as session:
        typer.echo(session.export(run))


@app.command("import")
def import_run(
    file: Annotated[Path, typer.Argument(help="What `pgenrm debug export` wrote.")],
    run: Annotated[str | None, typer.Option(help="Another id for it.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read an exported run back."""
    with _session(store) as session:
        _show_checkpoint(session.checkpoint(session.import_(_read(file), run=run)), as_json)


@app.command()
def replay(run: RunArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Go through the recorded steps without a model, and score the recorded texts anew.

    Exit code 1 when the scores differ from the recorded ones.
    """
    with _session(store) as session:
        found = session.replay(run)
    if as_json:
        _print(found.model_dump())
    else:
        for one in found.steps:
            _progress(one)
        said = {True: "the same scores", False: "other scores", None: "not scored yet"}
        typer.echo(said[found.same])
    if found.same is False:
        raise typer.Exit(1)


# --- shared by the commands ---


@contextmanager
def _session(
    store: str | None, engine: Engine | None = None, run: str | None = None
) -> Iterator[DebugSession]:
    """A session; with `run`, on the model, engine and memory which that run was started with."""
    from pgenrm_agent.debugging.session import DebugSession
    from pgenrm_agent.debugging.store import default_store

    where = store or default_store()
    with DebugSession(where, engine=engine) as session:
        labels = session.labels(run) if run is not None and engine is None else {}
        if not {"model", "engine", "memory", "similar"} & labels.keys():
            yield session
            return
    with ExitStack() as resources, _session_of(where, labels, resources) as session:
        yield session


def _session_of(where: str | Path, labels: dict[str, str], resources: ExitStack) -> DebugSession:
    from typing import cast

    from pgenrm_agent.debugging.session import DebugSession
    from pgenrm_agent.engines import load_engine
    from pgenrm_agent.model_files import bundled_model, format_of

    model: str | Path = labels.get("model") or bundled_model()
    name = labels.get("engine", "transformers")
    if name not in ("transformers", "vllm", "openai"):
        raise ConfigurationError(f"engine {name!r}: use transformers, vllm or openai")
    engine = load_engine(cast(Literal["transformers", "vllm", "openai"], name), model)
    memory = None
    neighbors = None
    if {"memory", "similar"} & labels.keys():
        from pgenrm_agent.memory import UserMemory

        wanted = labels.get("memory")
        url = wanted if wanted and wanted.startswith(("http://", "https://")) else None
        memory = UserMemory(None if url else wanted, url=url)
        resources.callback(memory.close)
    if "similar" in labels and memory is not None:
        from pgenrm_agent.embedding import ModelTokensEmbedder
        from pgenrm_agent.prototypes import Neighbors

        # Personas can be made up here: nobody joins a prototype with one.
        neighbors = Neighbors(memory, ModelTokensEmbedder(bundled_model()), joining=False)
    return DebugSession(
        where,
        engine=engine,
        chain_format=format_of(model),
        memory=memory,
        neighbors=neighbors,
    )


def open_session(
    store: str | None, labels: dict[str, str], resources: ExitStack, *, engine: Engine | None = None
) -> DebugSession:
    """A session on the model, engine and memory that `labels` name; closed with `resources`."""
    from pgenrm_agent.debugging.session import DebugSession
    from pgenrm_agent.debugging.store import default_store

    where = store or default_store()
    if engine is not None:
        opened = DebugSession(where, engine=engine)
    elif labels:
        opened = _session_of(where, labels, resources)
    else:
        opened = DebugSession(where)
    return resources.enter_context(opened)


def _console() -> Console:
    from rich.console import Console

    return Console()


def _print(value: object) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))


def _show_checkpoint(one: Checkpoint, as_json: bool) -> None:
    if as_json:
        typer.echo(one.model_dump_json())
        return
    typer.echo(f"run {one.run}, checkpoint {one.id[-8:]}: {_what(one)}")
    typer.echo(f"next: {', '.join(one.next) or 'nothing, it is at its end'}")
    for name in one.ranking:
        typer.echo(f"  {one.means[name]:5.2f}  {name}")
    if one.error:
        typer.echo(f"failed: {one.error}")


def _show_stop(stop: Stop, as_json: bool) -> None:
    if as_json:
        typer.echo(stop.model_dump_json())
        return
    typer.echo(f"stopped: {stop.reason}")
    _show_checkpoint(stop.checkpoint, False)


def _progress(one: Checkpoint) -> None:
    typer.echo(f"{one.id[-8:]}  {_what(one)}, {one.tokens} tokens", err=True)


def _what(one: Checkpoint) -> str:
    if one.edit:
        return f"edited {one.edit}"
    return one.node or {"fork": "rewound", "input": "input"}.get(one.source, "begun")


def _mark(row: Sequence[float | None], place: int) -> str:
    mark = row[place] if place < len(row) else None
    return "-" if mark is None else f"{mark:g}"


def _start(text: str, length: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else f"{flat[: length - 3]}..."


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file}: cannot be read as text ({error})") from error


def _editable(session: DebugSession, run: str, what: What, chain: int | None) -> str:
    """What is there now, as a person edits it."""
    from pgenrm_agent.debugging.views import chain_views

    state = session.state(run)
    if what in ("history", "candidates"):
        request = state["request"]
        signals = state.get("signals", {}).get(str(request["user_id"]), {})
        rows = signals.get("history") if what == "history" else request["candidates"]
        return json.dumps(rows or [], indent=2, ensure_ascii=False) + "\n"
    if what == "neighbors":
        return "".join(f"{name}\n" for name in state.get("neighbors", ()))
    views = [one for one in chain_views(state) if chain in (None, one.index)]
    if what == "persona":
        return next((one.persona for one in views if one.persona), "") + "\n"
    rubric = next((one.rubric for one in views if one.rubric), ())
    return "".join(
        f"{weight:g}% {name}{': ' + why if why else ''}\n" for name, weight, why in rubric
    )


def _in_editor(text: str, what: str) -> str:
    """The text as the person left it in $VISUAL or $EDITOR."""
    command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    suffix = ".json" if what in ("history", "candidates") else ".txt"
    with tempfile.TemporaryDirectory(prefix="pgenrm-") as folder:
        file = Path(folder) / f"{what}{suffix}"
        file.write_text(text, encoding="utf-8")
        try:
            done = subprocess.run([*command, str(file)], check=False)
        except OSError as error:
            raise ConfigurationError(
                f"the editor {command[0]!r} cannot be started ({error}): set EDITOR, or use --text"
            ) from error
        if done.returncode != 0:
            raise ConfigurationError(
                f"the editor ended with code {done.returncode}: nothing was changed"
            )
        changed = file.read_text(encoding="utf-8")
    if changed == text:
        raise ConfigurationError("the text was left as it was: nothing was changed")
    return changed


def _criteria(text: str) -> list[tuple[str, float, str]]:
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        match = _CRITERION.fullmatch(line)
        if match is None:
            raise ConfigurationError(
                f'line {number} of the rubric, {line!r}: write it as "40% Clarity: why"'
            )
        found.append((match[2], float(match[1]), match[3] or ""))
    return found


def _json_list(text: str, what: str) -> list[object]:
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"the {what} is not JSON: {error}") from None
    if not isinstance(rows, list):
        raise ConfigurationError(f"the {what} is a JSON list, and this is {type(rows).__name__}")
    return rows


def _history(text: str) -> list[PreferencePair]:
    from pgenrm_agent.schema import PreferencePair

    return [_valid(PreferencePair, row, "history") for row in _json_list(text, "history")]


def _valid(kind: type[M], row: object, what: str) -> M:
    try:
        return kind.model_validate(row)
    except ValueError as error:
        raise ConfigurationError(f"one of the {what} cannot be used: {error}") from None
