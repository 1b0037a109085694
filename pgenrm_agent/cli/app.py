"""`pgenrm`: score answers, look after the user memory, see what is installed.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 failed,
2 wrong usage. Heavy packages load inside the commands, so that `pgenrm --help` is quick.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgenrm_agent.errors import ConfigurationError, PGenRMError

if TYPE_CHECKING:
    from pgenrm_agent.integrations.keys import KeyRing
    from pgenrm_agent.memory import UserMemory
    from pgenrm_agent.reward_model import PGenRM
    from pgenrm_agent.schema import Candidate, Evaluation, Scaling

__all__ = ["app", "main", "run"]

# Packages that come with an extra, and which one.
OPTIONAL = {
    "accelerate": "training",
    "fastapi": "server",
    "matplotlib": "evaluation",
    "mcp": "mcp",
    "openai": "openai",
    "prometheus_client": "server",
    "pyarrow": "evaluation",
    "ray": "ray",
    "scipy": "evaluation",
    "sentence_transformers": "embeddings",
    "sklearn": "training",
    "uvicorn": "server",
    "vllm": "vllm",
    "yaml": "training",
}

MCP_SHUTDOWN_S = 30
"""How long the clients of `pgenrm mcp --http` get to finish when it is stopped."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How much would one particular person like each candidate answer?",
)
users = typer.Typer(no_args_is_help=True, help="What is remembered of people.")
app.add_typer(users, name="users")
keys = typer.Typer(no_args_is_help=True, help="Who may call the servers.")
app.add_typer(keys, name="keys")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
MemoryOption = Annotated[
    str | None,
    typer.Option("--memory", help="Folder of the user memory, or the URL of a Chroma server."),
]
UserOption = Annotated[str, typer.Option("--user", "-u", help="Whose taste counts.")]
CandidatesArgument = Annotated[
    list[str],
    typer.Argument(
        help="Candidate answers: texts; @FILE for the text of a file; @FILE.jsonl for one answer a"
        ' line, as {"id": ..., "text": ...} or as a string.',
        metavar="ANSWER...",
    ),
]
QueryOption = Annotated[str, typer.Option("--query", "-q", help="What was asked.")]
IndividualOption = Annotated[
    int, typer.Option(min=0, max=1024, help="Evaluation chains with the person's own choices.")
]
PrototypeOption = Annotated[
    int,
    typer.Option(
        "--prototype",
        min=0,
        max=1024,
        help="Chains with similar people's choices, where prototypes were built.",
    ),
]
EmbedderOption = Annotated[
    str | None,
    typer.Option("--embedder", help="What `pgenrm prototypes build --embedder` was given, if so."),
]
SureOption = Annotated[
    float | None,
    typer.Option(
        "--stop-when-sure",
        min=0.5,
        max=1.0,
        help="End early once the best answer is the best with this probability.",
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(min=0, max=2**31 - 1, help="Seed; drawn and reported if not given."),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Model folder or name; the bundled model if not given."),
]
EngineOption = Annotated[str | None, typer.Option("--engine", help="transformers, vllm or openai.")]


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"pgenrm-agent {version('pgenrm-agent')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    as_json: JsonOption = False,
    individual: IndividualOption = 8,
    seed: SeedOption = 7,
    memory: Annotated[
        Path | None, typer.Option(help="Keep the demo's memory in this folder.")
    ] = None,
) -> None:
    """Score the same three answers for three different people."""
    import tempfile

    from pgenrm_agent.demo import demo_data, run_demo

    with _waiting("sampling evaluation chains"), tempfile.TemporaryDirectory() as scratch:
        results = run_demo(memory or Path(scratch), scaling=_scaling(individual, seed))
    data = demo_data()
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "query": data.query,
                    "people": {
                        person.id: {"about": person.about, **_summary(results[person.id])}
                        for person in data.people
                    },
                }
            )
        )
        return
    from pgenrm_agent.cli.output import print_evaluation, print_notice

    print_notice()
    for person in data.people:
        print_evaluation(results[person.id], title=f"{person.id}, {person.about}")


