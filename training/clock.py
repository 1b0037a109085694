"""A schedule by the clock: a run of any length ends with a falling learning rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate


class Clock:
    """How far a run of so many minutes is, at which learning rate, and in which of its phases.

    The rate rises over the first steps and stays up until reading is there: until `heard` was told an
    accuracy of at least `enough`, at the latest when the share `latest` of the time is over. From then
    on it falls to 0 at the end, in a straight line. The first phase lasts as long as the rate is up;
    the others share what is left by their weights.

    minutes: of training; what happens while it is `paused` takes none of them.
    now: seconds, from any moment on.
    """

    def __init__(
        self,
        minutes: float,
        *,
        enough: float,
        latest: float,
        warmup_steps: int,
        weights: Sequence[float],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._length = 60 * minutes
        self._enough = enough
        self._latest = latest
        self._warmup = warmup_steps
        rest = list(accumulate(weights[1:]))
        self._parts = [part / rest[-1] for part in rest]
        self._now = now
        self._started = now()
        self._stopped: float | None = None
        self.read_at: float | None = None

    def start(self) -> None:
        """Begin to count, now."""
        self._started = self._now()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stand still for the block."""
        stopped = self._stopped = self._now()
        try:
            yield
        finally:
            self._started += self._now() - stopped
            self._stopped = None

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return (self._now() if self._stopped is None else self._stopped) - self._started

    @property
    def share(self) -> float:
        """How much of the time is over, from 0; 1 or more at the end."""
        return self.seconds / self._length

    @property
    def turn(self) -> float:
        """The share of the time at which reading was there, or has to be."""
        return self._latest if self.read_at is None else self.read_at

    def heard(self, accuracy: float) -> None:
        """Take note of the accuracy of reading on held-out texts."""
        share = self.share
        if self.read_at is None and accuracy >= self._enough and share < self._latest:
            self.read_at = share

    def rate(self, step: int) -> float:
        """Return the learning rate of the step after `step` others, as a share of the peak."""
        risen = min(1.0, (step + 1) / max(1, self._warmup))
        share = self.share
        if share < self.turn:
            return risen
        return risen * max(0.0, 1 - share) / (1 - self.turn)

    def phase(self) -> int:
        """Return the number of the phase that it is time for."""
        share = self.share
        if share < self.turn or not self._parts:
            return 0
        done = (share - self.turn) / (1 - self.turn)
        return 1 + sum(done >= part for part in self._parts[:-1])
