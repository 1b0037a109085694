"""Open the session of `pgenrm debug` and the studio: the store, and what a run was started with."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from pgenrm_agent.cli.engine_choice import EngineChoice
from pgenrm_agent.cli.resources import absolute, open_embedder, open_memory
from pgenrm_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from pgenrm_agent.debugging.session import DebugSession
    from pgenrm_agent.engines.protocol import Engine
    from pgenrm_agent.memory import Selection, UserMemory
    from pgenrm_agent.memory.seal import Seal
    from pgenrm_agent.prototypes import Match, Neighbors
    from pgenrm_agent.schema import UserSignals

RESOURCES = (
    *("model", "engine", "base_url", "api_key_env", "max_tokens", "requests_per_minute"),
    *("chain_format", "memory", "embedder"),
)
OF_THE_ACCOUNT = frozenset({"api_key_env", "requests_per_minute"})
"""Those that change nothing of what is written."""
SEAL = "seal"


def labels_of(**options: str | None) -> dict[str, str]:
    """Return the options that were given, as the labels that a run keeps, sealed by this machine.

    The seal tells a run that was started here from one that came from elsewhere: what such a run
    names is not opened unless the user says so.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name in {"memory", "chain_format"} & given.keys():
        if name == "memory" or "/" in given[name]:  # a folder, and not the name of a bundled format
            given[name] = absolute(given[name])
    return given | {SEAL: _seal(given)} if given else {}


@contextmanager
def session_on(
    store: str | None, engine: Engine | None = None, run: str | None = None, *, trust: bool = False
) -> Iterator[DebugSession]:
    """Open a session; with `run`, on the model, engine and memory that it was started with.

    Args:
        store: A SQLite file or a PostgreSQL URL; None for the default one.
        engine: Used instead of what the run was started with.
        run: The run that is to go on.
        trust: Whether to open what a run names that was not started here.

    Raises:
        ConfigurationError: The run names a model or a memory, and was not started here.
    """
    with open_session(store, {}, engine) as session:
        labels = {} if run is None else session.labels(run)
        named = {name: labels[name] for name in RESOURCES if name in labels}
        if not named:
            yield session
            return
    if not trust and not hmac.compare_digest(labels.get(SEAL, ""), _seal(named)):
        told = ", ".join(f"{name} {value!r}" for name, value in named.items())
        raise ConfigurationError(
            f"run {run} was not started here, and going on with it opens what it names ({told}): if "
            "you know these, say so with --trust"
        )
    with open_session(store, named, engine) as session:
        yield session


@contextmanager
def looking_at(store: str | None, run: str) -> Iterator[DebugSession]:
    """Open a session to look at a run: on the memory of its similar users, if it was started here.

    No model is opened.

    Raises:
        ConfigurationError: There is no such run.
    """
    with open_session(store, {}) as session:
        labels = session.labels(run)
        named = {name: labels[name] for name in RESOURCES if name in labels}
        known = {name: named[name] for name in named if name in ("memory", "embedder")}
        if not known or not hmac.compare_digest(labels.get(SEAL, ""), _seal(named)):
            yield session
            return
    with open_session(store, known) as session:
        yield session


@contextmanager
def open_session(
    store: str | None, named: Mapping[str, str], engine: Engine | None = None
) -> Iterator[DebugSession]:
    """Open a session on the model, engine, memory and embedder that are named, or on the defaults.

    engine: used instead of the one that is named.
    """
    from pgenrm_agent.debugging.session import DebugSession
    from pgenrm_agent.graphs.run_store import default_store
    from pgenrm_agent.model_files import bundled_model

    with ExitStack() as resources:
        chain_format = None
        if engine is None and {"model", "engine", "base_url", "chain_format"} & named.keys():
            model = named.get("model") or bundled_model()
            choice = EngineChoice.from_labels(named)
            chain_format = choice.format_for(model)
            engine = opened = choice.open(model)
            resources.callback(lambda: asyncio.run(opened.aclose()))
        known = _Remembered(named.get("memory"), named.get("embedder"))
        resources.callback(known.close)
        yield resources.enter_context(
            DebugSession(
                store or default_store(),
                engine=engine,
                chain_format=chain_format,
                memory=known,
                neighbors=known,
            )
        )


class _Remembered:
    """The memory of a session and who is similar in it, opened by the first node that asks.

    So a store can be looked at while another process owns the memory.
    """

    def __init__(self, memory: str | None, embedder: str | None) -> None:
        self._wanted = memory
        self._embedder = embedder

    @cached_property
    def memory(self) -> UserMemory:
        return open_memory(self._wanted)

    @cached_property
    def _neighbors(self) -> Neighbors:
        from pgenrm_agent.opening import default_persona_embedder
        from pgenrm_agent.prototypes import Neighbors

        embedder = open_embedder(self._embedder) or default_persona_embedder()
        # Personas can be made up here: nobody joins a prototype with one.
        return Neighbors(self.memory, embedder, joining=False)

    def recall(
        self,
        user_id: str,
        *,
        query: str | None = None,
        limit: int | None = None,
        selection: Selection = "random",
        seed: int = 0,
    ) -> UserSignals:
        return self.memory.recall(user_id, query=query, limit=limit, selection=selection, seed=seed)

    def version(self) -> str | None:
        from pgenrm_agent.opening import memory_exists

        return self._neighbors.version() if memory_exists(self._wanted) else None

    def match(self, user_id: str, personas: Sequence[str], query: str, count: int) -> Match | None:
        return self._neighbors.match(user_id, personas, query, count)

    def seal(self, user_id: str, text: str) -> str:
        return self._seal.seal(user_id, text)

    def seal_beside(self, sealed: str, text: str) -> str:
        return self._seal.seal_beside(sealed, text)

    def unseal(self, sealed: Iterable[str]) -> dict[str, str]:
        from pgenrm_agent.opening import memory_exists

        return self._seal.unseal(sealed) if memory_exists(self._wanted) else {}

    @cached_property
    def _seal(self) -> Seal:
        from pgenrm_agent.memory.seal import Seal

        return Seal(self.memory)

    def close(self) -> None:
        if "memory" in vars(self):
            self.memory.close()


def _seal(named: Mapping[str, str]) -> str:
    """Return what only this user on this machine can make of these names, with a key kept at home."""
    from pgenrm_agent.files import write_text
    from pgenrm_agent.settings import data_folder

    file = data_folder() / "runs.key"
    if not file.is_file():
        write_text(file, secrets.token_hex(32), private=True)
    text = json.dumps(sorted(named.items()))
    return hmac.new(file.read_bytes(), text.encode(), hashlib.sha256).hexdigest()[:32]
