"""Score a whole Parquet file: exactly one result a row, whatever is killed on the way.

Results are appended to a file beside the output as they come; when none is missing, the output is
written in the input's order, in one step, and the file is removed. Started again, a job goes on
where it was. A row's seed depends on the job's seed and the row's number alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from pydantic import Field

from pgenrm_agent.costs import CostLedger
from pgenrm_agent.errors import ChainError, ConfigurationError, InvalidInput
from pgenrm_agent.fields import Model
from pgenrm_agent.files import replacing
from pgenrm_agent.jsonl import RecordLog
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.run_folder import refuse_other_settings
from pgenrm_agent.sampling import derive_seed
from pgenrm_agent.schema import (
    Message,
    PreferencePair,
    Scaling,
    StatedPreference,
    Usage,
    UserSignals,
)
from pgenrm_agent.user_ids import user_id_of

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

REQUIRED = {"user_id", "query", "candidates"}
OPTIONAL = {"conversation", "history", "stated"}
READ_AT_ONCE = 512
ROWS = "rows"
"""The one kind of work, where costs are counted."""

T = TypeVar("T")
Row: TypeAlias = tuple[int, Mapping[str, object]]
Runner: TypeAlias = Callable[[Iterator[Row], "DatasetJob"], AsyncGenerator["RowResult"]]


class RowResult(Model):
    """What came of one row; lists are in the order of the row's candidates.

    Attributes:
        row: From 0.
        ranking: Indices of the scored candidates, best first.
        reason: Why a candidate, or the row, was not scored.
        tokens: Written. prompt_tokens: Read.
    """

    row: int
    scores: tuple[float | None, ...]
    probability_best: tuple[float | None, ...]
    ranking: tuple[int, ...]
    reason: str | None
    chains: int
    failures: int
    tokens: int
    prompt_tokens: int = 0
    seed: int


class DatasetJob(Model):
    """What a job's results depend on; a job is only resumed with the same.

    asked_with: what they depend on beside what is named here.
    """

    digest: str = ""
    rows: int = 0
    model: str
    engine: str
    scaling: Scaling
    seed: int
    embedder: str | None = None
    asked_with: dict[str, str | None] = Field(default_factory=dict)


class Summary(Model):
    """What a finished job did; `resumed` counts the rows that an earlier start had done.

    usage: tokens of all rows, and what they cost where prices are given.
    """

    rows: int
    resumed: int
    scored: int
    not_scored: int
    reasons: dict[str, int] = Field(default_factory=dict)
    usage: Usage = Usage()


async def score_row(model: PGenRM, row: Row, job: DatasetJob) -> RowResult:
    """Score one row.

    A row that cannot be used, and one whose chains cannot be read, has no scores and a reason. What
    the engine or the memory raises is raised: it concerns all rows, and the job can be resumed.
    """
    number, values = row
    seed = derive_seed(job.seed, "row", number)
    candidates = values.get("candidates")
    count = len(candidates) if isinstance(candidates, Sequence) else 0
    try:
        _refuse_incomplete(values)
        evaluation = await model.ascore(
            user_id_of(values["user_id"], "user_id"),
            str(values["query"]),
            _texts(candidates),
            conversation=_read(Message.model_validate, values, "conversation"),
            scaling=job.scaling.model_copy(update={"seed": seed}),
            signals=_signals(values),
        )
    except (ChainError, ConfigurationError) as error:
        return RowResult(
            row=number,
            scores=(None,) * count,
            probability_best=(None,) * count,
            ranking=(),
            reason=str(error),
            chains=0,
            failures=0,
            tokens=error.completion_tokens if isinstance(error, ChainError) else 0,
            prompt_tokens=error.prompt_tokens if isinstance(error, ChainError) else 0,
            seed=seed,
        )
    place = {candidate.id: index for index, candidate in enumerate(evaluation.request.candidates)}
    reasons = [score.reason for score in evaluation.scores if score.reason]
    return RowResult(
        row=number,
        scores=tuple(score.mean for score in evaluation.scores),
        probability_best=tuple(score.probability_best for score in evaluation.scores),
        ranking=tuple(place[candidate_id] for candidate_id in evaluation.ranking),
        reason=reasons[0] if reasons else None,
        chains=len(evaluation.chains),
        failures=len(evaluation.failures),
        tokens=evaluation.usage.completion_tokens,
        prompt_tokens=evaluation.usage.prompt_tokens,
        seed=seed,
    )


def in_process(model: PGenRM, *, concurrency: int = 16) -> Runner:
    """Score rows on one model of this process, `concurrency` at a time, which share its batches."""

    async def run(rows: Iterator[Row], job: DatasetJob) -> AsyncGenerator[RowResult]:
        running: set[asyncio.Task[RowResult]] = set()
        try:
            for row in rows:
                running.add(asyncio.ensure_future(score_row(model, row, job)))
                if len(running) >= concurrency:
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        yield task.result()
            for finished in asyncio.as_completed(running):
                yield await finished
        finally:
            for task in running:
                task.cancel()

    return run


def score_dataset(
    source: Path,
    target: Path,
    job: DatasetJob,
    run: Runner,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    ledger: CostLedger | None = None,
) -> Summary:
    """Score every row of a Parquet file into another one.

    Args:
        source: Columns user_id, query, candidates (list of texts); optional history (list of query,
            chosen, rejected), stated (list of texts) and conversation (list of role, content). With
            history or stated, these are all that is known of the row's user; otherwise that comes
            from the model's memory.
        target: The input's columns and those of `RowResult`, in the input's order.
        job: What the results depend on.
        run: `in_process(...)`, or `ray_scoring.on_ray(...)`.
        progress: Told how many rows are done, of how many.
        ledger: Prices, and the budget of the job, earlier starts included.

    Raises:
        BudgetReached: No further row fits into the budget; a new start with a higher one goes on.
        ConfigurationError: The file cannot be used, the target is there already, or there are
            results of another job.
        EngineError: As the engine raises it; a new start goes on. So with MemoryStoreError.
    """
    table = open_parquet(source)
    ledger = ledger or CostLedger()
    folder = progress_folder(target)
    taken = ConfigurationError(
        f"{target} exists already: nothing is overwritten; remove it or name another file"
    )
    if target.exists() and not folder.exists():
        raise taken
    job = job.model_copy(update={"digest": _digest(source), "rows": table.metadata.num_rows})
    with RecordLog(folder / "results.jsonl", RowResult) as log:
        refuse_other_settings(
            folder / "job.json", job.model_dump(mode="json"), what="results of a job"
        )
        done = {result.row: result for result in log.records}
        if target.exists() and len(done) < job.rows:
            raise taken  # not by this job, which writes it when nothing is missing
        resumed = len(done)
        for result in done.values():
            ledger.record(ROWS, result.prompt_tokens, result.tokens)
        progress(resumed, job.rows)

        async def work() -> None:
            missing = (row for row in _rows(table) if row[0] not in known)
            affordable = takewhile(lambda row: ledger.begin(ROWS), missing)
            async with aclosing(run(affordable, job)) as results:
                async for result in results:
                    if result.row not in done:
                        log.append(result)
                        done[result.row] = result
                        ledger.record(ROWS, result.prompt_tokens, result.tokens)
                        progress(len(done), job.rows)

        known = frozenset(done)
        if len(done) < job.rows:
            asyncio.run(work())
        absent = [number for number in range(job.rows) if number not in done]
        if absent and ledger.stopped:
            raise ledger.end(len(done), job.rows, ROWS)
        if absent:
            raise ConfigurationError(
                f"{len(absent)} rows came back without a result (the first is {absent[0]}): start"
                " the job again"
            )
        _write(source, target, done)
    shutil.rmtree(folder)
    reasons: dict[str, int] = {}
    for result in done.values():
        if result.reason is not None:
            reasons[result.reason] = reasons.get(result.reason, 0) + 1
    scored = sum(bool(result.ranking) for result in done.values())
    return Summary(
        rows=job.rows,
        resumed=resumed,
        scored=scored,
        not_scored=job.rows - scored,
        reasons=dict(sorted(reasons.items(), key=lambda reason: (-reason[1], reason[0]))[:10]),
        usage=ledger.usage,
    )


def _refuse_incomplete(values: Mapping[str, object]) -> None:
    for column in sorted(REQUIRED):
        if values.get(column) in (None, "", [], ()):
            raise ConfigurationError(f"{column} is empty: every row needs one")


def _signals(values: Mapping[str, object]) -> UserSignals | None:
    """Return what the row tells of its user; None where it tells nothing."""
    if values.get("history") is None and values.get("stated") is None:
        return None
    history = _read(PreferencePair.model_validate, values, "history")
    stated = _read(lambda text: StatedPreference(text=str(text)), values, "stated")
    with _naming("user_id"):
        return UserSignals(
            user_id=user_id_of(values["user_id"], "user_id"), history=history, stated=stated
        )


def _read(read: Callable[[object], T], values: Mapping[str, object], column: str) -> tuple[T, ...]:
    """Return the column's list, item by item."""
    given = values.get(column)
    with _naming(column):
        if not isinstance(given, list):
            return ()
        return tuple(read(item) for item in given if item is not None)


