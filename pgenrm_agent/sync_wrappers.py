"""Methods in two forms: awaited on any event loop, and called plainly.

The awaited form is the one that is written down; `blocking` makes the plain one from it. So the two
have the same parameters, defaults, result and docstring. Plain calls also work inside a running event
loop, as in a notebook, because they are done on the object's background loop.
"""

from __future__ import annotations

import asyncio
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Concatenate, ParamSpec, Protocol, Self, TypeVar

from pgenrm_agent.background_loop import BackgroundLoop

P = ParamSpec("P")
T = TypeVar("T")


class _Homed(Protocol):
    @property
    def _loop(self) -> BackgroundLoop: ...


S = TypeVar("S", bound=_Homed)


def at_home(
    work: Callable[Concatenate[S, P], Coroutine[object, object, T]],
) -> Callable[Concatenate[S, P], Coroutine[object, object, T]]:
    """Do the method on its object's loop wherever it is awaited. Canceling it cancels the work."""

    @functools.wraps(work)
    async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._loop.run(lambda: work(self, *args, **kwargs))

    return call


def blocking(
    twin: Callable[Concatenate[S, P], Coroutine[object, object, T]],
) -> Callable[Concatenate[S, P], T]:
    """Make the plain form of a method whose name begins with "a"."""

    @functools.wraps(twin)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run_blocking(lambda: twin(self, *args, **kwargs))

    call.__name__ = twin.__name__.removeprefix("a")
    call.__qualname__ = call.__qualname__.removesuffix(twin.__name__) + call.__name__
    return call


class Closeable(ABC):
    """Something to close, itself or at the end of a `with` or `async with` block."""

    @abstractmethod
    def close(self) -> None:
        """Free what this object opened. Calling it again does nothing."""

    async def aclose(self) -> None:
        """`close`, for async code."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
