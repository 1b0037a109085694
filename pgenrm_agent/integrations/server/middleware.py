"""What stands before every route: counting and timing, and the limit on a request's body."""

from __future__ import annotations

import time

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pgenrm_agent.integrations.server.service import Service

__all__ = ["BodyLimitMiddleware", "MetricsMiddleware"]


class BodyLimitMiddleware:
    """ASGI middleware: reading a body of more than `most` bytes raises HTTPException 413.

    FastAPI's own limit answers in plain text, past the handlers that give errors their one shape.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with a bounded body."""
        read = 0

        async def bounded() -> Message:
            nonlocal read
            # What is announced is refused before it is sent; what is not is counted.
            if read == 0 and _announced(scope) > self._most:
                raise self._refusal()
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise self._refusal()
            return message

        await self._app(scope, bounded if scope["type"] == "http" else receive, send)

    def _refusal(self) -> HTTPException:
        return HTTPException(413, f"the body has more than {self._most} bytes")


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


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
