"""Open the session of `pgenrm debug` and the studio: the store, and what a run was started with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pgenrm_agent.cli.engine_choice import EngineChoice
from pgenrm_agent.cli.resources import open_memory

if TYPE_CHECKING:
    from pgenrm_agent.debugging.session import DebugSession
    from pgenrm_agent.engines.protocol import Engine

__all__ = ["labels_of", "open_session", "session_on"]

RESOURCE_LABELS = frozenset({"model", "engine", "memory", "similar"})


def labels_of(**options: str | None) -> dict[str, str]:
    """Return the options that were given, as the labels that a run keeps."""
    return {name: value for name, value in options.items() if value is not None}


@contextmanager
def session_on(
    store: str | None, engine: Engine | None = None, run: str | None = None
) -> Iterator[DebugSession]:
    """Open a session; with `run`, on the model, engine and memory that it was started with."""
    from pgenrm_agent.debugging.session import DebugSession
    from pgenrm_agent.debugging.store import default_store

    where = store or default_store()
    with DebugSession(where, engine=engine) as session:
        labels = session.labels(run) if run is not None and engine is None else {}
        if not RESOURCE_LABELS & labels.keys():
            yield session
            return
    with ExitStack() as resources, _session_of(where, labels, resources) as session:
        yield session


def open_session(
    store: str | None, labels: dict[str, str], resources: ExitStack, *, engine: Engine | None = None
) -> DebugSession:
    """Return a session on the model, engine and memory that `labels` name.

    It is closed with `resources`. engine: used instead of the one that `labels` name.
    """
    from pgenrm_agent.debugging.session import DebugSession
    from pgenrm_agent.debugging.store import default_store

    where = store or default_store()
    if engine is not None:
        session = DebugSession(where, engine=engine)
    elif labels:
        session = _session_of(where, labels, resources)
    else:
        session = DebugSession(where)
    return resources.enter_context(session)


def _session_of(where: str | Path, labels: dict[str, str], resources: ExitStack) -> DebugSession:
    from pgenrm_agent.debugging.session import DebugSession
    from pgenrm_agent.model_files import bundled_model, named_format

    model: str | Path = labels.get("model") or bundled_model()
    engine = EngineChoice.from_labels(labels).open(model)
    resources.callback(lambda: asyncio.run(engine.aclose()))
    memory = None
    neighbors = None
    if {"memory", "similar"} & labels.keys():
        memory = open_memory(labels.get("memory"))
        resources.callback(memory.close)
    if "similar" in labels and memory is not None:
        from pgenrm_agent.embedding import ModelTokensEmbedder
        from pgenrm_agent.prototypes import Neighbors

        # Personas can be made up here: nobody joins a prototype with one.
        neighbors = Neighbors(memory, ModelTokensEmbedder(bundled_model()), joining=False)
    return DebugSession(
        where,
        engine=engine,
        chain_format=named_format(model),
        memory=memory,
        neighbors=neighbors,
    )
