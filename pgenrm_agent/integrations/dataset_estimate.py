"""What scoring a Parquet file would cost, from what a sample of its rows would send."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pgenrm_agent.costs import Estimate, Work, estimate_work, spread
from pgenrm_agent.engines.counting import CountingEngine
from pgenrm_agent.integrations.dataset_scoring import (
    READ_AT_ONCE,
    ROWS,
    DatasetJob,
    Row,
    RowResult,
    open_parquet,
    progress_folder,
    score_row,
)
from pgenrm_agent.jsonl import read_records
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Prices, Usage
from pgenrm_agent.user_ids import user_id_of

SAMPLED = 24
"""Rows whose prompts are written to estimate those of all."""


def estimate_dataset(
    source: Path,
    target: Path,
    job: DatasetJob,
    model: PGenRM,
    counting: CountingEngine,
    prices: Prices | None,
) -> Estimate:
    """Return what the rows that have no result yet would cost. Nothing is sent, or kept.

    Args:
        source: As for `score_dataset`.
        target: As for `score_dataset`.
        job: As for `score_dataset`.
        model: A reward model on `counting`, with the job's memory.
        counting: The engine that counts.
        prices: What its tokens cost; None where that is not known.

    Raises:
        ConfigurationError: The file cannot be used.
    """
    table = open_parquet(source)
    kept = read_records(progress_folder(target) / "results.jsonl", RowResult)
    done = {result.row for result in kept}
    missing = [number for number in range(table.metadata.num_rows) if number not in done]
    numbers = spread(missing, SAMPLED)
    # A chain that cannot be read is no reason to ask again: none is written.
    once = job.scaling.model_copy(update={"resamples": 0, "stop_when_sure": None})
    outlined = job.model_copy(update={"scaling": once})

    async def ask() -> None:
        for number, values in _rows(source, numbers):
            await score_row(model, (number, _knowing(values, model, job)), outlined)

    asyncio.run(ask())
    work = Work(
        pieces=len(missing),
        outline=counting.outline,
        outlined=len(numbers),
        rounds=1 + job.scaling.resamples,
        done=len(kept),
        spent=Usage(
            prompt_tokens=sum(result.prompt_tokens for result in kept),
            completion_tokens=sum(result.tokens for result in kept),
        ),
    )
    return estimate_work("rows", {ROWS: work}, prices)


def _rows(source: Path, numbers: Sequence[int]) -> Iterator[Row]:
    """Return the rows of these numbers, which ascend."""
    table = open_parquet(source)
    first, wanted = 0, list(numbers)
    for batch in table.iter_batches(batch_size=READ_AT_ONCE):
        while wanted and wanted[0] < first + len(batch):
            number = wanted.pop(0)
            [values] = batch.slice(number - first, 1).to_pylist()
            yield number, values
        first += len(batch)


def _knowing(values: Mapping[str, object], model: PGenRM, job: DatasetJob) -> Mapping[str, object]:
    """Return a row with what the memory knows of its user, so that asking leaves no trace there."""
    given = values.get("history") is not None or values.get("stated") is not None
    if given or not values.get("user_id"):
        return values
    signals = model.memory.recall(
        user_id_of(values["user_id"], "user_id"),
        query=str(values.get("query")),
        limit=job.scaling.history,
        selection=job.scaling.history_selection,
        seed=job.seed,
    )
    return {
        **values,
        "history": [pair.model_dump() for pair in signals.history],
        "stated": [statement.text for statement in signals.stated],
    }
