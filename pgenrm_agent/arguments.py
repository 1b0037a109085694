"""What callers pass to public methods, checked at the door: one wording for what is no use."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pgenrm_agent.errors import ConfigurationError, InvalidInput
from pgenrm_agent.fields import Model
from pgenrm_agent.wording import kind_of

M = TypeVar("M", bound=Model)


def refuse_other(value: object, kinds: type | tuple[type, ...], where: str, wanted: str) -> None:
    """Refuse a value that is of none of `kinds`; `wanted` says what to pass instead.

    Raises:
        ConfigurationError: It is of another type.
    """
    if not isinstance(value, kinds):
        shown = ascii(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        raise ConfigurationError(f"{where} is {shown}, {kind_of(value)}: pass {wanted}")


def is_server_address(url: str) -> bool:
    """Whether an HTTP client can take a text for a server's address."""
    import httpx

    try:
        httpx.URL(url)
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, httpx.InvalidURL):  # such as a port that is no number, or too large
        return False


def text_of(value: object, where: str) -> str:
    """Return the text; raises ConfigurationError for anything else, and for a blank one."""
    if not isinstance(value, str) or not value.strip():
        refuse_other(value, str, where, "a text")
        raise ConfigurationError(f"{where} is blank: pass a text")
    return value


def path_of(value: object, where: str) -> Path:
    """Return the path, "~" expanded; raises ConfigurationError for what can be none."""
    path = value if isinstance(value, Path) else Path(text_of(value, where))
    if "\0" in str(path):
        raise ConfigurationError(f"{where} is {str(path)!r:.80}: no path holds a NUL character")
    return path.expanduser()


def yes_or_no(value: object, where: str) -> bool:
    """Return the boolean; raises ConfigurationError for anything else, such as "no" or 1."""
    if not isinstance(value, bool):
        refuse_other(value, bool, where, "True or False")
    return value is True


def whole_number(value: object, where: str, *, least: int | None = None) -> int:
    """Return the number; raises ConfigurationError for anything else, and for one below `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{where} is {value!r:.80}: pass a whole number")
    if least is not None and value < least:
        raise ConfigurationError(f"{where} is {value}: pass {least} or more")
    return value


def seconds_of(value: object, where: str) -> float | None:
    """Return a number of seconds, None for no limit; raises ConfigurationError for anything else."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise ConfigurationError(f"{where} is {value!r:.80}: pass seconds, or None for no limit")
    return value


def model_of(kind: type[M], value: object, where: str) -> M:
    """Return the model, made of its fields where these were passed.

    Raises:
        ConfigurationError: It is neither, or a field cannot be used.
    """
    if isinstance(value, kind):
        return value
    refuse_other(value, Mapping, where, f"a {kind.__name__}")
    try:
        return kind.model_validate(value)
    except InvalidInput as error:
        raise InvalidInput(
            f"{where}: {error}",
            place=f"{where}.{error.place}" if error.place else where,
            complaint=error.complaint,
            details=error.details,
        ) from None


def items_of(values: object, where: str, wanted: str) -> tuple[object, ...]:
    """Return the items; raises ConfigurationError for what is no list, such as a single text."""
    if isinstance(values, (str, bytes, Mapping, Model)) or not isinstance(values, Iterable):
        refuse_other(values, (), where, f"a list of {wanted}")
        return ()
    return tuple(values)


def models_of(kind: type[M], values: object, where: str) -> tuple[M, ...]:
    """Return the models of a list; see `model_of`."""
    items = items_of(values, where, f"{kind.__name__} objects")
    return tuple(model_of(kind, item, f"{where}[{place}]") for place, item in enumerate(items))
