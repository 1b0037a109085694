"""What stands before every route: counting and timing, the key, and the limits on a request's body."""

from __future__ import annotations

import asyncio
import logging
import time

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.integrations.keys import KEYS_UNREADABLE, KeyRing
from pgenrm_agent.integrations.server.errors import error_response
from pgenrm_agent.integrations.server.service import Service

OPEN = frozenset({"/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"})
"""The paths that need no key: they tell nothing of anybody."""

CLOSE = {"Connection": "close"}

logger = logging.getLogger(__name__)


class BodyLimitMiddleware:
    """ASGI middleware: a body of more than `most` bytes raises HTTPException 413, a slow one 408.

    FastAPI's own limit answers in plain text, past the handlers that give errors their one shape.
    seconds: how long the whole body may take to come.
    """

    def __init__(self, app: ASGIApp, most: int, seconds: float) -> None:
        self._app = app
        self._most = most
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with a bounded body."""
        read = 0
        whole = False
        end = time.monotonic() + self._seconds

        async def bounded() -> Message:
            nonlocal read, whole
            if whole:  # what comes now is that the client hangs up
                return await receive()
            # What is announced is refused before it is sent; what is not is counted.
            if read == 0 and _announced(scope) > self._most:
                raise self._refusal()
            try:
                message = await asyncio.wait_for(receive(), end - time.monotonic())
            except TimeoutError:
                late = f"the body did not come within {self._seconds:g} s"
                raise HTTPException(408, late, headers=CLOSE) from None
            whole = not message.get("more_body", False)
            read += len(message.get("body", b""))
            if read > self._most:
                raise self._refusal()
            return message

        await self._app(scope, bounded if scope["type"] == "http" else receive, send)

    def _refusal(self) -> HTTPException:
        return HTTPException(413, f"the body has more than {self._most} bytes", headers=CLOSE)


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _path(scope: Scope) -> str:
    """Return the path that routes are matched with: without the prefix under which a proxy has the server."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "").rstrip("/"))


class KeyMiddleware:
    """ASGI middleware: answers 401 to what comes without a key in force, before its body is read.

    The tenant of the key is in the request's state, as `tenant`. 503 while the keys cannot be read.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and _path(scope) not in OPEN:
            scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
            try:
                tenant = self._keys.tenant_of(key.strip()) if scheme.lower() == "bearer" else None
            except (ConfigurationError, OSError) as error:
                # The operator's mistake, not the caller's, who need not learn where the file is.
                logger.error("keys cannot be read: %s", error)
                await error_response(503, KEYS_UNREADABLE, CLOSE)(scope, receive, send)
                return
            if tenant is None:
                message = "this needs a key in force: send it as `Authorization: Bearer KEY`"
                headers = {"WWW-Authenticate": "Bearer", **CLOSE}
                await error_response(401, message, headers)(scope, receive, send)
                return
            scope.setdefault("state", {})["tenant"] = tenant
        await self._app(scope, receive, send)


class StoppingMiddleware:
    """ASGI middleware: answers 503 to what is canceled before its answer began.

    A server that is stopped cancels what has not ended within its grace time.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or say that the server stops."""
        begun = scope["type"] != "http"

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            if begun:
                raise
            message = "the server is being stopped: try again when it has come back"
            await error_response(503, message, CLOSE, code="stopping")(scope, receive, send)
            raise


class MetricsMiddleware:
    """ASGI middleware; a plain one, because it must not stand between a stream and its client."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, then count and time it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = "500"

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            service: Service = scope["app"].state.service
            # The template, not the path: a path names a user.
            route = getattr(scope.get("route"), "path_format", "unknown")
            service.metrics.requests.labels(route, status).inc()
            service.metrics.seconds.labels(route).observe(time.perf_counter() - started)
