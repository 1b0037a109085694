"""`pgenrm debug ...`: stop a run, read it, edit it, go on, go back, try another way.

Every action is one command, so all of it can be scripted; with `--json` each prints one JSON value.
Model, engine, memory and embedder that a run was started with are kept with it and used again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgenrm_agent.cli.debug_edit import (
    Editable,
    edit_text,
    editable_text,
    parse_candidates,
    parse_history,
    parse_rubric,
    parse_signals,
)
from pgenrm_agent.cli.debug_session import labels_of, looking_at, session_on
from pgenrm_agent.cli.engine_choice import EngineChoice, chooses_engine
from pgenrm_agent.cli.options import (
    CandidatesArgument,
    EmbedderOption,
    ExportOption,
    ForceOption,
    IndividualOption,
    JsonOption,
    MemoryOption,
    ModelOption,
    PastChoicesOption,
    PrototypeOption,
    QueryOption,
    SeedOption,
    StoreOption,
    UserOption,
)
from pgenrm_agent.cli.output import beginning, print_json
from pgenrm_agent.cli.output import show as show_result
from pgenrm_agent.cli.resources import read_text, scaling_of
from pgenrm_agent.cli.score import read_candidates
from pgenrm_agent.files import exporting

if TYPE_CHECKING:
    from rich.console import Console

    from pgenrm_agent.debugging.views import (
        ChainView,
        Checkpoint,
        Comparison,
        Difference,
        Replay,
        RunSummary,
        Stop,
    )

app = typer.Typer(
    no_args_is_help=True,
    help="Step through a run: look, edit, resume, rewind, fork.",
    pretty_exceptions_enable=False,
)

RunArgument = Annotated[str, typer.Argument(help="The run's id, as `pgenrm debug list` shows it.")]
AtOption = Annotated[
    str | None, typer.Option("--at", help="A checkpoint: its id, or the end of it.")
]
TrustOption = Annotated[
    bool, typer.Option("--trust", help="Open the model and memory that a run from elsewhere names.")
]
BreakOption = Annotated[
    list[str] | None,
    typer.Option(
        "--break",
        "-b",
        help="before:NODE, after:NODE, parse-failure, disagreement>NUMBER or rank-change; repeatable.",
    ),
]


@app.command("list")
def list_runs(*, store: StoreOption, as_json: JsonOption = False) -> None:
    """The runs of a store, newest first."""
    with session_on(store) as session:
        show_result(session.runs(), as_json, _print_runs)


@app.command()
@chooses_engine
def start(
    context: typer.Context,
    *,
    user: UserOption,
    query: QueryOption,
    candidates: CandidatesArgument,
    individual: IndividualOption,
    prototype: PrototypeOption,
    history: PastChoicesOption,
    seed: SeedOption,
    signals: Annotated[
        Path | None,
        typer.Option(
            help="What is known of the user, not the memory's: JSON as `pgenrm users show --json`"
            " prints it (history, stated)."
        ),
    ] = None,
    memory: MemoryOption,
    model: ModelOption,
    engine: EngineChoice,
    embedder: EmbedderOption,
    run: Annotated[str | None, typer.Option(help="An id of your choice.")] = None,
    store: StoreOption,
    as_json: JsonOption = False,
) -> None:
    """Begin a run; it stops before its first node."""
    from pgenrm_agent.evaluation_input import evaluation_request

    request = evaluation_request(user, query, read_candidates(candidates))
    with session_on(store, context.obj) as session:
        name = session.start(
            request,
            scaling=scaling_of(individual, prototype, history=history, seed=seed),
            signals=None if signals is None else parse_signals(read_text(signals), user),
            run=run,
            labels=labels_of(model=model, memory=memory, embedder=embedder, **engine.labels),
        )
        show_result(session.checkpoint(name), as_json, _print_checkpoint)


@app.command()
def step(
    context: typer.Context,
    run: RunArgument,
    *,
    trust: TrustOption = False,
    store: StoreOption,
    as_json: JsonOption = False,
) -> None:
    """Run the next node."""
    with session_on(store, context.obj, run, trust=trust) as session:
        show_result(session.step(run), as_json, _print_checkpoint)


@app.command()
def resume(
    context: typer.Context,
    run: RunArgument,
    *,
    breakpoints: BreakOption = None,
    trust: TrustOption = False,
    store: StoreOption,
    as_json: JsonOption = False,
) -> None:
    """Run on to the end, or until a breakpoint is met."""
    with session_on(store, context.obj, run, trust=trust) as session:
        stop = session.resume(run, breakpoints or (), on_step=None if as_json else _show_step)
        show_result(stop, as_json, _print_stop)


@app.command()
def show(
    run: RunArgument,
    *,
    at: AtOption = None,
    raw: Annotated[bool, typer.Option("--raw", help="The whole texts of the chains.")] = False,
    store: StoreOption,
    as_json: JsonOption = False,
) -> None:
    """A checkpoint: personas, rubrics, marks and scores as far as they are written."""
    from pgenrm_agent.debugging.views import chain_views

    with looking_at(store, run) as session:
        point = session.checkpoint(run, at)
        state = session.state(run, at)
    views = chain_views(state)
    if as_json:
        print_json({"checkpoint": point, "chains": views, "state": state})
        return
    _print_checkpoint(point)
    for view in views:
        _show_chain(view, raw=raw)


@app.command()
def timeline(run: RunArgument, *, store: StoreOption, as_json: JsonOption = False) -> None:
    """Every checkpoint of a run, abandoned branches included."""
    with session_on(store) as session:
        show_result(session.timeline(run), as_json, _print_timeline)


@app.command()
def edit(
    context: typer.Context,
    run: RunArgument,
    what: Annotated[Editable, typer.Argument(help="What to edit.")],
    *,
    text: Annotated[
        str | None, typer.Option(help="The new text; $EDITOR opens if neither this nor --file.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Read the new text from a file.")] = None,
    chain: Annotated[
        int | None, typer.Option(min=0, help="One chain's persona or rubric; all if not given.")
    ] = None,
    trust: TrustOption = False,
    store: StoreOption,
    as_json: JsonOption = False,
) -> None:
    """Edit the persona, rubric, neighbors, history or candidates; what follows is written anew.

    A rubric is one criterion a line, as "40% Clarity: why". Neighbors are one name a line: those
    left out take no part. History and candidates are JSON lists.
    """
    with session_on(store, context.obj, run, trust=trust) as session:
        written = text if text is not None else read_text(file) if file is not None else None
        if written is None:
            written = edit_text(editable_text(session, run, what, chain), what)
        if what == "persona":
            made = session.edit_persona(run, written, chain=chain)
        elif what == "rubric":
            made = session.edit_rubric(run, parse_rubric(written), chain=chain)
        elif what == "neighbors":
            made = session.edit_neighbors(run, written.split())
        elif what == "history":
            made = session.edit_history(run, parse_history(written))
        else:
            made = session.edit_candidates(run, parse_candidates(written))
        show_result(made, as_json, _print_checkpoint)


@app.command()
def rewind(
    run: RunArgument,
    *,
    steps: Annotated[int, typer.Option(min=1, help="How many checkpoints to go back.")] = 1,
    to: Annotated[str | None, typer.Option(help="A checkpoint's id instead.")] = None,
    store: StoreOption,
    as_json: JsonOption = False,
) -> None:
    """Go on from an earlier checkpoint; what came after it is kept."""
    with session_on(store) as session:
        show_result(session.rewind(run, to or steps), as_json, _print_checkpoint)


@app.command()
def fork(
    run: RunArgument,
    *,
    at: AtOption = None,
    name: Annotated[str | None, typer.Option(help="The new run's id.")] = None,
    store: StoreOption,
    as_json: JsonOption = False,
) -> None:
    """Make a new run of what a run has up to a checkpoint."""
    with session_on(store) as session:
        show_result(
            session.checkpoint(session.fork(run, at, name=name)), as_json, _print_checkpoint
        )


@app.command()
def diff(
    run: RunArgument,
    before: Annotated[str, typer.Argument(help="A checkpoint's id.")],
    after: Annotated[str | None, typer.Argument(help="Another; the current one if none.")] = None,
    *,
    store: StoreOption,
    as_json: JsonOption = False,
) -> None:
    """Where two checkpoints of a run differ."""
    with looking_at(store, run) as session:
        show_result(session.diff(run, before, after), as_json, _print_differences)


@app.command()
def compare(
    left: RunArgument,
    right: Annotated[str, typer.Argument(help="Another run.")],
    *,
    store: StoreOption,
    as_json: JsonOption = False,
) -> None:
    """Two runs side by side."""
    with looking_at(store, left) as session:
        show_result(session.compare(left, right), as_json, _print_comparison)


@app.command("export")
def export_run(
    run: RunArgument, *, store: StoreOption, out: ExportOption = None, force: ForceOption = False
) -> None:
    """Write a run as one JSON text, what is known of the user included."""
    with session_on(store) as session:
        text = session.export(run)
    if out is None:
        typer.echo(text)
        return
    with exporting(out, replace=force) as beside:
        beside.write_text(text + "\n", encoding="utf-8")


@app.command("import")
def import_run(
    file: Annotated[Path, typer.Argument(help="What `pgenrm debug export` wrote.")],
    *,
    run: Annotated[str | None, typer.Option(help="Another id for it.")] = None,
    store: StoreOption,
    as_json: JsonOption = False,
) -> None:
    """Read an exported run back."""
    with session_on(store) as session:
        show_result(
            session.checkpoint(session.import_(read_text(file), run=run)),
            as_json,
            _print_checkpoint,
        )


@app.command()
def replay(run: RunArgument, *, store: StoreOption, as_json: JsonOption = False) -> None:
    """Go through the recorded steps without a model, and score the recorded texts anew.

    Exit code 1 when the scores differ from the recorded ones.
    """
    with looking_at(store, run) as session:
        replayed = session.replay(run)
    show_result(replayed, as_json, _print_replay)
    if replayed.same is False:
        raise typer.Exit(1)


def _console() -> Console:
    from rich.console import Console

    return Console()


def _print_runs(runs: Sequence[RunSummary]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("run", "user", "asked", "answers", "stands before", "begun")
    for run in runs:
        table.add_row(
            escape(run.run),
            escape(run.user_id),
            escape(beginning(run.error or run.query, 40)),
            str(run.candidates),
            "cannot be read" if run.error else escape(", ".join(run.next)) or "end",
            run.created_at[:19],
        )
    _console().print(table)


def _print_timeline(points: Sequence[Checkpoint]) -> None:
    from rich.table import Table

    table = Table("", "checkpoint", "after", "what", "next", "tokens", "ranking")
    for point in points:
        table.add_row(
            ">" if point.current else "",
            point.id[-8:],
            (point.parent or "")[-8:],
            point.made_by,
            ", ".join(point.next) or "end",
            str(point.tokens),
            " > ".join(point.ranking),
        )
    _console().print(table)


def _print_differences(differences: Sequence[Difference]) -> None:
    console = _console()
    for difference in differences:
        console.print(difference.path, style="bold", markup=False, highlight=False)
        console.print(f"- {difference.before}", style="red", markup=False, highlight=False)
        console.print(f"+ {difference.after}", style="green", markup=False, highlight=False)


def _print_replay(replayed: Replay) -> None:
    for point in replayed.steps:
        _show_step(point)
    said = {True: "the same scores", False: "other scores", None: "not scored yet"}
    words = said[replayed.same]
    if replayed.same is None and replayed.evaluation is not None:
        words = "chains of similar users are sealed here, so nobody can tell whether the scores are the same"
    typer.echo(words)


def _print_checkpoint(point: Checkpoint) -> None:
    typer.echo(f"run {point.run}, checkpoint {point.id[-8:]}: {point.made_by}")
    typer.echo(f"next: {', '.join(point.next) or 'nothing, it is at its end'}")
    for name in point.ranking:
        typer.echo(f"  {point.means[name]:5.2f}  {name}")
    if point.evidence:
        typer.echo(point.evidence)
    if point.error:
        typer.echo(f"failed: {point.error}")


def _print_stop(stop: Stop) -> None:
    typer.echo(f"stopped: {stop.reason}")
    _print_checkpoint(stop.checkpoint)


def _show_step(point: Checkpoint) -> None:
    typer.echo(f"{point.id[-8:]}  {point.made_by}, {point.tokens} tokens", err=True)


def _show_chain(view: ChainView, *, raw: bool) -> None:
    console = _console()
    console.rule(f"chain {view.index}, {view.level}, {view.status}", align="left")
    lines = [view.reasoning, view.text] if raw else _chain_lines(view)
    for line in lines:
        console.print(line, markup=False, highlight=False)


def _chain_lines(view: ChainView) -> list[str]:
    lines = [view.persona or "no persona yet"]
    if view.reasoning:
        lines.insert(0, f"  (thought {len(view.reasoning):,} characters before; --raw shows them)")
    if view.notes:
        lines.insert(0, f"  (noted {len(view.notes):,} characters before; --raw shows them)")
    for place, (name, weight, why) in enumerate(view.rubric):
        marks = "  ".join(
            f"{candidate} {_mark(row, place)}" for candidate, row in view.marks.items()
        )
        lines.append(f"  {weight:.0f}% {name}{': ' + why if why else ''}  {marks}")
    if view.totals:
        totals = ", ".join(f"{name} {total:.2f}" for name, total in view.totals.items())
        lines.append(f"  totals: {totals}")
    if view.problem:
        lines.append(f"  not scored: {view.problem}")
    return lines


def _print_comparison(comparison: Comparison) -> None:
    from rich.markup import escape
    from rich.table import Table

    sides = (comparison.left, comparison.right)
    table = Table("", *(escape(side.run) for side in sides), "change")
    for name in dict.fromkeys(name for side in sides for name in side.means):
        means = [side.means.get(name) for side in sides]
        change = comparison.changes.get(name)
        table.add_row(
            escape(name),
            *("-" if mean is None else f"{mean:.2f}" for mean in means),
            "" if change is None else f"{change:+.2f}",
        )
    table.add_section()
    table.add_row("ranking", *(escape(" > ".join(side.ranking)) for side in sides))
    table.add_row("persona", *(escape(next(iter(side.personas), "")) for side in sides))
    table.add_row(
        "rubric",
        *(
            escape(", ".join(f"{weight:.0f}% {name}" for name, weight, _ in side.rubric))
            for side in sides
        ),
    )
    table.add_row("tokens", *(str(side.tokens) for side in sides))
    _console().print(table)


def _mark(row: Sequence[float | None], place: int) -> str:
    mark = row[place] if place < len(row) else None
    return "-" if mark is None else f"{mark:g}"
