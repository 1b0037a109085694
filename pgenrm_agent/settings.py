"""What the programs of this package start from: `PGENRM_...` variables and a TOML file.

The command line, the servers and the studio read them; an option on the command line counts more.
In the order of what counts most: the environment; `pgenrm.toml` in the working directory, or the
file that PGENRM_CONFIG names; `pgenrm.toml` in the user's configuration folder; the defaults below.
Used as a library, the package takes nothing but `home` and `vault` from here, and `runs` to forget a user.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from pgenrm_agent.engine_names import EngineName
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.files import read_text
from pgenrm_agent.user_ids import normal_user_id
from pgenrm_agent.wording import said_of

PREFIX = "PGENRM_"
FILE_NAME = "pgenrm.toml"
DEFAULT = "default"

NO_SETTINGS = frozenset({"PGENRM_CONFIG", "PGENRM_KEY"})
"""Variables with another use: where the nearest file is, and the key of a server's client."""


def _at_home(text: str) -> str:
    return str(Path(text).expanduser()) if text.startswith("~") else text


Chains = Annotated[int, Field(ge=0, le=1024)]
Folder = Annotated[Path, AfterValidator(Path.expanduser)]
Place = Annotated[str, AfterValidator(_at_home)]
"""A path, or what names something elsewhere: a URL, a model on a hub."""
Port = Annotated[int, Field(ge=0, le=65535)]


def parse_prices(text: str) -> tuple[float, float]:
    """Return the two prices of "PROMPT,COMPLETION".

    Raises ValueError where these are not two numbers of at least 0.
    """
    try:
        prompt, completion = (float(part) for part in text.split(","))
    except ValueError:
        prompt = completion = math.nan
    if not (0 <= prompt < math.inf and 0 <= completion < math.inf):
        raise ValueError(
            f"{text!r} is not PROMPT,COMPLETION: what a million tokens read and a million tokens "
            "written cost, such as 0.15,0.60"
        )
    return prompt, completion


def _checked_prices(text: str) -> str:
    parse_prices(text)
    return text


class Settings(BaseSettings):
    """Every setting, with its default. The variable of `serve_port` is PGENRM_SERVE_PORT."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    home: Folder | None = Field(
        None, description="Folder of memory, runs and keys; else the user's data directory."
    )
    memory: Place | None = Field(
        None, description="Folder of the user memory, or the URL of a Chroma server."
    )
    vault: Place | None = Field(
        None,
        description="File, or PostgreSQL URL, with the keys of a memory on a Chroma server.",
    )
    server: str | None = Field(
        None,
        description="Address of a `pgenrm serve`, whose model and memory score, rerank, users and mcp"
        " use.",
    )
    model: Place | None = Field(None, description="Model folder or name; else the bundled model.")
    engine: EngineName | None = Field(
        None, description="What runs the model; else transformers, or openai with a base_url."
    )
    base_url: str | None = Field(
        None, description="Address of an OpenAI-compatible server, for the engine openai."
    )
    api_key_env: str | None = Field(
        None, description="Variable with the key of that server; else OPENAI_API_KEY."
    )
    max_tokens: int | None = Field(
        None, ge=1, description="New tokens a sample of a server's model may take."
    )
    requests_per_minute: float | None = Field(
        None, gt=0, description="Most requests to a server that begin in a minute."
    )
    chain_format: Place | None = Field(
        None, description="Name or folder of the chains' format; else the model's."
    )
    embedder: Place | None = Field(
        None, description="Sentence-transformers model that finds similar users."
    )
    individual: Chains = Field(8, description="Evaluation chains with the user's own choices.")
    prototype: Chains = Field(4, description="Evaluation chains with similar users' choices.")
    history: Annotated[int, Field(ge=0, le=64)] = Field(
        3, description="Past choices of a user that a prompt shows, at most; drawn at random."
    )
    stop_when_sure: float | None = Field(
        None,
        gt=0.5,
        lt=1,
        description="Probability that the leader holds, at which sampling ends early.",
    )
    seed: int | None = Field(None, ge=0, lt=2**31, description="Seed of scores; else drawn.")
    prices: Annotated[str, AfterValidator(_checked_prices)] | None = Field(
        None, description="What a million tokens read and written cost, such as 0.15,0.60."
    )
    cache: Folder | None = Field(
        None, description="File that keeps evaluations, so that the same one is not made twice."
    )
    cache_megabytes: float = Field(256, gt=0, description="Most of them kept; the oldest go.")
    cache_days: float = Field(30, gt=0, description="Days after which one is not used any more.")
    runs: Place | None = Field(
        None, description="SQLite file, or PostgreSQL URL, with the runs of debugging."
    )
    keys: Folder | None = Field(None, description="File of the servers' keys.")
    responses: Folder | None = Field(None, description="Folder of the answers to train on.")
    serve_host: str = Field("127.0.0.1", description="Address of `pgenrm serve`.")
    serve_port: Port = Field(8000, description="Port of `pgenrm serve`.")
    serve_running: int = Field(16, ge=1, description="Evaluations it runs at the same time.")
    serve_waiting: int = Field(48, ge=0, description="Evaluations that may wait for it.")
    serve_cors: str | None = Field(
        None,
        description="Sites whose pages may call it from a browser, with commas between; * for all.",
    )
    mcp_host: str = Field("127.0.0.1", description="Address of `pgenrm mcp --http`.")
    mcp_port: Port = Field(8001, description="Port of `pgenrm mcp --http`.")
    mcp_user: Annotated[str, AfterValidator(normal_user_id)] | None = Field(
        None, description="The one user of `pgenrm mcp`; else each tool call names somebody."
    )
    studio_port: Port = Field(0, description="Port of `pgenrm studio`; 0 takes a free one.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Say where settings are looked for, what counts most first."""
        return (init_settings, env_settings, *(_toml(file) for file in config_files()))


