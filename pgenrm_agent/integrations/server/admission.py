"""How much one client, and all of them together, may ask of the server."""

from __future__ import annotations

import asyncio
import math
from typing import Annotated

from pydantic import Field

from pgenrm_agent.fields import Model

FIRST_GUESS_S = 1.0
LONGEST_RETRY_S = 60
MEMORY_OF_DURATIONS = 0.2


class Limits(Model):
    """What the deployment chooses. The limits of single fields are in the OpenAPI description.

    Attributes:
        running: Evaluations at the same time; they share the engine's batches.
        waiting: Evaluations that may wait for their turn; one more is answered 429.
        body_bytes: Largest request body.
        body_s: How long a request body may take to come.
        shutdown_s: How long running requests get to finish when the server is stopped.
    """

    running: Annotated[int, Field(ge=1)] = 16
    waiting: Annotated[int, Field(ge=0)] = 48
    body_bytes: Annotated[int, Field(ge=1024)] = 2 * 1024 * 1024
    body_s: Annotated[float, Field(gt=0)] = 30
    shutdown_s: Annotated[int, Field(ge=1)] = 30


class OverloadedError(Exception):
    """Too many evaluations are running and waiting. `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the server is busy: try again in {retry_after} s")
        self.retry_after = retry_after


class Admission:
    """Lets `running` evaluations run and `waiting` more wait; the rest are turned away at once.

    Belongs to one event loop.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._turns = asyncio.Semaphore(limits.running)
        self._typical_s = FIRST_GUESS_S
        self.inside = 0

    def admit(self) -> Place:
        """Return a place, to be left again whatever happens.

        Raises:
            OverloadedError: There is none.
        """
        if self.inside >= self._limits.running + self._limits.waiting:
            retry = math.ceil(self._typical_s * self.inside / self._limits.running)
            raise OverloadedError(min(LONGEST_RETRY_S, max(1, retry)))
        self.inside += 1
        return Place(self, self._turns)

    def took(self, seconds: float) -> None:
        """Learn how long an evaluation takes, for Retry-After."""
        self._typical_s += MEMORY_OF_DURATIONS * (seconds - self._typical_s)


class Place:
    """One admitted evaluation."""

    def __init__(self, admission: Admission, turns: asyncio.Semaphore) -> None:
        self._admission = admission
        self._turns = turns
        self._running = self._left = False

    async def turn(self) -> None:
        """Wait until it may run."""
        await self._turns.acquire()
        self._running = True

    def leave(self) -> None:
        """Free the place. Calling it again does nothing."""
        if self._left:
            return
        self._left = True
        self._admission.inside -= 1
        if self._running:
            self._turns.release()
