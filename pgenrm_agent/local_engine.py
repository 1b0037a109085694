"""Open the engine that a command names."""

from __future__ import annotations

from pathlib import Path

from pgenrm_agent.engines import Engine, load_engine
from pgenrm_agent.errors import ConfigurationError

__all__ = ["open_engine"]

VLLM_CACHE_BYTES = 2**30
"""Room for vLLM's keys and values on a CPU, where it takes most of the memory if not told."""


def open_engine(name: str | None, model: str | Path, *, adapter: Path | None = None) -> Engine:
    """Return the engine "transformers", "vllm" or "openai" with a model, and a PEFT adapter if told one.

    name: None stands for "transformers".

    Raises ConfigurationError for another name, and what the engine raises.
    """
    options: dict[str, object] = {} if adapter is None else {"adapter": adapter}
    name = name or "transformers"
    if name == "vllm":
        import torch

        if not torch.cuda.is_available():
            options["kv_cache_memory_bytes"] = VLLM_CACHE_BYTES
    elif name not in ("transformers", "openai"):
        raise ConfigurationError(f"engine {name!r} is unknown: use transformers, vllm or openai")
    return load_engine(name, model, **options)  # type: ignore[arg-type]
