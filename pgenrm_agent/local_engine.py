"""Open the engine that a command names."""

from __future__ import annotations

from pathlib import Path

from pgenrm_agent.engines import Engine, load_engine

__all__ = ["open_engine"]


def open_engine(
    name: str | None, model: str | Path, *, adapter: Path | None = None, **options: object
) -> Engine:
    """Return the engine "transformers", "vllm" or "openai" with a model, and a PEFT adapter if told one.

    name: None stands for "transformers". options: for the engine's constructor.

    Raises ConfigurationError for another name, and what the engine raises.
    """
    if adapter is not None:
        options["adapter"] = adapter
    return load_engine(name or "transformers", model, **options)  # type: ignore[arg-type]