@app.command()
def score(
    user: UserOption,
    query: QueryOption,
    candidates: CandidatesArgument,
    individual: IndividualOption = 8,
    prototype: PrototypeOption = 4,
    sure: SureOption = None,
    seed: SeedOption = None,
    memory: MemoryOption = None,
    model: ModelOption = None,
    engine: EngineOption = None,
    embedder: EmbedderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score candidate answers for one person, and show why."""
    with (
        _reward_model(memory, model, engine, embedder=embedder) as reward_model,
        _waiting("sampling evaluation chains"),
    ):
        result = reward_model.score(
            user, query, _answers(candidates), scaling=_scaling(individual, seed, prototype, sure)
        )
    if as_json:
        typer.echo(result.model_dump_json())
        return
    from pgenrm_agent.cli.output import print_evaluation, print_notice

    if model is None:
        print_notice()
    print_evaluation(result, title=user)


@app.command()
def rerank(
    user: UserOption,
    query: QueryOption,
    candidates: CandidatesArgument,
    individual: IndividualOption = 8,
    prototype: PrototypeOption = 4,
    sure: SureOption = None,
    seed: SeedOption = None,
    memory: MemoryOption = None,
    model: ModelOption = None,
    engine: EngineOption = None,
    embedder: EmbedderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Order candidate answers by how much one person would like them."""
    with (
        _reward_model(memory, model, engine, embedder=embedder) as reward_model,
        _waiting("sampling evaluation chains"),
    ):
        result = reward_model.rerank(
            user, query, _answers(candidates), scaling=_scaling(individual, seed, prototype, sure)
        )
    if as_json:
        typer.echo(json.dumps([item.model_dump() for item in result]))
        return
    from pgenrm_agent.cli.output import print_notice, print_ranking

    if model is None:
        print_notice()
    print_ranking(result.evaluation)


@users.command("list")
def list_users(memory: MemoryOption = None, as_json: JsonOption = False) -> None:
    """Everyone in the memory."""
    with _memory(memory) as store:
        found = store.users()
    if as_json:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in found]))
        return
    if not found:
        typer.echo("Nobody is remembered yet: pgenrm users remember --help")
        return
    from pgenrm_agent.cli.output import print_users

    print_users(found)


@users.command()
def show(user: str, memory: MemoryOption = None, as_json: JsonOption = False) -> None:
    """One person's past choices and stated preferences."""
    with _memory(memory) as store:
        signals = store.recall(user, selection="recent")
    if as_json:
        typer.echo(signals.model_dump_json())
        return
    from pgenrm_agent.cli.output import print_signals

    print_signals(signals)


@users.command()
def remember(
    user: str,
    query: QueryOption,
    chosen: Annotated[str, typer.Option(help="The answer the person preferred, or @FILE.")],
    rejected: Annotated[str, typer.Option(help="The answer the person liked less, or @FILE.")],
    memory: MemoryOption = None,
) -> None:
    """Remember one choice of a person; prints its id."""
    from pgenrm_agent.schema import PreferencePair

    with _valid_input():
        pair = PreferencePair(query=query, chosen=_text(chosen), rejected=_text(rejected))
    with _memory(memory) as store:
        typer.echo(store.remember(user, pair))


@users.command()
def state(user: str, text: str, memory: MemoryOption = None) -> None:
    """Remember what a person says they want; prints its id."""
    from pgenrm_agent.schema import StatedPreference

    with _valid_input():
        stated = StatedPreference(text=text)
    with _memory(memory) as store:
        typer.echo(store.state(user, stated))


