"""Connections on which no request gets whole: uvicorn itself would hold them open for ever."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["HEADERS_S", "giving_up"]

HEADERS_S = 10.0
"""Seconds in which the headers of a request have to come; longer than uvicorn keeps an idle connection."""


def giving_up(seconds: float = HEADERS_S) -> type[asyncio.Protocol]:
    """Return uvicorn's reader of HTTP, which closes a connection whose headers do not come in time.

    For `uvicorn.Config(http=...)`.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    base: Any = AutoHTTPProtocol

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
