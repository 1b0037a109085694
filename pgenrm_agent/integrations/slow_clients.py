"""Connections on which no request gets whole: uvicorn itself would hold them open, or fill the memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS_S = 10.0
"""Seconds in which the headers of a request have to come; longer than uvicorn keeps an idle connection."""
BODY_S = 30.0
"""Seconds in which the body of a request has to come."""
HEADERS_BYTES = 64 * 1024
"""Bytes that come without an end of the headers, or a part of the body, after which a connection is closed.

Of the two readers that uvicorn has, h11 knows such a limit by itself, and this is its; httptools reads on.
"""
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def giving_up(seconds: float = HEADERS_S) -> type[asyncio.Protocol]:
    """Return uvicorn's reader of HTTP, which closes a connection whose headers do not come in time, or bounds.

    For `uvicorn.Config(http=...)`.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol
    from uvicorn.protocols.http.h11_impl import H11Protocol

    reader: Any = AutoHTTPProtocol
    base: Any = reader if issubclass(reader, H11Protocol) else _bounded(reader)

    class GivingUp(base):  # type: ignore[misc]
        """Looks now and then whether a request has begun, or an answer ended, since it looked last."""

        _cycle_seen: object = None
        _looking: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._look_later()

        def connection_lost(self, error: Exception | None) -> None:
            if self._looking is not None:
                self._looking.cancel()
            super().connection_lost(error)

        def _look_later(self, seen: object = None) -> None:
            self._cycle_seen = self.cycle if seen is None else seen
            self._looking = self.loop.call_later(seconds, self._look)

        def _look(self) -> None:
            if self.transport.is_closing():
                return
            written = self.cycle is None or self.cycle.response_complete
            if not written or self.transport.get_write_buffer_size():
                self._look_later(seen=object())  # the time begins when the answer is out
            elif self.cycle is not self._cycle_seen:
                self._look_later()
            else:
                self.transport.abort()

    return GivingUp


def _bounded(reader: Any) -> type[asyncio.Protocol]:
    """Return uvicorn's reader on httptools, with a limit of bytes that lead to nothing.

    These are a request's line and headers, and what may stand around the parts of a body: their
    extensions, and the trailers.
    """

    class Bounded(reader):  # type: ignore[misc]
        """Counts the bytes since the headers were whole, or a part of a body came."""

        _leading_nowhere = 0

        def data_received(self, data: bytes) -> None:
            self._leading_nowhere += len(data)
            super().data_received(data)
            if self._leading_nowhere > HEADERS_BYTES and not self.transport.is_closing():
                if self.cycle is None or self.cycle.response_complete:
                    self.transport.write(TOO_LARGE)
                    self.transport.close()
                else:
                    self.transport.abort()

        def on_headers_complete(self) -> None:
            self._leading_nowhere = 0
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._leading_nowhere = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._leading_nowhere = 0
            super().on_message_complete()

    return Bounded


class WholeBody:
    """ASGI middleware: passes a request on when its whole body is there.

    One that does not come in `seconds` is answered 408, one of more than `most` bytes 413, and the
    connection is closed. For applications that read bodies in ways of their own; small bodies only.
    """

    def __init__(self, app: ASGIApp, *, most: int, seconds: float = BODY_S) -> None:
        self._app = app
        self._most = most
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read(receive)
        except TimeoutError:
            words = f"the body did not come within {self._seconds:g} s"
            await _refuse(408, words, scope, receive, send)
            return
        if body is None:
            await _refuse(413, f"the body has more than {self._most} bytes", scope, receive, send)
            return
        left: list[Message] = [body]

        async def replayed() -> Message:
            return left.pop() if left else await receive()

        await self._app(scope, replayed, send)

    async def _read(self, receive: Receive) -> Message | None:
        """Return the whole body as one message; None for one that is too long."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":  # the client has hung up
                return message
            body += message.get("body", b"")
            if len(body) > self._most:
                return None
            if not message.get("more_body", False):
                return {"type": "http.request", "body": bytes(body), "more_body": False}


async def _refuse(status: int, words: str, scope: Scope, receive: Receive, send: Send) -> None:
    from starlette.responses import JSONResponse

    response = JSONResponse({"error": words}, status, headers={"Connection": "close"})
    await response(scope, receive, send)
