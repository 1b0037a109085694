"""Engines: the generative models behind an evaluation. Each is loaded only when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from pgenrm_agent.arguments import refuse_other
from pgenrm_agent.engine_names import ENGINES, EngineName
from pgenrm_agent.engines.protocol import Capabilities, Completion, Engine, Prompt, SamplingParams
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.extras import require

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Capabilities",
    "Completion",
    "Engine",
    "Prompt",
    "SamplingParams",
    "load_engine",
    "refuse_missing",
]

PACKAGES = frozenset({"openai", "vllm"})
"""Engines whose package, of the same name, comes with an extra."""


def refuse_missing(name: str) -> None:
    """Refuse an unknown engine, and one whose package is not installed, before anything is loaded.

    Raises:
        ConfigurationError: Which engines there are, or which extra brings the package.
    """
    if name not in ENGINES:
        raise ConfigurationError(f"no engine named {name!r}: use {', '.join(ENGINES)}")
    if name in PACKAGES:
        require(f"engine {name!r}", name)


def load_engine(name: EngineName, model: str | Path, **options: object) -> Engine:
    """An engine by name; `options` go to its constructor.

    Raises:
        ConfigurationError: an unknown name or option, or a package that is not installed (and
            which extra brings it).
        EngineUnavailable: the model cannot be loaded or the server cannot be reached.
    """
    refuse_other(name, str, "name", f"one of {', '.join(ENGINES)}")
    refuse_other(model, (str, Path), "model", "a folder or a name")
    make: Callable[..., Engine]
    try:
        if name == "transformers":
            from pgenrm_agent.engines.transformers import TransformersEngine

            make = cast("Callable[..., Engine]", TransformersEngine)
        elif name == "vllm":
            from pgenrm_agent.engines.vllm import VLLMEngine

            make = cast("Callable[..., Engine]", VLLMEngine)
        elif name == "openai":
            from pgenrm_agent.engines.openai import OpenAIEngine

            make = cast("Callable[..., Engine]", OpenAIEngine)
        else:
            raise ConfigurationError(f"no engine named {name!r}: use {', '.join(ENGINES)}")
    except ImportError as error:
        wanted = f"pgenrm-agent[{name}]" if name in PACKAGES else "pgenrm-agent"
        raise ConfigurationError(
            f"engine {name!r} needs a package that is not installed ({error.name}):"
            f" pip install '{wanted}'"
        ) from error
    try:
        return make(model, **options)
    except TypeError as error:
        raise ConfigurationError(
            f"engine {name!r} cannot be made with {sorted(options)}: {error}"
        ) from error
