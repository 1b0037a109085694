"""Packages that come with an extra: asked for before long work begins, and told of in one way."""

from __future__ import annotations

from importlib.util import find_spec

from pgenrm_agent.errors import ConfigurationError

EXTRAS = {
    "vllm": "engine vllm",
    "openai": "engine openai: any server that speaks its API",
    "embeddings": "similar users by a sentence encoder (--embedder)",
    "debugging": "pgenrm debug; going on with a build of prototypes",
    "postgres": "keys of a memory, and runs of debugging, in PostgreSQL",
    "server": "pgenrm serve",
    "studio": "pgenrm studio",
    "langgraph-dev": "langgraph dev",
    "mcp": "pgenrm mcp",
    "training": "pgenrm train; learning prototypes",
    "evaluation": "pgenrm eval and score-dataset; plots",
    "ray": "pgenrm score-dataset on Ray",
}
"""What each extra is for; a developer's extras are not among them."""

EXTRA_OF = {
    "accelerate": "training",
    "aiosqlite": "debugging",
    "datasets": "training",
    "fastapi": "server",
    "langgraph.checkpoint.postgres": "postgres",
    "langgraph.checkpoint.sqlite": "debugging",
    "langgraph_cli": "langgraph-dev",
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
    "trl": "training",
    "uvicorn": "server",
    "vllm": "vllm",
    "yaml": "training",
}
"""The extra that brings a package, by the name it is imported by."""


def extra_of(module: str) -> str | None:
    """Return the extra that brings a module, or the package that it is in; None for any other."""
    parts = module.split(".")
    names = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
    return next((EXTRA_OF[name] for name in names if name in EXTRA_OF), None)


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
                f" pip install 'pgenrm-agent[{extra or extra_of(package)}]'"
            )
