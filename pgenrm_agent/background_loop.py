"""An event loop in a thread of its own, for clients that belong to one loop.

Connection pools, a store's connection and vLLM's output handler are bound to the event loop that
made them. Their owners are used from several loops in sequence (one `asyncio.run` after another, a
notebook, plain calls), so they keep the client on a background loop and hand every call over to it.

Not anyio's blocking portal: its scopes cancel a task again at every `await`, so that what cleans up
after being canceled (a pool's connection, a request in vLLM's queue) would not get to do it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias, TypeVar

from pgenrm_agent.errors import EngineError, EngineUnavailable

T = TypeVar("T")
Work: TypeAlias = Callable[[], Coroutine[object, object, T]]

GRACE_S = 10.0
"""How long closing waits for canceled calls to wind up, and then for plain functions in threads."""


class BackgroundLoop:
    """Runs async functions for callers on any loop or thread. The thread starts with the first call.

    owner: whose loop this is, for error messages. Calls raise EngineUnavailable when the loop is
    closed, before or meanwhile, and EngineError in a fork of the process that made it.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._executor = ThreadPoolExecutor(thread_name_prefix=f"pgenrm {owner}")
        self._closed = False

    async def run(self, work: Work[T]) -> T:
        """Await `work()` on the background loop. Canceling the caller cancels it."""
        try:
            return await asyncio.wrap_future(self._submit(work))
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self._closed and not (caller and caller.cancelling()):
                raise self._closed_meanwhile() from None
            raise

    def run_blocking(self, work: Work[T]) -> T:
        """Wait for `work()` in a thread that may itself run another event loop.

        Raises EngineError in the background thread itself, which would wait for itself.
        """
        self.refuse_own_thread()
        future = self._submit(work)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            if self._closed:
                raise self._closed_meanwhile() from None
            raise
        except BaseException:
            # Ctrl-C arrives in the calling thread only; the work must not go on without it.
            future.cancel()
            raise

    def close(self, last: Work[object] | None = None) -> None:
        """Cancel what runs, then run `last`, then stop the thread. Again: nothing happens.

        A plain function that runs in a thread cannot be canceled: it is waited for a while, and left.
        On a loop that no call has started there is nothing to close, and `last` is not run.

        Raises EngineError in the background thread itself, which would wait for itself.
        """
        self.refuse_own_thread()
        with self._lock:
            closed, self._closed = self._closed, True
            loop, thread = self._loop, self._thread
        if closed or loop is None or thread is None or os.getpid() != self._process:
            return
        try:
            asyncio.run_coroutine_threadsafe(_wind_up(last), loop).result()
            # Not the loop's own `shutdown_default_executor`, which waits however long it takes.
            ended = threading.Thread(
                target=lambda: self._executor.shutdown(cancel_futures=True), daemon=True
            )
            ended.start()
            ended.join(GRACE_S)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def refuse_own_thread(self) -> None:
        """Raise EngineError in the background thread, where a plain call would wait for itself."""
        if threading.current_thread() is self._thread:
            raise EngineError(
                f"a plain call of {self._owner} inside one of its own runs (in a callback) would wait"
                " for itself: make it after the run, or in another thread"
            )

    def _submit(self, work: Work[T]) -> concurrent.futures.Future[T]:
        if os.getpid() != self._process:
            raise EngineError(
                f"{self._owner} was made in process {self._process} and cannot be used in its fork"
                f" {os.getpid()}: make another one in each process"
            )
        with self._lock:
            if self._closed:
                raise EngineUnavailable(f"{self._owner} is closed: make another one")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._loop.set_default_executor(self._executor)
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name=f"pgenrm {self._owner}", daemon=True
                )
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(work(), self._loop)

    def _closed_meanwhile(self) -> EngineUnavailable:
        return EngineUnavailable(f"{self._owner} was closed during this call: make another one")


async def all_or_cancel(work: Sequence[Coroutine[object, object, T]]) -> list[T]:
    """Return the results in order; the first failure cancels the rest and is raised by itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in work]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures.exceptions[0].__cause__
    return [task.result() for task in tasks]


async def _wind_up(last: Work[object] | None) -> None:
    running = asyncio.all_tasks() - {asyncio.current_task()}
    for task in running:
        if not task.cancelling():  # What is being wound up already is let finish.
            task.cancel()
    if running:
        await asyncio.wait(running, timeout=GRACE_S)
    if last is not None:
        await last()
    await asyncio.get_running_loop().shutdown_asyncgens()
