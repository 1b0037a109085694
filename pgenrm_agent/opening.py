"""Open what `PGenRM` was told to use: an engine, a chain format, a memory, an embedder."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pgenrm_agent.arguments import refuse_other
from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.engine_names import EngineName
from pgenrm_agent.engines import load_engine, refuse_missing
from pgenrm_agent.engines.protocol import Capabilities, Engine
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.files import is_address
from pgenrm_agent.model_files import bundled_model, model_source, named_format
from pgenrm_agent.wording import kind_of

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from pgenrm_agent.embedding import Embedder
    from pgenrm_agent.memory import UserMemory


def refuse_unusable(
    model: str | Path | BaseChatModel | None,
    engine: Engine | EngineName | None,
) -> None:
    """Before anything is opened.

    Raises ConfigurationError for arguments that do not go together, and EngineUnavailable for a path
    at which there is no model to run here.
    """
    if model is not None and engine is not None and not isinstance(engine, str):
        raise ConfigurationError(
            f"model {model!r} and a ready engine are both given, and the engine has its model "
            "already: pass one of them, or the engine's name"
        )
    if isinstance(engine, str):
        refuse_missing(engine)
    elif engine is not None:
        _refuse_no_engine(engine)
    if model is not None and not hasattr(model, "ainvoke"):
        refuse_other(model, (str, Path), "model", "a folder, a name or a LangChain chat model")
    if isinstance(model, (str, Path)) and engine in (None, "transformers", "vllm"):
        model_source(model)


def _refuse_no_engine(engine: Engine) -> None:
    if isinstance(engine, type) or not callable(getattr(engine, "sample", None)):
        refuse_other(engine, (), "engine", "an engine, or the name of one")
    refuse_other(getattr(engine, "name", None), str, "the engine's name", "a text")
    refuse_other(
        getattr(engine, "models", ()), (tuple, list), "engine.models", "folders or names in a tuple"
    )
    can = inspect.getattr_static(engine, "capabilities", None)
    if can is None:  # of an engine around another, perhaps
        can = getattr(engine, "capabilities", None)
    # A property may ask a server: it is read when it is needed.
    if not hasattr(can, "__get__") or callable(can):
        wanted = 'Capabilities(continues=..., seeds="none")'
        refuse_other(can, Capabilities, "engine.capabilities", wanted)
    if inspect.isroutine(engine.sample) and not inspect.iscoroutinefunction(engine.sample):
        raise ConfigurationError(
            f"sample of engine {engine.name} is not async: write async def sample(self, prompts, params)"
        )


def refuse_other_types(**options: object) -> None:
    """Raises ConfigurationError for an option of `PGenRM` that is of no use as that."""
    for name, value in options.items():
        kinds, methods, wanted = _WANTED[name]
        if not (value is None or (methods and all(hasattr(value, method) for method in methods))):
            refuse_other(value, kinds, name, wanted)


# By option: its types, else the methods that it needs, and how it is called in an error. The types
# themselves are in packages that take long to load.
_WANTED: Mapping[str, tuple[tuple[type, ...], tuple[str, ...], str]] = {
    "engine": ((), ("sample", "name", "aclose"), "an engine"),
    "store": ((str, Path), (), "a file's path, a PostgreSQL URL, or None"),
    "engine_options": ((Mapping,), (), "a dict of the engine's arguments"),
    "memory": (
        (str, Path),
        ("recall", "remember"),
        "a UserMemory, a folder or the URL of a Chroma server",
    ),
    "chain_format": ((ChainFormat, str, Path), (), "a format's name or folder"),
    "checkpointer": ((), ("aput", "aget_tuple"), "a LangGraph checkpointer"),
    "cache": ((), ("get", "put", "forget", "forgets"), "an EvaluationCache"),
    "persona_embedder": ((), ("embed", "name"), "an embedder, such as HashingEmbedder()"),
}


def open_engine_for(
    model: str | Path | BaseChatModel | None,
    engine: Engine | EngineName | None,
    options: Mapping[str, object],
) -> Engine:
    """Return the engine that `PGenRM(model, engine=engine, engine_options=options)` means."""
    if engine is not None and not isinstance(engine, str):
        if options:
            raise ConfigurationError(
                f"engine_options {sorted(options)} are for an engine that is opened by its name, and"
                f" {engine.name} is ready: pass them to its constructor"
            )
        return engine
    if model is None:
        if engine == "openai":
            raise ConfigurationError(
                'engine "openai" needs the name of the model that the server offers: pass model=...,'
                " or --model on the command line"
            )
        return load_engine(engine or "transformers", bundled_model(), **options)
    if isinstance(model, (str, Path)):
        return load_engine(engine or "transformers", model, **options)
    if engine is not None:
        raise ConfigurationError(
            f"engine {engine!r} cannot run {kind_of(model)}: leave engine out for a "
            "LangChain chat model, or pass a model's name"
        )
    from langchain_core.language_models import BaseChatModel

    from pgenrm_agent.engines.chat import ChatModelEngine

    if not isinstance(model, BaseChatModel):
        raise ConfigurationError(
            f"model is {kind_of(model)}: pass a folder, a name or a chat model"
        )
    try:
        return ChatModelEngine(model, **options)  # type: ignore[arg-type]
    except TypeError as error:
        raise ConfigurationError(
            f"the chat engine cannot be made with {sorted(options)}: {error}"
        ) from error


def format_for(
    model: str | Path | BaseChatModel | None,
    engine: Engine | EngineName | None,
    wanted: ChainFormat | str | Path | None,
    adapter: object = None,
) -> ChainFormat | None:
    """Return the format that is wanted, else the one of the model; None leaves it to the engine.

    adapter: as the engine's options name it.
    """
    if isinstance(wanted, ChainFormat):
        return wanted
    if wanted is not None:
        return ChainFormat.load(wanted)
    if model is None and (engine is None or isinstance(engine, str)):
        model = bundled_model()
    if not isinstance(model, (str, Path)):
        return None
    return named_format(model, adapter) if isinstance(adapter, (str, Path)) else named_format(model)


def open_memory(wanted: UserMemory | str | Path | None) -> UserMemory:
    """Return the memory that `PGenRM(memory=wanted)` means, making it when there is none."""
    from pgenrm_agent.memory import UserMemory

    if isinstance(wanted, UserMemory):
        return wanted
    return UserMemory(url=wanted) if is_address(wanted) else UserMemory(wanted)


def memory_exists(wanted: UserMemory | str | Path | None) -> bool:
    """Return whether there is such a memory already, without opening or making it."""
    if is_address(wanted) or not (wanted is None or isinstance(wanted, (str, Path))):
        return True
    from pgenrm_agent.memory import default_directory

    folder = default_directory() if wanted is None else Path(wanted).expanduser()
    try:
        return any(folder.iterdir())
    except FileNotFoundError:
        return False
    except OSError:
        return True  # Opening it tells what is wrong.


@functools.cache
def default_persona_embedder() -> Embedder:
    """Return the embedder that all share: a server has a PGenRM by tenant, and loads it once."""
    from pgenrm_agent.embedding import ModelTokensEmbedder

    return ModelTokensEmbedder(bundled_model())
