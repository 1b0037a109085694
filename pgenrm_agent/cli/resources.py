"""Open what the shared options name: the memory, the reward model, an embedder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pgenrm_agent import files
from pgenrm_agent.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from pgenrm_agent.cli.engine_choice import EngineChoice
    from pgenrm_agent.client import Client
    from pgenrm_agent.embedding import Embedder
    from pgenrm_agent.evaluation_cache import EvaluationCache
    from pgenrm_agent.memory import UserMemory
    from pgenrm_agent.reward_model import PGenRM
    from pgenrm_agent.schema import Prices, Scaling

SERVERS_OWN = frozenset(
    {
        "memory",
        "model",
        "engine",
        "base_url",
        "api_key_env",
        "max_tokens",
        "requests_per_minute",
        "chain_format",
        "embedder",
        "prices",
        "cache",
        "tenant",
    }
)
"""Options, by parameter, of what a server brings along."""


def open_memory(memory: str | None, *, made: bool = True) -> UserMemory:
    """Return the user memory that `--memory` names.

    made: whether one that is named and not there is made; for what only reads or removes it is
        refused, since a mistyped folder would be an empty memory.
    """
    from pgenrm_agent.memory import UserMemory
    from pgenrm_agent.opening import memory_exists

    if not made and memory is not None and not memory_exists(memory):
        raise ConfigurationError(
            f"there is no memory in {memory}: check the path (`pgenrm users remember` makes one)"
        )
    return UserMemory(url=memory) if files.is_address(memory) else UserMemory(memory)


@contextmanager
def open_cache(file: Path | None) -> Iterator[EvaluationCache | None]:
    """Open the cache that `--cache` names, as large and old as the settings let it be."""
    if file is None:
        yield None
        return
    from pgenrm_agent.evaluation_cache import DAY_S, EvaluationCache
    from pgenrm_agent.settings import read_settings

    settings = read_settings()
    cache = EvaluationCache(
        file.expanduser(),
        max_bytes=int(settings.cache_megabytes * 2**20),
        max_age_s=settings.cache_days * DAY_S,
    )
    try:
        yield cache
    finally:
        cache.close()


def open_embedder(name: str | None) -> Embedder | None:
    """Return the sentence-transformers model of that name, or in that folder; None for the default."""
    if name is None:
        return None
    from pgenrm_agent.embedding import SentenceTransformerEmbedder

    return SentenceTransformerEmbedder(Path(name) if Path(name).is_dir() else name)


def open_reward_model(
    memory: str | None,
    model: str | None,
    engine: EngineChoice,
    *,
    scaling: Scaling | None = None,
    embedder: str | None = None,
    prices: Prices | None = None,
    cache: EvaluationCache | None = None,
) -> PGenRM:
    """Return the reward model that the shared options describe."""
    from pgenrm_agent.reward_model import PGenRM

    return PGenRM(
        model,
        engine=engine.name,
        engine_options=engine.options,
        chain_format=engine.chain_format,
        memory=memory,
        scaling=scaling,
        persona_embedder=open_embedder(embedder),
        prices=prices,
        cache=cache,
    )


def figures_follow_from(
    engine: EngineChoice, model: str | Path | None, memory: str | None, *, similar: bool
) -> dict[str, str | None]:
    """Return what figures depend on beside the model, its engine, the scaling and the seed.

    The server, the format of chains, the memory and, where there are `similar` users, the prototypes in
    it: a run that is taken up again has to be asked in the same way.
    """
    from pgenrm_agent.opening import memory_exists
    from pgenrm_agent.prototypes import PrototypeStore

    format_ = engine.format_for(model)
    version = None
    if similar and memory_exists(memory):
        with open_memory(memory) as opened:
            version = PrototypeStore(opened).current()
    return {
        "base_url": engine.labels.get("base_url"),
        "max_tokens": engine.labels.get("max_tokens"),
        "chain_format": f"{format_.name} {format_.digest[:12]}" if format_ else None,
        "memory": absolute(memory) if memory else None,
        "prototypes": version.version if version else None,
    }


def absolute(place: str) -> str:
    """Return the name of a folder or a server as it is the same from any folder."""
    return place if files.is_address(place) else str(Path(place).expanduser().absolute())


def check_server(context: typer.Context, server: str | None) -> None:
    """Refuse options that name a memory or a model, where those of a server are used."""
    if server is None:
        return
    for name in SERVERS_OWN & context.params.keys():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(
                f"--{name.replace('_', '-')} is the business of the server at {server}: leave it out,"
                " or leave out --server and unset PGENRM_SERVER"
            )


def open_client(server: str, scaling: Scaling | None = None) -> Client:
    """Return a client of the server that `--server` names."""
    from pgenrm_agent.client import Client

    return Client(server, scaling=scaling)


def open_judge(
    server: str | None,
    memory: str | None,
    model: str | None,
    engine: EngineChoice,
    *,
    scaling: Scaling | None = None,
    embedder: str | None = None,
    prices: Prices | None = None,
    cache: EvaluationCache | None = None,
) -> PGenRM | Client:
    """Return what scores: the reward model that the options describe, or a client of a server."""
    if server is not None:
        return open_client(server, scaling)
    return open_reward_model(
        memory, model, engine, scaling=scaling, embedder=embedder, prices=prices, cache=cache
    )


def scaling_of(
    individual: int,
    prototype: int = 4,
    *,
    history: int = 3,
    sure: float | None = None,
    seed: int | None = None,
) -> Scaling:
    """Return the scaling that the shared options describe."""
    from pgenrm_agent.schema import Scaling

    if sure is not None and not 0.5 < sure < 1:
        raise typer.BadParameter(f"--stop-when-sure {sure:g}: use more than 0.5 and less than 1")
    if individual == 0 == prototype:
        raise typer.BadParameter(
            "--individual and --prototype are both 0: make one of them 1 or more"
        )
    with valid_input():
        return Scaling(
            individual=individual,
            prototype=prototype,
            history=history,
            seed=seed,
            stop_when_sure=sure,
        )


def read_text(file: Path) -> str:
    """Return the text of a file that an argument names."""
    try:
        return files.read_text(file)
    except FileNotFoundError as error:
        raise typer.BadParameter(f"{file}: no such file") from error
    except IsADirectoryError as error:
        raise typer.BadParameter(f"{file}: it is a folder; name a file in it") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file}: cannot be read as text ({error})") from error


@contextmanager
def valid_input(where: str = "") -> Iterator[None]:
    """Say in one line what is wrong with an argument."""
    try:
        yield
    except InvalidInput as error:
        raise typer.BadParameter(f"{where}: {error.details}" if where else str(error)) from error
