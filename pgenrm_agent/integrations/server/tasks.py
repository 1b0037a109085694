"""Running an evaluation for a client: admitted, counted, and stopped when nobody waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import TypeVar

from starlette.requests import Request

from pgenrm_agent.errors import PGenRMError
from pgenrm_agent.integrations.server.service import Service
from pgenrm_agent.ranking import RerankResult
from pgenrm_agent.schema import Evaluation

T = TypeVar("T")
R = TypeVar("R", Evaluation, RerankResult)


class ClientGoneError(Exception):
    """The client hung up before its answer was ready."""


def start(service: Service, work: Coroutine[object, object, R]) -> asyncio.Task[R]:
    """Begin an evaluation when its turn comes; raises OverloadedError when there is no place for it."""
    try:
        place = service.admission.admit()
    except Exception:
        work.close()
        raise

    async def run() -> R:
        try:
            await place.turn()
            started = time.perf_counter()
            result = await work
        except asyncio.CancelledError:
            service.metrics.evaluations.labels("canceled").inc()
            raise
        except PGenRMError:
            service.metrics.evaluations.labels("failed").inc()
            raise
        finally:
            work.close()
        service.admission.took(time.perf_counter() - started)
        service.metrics.evaluated(result.evaluation if isinstance(result, RerankResult) else result)
        return result

    def ended(task: asyncio.Task[R]) -> None:
        # Here, not in `run`: a task that is canceled before its first step never gets there.
        place.leave()
        work.close()
        if not task.cancelled():
            task.exception()  # Whoever hung up does not fetch it.

    task = asyncio.create_task(run())
    task.add_done_callback(ended)
    return task


async def while_connected(request: Request, task: asyncio.Task[T]) -> T:
    """Return the task's result; cancels it and raises ClientGoneError when the client hangs up first."""
    watch = asyncio.create_task(gone(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGoneError
    finally:
        watch.cancel()
        if not task.done():
            task.cancel()


async def gone(request: Request) -> None:
    """Returns when the client has hung up; the request's body has to be read by then."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
