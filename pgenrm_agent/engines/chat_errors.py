"""Read the exceptions of LangChain's integrations: each has its own, most carry what HTTP said."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from pgenrm_agent.engines.server_errors import ServerFault, ServerWords, read_words, wait_asked_for

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

# How integrations complain of an answer without choices.
_NO_ANSWER = re.compile(
    r"null value for ['\"]choices|'NoneType' object is not (?:iterable|subscriptable)"
    r"|'(?:str|list)' object has no attribute '(?:model_dump|choices)'"
)


def keys_of(model: Runnable[Any, Any]) -> tuple[str, ...]:
    """Return the keys of a chat model, or of one with tools or arguments bound to it."""
    while (inside := getattr(model, "bound", None)) is not None:
        model = inside
    values = getattr(model, "__dict__", {}).values()
    return tuple(value.get_secret_value() for value in values if isinstance(value, SecretStr))


def words_of(error: Exception) -> ServerWords:
    """Return what the server said, in an integration's exception."""
    return read_words(_said(error))


def fault_of(error: Exception) -> ServerFault:
    """Return what an integration's exception says, as the fault of a server."""
    kind = type(error).__name__
    inside = error.args[0] if error.args else None
    # An answer with status 200 that holds an error: clients do not try again by themselves.
    unseen = isinstance(inside, Mapping)
    words = words_of(error)
    said = f"{kind}: {words.text}" if words.everything else kind
    status = _status(error) or words.status or (words.meaning if unseen else None)
    headers = getattr(getattr(error, "response", None), "headers", None)
    wait_s = wait_asked_for(headers if isinstance(headers, Mapping) else {}, words)
    if isinstance(error, TimeoutError) or "timeout" in kind.lower():
        return ServerFault(replace(words, text=f"in time ({said})"), kind="timeout", retried=True)
    if isinstance(error, json.JSONDecodeError):
        # What a gateway sends with status 200 in the place of an answer.
        return ServerFault(replace(words, text=f"it is no JSON ({said})"), kind="senseless")
    if _NO_ANSWER.search(str(error)):
        text = f"there are no choices in it, as in an error or an answer of another API ({said})"
        return ServerFault(replace(words, text=text), kind="senseless")
    if isinstance(error, ConnectionError) or "connect" in kind.lower():
        return ServerFault(replace(words, text=said), kind="connection", retried=True)
    fault = ServerFault(
        replace(words, text=said),
        status=status,
        kind="status" if status else "unknown",
        wait_s=wait_s,
    )
    # Nor do they after a 400, whatever it says.
    fault.retried = not unseen and not fault.is_throttled
    return fault


def _said(error: Exception) -> object:
    """What the server sent, as whole as the exception has it."""
    text = getattr(getattr(error, "response", None), "text", None)
    if isinstance(text, str) and text.strip():
        return text
    body = getattr(error, "body", None)
    if body:
        return body
    first = error.args[0] if error.args else None
    return first if isinstance(first, Mapping) else str(error)


def _status(error: Exception) -> int | None:
    for name in ("status_code", "http_status", "code", "status"):
        value = getattr(error, name, None)
        value = getattr(value, "value", value)  # an enumeration's member
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600:
            return value
    return None
