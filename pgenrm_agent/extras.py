"""Packages that come with an extra: asked for before long work begins, and told of in one way."""

from __future__ import annotations

from importlib.util import find_spec

from pgenrm_agent.errors import ConfigurationError

__all__ = ["EXTRA_OF", "require"]

EXTRA_OF = {
    "accelerate": "training",
    "aiosqlite": "debugging",
    "fastapi": "server",
    "matplotlib": "evaluation",
    "mcp": "mcp",
    "openai": "openai",
    "prometheus_client": "server",
    "psycopg": "postgres",
    "psycopg_pool": "postgres",
    "pyarrow": "evaluation",
    "ray": "ray",
    "scipy": "evaluation",
    "sentence_transformers": "embeddings",
    "sklearn": "training",
    "starlette": "server",
    "uvicorn": "server",
    "vllm": "vllm",
    "yaml": "training",
}
"""The extra that brings a package, by the name it is imported by."""


def require(what: str, *packages: str, extra: str | None = None) -> None:
    """Refuse to begin what needs packages that are not installed.

    Args:
        what: What is to be done, as the error names it.
        packages: Names that they are imported by.
        extra: The extra that brings all of them, where several extras have one of them.

    Raises:
        ConfigurationError: A package is missing.
    """
    for package in packages:
        if find_spec(package) is None:
            raise ConfigurationError(
                f"{what} needs {package}, which is not installed:"
                f" pip install 'pgenrm-agent[{extra or EXTRA_OF[package]}]'"
            )