@users.command()
def forget(
    user: str,
    memory: MemoryOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove every trace of a person."""
    if not yes:
        typer.confirm(f"Forget everything about {user}?", abort=True)
    with _memory(memory) as store:
        typer.echo(f"{store.forget(user)} entries removed")


@users.command()
def consent(
    user: str,
    give: Annotated[
        bool, typer.Option("--give/--withdraw", help="May others learn from this person?")
    ],
    memory: MemoryOption = None,
) -> None:
    """Whether a person's choices may take part in the evaluations of similar people."""
    with _memory(memory) as store:
        store.set_consent(user, give)
    typer.echo(f"{user}: {'may' if give else 'may not'} take part in evaluations of similar people")


@users.command("export")
def export_users(
    user: Annotated[str | None, typer.Argument(help="One person; everyone if not given.")] = None,
    memory: MemoryOption = None,
) -> None:
    """Write the memory to standard output, one JSON object a line."""
    with _memory(memory) as store:
        for row in store.export(user):
            typer.echo(json.dumps(row, ensure_ascii=False))


@users.command("import")
def import_users(
    file: Annotated[Path, typer.Argument(help="What `pgenrm users export` wrote.")],
    memory: MemoryOption = None,
) -> None:
    """Read an export back."""
    if not file.is_file():
        raise typer.BadParameter(f"{file}: no such file")
    with (
        _waiting("reading"),
        _memory(memory) as store,
        file.open(encoding="utf-8") as lines,
    ):
        typer.echo(f"{store.import_(lines, source=str(file))} entries read")


KeysOption = Annotated[
    Path | None,
    typer.Option("--keys", help="File of the keys; `keys.jsonl` in the data folder if not given."),
]
HostOption = Annotated[str, typer.Option(help="Address to listen on.")]


@keys.command("add")
def add_key(
    tenant: Annotated[str, typer.Argument(help="Whose users and memory the key opens.")],
    file: KeysOption = None,
) -> None:
    """Make a key for a tenant. It is shown this once; only its hash is kept."""
    key, issued = _keys(file).issue(tenant)
    typer.echo(f"key {issued.id} for tenant {tenant}, shown only now:", err=True)
    typer.echo(key)


@keys.command("list")
def list_keys(file: KeysOption = None, as_json: JsonOption = False) -> None:
    """The keys in force: id, tenant, when made."""
    found = [one.model_dump(mode="json", exclude={"digest"}) for one in _keys(file).issued()]
    if as_json:
        typer.echo(json.dumps(found))
        return
    for one in found:
        typer.echo(f"{one['id']}  {one['tenant']}  {one['created_at']}")


@keys.command("revoke")
def revoke_key(
    identity: Annotated[str, typer.Argument(metavar="ID", help="As `pgenrm keys list` shows it.")],
    file: KeysOption = None,
) -> None:
    """Take a key out of force, at once."""
    typer.echo(f"key {identity} of tenant {_keys(file).revoke(identity).tenant} is revoked")


@app.command()
def serve(
    host: HostOption = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    key_file: KeysOption = None,
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="Let everybody in who is on this machine.")
    ] = False,
    running: Annotated[int, typer.Option(min=1, help="Evaluations at the same time.")] = 16,
    waiting: Annotated[int, typer.Option(min=0, help="Evaluations that may wait.")] = 48,
    individual: IndividualOption = 8,
    prototype: PrototypeOption = 4,
    memory: MemoryOption = None,
    model: ModelOption = None,
    engine: EngineOption = None,
    embedder: EmbedderOption = None,
) -> None:
    """Serve over HTTP: score, rerank, preferences, metrics. OpenAPI at /docs."""
    import uvicorn

    from pgenrm_agent.integrations.loopback import refuse_other_machines
    from pgenrm_agent.integrations.server import Limits, create_app

    if no_keys:
        refuse_other_machines(
            host,
            "leave out --no-keys (`pgenrm keys add TENANT` makes a key), or leave out --host to serve "
            "this machine alone",
        )
    ring = None if no_keys else _keys_in_force(key_file)
    limits = Limits(running=running, waiting=waiting)
    with _reward_model(
        memory, model, engine, _scaling(individual, None, prototype), embedder
    ) as reward_model:
        folder = None if ring is None else _tenants_folder(memory)
        failed: list[PGenRMError] = []

        def prepared(failure: PGenRMError | None) -> None:
            if failure is None:
                typer.echo("ready", err=True)
            else:
                failed.append(failure)
                server.should_exit = True

        app = create_app(
            reward_model, keys=ring, tenants_folder=folder, limits=limits, on_prepared=prepared
        )
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_level="warning",
                timeout_graceful_shutdown=limits.shutdown_s,
            )
        )
        typer.echo(f"serving on http://{host}:{port}, docs at /docs; loading the model", err=True)
        with suppress(KeyboardInterrupt):
            server.run()
        if failed:
            raise failed[0]
        if not server.started:  # uvicorn has said why
            raise typer.Exit(1)


