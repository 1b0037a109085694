"""Runs that proceed while their page is looked at: one at a time, in a thread of their own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from pgenrm_agent.debugging import Checkpoint, DebugSession
from pgenrm_agent.errors import ConfigurationError, PGenRMError

logger = logging.getLogger(__name__)


class _PausedError(Exception):
    """Ends a resume between two nodes."""


class Workers:
    """Steps and resumes runs in the background, and keeps the last notice of each.

    `busy` and `notice` may be asked from any thread.
    """

    def __init__(self, session: DebugSession) -> None:
        self._session = session
        # One thread: a model on one machine gains nothing from two runs at once.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pgenrm studio")
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._pausing: set[str] = set()
        self._notices: dict[str, tuple[bool, str]] = {}

    def busy(self, run: str) -> bool:
        """Return whether the run is proceeding, or waits for its turn."""
        with self._lock:
            return run in self._busy

    def notice(self, run: str) -> tuple[bool, str] | None:
        """Return what to tell about the run's last action: (whether it failed, the words)."""
        with self._lock:
            return self._notices.get(run)

    def act(self, run: str, action: Callable[[], str]) -> None:
        """Do something short now, and keep what it says; a refusal becomes the notice."""
        self._claim(run)
        self._finish(run, action)

    def step(self, run: str) -> None:
        """Run the next node in the background.

        Raises:
            ConfigurationError: The run is proceeding already.
        """

        def step_once() -> str:
            made = self._session.step(run)
            return f"ran {made.node}"

        self._start(run, step_once)

    def resume(self, run: str, breakpoints: list[str]) -> None:
        """Run on to the end, a breakpoint or `pause`."""

        def look(made: Checkpoint) -> None:
            with self._lock:
                if made.next and run in self._pausing:
                    raise _PausedError

        def on() -> str:
            try:
                return f"stopped: {self._session.resume(run, breakpoints, on_step=look).reason}"
            except _PausedError:
                return "paused"

        self._start(run, on)

    def pause(self, run: str) -> None:
        """Stop after the node that is running."""
        with self._lock:
            if run in self._busy:
                self._pausing.add(run)

    def close(self) -> None:
        """Stop after the nodes that are running."""
        with self._lock:
            self._pausing |= self._busy
        self._pool.shutdown(cancel_futures=True)

    def _start(self, run: str, work: Callable[[], str]) -> None:
        self._claim(run)
        self._pool.submit(self._finish, run, work)

    def _claim(self, run: str) -> None:
        with self._lock:
            if run in self._busy:
                raise ConfigurationError(f"run {run} is being run: pause it, or wait")
            self._busy.add(run)
            self._notices.pop(run, None)

    def _finish(self, run: str, work: Callable[[], str]) -> None:
        failed, words = True, "the studio failed: see its terminal"
        try:
            failed, words = False, work()
        except PGenRMError as error:
            words = str(error)
        except Exception:
            logger.exception("run %s failed", run)
        finally:
            with self._lock:
                self._busy.discard(run)
                self._pausing.discard(run)
                self._notices[run] = (failed, words)