def config_files() -> list[Path]:
    """Return the TOML files that exist, the one that counts more first.

    Raises ConfigurationError when PGENRM_CONFIG names a file that does not exist.
    """
    from platformdirs import user_config_path

    named = os.environ.get(f"{PREFIX}CONFIG")
    nearest = Path(named).expanduser() if named else Path(FILE_NAME)
    if named and not nearest.is_file():
        raise ConfigurationError(f"{PREFIX}CONFIG={named}: there is no such file")
    files = (nearest, user_config_path("pgenrm-agent", appauthor=False) / FILE_NAME)
    return [file for file in files if file.is_file()]


def read_settings() -> Settings:
    """Return the settings in force now; nothing is kept from one call to the next.

    Raises:
        ConfigurationError: A value is wrong (it names the variable, or the file and the field), or
            a variable has nearly the name of a setting.
    """
    for variable in unknown_variables():
        name = variable.upper().removeprefix(PREFIX).lower()
        if near := get_close_matches(name, Settings.model_fields, n=1, cutoff=0.8):
            raise ConfigurationError(
                f"{variable}: no such setting; did you mean {_variable(near[0])}? Set that, or unset it"
            )
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigurationError(_complaint(error)) from None


def unknown_variables() -> list[str]:
    """Return the `PGENRM_...` variables that are set and mean nothing here, by name."""
    known = NO_SETTINGS | {_variable(name) for name in Settings.model_fields}
    return sorted(
        name
        for name, value in os.environ.items()
        if value and name.upper().startswith(PREFIX) and name.upper() not in known
    )


def settings_sources() -> dict[str, str]:
    """Return where each setting comes from: a variable, a file, or "default"."""
    sources = dict.fromkeys(Settings.model_fields, DEFAULT)
    for where, names in _given():
        for name in names:
            if sources.get(name) == DEFAULT:
                sources[name] = _variable(name) if where is None else str(where)
    return sources


def data_folder() -> Path:
    """Return where data is kept: the setting `home`, else the user's data directory."""
    home = read_settings().home
    if home is not None:
        return home
    from platformdirs import user_data_path

    return user_data_path("pgenrm-agent", appauthor=False)


def _given() -> Iterator[tuple[Path | None, dict[str, Any]]]:
    """Return what each source says, what counts most first; None stands for the environment."""
    yield None, EnvSettingsSource(Settings)()
    for file in config_files():
        yield file, _toml(file)()


def _toml(file: Path) -> InitSettingsSource:
    try:
        return InitSettingsSource(Settings, tomllib.loads(read_text(file)))
    except (OSError, ValueError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ConfigurationError(f"{file} cannot be read as TOML: {error}") from None


def _variable(name: str) -> str:
    return f"{PREFIX}{name.upper()}"


def _complaint(error: ValidationError) -> str:
    """Say in one line which setting is wrong, and where it stands."""
    first = error.errors()[0]
    name = str(first["loc"][0])
    for where, values in _given():
        if name not in values:
            continue
        place = _variable(name) if where is None else f"{where}, {name}"
        if first["type"] == "extra_forbidden":
            # A table such as [serve] is not read; its settings are serve_port and so on.
            inner = [known for known in Settings.model_fields if known.startswith(f"{name}_")]
            near = inner or get_close_matches(name, Settings.model_fields, n=1)
            if near:
                return f"{place}: no such setting; did you mean {near[0]}?"
            return f"{place}: no such setting; the settings are {', '.join(Settings.model_fields)}"
        return f"{place} = {values[name]!r}: {said_of(first)}"
    return f"{name}: {said_of(first)}"
