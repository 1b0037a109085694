"""The MCP server over HTTP, for those who hold a key."""

from __future__ import annotations

import logging

from mcp.server.mcpserver import MCPServer
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.integrations.keys import KEYS_UNREADABLE, KeyRing, valid_tenant
from pgenrm_agent.integrations.loopback import LoopbackOnly
from pgenrm_agent.integrations.slow_clients import BODY_S, WholeBody

logger = logging.getLogger(__name__)

MOST_BYTES = 8 * 1024 * 1024
"""Bytes that a call may have."""


class Guarded:
    """Lets a request through that carries a key of one tenant, as `Authorization: Bearer KEY`.

    The SDK's own token check belongs to OAuth: it would announce an authorization server that does
    not exist.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing, tenant: str) -> None:
        self._app = app
        self._keys = keys
        self._tenant = valid_tenant(tenant)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer 401 where it brings no key of the tenant, 503 without keys."""
        try:
            admitted = scope["type"] != "http" or self._admits(Headers(scope=scope))
        except (ConfigurationError, OSError) as error:
            # The operator's mistake, not the caller's, who need not learn where the file is.
            logger.error("keys cannot be read: %s", error)
            refusal = JSONResponse({"error": KEYS_UNREADABLE}, status_code=503)
            await refusal(scope, receive, send)
            return
        if not admitted:
            message = f"this needs a key of tenant {self._tenant}: send `Authorization: Bearer KEY`"
            refusal = JSONResponse(
                {"error": message}, status_code=401, headers={"WWW-Authenticate": "Bearer"}
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admits(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self._keys.tenant_of(key.strip()) == self._tenant


def create_mcp_app(
    server: MCPServer,
    *,
    keys: KeyRing | None = None,
    tenant: str = "",
    host: str = "127.0.0.1",
    body_s: float = BODY_S,
) -> ASGIApp:
    """Streamable HTTP at /mcp, as an ASGI application.

    keys, tenant: who may call; keys None lets in whoever is on this machine (see `LoopbackOnly`).
    host: what it will listen on. On a loopback address the SDK refuses other Host headers, with keys
        as well. body_s: seconds in which the body of a call has to come.

    Raises ConfigurationError for a tenant's name that cannot be one.
    """
    app = WholeBody(server.streamable_http_app(host=host), most=MOST_BYTES, seconds=body_s)
    return LoopbackOnly(app) if keys is None else Guarded(app, keys, tenant)
