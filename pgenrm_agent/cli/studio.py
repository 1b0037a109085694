"""`pgenrm studio`: serve the page on this machine, and say where."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from functools import partial
from typing import Annotated

import typer

from pgenrm_agent.cli.debug_session import OF_THE_ACCOUNT, RESOURCES, labels_of, open_session
from pgenrm_agent.cli.engine_choice import EngineChoice, chooses_engine
from pgenrm_agent.cli.listening import address_of, listening
from pgenrm_agent.cli.options import (
    EmbedderOption,
    IndividualOption,
    MemoryOption,
    ModelOption,
    PastChoicesOption,
    PrototypeOption,
    SeedOption,
    StoreOption,
    from_setting,
)
from pgenrm_agent.cli.resources import open_memory, scaling_of
from pgenrm_agent.errors import PGenRMError
from pgenrm_agent.extras import require


@chooses_engine
def studio(
    context: typer.Context,
    *,
    port: Annotated[
        int,
        typer.Option(
            "--port",
            min=0,
            max=65535,
            help="0 takes a free one.",
            **from_setting("studio_port", "0"),
        ),
    ],
    store: StoreOption,
    individual: IndividualOption,
    prototype: PrototypeOption,
    history: PastChoicesOption,
    seed: SeedOption,
    memory: MemoryOption,
    model: ModelOption,
    engine: EngineChoice,
    embedder: EmbedderOption,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Step through runs in a local web page: look, edit, resume, rewind, fork, compare."""
    require("the studio", "fastapi", "uvicorn", "aiosqlite", extra="studio")
    import uvicorn

    from pgenrm_agent.integrations.slow_clients import giving_up
    from pgenrm_agent.studio.app import create_studio

    scaling = scaling_of(individual, prototype, history=history, seed=seed)
    labels = labels_of(model=model, memory=memory, embedder=embedder, **engine.labels)
    token = secrets.token_urlsafe(24)
    with ExitStack() as resources:
        bound = resources.enter_context(listening("127.0.0.1", port))
        session = resources.enter_context(open_session(store, labels, context.obj))
        address = f"{address_of(bound, '127.0.0.1')}/?token={token}"
        typer.echo(f"the studio, until Ctrl-C: {address}")
        if show:
            typer.launch(address)
        config = uvicorn.Config(
            create_studio(
                session,
                token=token,
                scaling=scaling,
                labels=labels,
                resources=[name for name in RESOURCES if name not in OF_THE_ACCOUNT],
                known_users=partial(_known_users, memory),
            ),
            log_level="warning",
            access_log=False,  # its lines would hold the token
            http=giving_up(),
            timeout_graceful_shutdown=2,
        )
        uvicorn.Server(config).run(sockets=[bound])


def _known_users(memory: str | None) -> list[str]:
    """Return who is in the memory; nobody where there is none, or another process owns it."""
    from pgenrm_agent.opening import memory_exists

    if not memory_exists(memory):
        return []
    try:
        with open_memory(memory) as store:
            return [user.user_id for user in store.users()]
    except PGenRMError:
        return []
