"""What judges said: a record for each question, judge and run; and as a Parquet file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.fields import Model
from pgenrm_agent.files import replacing

if TYPE_CHECKING:
    import pyarrow


class Verdict(Model):
    """What a judge made of one question; all lists over candidates are in the question's order.

    scores: rewards; None for a candidate that was not scored, for this `reason`.
    probability_best: 0-1, where the judge tells it.
    orders, totals: by readable sample, the candidates in the order shown, and their scores.
    failures: unreadable samples by reason.
    slips: totals that the model itself wrote and that are off by more than 0.1, of `compared`.
    unchecked: readable chains with the model's own totals alone, so that no second reading could
        contradict them; None for a judge that writes no chains.
    prototype: the nearest to the user, if they were matched.
    """

    scores: tuple[Annotated[float, Field(allow_inf_nan=False)] | None, ...]
    probability_best: tuple[float | None, ...] = ()
    reason: str | None = None
    orders: tuple[tuple[int, ...], ...] = ()
    totals: tuple[tuple[float | None, ...], ...] = ()
    failures: dict[str, int] = Field(default_factory=dict)
    slips: int = 0
    compared: int = 0
    unchecked: int | None = None
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
    with replacing(path) as beside:
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema=_schema()), beside)


def read_parquet(path: Path) -> list[Record]:
    """The records of a results file.

    Raises ConfigurationError for a file that is no result of `pgenrm eval`.
    """
    from pyarrow import ArrowException, parquet

    if not path.exists():
        raise ConfigurationError(f"there is no {path}: name a folder that pgenrm eval has finished")
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
        ("unchecked", pa.int32()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("prototype", pa.string()),
    ]
    return pa.schema(columns)