@app.command()
def mcp(
    http: Annotated[
        bool, typer.Option("--http", help="Streamable HTTP instead of standard input and output.")
    ] = False,
    host: HostOption = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8001,
    tenant: Annotated[
        str | None,
        typer.Option(help="With --http: serve this tenant's memory, to holders of its keys."),
    ] = None,
    key_file: KeysOption = None,
    user: Annotated[
        str | None,
        typer.Option(
            "--user", "-u", help="Whose taste counts; else each tool call names somebody."
        ),
    ] = None,
    individual: IndividualOption = 8,
    prototype: PrototypeOption = 4,
    memory: MemoryOption = None,
    model: ModelOption = None,
    engine: EngineOption = None,
    embedder: EmbedderOption = None,
) -> None:
    """Serve the Model Context Protocol: tools score, rerank, remember, state_preference, forget."""
    from pgenrm_agent.integrations.mcp.server import create_mcp_server

    ring = None
    if tenant is not None:
        from pgenrm_agent.integrations.keys import valid_tenant

        if not http:
            raise typer.BadParameter(
                "--tenant goes with --http: nobody else reads a process's pipes"
            )
        ring = _keys_in_force(key_file, valid_tenant(tenant))
        memory = str(_tenants_folder(memory) / tenant)
    elif http:
        from pgenrm_agent.integrations.loopback import refuse_other_machines

        refuse_other_machines(
            host, "name a --tenant whose keys open it (`pgenrm keys add TENANT` makes one)"
        )
    with _reward_model(
        memory, model, engine, _scaling(individual, None, prototype), embedder
    ) as reward_model:
        reward_model.prepare()
        server = create_mcp_server(reward_model, user_id=user)
        if http:
            import uvicorn

            from pgenrm_agent.integrations.mcp.http import create_mcp_app

            typer.echo(f"serving MCP on http://{host}:{port}/mcp", err=True)
            guarded = create_mcp_app(server, keys=ring, tenant=tenant or "", host=host)
            uvicorn.run(
                guarded,
                host=host,
                port=port,
                log_level="warning",
                # A client's open event stream would otherwise hold the process for ever.
                timeout_graceful_shutdown=MCP_SHUTDOWN_S,
            )
        else:
            server.run("stdio")


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """What is installed, which engines work here, and where the data is."""
    from pgenrm_agent.cli.doctor import examine

    with _waiting("looking"):
        report = examine()
    if as_json:
        typer.echo(report.model_dump_json())
    else:
        from pgenrm_agent.cli.output import print_doctor

        print_doctor(report)
    if not report.works:
        raise typer.Exit(1)


