"""What judges said, one line each in a file that only grows.

A run that is killed loses at most the line being written: an incomplete last line is cut off when
the file is opened again, and everything before it stays.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Generic, Self, TypeVar

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.schema import Model

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Record", "RecordLog", "Verdict", "read_parquet", "write_parquet"]

RecordModel = TypeVar("RecordModel", bound=Model)


class Verdict(Model):
    """What a judge made of one question; all lists over candidates are in the question's order.

    scores: rewards; None for a candidate that was not scored, for this `reason`.
    probability_best: 0-1, where the judge tells it.
    orders, totals: by readable sample, the candidates in the order shown, and their scores.
    failures: unreadable samples by reason.
    slips: totals that the model itself wrote and that are off by more than 0.1, of `compared`.
    prototype: the nearest to the user, if they were matched.
    """

    scores: tuple[float | None, ...]
    probability_best: tuple[float | None, ...] = ()
    reason: str | None = None
    orders: tuple[tuple[int, ...], ...] = ()
    totals: tuple[tuple[float | None, ...], ...] = ()
    failures: dict[str, int] = Field(default_factory=dict)
    slips: int = 0
    compared: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prototype: str | None = None


class Record(Model):
    """One question, judged once. `run` counts from 0; `seconds` is how long the judge took."""

    judge: str
    run: int
    question: str
    user_id: str
    group: str | None
    grades: tuple[float, ...]
    candidates: tuple[str, ...]
    seed: int
    seconds: float
    verdict: Verdict

    @property
    def key(self) -> tuple[str, int, str]:
        """What there is one record of."""
        return self.judge, self.run, self.question


class RecordLog(Generic[RecordModel]):
    """An append-only JSONL file of one model, with one writing process.

    Use as a context manager. Raises ConfigurationError when another process writes to it, or when a
    line before the last cannot be read.
    """

    def __init__(self, path: Path, kind: type[RecordModel]) -> None:
        self._path = path
        self._kind = kind
        self._lock = FileLock(f"{path}.lock", timeout=0)
        self._file: IO[bytes] | None = None
        self.found: list[RecordModel] = []

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise ConfigurationError(
                f"another process writes to {self._path}: wait for it, or use another folder"
            ) from None
        try:
            self.found = self._read()
            self._file = self._path.open("ab")
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
        self._lock.release()

    def append(self, record: RecordModel) -> None:
        """Write one line; a killed process does not lose it."""
        if self._file is None:
            raise ValueError(f"{self._path} is not open")
        # One write of one line, past Python's own buffer.
        self._file.write(record.model_dump_json().encode("utf-8", "surrogatepass") + b"\n")
        self._file.flush()

    def _read(self) -> list[RecordModel]:
        if not self._path.is_file():
            return []
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self._path.open("r+b") as file:
                file.truncate(whole)
        records = []
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                records.append(self._kind.model_validate_json(line))
            except ValidationError as error:
                raise ConfigurationError(
                    f"{self._path}, line {number} is no {self._kind.__name__.lower()}"
                    f" ({error.errors(include_url=False)[0]['msg']}): it was changed or written by"
                    " another version; use another folder"
                ) from None
        return records


def write_parquet(records: Iterable[Record], path: Path) -> None:
    """One row a record, sorted by judge, run and question; replaces the file in one step."""
    import pyarrow
    from pyarrow import parquet

    rows = []
    for record in sorted(records, key=lambda record: record.key):
        row = record.model_dump(mode="json")
        verdict = row.pop("verdict")
        # A column of maps with changing keys would be a struct of every key ever seen.
        verdict["failures"] = json.dumps(verdict["failures"], sort_keys=True)
        rows.append({**row, **verdict})
    beside = path.with_name(path.name + ".new")
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=_schema()), beside)
    beside.replace(path)


def read_parquet(path: Path) -> list[Record]:
    """The records of a results file.

    Raises ConfigurationError for a file that is no result of `pgenrm eval`.
    """
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(path)
    except (OSError, ArrowException) as error:
        raise ConfigurationError(f"{path} cannot be read as Parquet: {error}") from error
    missing = set(_schema().names) - set(table.column_names)
    if missing:
        raise ConfigurationError(
            f"{path} is no result of `pgenrm eval`: it lacks {', '.join(sorted(missing))}"
        )
    return [_record(row) for row in table.select(_schema().names).to_pylist()]


def _record(row: dict[str, object]) -> Record:
    said = {name: row[name] for name in Verdict.model_fields}
    said["failures"] = json.loads(str(said["failures"]))
    rest = {name: row[name] for name in Record.model_fields if name != "verdict"}
    return Record.model_validate({**rest, "verdict": said})


def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    numbers: pyarrow.DataType = pa.list_(pa.float64())
    columns: Sequence[tuple[str, pyarrow.DataType]] = [
        ("judge", pa.string()),
        ("run", pa.int32()),
        ("question", pa.string()),
        ("user_id", pa.string()),
        ("group", pa.string()),
        ("grades", numbers),
        ("candidates", pa.list_(pa.string())),
        ("seed", pa.int64()),
        ("seconds", pa.float64()),
        ("scores", numbers),
        ("probability_best", numbers),
        ("reason", pa.string()),
        ("orders", pa.list_(pa.list_(pa.int32()))),
        ("totals", pa.list_(numbers)),
        ("failures", pa.string()),
        ("slips", pa.int32()),
        ("compared", pa.int32()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("prototype", pa.string()),
    ]
    return pa.schema(columns)
