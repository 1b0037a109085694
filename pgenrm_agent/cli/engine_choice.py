"""What runs the model: `--engine`, the options of a server, and the format of its chains."""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from pgenrm_agent.cli.options import EngineOption, from_setting
from pgenrm_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from pgenrm_agent.chain import ChainFormat
    from pgenrm_agent.engine_names import EngineName
    from pgenrm_agent.engines import Engine
    from pgenrm_agent.engines.counting import CountingEngine

R = TypeVar("R")


@dataclass(frozen=True)
class EngineChoice:
    """An engine by name, what it is opened with, and how its chains are written.

    name, chain_format: None where nothing was said.
    """

    name: EngineName | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    max_tokens: int | None = None
    requests_per_minute: float | None = None
    chain_format: str | None = None

    @property
    def options(self) -> dict[str, object]:
        """What the engine's constructor is given.

        Raises ConfigurationError where the variable of the key is not set.
        """
        if self.name != "openai":
            return {}
        wanted = {
            "base_url": self.base_url,
            "api_key": self._key(),
            "max_tokens": self.max_tokens,
            "requests_per_minute": self.requests_per_minute,
        }
        return {name: value for name, value in wanted.items() if value is not None}

    def open(self, model: str | Path, *, adapter: Path | None = None) -> Engine:
        """Return the engine with a model, and a PEFT adapter if told one."""
        from pgenrm_agent.engines import load_engine

        options = self.options if adapter is None else {**self.options, "adapter": adapter}
        return load_engine(self.name or "transformers", model, **options)

    def counting(self) -> CountingEngine:
        """Return an engine that only counts what this choice would be asked."""
        from pgenrm_agent.engines.counting import CountingEngine

        tokens = self.max_tokens if self.name == "openai" else None
        return CountingEngine(self.name, max_tokens=tokens)

    def format_for(self, model: str | Path | None) -> ChainFormat | None:
        """Return the format that was asked for, else the model's; None leaves it to the engine."""
        from pgenrm_agent.opening import format_for

        return format_for(model, self.name, self.chain_format)

    @property
    def labels(self) -> dict[str, str | None]:
        """Return the choice as labels that a run keeps; no key and no password is in them."""
        server: dict[str, object] = {}
        if self.name == "openai":
            server = {
                "base_url": None if self.base_url is None else _without_user(self.base_url),
                "api_key_env": self.api_key_env,
                "max_tokens": self.max_tokens,
                "requests_per_minute": self.requests_per_minute,
            }
        said = {name: None if value is None else str(value) for name, value in server.items()}
        return {"engine": self.name, "chain_format": self.chain_format, **said}

    @classmethod
    def from_labels(cls, labels: Mapping[str, str]) -> EngineChoice:
        """Return the choice that a run was started with."""
        tokens, rate = labels.get("max_tokens"), labels.get("requests_per_minute")
        return cls(
            name=labels.get("engine"),  # type: ignore[arg-type]
            base_url=labels.get("base_url"),
            api_key_env=labels.get("api_key_env"),
            max_tokens=int(tokens) if tokens else None,
            requests_per_minute=float(rate) if rate else None,
            chain_format=labels.get("chain_format"),
        )

    def _key(self) -> str | None:
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env)
        if not key:
            raise ConfigurationError(
                f"--api-key-env {self.api_key_env}: there is no such variable, or it is empty; set it"
                " to the server's key"
            )
        return key


def choose_engine(
    context: typer.Context,
    engine: EngineOption,
    base_url: Annotated[
        str | None,
        typer.Option(
            "--base-url",
            help="Address of an OpenAI-compatible server, such as http://localhost:8000/v1; goes with"
            " --engine openai.",
            **from_setting("base_url", "OPENAI_BASE_URL, then OpenAI"),
        ),
    ],
    api_key_env: Annotated[
        str | None,
        typer.Option(
            "--api-key-env",
            help="Name of the environment variable with the server's key.",
            **from_setting("api_key_env", "OPENAI_API_KEY"),
        ),
    ],
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            min=1,
            help="New tokens a sample of a server's model may take, its thinking included.",
            **from_setting("max_tokens", "the chain format's"),
        ),
    ],
    requests_per_minute: Annotated[
        float | None,
        typer.Option(
            "--requests-per-minute",
            min=0.001,
            help="Most requests to a server that begin in a minute.",
            **from_setting("requests_per_minute", "no cap"),
        ),
    ],
    chain_format: Annotated[
        str | None,
        typer.Option(
            "--chain-format",
            help="How chains are written: a format's name or folder.",
            **from_setting("chain_format", "the model's, or what suits the engine"),
        ),
    ],
) -> EngineChoice:
    """Return the choice that the options describe: the address of a server means the openai engine."""
    name: EngineName | None = engine or ("openai" if base_url else None)
    if name != "openai":
        given = [
            f"--{option.replace('_', '-')}"
            for option in ("base_url", "api_key_env", "max_tokens", "requests_per_minute")
            if _was_typed(context, option)
        ]
        if given:
            raise typer.BadParameter(
                f"{given[0]} is about a server: it goes with --engine openai, not with"
                f" {name or 'transformers'}"
            )
    if base_url is not None and base_url != _without_user(base_url):
        raise typer.BadParameter(
            f"--base-url has a user or a password in it, which runs would keep and messages show: say"
            f" {_without_user(base_url)}, and name the variable of the key with --api-key-env"
        )
    if name is not None:
        from pgenrm_agent.engines import refuse_missing

        refuse_missing(name)
    return EngineChoice(name, base_url, api_key_env, max_tokens, requests_per_minute, chain_format)


def _without_user(url: str) -> str:
    return re.sub(r"^([\w+.-]+://)[^/?#]*@", r"\1", url)


def _was_typed(context: typer.Context, option: str) -> bool:
    """Whether an option stands on the command line; what a settings file says is for servers only."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def chooses_engine(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the options of `choose_engine` in place of its parameter `engine`."""
    asked = inspect.signature(choose_engine, eval_str=True).parameters
    context, *options = asked.values()
    signature = inspect.signature(command, eval_str=True)
    has_context = context.name in signature.parameters
    parameters = [] if has_context else [context]
    for parameter in signature.parameters.values():
        if parameter.name == "engine":
            parameters += [option.replace(kind=parameter.kind) for option in options]
        else:
            parameters.append(parameter)

    @functools.wraps(command)
    def with_engine(**given: Any) -> R:
        chosen = choose_engine(**{name: given[name] for name in asked})
        kept = {name: value for name, value in given.items() if name in signature.parameters}
        return command(**{**kept, "engine": chosen})

    with_engine.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_engine.__annotations__ = {
        "return": signature.return_annotation,
        **{parameter.name: parameter.annotation for parameter in parameters},
    }
    return with_engine
