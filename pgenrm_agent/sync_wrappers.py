"""A session's methods in two forms: awaited on any event loop, and called plainly.

The store's connection belongs to the event loop that opened it, so the work of both forms is done on
the session's own loop, in its thread.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from pgenrm_agent.background_loop import PrivateLoop

__all__ = ["at_home", "blocking"]

P = ParamSpec("P")
T = TypeVar("T")


class _Homed(Protocol):
    _loop: PrivateLoop


S = TypeVar("S", bound=_Homed)


def at_home(
    work: Callable[Concatenate[S, P], Coroutine[object, object, T]],
) -> Callable[Concatenate[S, P], Coroutine[object, object, T]]:
    """The method, done on its object's loop wherever it is awaited. Canceling it cancels the work."""

    @functools.wraps(work)
    async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._loop.run(work(self, *args, **kwargs))

    return call


def blocking(
    twin: Callable[Concatenate[S, P], Coroutine[object, object, T]],
) -> Callable[Concatenate[S, P], T]:
    """The plain form of a method whose name begins with "a"; also works inside a running loop."""

    @functools.wraps(twin)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run_blocking(twin(self, *args, **kwargs))

    call.__name__ = twin.__name__.removeprefix("a")
    call.__qualname__ = call.__qualname__.replace(twin.__name__, call.__name__)
    return call