@app.command()
def bench(
    engine: Annotated[
        list[str] | None,
        typer.Option(help="transformers or vllm; repeat for both. All that are installed if none."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Evaluations per figure.")] = 3,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="overhead, samples, callers, scheduling, memory, parser, prototypes, start or all;"
            " repeat for several. overhead, samples, parser and start if none."
        ),
    ] = None,
    interactions: Annotated[
        list[int] | None,
        typer.Option(min=100, help="Size of a memory store to fill and measure; repeat. 10,000."),
    ] = None,
    members: Annotated[
        int, typer.Option(min=100, help="Personas in the prototypes to find similar people among.")
    ] = 10_000,
    plot: Annotated[
        Path | None, typer.Option(help="Draw what was varied into this SVG file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure speed on this machine, as ratios within one run."""
    from pgenrm_agent.benchmarks.speed import measure_speed

    with _waiting("measuring") as show:
        report = measure_speed(
            engine or (),
            repeats=repeats,
            parts=part or (),
            interactions=interactions or (10_000,),
            members=members,
            progress=show,
        )
    if plot is not None:
        from pgenrm_agent.benchmarks.plot import draw_speed

        draw_speed(report, plot)
    if as_json:
        typer.echo(report.model_dump_json())
        return
    from pgenrm_agent.cli.output import print_speed

    print_speed(report)


@app.command("score-dataset")
def score_dataset(
    source: Annotated[Path, typer.Argument(help="Parquet file: user_id, query, candidates, ...")],
    target: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    individual: IndividualOption = 8,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="Rows at the same time, a model.")] = 16,
    ray_workers: Annotated[
        int | None, typer.Option("--ray", min=1, help="Ray workers, each with its own model.")
    ] = None,
    gpus: Annotated[float, typer.Option(min=0.0, help="GPUs a Ray worker.")] = 0.0,
    memory: MemoryOption = None,
    model: ModelOption = None,
    engine: EngineOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score every row of a Parquet file into another one; started again, it goes on."""
    from functools import partial

    from pgenrm_agent.integrations.dataset_scoring import DatasetJob, in_process
    from pgenrm_agent.integrations.dataset_scoring import score_dataset as score_all
    from pgenrm_agent.progress import counting
    from pgenrm_agent.reward_model import PGenRM

    job = DatasetJob(
        model=model or "bundled",
        engine=engine or "transformers",
        scaling=_scaling(individual, None),
        seed=seed,
    )
    with counting("rows") as progress:
        if ray_workers is not None:
            from pgenrm_agent.integrations.ray_scoring import on_ray

            make = partial(PGenRM, model, engine=engine, memory=memory)  # type: ignore[arg-type]
            run = on_ray(make, workers=ray_workers, gpus=gpus, batch=concurrency)
            summary = score_all(source, target, job, run, progress=progress)
        else:
            with _reward_model(memory, model, engine) as reward_model:
                run = in_process(reward_model, concurrency=concurrency)
                summary = score_all(source, target, job, run, progress=progress)
    if as_json:
        typer.echo(summary.model_dump_json())
        return
    resumed = f", {summary.resumed} of them by an earlier start" if summary.resumed else ""
    typer.echo(f"{summary.rows} rows{resumed}: {summary.scored} scored, {target}")
    for reason, count in summary.reasons.items():
        typer.echo(f"{count} not scored in full: {reason}", err=True)


# --- shared by the commands ---


def _scaling(
    individual: int, seed: int | None, prototype: int = 4, sure: float | None = None
) -> Scaling:
    from pgenrm_agent.schema import Scaling

    if sure is not None and not 0.5 < sure < 1:
        raise typer.BadParameter(f"--stop-when-sure {sure:g}: use more than 0.5 and less than 1")
    return Scaling(individual=individual, prototype=prototype, seed=seed, stop_when_sure=sure)


def _text(given: str) -> str:
    """The argument itself, or the text of the file that @FILE names."""
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{given[1:]}: cannot be read as text ({error})") from error


def _answers(given: list[str]) -> list[str | Candidate]:
    """The answers that the arguments name, in order."""
    found: list[str | Candidate] = []
    for one in given:
        if one.startswith("@") and one.endswith(".jsonl"):
            lines = _text(one).splitlines()
            found += [
                _answer(line, where=f"{one[1:]}, line {number}")
                for number, line in enumerate(lines, start=1)
                if line.strip()
            ]
        else:
            found.append(_text(one))
    return found


def _answer(line: str, *, where: str) -> str | Candidate:
    """One line of a JSONL file of answers."""
    from pgenrm_agent.schema import Candidate

    try:
        row = json.loads(line)
    except ValueError as error:
        raise typer.BadParameter(f"{where}: not JSON: {error}") from error
    if isinstance(row, str):
        return row
    with _valid_input(where):
        return Candidate.model_validate(row)


@contextmanager
def _valid_input(where: str = "") -> Iterator[None]:
    """Say in one line what is wrong with an argument."""
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise typer.BadParameter(": ".join(filter(None, (where, field, first["msg"])))) from error


@contextmanager
def _memory(wanted: str | None) -> Iterator[UserMemory]:
    from pgenrm_agent.memory import UserMemory

    url = wanted if wanted and wanted.startswith(("http://", "https://")) else None
    with UserMemory(None if url else wanted, url=url) as store:
        yield store


@contextmanager
def _reward_model(
    memory: str | None,
    model: str | None,
    engine: str | None,
    scaling: Scaling | None = None,
    embedder: str | None = None,
) -> Iterator[PGenRM]:
    from pgenrm_agent.cli.prototypes import embedder_named
    from pgenrm_agent.reward_model import PGenRM

    if engine not in (None, "transformers", "vllm", "openai"):
        raise typer.BadParameter(f"engine {engine!r}: use transformers, vllm or openai")
    with PGenRM(
        model,
        engine=engine,  # type: ignore[arg-type]
        memory=memory,
        scaling=scaling,
        persona_embedder=embedder_named(embedder),
    ) as reward_model:
        yield reward_model


def _keys(file: Path | None) -> KeyRing:
    from pgenrm_agent.integrations.keys import KeyRing
    from pgenrm_agent.memory import default_directory

    return KeyRing(file or default_directory().parent / "keys.jsonl")


def _keys_in_force(file: Path | None, tenant: str | None = None) -> KeyRing:
    """The keys; refuses to serve when there are none (of that tenant): nobody would be answered."""
    ring = _keys(file)
    if tenant is not None and all(one.tenant != tenant for one in ring.issued()):
        raise ConfigurationError(
            f"{ring.path} holds no key of {tenant}, so nobody could call: make one with "
            f"`pgenrm keys add {tenant}`"
        )
    if not ring.issued():
        raise ConfigurationError(
            f"{ring.path} holds no keys, so nobody could call: make one with `pgenrm keys add "
            "TENANT`, or let everybody on this machine in with --no-keys"
        )
    return ring


def _tenants_folder(memory: str | None) -> Path:
    from pgenrm_agent.memory import default_directory

    if memory and memory.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"--memory {memory} is one Chroma server for everybody, and tenants with keys get a "
            "folder each: name a folder, or serve one tenant with --no-keys"
        )
    return Path(memory) if memory else default_directory().parent / "tenants"


@contextmanager
def _waiting(what: str) -> Iterator[Callable[[str], None]]:
    """A spinner on standard error while something takes long; nothing where nobody watches.

    Gives a function that changes the text beside it.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status(f"{what} ...") as status:
        yield lambda text: status.update(f"{text} ...")


def _summary(result: Evaluation) -> dict[str, object]:
    """An evaluation for programs: ranking, scores, and the chain nearest to the mean."""
    from pgenrm_agent.aggregation import typical_chain

    chain = typical_chain(result)
    return {
        "ranking": list(result.ranking),
        "scores": [score.model_dump() for score in result.scores],
        "persona": chain.persona.text,
        "rubric": [criterion.model_dump() for criterion in chain.rubric.criteria]
        if chain.rubric
        else [],
        "marks": chain.marks,
        "totals": chain.totals,
        "totals_from": chain.totals_from,
        "chains": len(result.chains),
        "failures": len(result.failures),
        "seed": result.seed,
    }


def main() -> None:
    """Run `pgenrm`: what each group of commands adds is put together here."""
    from pgenrm_agent.cli.debug import app as debug
    from pgenrm_agent.cli.eval import app as evaluation
    from pgenrm_agent.cli.prototypes import app as prototypes
    from pgenrm_agent.cli.studio import studio
    from pgenrm_agent.cli.train import app as train

    app.add_typer(debug, name="debug")
    app.add_typer(evaluation, name="eval")
    app.command()(studio)
    app.add_typer(train, name="train")
    app.add_typer(prototypes, name="prototypes")
    run(app)


def run(commands: typer.Typer) -> None:
    """Run a command line; errors raised on purpose become one line and exit code 1."""
    try:
        commands()
    except PGenRMError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from error
    except ModuleNotFoundError as error:
        extra = OPTIONAL.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        typer.echo(
            f"error: this needs {error.name}, which is not installed:"
            f" pip install 'pgenrm-agent[{extra}]'",
            err=True,
        )
        raise SystemExit(1) from error