@contextmanager
def _naming(column: str) -> Iterator[None]:
    """Turn what the schema refuses into a ConfigurationError that names the column."""
    try:
        yield
    except InvalidInput as error:
        raise ConfigurationError(f"{column}: {error}") from None


def _texts(candidates: object) -> list[str]:
    if not isinstance(candidates, list):
        return []
    return ["" if text is None else str(text) for text in candidates]  # which cannot be scored


def progress_folder(target: Path) -> Path:
    """Return where the results are kept until none is missing."""
    return target.with_name(f"{target.name}.progress")


def open_parquet(source: Path) -> ParquetFile:
    """Return the file of rows.

    Raises:
        ConfigurationError: It cannot be read, has no rows, or not the columns that are needed.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        table = ParquetFile(source)
    except (OSError, ArrowException) as error:
        raise ConfigurationError(f"{source} cannot be read as Parquet: {error}") from error
    names = set(table.schema_arrow.names)
    if missing := REQUIRED - names:
        raise ConfigurationError(
            f"{source} lacks the column {', '.join(sorted(missing))}: it needs"
            f" {', '.join(sorted(REQUIRED))}, and may have {', '.join(sorted(OPTIONAL))}"
        )
    if taken := names & set(RowResult.model_fields):
        raise ConfigurationError(
            f"{source} has the column {', '.join(sorted(taken))}, which is the name of a result:"
            " rename it"
        )
    if not table.metadata.num_rows:
        raise ConfigurationError(f"{source} has no rows: nothing can be scored")
    return table


def _rows(table: ParquetFile) -> Iterator[Row]:
    names = [name for name in table.schema_arrow.names if name in REQUIRED | OPTIONAL]
    number = 0
    for batch in table.iter_batches(batch_size=READ_AT_ONCE, columns=names):
        for values in batch.to_pylist():
            yield number, values
            number += 1


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _write(source: Path, target: Path, results: Mapping[int, RowResult]) -> None:
    """The input's rows with their results, in order; `target` appears whole or not at all."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile, ParquetWriter

    columns = pa.schema(
        [
            ("row", pa.int64()),
            ("scores", pa.list_(pa.float64())),
            ("probability_best", pa.list_(pa.float64())),
            ("ranking", pa.list_(pa.int32())),
            ("reason", pa.string()),
            ("chains", pa.int32()),
            ("failures", pa.int32()),
            ("tokens", pa.int64()),
            ("prompt_tokens", pa.int64()),
            ("seed", pa.int64()),
        ]
    )
    table = ParquetFile(source)
    schema = pa.schema([*table.schema_arrow, *columns])
    number = 0
    with replacing(target) as beside, ParquetWriter(beside, schema) as writer:
        for batch in table.iter_batches(batch_size=READ_AT_ONCE):
            rows = [results[number + at].model_dump() for at in range(len(batch))]
            added = pa.RecordBatch.from_pylist(rows, schema=columns)
            writer.write_batch(
                pa.RecordBatch.from_arrays([*batch.columns, *added.columns], schema=schema)
            )
            number += len(batch)
