"""Doors that need no key are for this machine alone: what they listen on, and what they answer.

A loopback address keeps other machines out, and is not enough. A page that is open in this machine's
browser sends requests here, too, and a site that points its own name at 127.0.0.1 (DNS rebinding) may
even read the answers. So a request has to name this machine as its host, and one that may change
something must not come from another site's page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING

from pgenrm_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::([0-9]{0,5}))?")
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def refuse_other_machines(host: str, remedy: str) -> None:
    """Raise ConfigurationError when a server that listens on `host` can be reached from elsewhere."""
    if not _is_loopback(host):
        raise ConfigurationError(f"--host {host} can be reached from other machines: {remedy}")


def names_this_machine(scope: Scope) -> bool:
    """Return whether a request has one Host header, and that one is this machine's, at any port.

    Addresses and `localhost` alone: every other name can be pointed at this machine by its owner.
    """
    hosts = _values(scope, b"host")
    return len(hosts) == 1 and _is_this_machine(hosts[0])


class LoopbackOnly:
    """ASGI middleware for servers without keys: this machine's own programs and pages are let through.

    origins: further sites whose pages may change something, such as "https://app.example.com".
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str] = ()) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 421 (another host) or 403 (another site's page)."""
        refusal = None if scope["type"] == "lifespan" else _refusal(scope, self._origins)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[2][:100]})
        else:
            from starlette.responses import JSONResponse

            status, code, message = refusal
            response = JSONResponse({"code": code, "message": message}, status_code=status)
            await response(scope, receive, send)


def _refusal(scope: Scope, origins: frozenset[str]) -> tuple[int, str, str] | None:
    """Return status, code and message for a request that is not let through."""
    if not names_this_machine(scope):
        message = (
            "without keys this server answers to the names of its own machine only: call it as"
            " localhost or 127.0.0.1, or let its owner start it with keys"
        )
        return 421, "foreign_host", message
    pages = (page for page in _values(scope, b"origin") if page not in origins)
    if scope.get("method") not in _READING and not all(map(_is_own_page, pages)):
        message = (
            "without keys this server takes no changes from other sites' pages: call it from a"
            " program or a page of its own machine, or let its owner start it with keys"
        )
        return 403, "foreign_origin", message
    return None


def _values(scope: Scope, header: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == header]


def _is_own_page(origin: str) -> bool:
    scheme, _, authority = origin.partition("://")
    return scheme in ("http", "https") and _is_this_machine(authority)


def _is_this_machine(authority: str) -> bool:
    parts = _AUTHORITY.fullmatch(authority)
    return parts is not None and int(parts[2] or 0) < 65536 and _is_loopback(parts[1])


def _is_loopback(host: str) -> bool:
    name = host.lower().removesuffix(".").removeprefix("[").removesuffix("]")
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
