"""The records of a file, each with where it stands; and JSONL files of one model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from pgenrm_agent.errors import ConfigurationError, InvalidInput
from pgenrm_agent.fields import Model
from pgenrm_agent.files import open_text, read_text

Located = tuple[str, Mapping[str, object]]
"""Where a record stands, as "FILE, line N", and the record."""

ROW_FILES = (".parquet", ".json", ".jsonl", ".jsonl.gz")

AnyModel = TypeVar("AnyModel", bound=Model)


def read_models(path: Path, kind: type[AnyModel]) -> list[AnyModel]:
    """Read a JSONL file with a `kind` in each line.

    Raises ConfigurationError that names the file, the line and the field.
    """
    models = []
    try:
        # Not splitlines: a text may hold other separators that JSON leaves as they are.
        lines = read_text(path).split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read as text: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            models.append(kind.model_validate_json(line))
        except InvalidInput as error:
            raise ConfigurationError(
                f"{path}, line {number}, field {error.place or 'row'}: {error.complaint}"
            ) from None
    return models


def read_records(path: Path) -> Iterator[Located]:
    """Read each record of a parquet, JSON or JSONL file."""
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        yield from read_jsonl(path)
    elif path.suffix == ".json":
        yield from _json(path)
    elif path.suffix == ".parquet":
        yield from _parquet(path)
    else:
        raise ConfigurationError(f"{path}: a {', '.join(ROW_FILES)} file is needed")


def read_jsonl(path: Path) -> Iterator[Located]:
    """Read each record of a JSONL file, gzipped or not."""
    if not path.is_file():
        raise ConfigurationError(f"{path}: {'it is a folder' if path.is_dir() else 'no such file'}")
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ConfigurationError(f"{where}: not JSON: {error}") from error
        if not isinstance(record, dict):
            raise ConfigurationError(f"{where}: an object is needed, not {line.strip()[:40]}")
        yield where, record


def _lines(path: Path) -> Iterator[str]:
    """Read the lines of a file that may be no text, no gzip, or half of one."""
    number = 0
    try:
        with open_text(path) as lines:
            for line in lines:
                number += 1
                yield line
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}, after line {number}: cannot be read: {error}") from error


def _json(path: Path) -> Iterator[Located]:
    try:
        records = json.loads(read_text(path))
    except (OSError, EOFError, ValueError) as error:
        raise ConfigurationError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(records, list):
        raise ConfigurationError(f"{path}: a list of objects is needed")
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise ConfigurationError(f"{path}, row {number}: an object is needed")
        yield f"{path}, row {number}", record


def _parquet(path: Path) -> Iterator[Located]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ConfigurationError(f"{path}: reading parquet needs pip install pyarrow") from error
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            for record in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", record
    except (OSError, ArrowException) as error:
        raise ConfigurationError(f"{path}: cannot be read as parquet: {error}") from error
