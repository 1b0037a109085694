"""An event loop in a thread of its own, for engines whose clients belong to one loop.

Connection pools and vLLM's output handler are bound to the event loop that made them. An engine is
used from several loops in sequence (one `asyncio.run` after another, a notebook, plain calls), so
such an engine keeps its client on a private loop and hands every call over to it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Sequence
from typing import TypeVar

from pgenrm_agent.errors import EngineError, EngineUnavailable

__all__ = ["PrivateLoop", "all_or_cancel"]

T = TypeVar("T")

GRACE_S = 10.0
"""How long closing waits for canceled calls to wind up."""


class PrivateLoop:
    """Runs coroutines for callers on any loop or thread. The thread starts with the first call.

    owner: the engine's name, for error messages.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._process = os.getpid()

    async def run(self, work: Coroutine[object, object, T]) -> T:
        """Await `work` on the private loop. Canceling the caller cancels `work`.

        Raises:
            EngineUnavailable: the loop is closed, or was closed meanwhile.
            EngineError: this is a fork of the process that the engine was made in.
        """
        loop = self._running_loop(work)
        try:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and not (task and task.cancelling()):
                raise EngineUnavailable(f"{self._owner} was closed while it was sampling") from None
            raise

    def run_blocking(self, work: Coroutine[object, object, T]) -> T:
        """Wait for `work` in a thread that may itself run another event loop."""
        future = asyncio.run_coroutine_threadsafe(work, self._running_loop(work))
        try:
            return future.result()
        except BaseException:
            # Ctrl-C arrives in the calling thread only; the work must not go on without it.
            future.cancel()
            raise

    @property
    def started(self) -> bool:
        """Whether a call has been made, so that there may be something to close."""
        return self._loop is not None

    def close(self, last: Coroutine[object, object, object] | None = None) -> None:
        """Cancel what runs, then run `last`, then stop the thread. Again: nothing happens."""
        with self._lock:
            closed, self._closed = self._closed, True
            loop, thread = self._loop, self._thread
        if closed or loop is None or thread is None or os.getpid() != self._process:
            if last is not None:
                last.close()
            return
        try:
            asyncio.run_coroutine_threadsafe(_wind_up(last), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def _running_loop(self, work: Coroutine[object, object, object]) -> asyncio.AbstractEventLoop:
        with self._lock:
            problem = self._problem()
            if problem is not None:
                work.close()
                raise problem
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name=f"pgenrm {self._owner}", daemon=True
                )
                self._thread.start()
            return self._loop

    def _problem(self) -> EngineError | None:
        if self._closed:
            return EngineUnavailable(f"{self._owner} is closed: make another one")
        if os.getpid() != self._process:
            return EngineError(
                f"{self._owner} was made in process {self._process} and cannot be used in its fork"
                f" {os.getpid()}: make an engine in each process"
            )
        return None


async def all_or_cancel(work: Sequence[Coroutine[object, object, T]]) -> list[T]:
    """The results in order; the first failure cancels the rest and is raised by itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures.exceptions[0].__cause__
    return [task.result() for task in tasks]


async def _wind_up(last: Coroutine[object, object, object] | None) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=GRACE_S)
    if last is not None:
        await last
    loop = asyncio.get_running_loop()
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()
