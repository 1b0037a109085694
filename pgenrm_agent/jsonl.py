"""A JSONL file that only grows, with one writing process.

A run that is killed loses at most the line being written: an incomplete last line is cut off when
the file is opened again, and everything before it stays.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Generic, Self, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from pgenrm_agent.errors import ConfigurationError, InvalidInput
from pgenrm_agent.wording import said_of

Row = TypeVar("Row", bound=BaseModel)


def read_records(path: Path, kind: type[Row]) -> list[Row]:
    """Return what a `RecordLog` holds; nothing where there is none yet.

    Raises ConfigurationError as the log does.
    """
    if not path.is_file():
        return []
    with RecordLog(path, kind) as log:
        return log.records


class RecordLog(Generic[Row]):
    """An append-only JSONL file of one model, with one writing process.

    Use as a context manager. Raises ConfigurationError when another process writes to it, or when a
    line before the last cannot be read.
    """

    def __init__(self, path: Path, kind: type[Row]) -> None:
        self._path = path
        self._kind = kind
        self._lock = FileLock(f"{path}.lock", timeout=0)
        self._file: IO[bytes] | None = None
        self.records: list[Row] = []

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise ConfigurationError(
                f"another process writes to {self._path}: wait for it, or use another folder"
            ) from None
        try:
            self.records = self._read()
            self._file = self._path.open("ab")
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
        self._lock.release()

    def append(self, record: Row) -> None:
        """Write one line; a killed process does not lose it."""
        if self._file is None:
            raise ValueError(f"{self._path} is not open")
        # One write of one line, past Python's own buffer.
        self._file.write(record.model_dump_json().encode("utf-8", "surrogatepass") + b"\n")
        self._file.flush()

    def _read(self) -> list[Row]:
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
            except (InvalidInput, ValidationError) as error:
                said = (
                    error.complaint
                    if isinstance(error, InvalidInput)
                    else said_of(error.errors(include_url=False)[0])
                )
                raise ConfigurationError(
                    f"{self._path}, line {number} is no {self._kind.__name__.lower()}"
                    f" ({said}): it was changed or written by"
                    " another version; use another folder"
                ) from None
        return records
