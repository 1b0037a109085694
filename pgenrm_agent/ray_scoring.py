"""Dataset scoring on many machines: Ray Data, with one model per worker."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from itertools import islice
from typing import TypeAlias

from pgenrm_agent.dataset_scoring import DatasetJob, Row, RowResult, Runner, score_row
from pgenrm_agent.errors import ConfigurationError, EngineError, PGenRMError
from pgenrm_agent.reward_model import PGenRM

__all__ = ["MakeModel", "on_ray"]

MakeModel: TypeAlias = Callable[[], PGenRM]
AT_ONCE = 10_000
"""Rows handed to Ray at a time: the driver keeps no more than these in memory."""


class _Worker:
    """An actor: one model, kept for all its batches. Its rows share the engine's batches.

    What is wrong with the model or the job comes back as a `fault`, in words: raised here, it would
    reach the driver inside tracebacks of Ray's.
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


def on_ray(make: MakeModel, *, workers: int, gpus: float = 0.0, batch: int = 16) -> Runner:
    """Score rows on `workers` Ray actors, each with a model of its own.

    make: makes the model in the worker, so it is pickled: `functools.partial(PGenRM, ...)`. An
        embedded memory has one owner process; here rows bring their histories, or the memory is a
        Chroma server.
    gpus: GPUs a worker. batch: rows that a worker scores at the same time.

    Uses the cluster that RAY_ADDRESS names, or starts Ray on this machine. Results come back to
    this process, which writes them; a worker that dies is replaced by Ray, and its rows are scored
    again. Raises EngineError with what a worker found wrong with the model.
    """
    if workers < 1 or batch < 1:
        raise ConfigurationError(f"{workers} workers, batches of {batch}: pass at least 1 of each")

    async def run(rows: Iterator[Row], job: DatasetJob) -> AsyncGenerator[RowResult]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of people's data
        import ray

        started = not ray.is_initialized()
        if started:
            ray.init(include_dashboard=False, log_to_driver=False)
        try:
            while part := list(islice(rows, AT_ONCE)):
                texts = [json.dumps(row, ensure_ascii=False) for row in part]
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
                    fn_constructor_args=(make, job.model_dump_json()),
                )
                for results in answered.iter_batches(batch_size=None):
                    for text, fault in zip(results["result"], results["fault"], strict=True):
                        if fault:
                            raise EngineError(f"a worker on Ray cannot score: {fault}")
                        yield RowResult.model_validate_json(str(text))
        finally:
            if started:
                ray.shutdown()

    return run
