"""Dataset scoring on many machines: Ray Data, with one model per worker."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeAlias

from pgenrm_agent.errors import ConfigurationError, EngineError, EngineUnavailable, PGenRMError
from pgenrm_agent.integrations.dataset_scoring import DatasetJob, Row, RowResult, Runner, score_row
from pgenrm_agent.reward_model import PGenRM

MakeModel: TypeAlias = Callable[[], PGenRM]
AT_ONCE = 10_000
"""Rows handed to Ray at a time: the driver keeps no more than these in memory."""
RESTARTS = 5
"""How often a worker that died is replaced, in AT_ONCE rows; Ray itself would go on for ever."""

_log = logging.getLogger(__name__)


class _Worker:
    """An actor: one model, kept for all its batches. Its rows share the engine's batches.

    What goes wrong comes back as a `fault`, in words: raised here, it would reach the driver inside
    tracebacks of Ray's. The worker's own log has the traceback of what was not foreseen.
    """

    def __init__(self, make: MakeModel, job: str) -> None:
        self._make = make
        self._model: PGenRM | None = None
        self._job = DatasetJob.model_validate_json(job)
        self._loop = asyncio.new_event_loop()

    def __call__(self, batch: dict[str, list[str]]) -> dict[str, list[str]]:
        try:
            results = self._loop.run_until_complete(self._score(batch["row"]))
        except PGenRMError as error:
            return {"result": [""], "fault": [str(error)]}
        except Exception as error:
            _log.exception("scoring failed")
            return {"result": [""], "fault": [f"{type(error).__name__}: {error}"]}
        texts = [result.model_dump_json() for result in results]
        return {"result": texts, "fault": [""] * len(texts)}

    async def _score(self, rows: Iterable[str]) -> list[RowResult]:
        model = self._model = self._model or self._make()
        return await asyncio.gather(
            *(
                score_row(model, (number, values), self._job)
                for number, values in map(json.loads, rows)
            )
        )


def on_ray(
    make: MakeModel, *, workers: int, gpus: float = 0.0, batch: int = 16, at_once: int | None = None
) -> Runner:
    """Score rows on `workers` Ray actors, each with a model of its own.

    Uses the cluster that RAY_ADDRESS names, or starts Ray on this machine. Results come back to
    this process, which writes them; a worker that dies is replaced, and its rows are scored again.

    An embedded memory has one owner process, so workers cannot share one: either rows bring what
    is known of their users and the job's `scaling.prototype` is 0, or the memory is a Chroma server.

    Args:
        make: Makes the model in the worker, so it is pickled: `functools.partial(PGenRM, ...)`.
        workers: How many actors.
        gpus: GPUs a worker.
        batch: Rows that a worker scores at the same time.
        at_once: Rows handed out before the results of any are waited for; AT_ONCE if None. With a
            budget, fewer: what a row costs is known once some have come back.

    Raises:
        ConfigurationError: Fewer than one worker or row a batch; or more GPUs than this machine
            has, where Ray is started on it.
        EngineUnavailable: Ray cannot be started or reached.
        EngineError: What a worker found wrong, or that workers died again and again.
    """
    if workers < 1 or batch < 1:
        raise ConfigurationError(f"{workers} workers, batches of {batch}: pass at least 1 of each")

    async def run(rows: Iterator[Row], job: DatasetJob) -> AsyncGenerator[RowResult]:
        with _ray(workers * gpus):
            import ray
            from ray.exceptions import RayError

            while part := list(islice(rows, at_once or AT_ONCE)):
                # A history may say when; JSON has no times.
                texts = [json.dumps(row, ensure_ascii=False, default=str) for row in part]
                # One block a batch, so that results come back batch by batch.
                asked = ray.data.from_items(
                    [{"row": text} for text in texts],
                    override_num_blocks=math.ceil(len(texts) / batch),
                )
                answered = asked.map_batches(
                    _Worker,
                    batch_size=batch,
                    compute=ray.data.ActorPoolStrategy(size=workers),
                    num_cpus=1,
                    num_gpus=gpus,
                    max_restarts=RESTARTS,
                    max_task_retries=RESTARTS,
                    fn_constructor_args=(make, job.model_dump_json()),
                )
                try:
                    for results in answered.iter_batches(batch_size=None):
                        for text, fault in zip(results["result"], results["fault"], strict=True):
                            if fault:
                                raise EngineError(f"a worker on Ray cannot score: {fault}")
                            yield RowResult.model_validate_json(str(text))
                except RayError as error:
                    raise EngineError(
                        f"the workers on Ray failed ({_first_line(error)}): what they wrote is in"
                        " the logs of Ray's session; start the job again to go on"
                    ) from error

    return run


@contextmanager
def _ray(gpus: float) -> Iterator[None]:
    """Ray connected or started, and quiet; stopped again where it was started here.

    gpus: how many are needed in all.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of users' data
    import ray

    started = not ray.is_initialized()
    if started:
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises this very class where starting takes too long
            where = os.environ.get("RAY_ADDRESS", "this machine")
            raise EngineUnavailable(
                f"Ray cannot be started or reached on {where}: {_first_line(error)}; check"
                " RAY_ADDRESS, which names a cluster, and that the machine is not overloaded"
            ) from error
    settings = ray.data.DataContext.get_current()
    bars, settings.enable_progress_bars = settings.enable_progress_bars, False
    try:
        # A cluster may grow; this machine does not, and Ray would wait for ever.
        here = ray.cluster_resources().get("GPU", 0.0)
        if started and "RAY_ADDRESS" not in os.environ and gpus > here:
            raise ConfigurationError(
                f"the workers need {gpus:g} GPUs in all, and this machine has {here:g}: ask for"
                " fewer workers or GPUs, or name a cluster with RAY_ADDRESS"
            )
        yield
    finally:
        settings.enable_progress_bars = bars
        if started:
            ray.shutdown()


def _first_line(error: BaseException) -> str:
    """Return what happened in one line; Ray's messages go on with tracebacks and addresses."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0].strip()}" if said else type(error).__name__
