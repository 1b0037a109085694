"""`pgenrm serve` and `pgenrm mcp`: the servers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgenrm_agent.cli.costs import prices_of
from pgenrm_agent.cli.engine_choice import EngineChoice, chooses_engine
from pgenrm_agent.cli.keys import keys_in_force
from pgenrm_agent.cli.listening import address_of, listening
from pgenrm_agent.cli.options import (
    CacheOption,
    EmbedderOption,
    IndividualOption,
    KeysOption,
    MemoryOption,
    ModelOption,
    OnlyUserOption,
    PastChoicesOption,
    PricesOption,
    PrototypeOption,
    SeedOption,
    ServerOption,
    SureOption,
    from_setting,
)
from pgenrm_agent.cli.resources import (
    check_server,
    open_cache,
    open_judge,
    open_reward_model,
    scaling_of,
)
from pgenrm_agent.errors import ConfigurationError, PGenRMError
from pgenrm_agent.extras import require
from pgenrm_agent.files import is_address

if TYPE_CHECKING:
    import socket

    from mcp.server.mcpserver import MCPServer

    from pgenrm_agent.integrations.keys import KeyRing
    from pgenrm_agent.integrations.server import Limits
    from pgenrm_agent.reward_model import PGenRM

MCP_SHUTDOWN_S = 30
"""How long the clients of `pgenrm mcp --http` get to finish when it is stopped."""


@chooses_engine
def serve(
    *,
    host: Annotated[
        str, typer.Option("--host", help="Address.", **from_setting("serve_host", "127.0.0.1"))
    ],
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, **from_setting("serve_port", "8000"))
    ],
    key_file: KeysOption,
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="Let everybody in who is on this machine.")
    ] = False,
    running: Annotated[
        int,
        typer.Option(
            "--running",
            min=1,
            help="Evaluations at the same time.",
            **from_setting("serve_running", "16"),
        ),
    ],
    queued: Annotated[
        int,
        typer.Option(
            "--waiting",
            min=0,
            help="Evaluations that may wait.",
            **from_setting("serve_waiting", "48"),
        ),
    ],
    cors: Annotated[
        str | None,
        typer.Option(
            "--cors",
            metavar="ORIGIN,...",
            help="Sites whose pages may call the server from a browser, such as"
            " https://app.example.com; * for all.",
            **from_setting("serve_cors", "none"),
        ),
    ],
    individual: IndividualOption,
    prototype: PrototypeOption,
    history: PastChoicesOption,
    sure: SureOption,
    seed: SeedOption,
    memory: MemoryOption,
    model: ModelOption,
    engine: EngineChoice,
    embedder: EmbedderOption,
    prices: PricesOption,
    cache: CacheOption,
) -> None:
    """Serve over HTTP: score, rerank, preferences, metrics. OpenAPI at /docs."""
    require("pgenrm serve", "fastapi", "prometheus_client", "uvicorn", extra="server")
    from pgenrm_agent.integrations.loopback import refuse_other_machines
    from pgenrm_agent.integrations.server import Limits

    if no_keys:
        refuse_other_machines(
            host,
            "leave out --no-keys (`pgenrm keys add TENANT` makes a key), or leave out --host to serve "
            "this machine alone",
        )
    ring = None if no_keys else keys_in_force(key_file)
    folder = None if ring is None else _tenants_folder(memory)
    origins = tuple(origin.strip() for origin in (cors or "").split(",") if origin.strip())
    with (
        listening(host, port) as bound,
        open_cache(cache) as kept,
        open_reward_model(
            memory,
            model,
            engine,
            scaling=scaling_of(individual, prototype, history=history, sure=sure, seed=seed),
            embedder=embedder,
            prices=prices_of(prices),
            cache=kept,
        ) as reward_model,
    ):
        _run_server(
            reward_model,
            ring,
            folder,
            Limits(running=running, waiting=queued),
            origins,
            bound,
            host=host,
        )


@chooses_engine
def mcp(
    context: typer.Context,
    *,
    http: Annotated[
        bool, typer.Option("--http", help="Streamable HTTP instead of standard input and output.")
    ] = False,
    host: Annotated[
        str,
        typer.Option(
            "--host", help="Address, with --http.", **from_setting("mcp_host", "127.0.0.1")
        ),
    ],
    port: Annotated[
        int,
        typer.Option(
            "--port", min=0, max=65535, help="With --http.", **from_setting("mcp_port", "8001")
        ),
    ],
    tenant: Annotated[
        str | None,
        typer.Option(help="With --http: serve this tenant's memory, to holders of its keys."),
    ] = None,
    key_file: KeysOption,
    user: OnlyUserOption,
    server: ServerOption,
    individual: IndividualOption,
    prototype: PrototypeOption,
    history: PastChoicesOption,
    sure: SureOption,
    seed: SeedOption,
    memory: MemoryOption,
    model: ModelOption,
    engine: EngineChoice,
    embedder: EmbedderOption,
    prices: PricesOption,
    cache: CacheOption,
) -> None:
    """Serve the Model Context Protocol: tools to score, rerank, remember, list, correct and forget."""
    require("pgenrm mcp", "mcp")
    from pgenrm_agent.integrations.mcp.server import create_mcp_server, load_when_met
    from pgenrm_agent.reward_model import PGenRM

    check_server(context, server)
    ring = None
    if tenant is not None:
        from pgenrm_agent.integrations.keys import valid_tenant

        if not http:
            raise typer.BadParameter(
                "--tenant goes with --http: nobody else reads a process's pipes"
            )
        ring = keys_in_force(key_file, valid_tenant(tenant))
        memory = str(_tenants_folder(memory) / tenant)
    elif http:
        from pgenrm_agent.integrations.loopback import refuse_other_machines

        refuse_other_machines(
            host, "name a --tenant whose keys open it (`pgenrm keys add TENANT` makes one)"
        )
    with (
        listening(host, port) if http else nullcontext() as bound,
        open_cache(None if server else cache) as kept,
        open_judge(
            server,
            memory,
            model,
            engine,
            scaling=scaling_of(individual, prototype, history=history, sure=sure, seed=seed),
            embedder=embedder,
            prices=prices_of(prices),
            cache=kept,
        ) as judge,
    ):
        mcp_server = create_mcp_server(judge, user_id=user)
        if bound is None:
            if isinstance(judge, PGenRM):
                load_when_met(mcp_server, judge)
            mcp_server.run("stdio")
            return
        if isinstance(judge, PGenRM):
            judge.prepare()
        _run_mcp_server(mcp_server, ring, tenant, bound, host=host)


def _run_mcp_server(
    server: MCPServer, ring: KeyRing | None, tenant: str | None, bound: socket.socket, *, host: str
) -> None:
    """Serve MCP over HTTP until stopped."""
    import uvicorn

    from pgenrm_agent.integrations.mcp.http import create_mcp_app
    from pgenrm_agent.integrations.slow_clients import giving_up

    config = uvicorn.Config(
        create_mcp_app(server, keys=ring, tenant=tenant or "", host=host),
        log_level="warning",
        http=giving_up(),
        # A client's open event stream would otherwise hold the process for ever.
        timeout_graceful_shutdown=MCP_SHUTDOWN_S,
    )
    typer.echo(f"serving MCP on {address_of(bound, host)}/mcp", err=True)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[bound])


def _run_server(
    reward_model: PGenRM,
    ring: KeyRing | None,
    tenants_folder: Path | None,
    limits: Limits,
    origins: Sequence[str],
    bound: socket.socket,
    *,
    host: str,
) -> None:
    """Serve until stopped; a model that cannot be loaded ends the server with its error."""
    import uvicorn

    from pgenrm_agent.integrations.server import create_app
    from pgenrm_agent.integrations.slow_clients import giving_up

    failures: list[PGenRMError] = []

    def on_prepared(failure: PGenRMError | None) -> None:
        if failure is None:
            typer.echo("ready", err=True)
        else:
            failures.append(failure)
            server.should_exit = True

    server = uvicorn.Server(
        uvicorn.Config(
            create_app(
                reward_model,
                keys=ring,
                tenants_folder=tenants_folder,
                limits=limits,
                cors=origins,
                on_prepared=on_prepared,
            ),
            log_level="warning",
            http=giving_up(),
            timeout_graceful_shutdown=limits.shutdown_s,
        )
    )
    address = address_of(bound, host)
    typer.echo(f"serving on {address}, docs at /docs; loading the model", err=True)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[bound])
    if failures:
        raise failures[0]
    if not server.started:  # uvicorn has said why
        raise typer.Exit(1)


def _tenants_folder(memory: str | None) -> Path:
    from pgenrm_agent.settings import data_folder

    if is_address(memory):
        raise ConfigurationError(
            f"--memory {memory} is one Chroma server for everybody, and tenants with keys get a "
            "folder each: name a folder, or serve one tenant with --no-keys"
        )
    return Path(memory).expanduser() if memory else data_folder() / "tenants"
