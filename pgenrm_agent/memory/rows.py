"""What a row of the memory looks like, in Chroma and in a JSONL export."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from pgenrm_agent.errors import InvalidInput, MemoryStoreError
from pgenrm_agent.fields import Model, Moment, UserId, YesOrNo, in_utc_if_naive
from pgenrm_agent.schema import PreferencePair, StatedPreference

__all__ = [
    "MAX_PAIR_CHARACTERS",
    "SCHEMA_VERSION",
    "ConsentRecord",
    "PairRecord",
    "Record",
    "Row",
    "StatedRecord",
    "UserSummary",
    "pair_from_row",
    "read_record",
    "record_to_row",
    "stated_from_row",
]

SCHEMA_VERSION = 1
MAX_PAIR_CHARACTERS = 200_000  # query, both answers and the conversation together

MetadataValue: TypeAlias = str | int | float | bool
Metadata: TypeAlias = dict[str, MetadataValue]


class Row(Model):
    """One row of a Chroma collection."""

    id: str
    metadata: dict[str, MetadataValue]


class UserSummary(Model):
    """How much is remembered of one user. `pairs` and `stated` are counts."""

    user_id: str
    pairs: int
    stated: int
    consent: bool


class PairRecord(Model):
    """A remembered choice, as it is exported."""

    record: Literal["preference_pair"] = "preference_pair"
    schema_version: Literal[1] = 1
    user_id: UserId
    pair: PreferencePair


class StatedRecord(Model):
    """A stated preference, as it is exported. `created_at`: when it was first stated."""

    record: Literal["stated_preference"] = "stated_preference"
    schema_version: Literal[1] = 1
    user_id: UserId
    stated: StatedPreference
    created_at: Moment


class ConsentRecord(Model):
    """A user's answer to: may my choices help to score answers for similar users?"""

    record: Literal["consent"] = "consent"
    schema_version: Literal[1] = 1
    user_id: UserId
    consent: YesOrNo


Record: TypeAlias = PairRecord | StatedRecord | ConsentRecord
_RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="record")])


def read_record(row: object, where: str) -> Record:
    """Validate one exported row. `where` ("users.jsonl, line 3") opens the error message."""
    if isinstance(row, str | bytes):
        try:
            row = json.loads(row)
        except (ValueError, RecursionError) as error:
            raise MemoryStoreError(f"{where}: not JSON: {error}") from error
    if not isinstance(row, Mapping):
        raise MemoryStoreError(f"{where}: expected one JSON object, found {type(row).__name__}")
    version = row.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise MemoryStoreError(
            f"{where}: field schema_version: {version} was written by a newer pgenrm-agent (this "
            f"one reads up to {SCHEMA_VERSION}); upgrade pgenrm-agent"
        )
    try:
        record = _RECORD.validate_python(dict(row))
        check_limits(record)
    except ValidationError as error:
        first = error.errors()[0]
        # The first part of a tagged union's location is the tag, not a field.
        field = ".".join(str(part) for part in first["loc"][1:]) or "record"
        raise MemoryStoreError(f"{where}: field {field}: {first['msg']}") from error
    except MemoryStoreError as error:
        raise MemoryStoreError(f"{where}: {error}") from error
    return record


def check_limits(record: Record) -> None:
    """Refuse what could not be stored and read back unchanged."""
    if isinstance(record, PairRecord):
        pair = record.pair
        texts = [pair.query, pair.chosen, pair.rejected, *(m.content for m in pair.conversation)]
        _check_size(f"pair {pair.id}", texts, MAX_PAIR_CHARACTERS)
        numbers = {"chosen_score": pair.chosen_score, "rejected_score": pair.rejected_score}
        numbers |= {f"attributes.{name}": value for name, value in (pair.attributes or {}).items()}
        for name, value in numbers.items():
            if value is not None and not math.isfinite(value):
                raise MemoryStoreError(
                    f"field {name} of pair {pair.id} is {value}: give a finite number or leave "
                    "it out"
                )


def record_to_row(record: Record) -> Row:
    """Return the Chroma row of a record.

    Texts travel as JSON in the metadata, not as Chroma documents: documents are also entered into a
    full-text index, which nobody here asks.
    """
    metadata: Metadata = {"user_id": record.user_id, "schema_version": SCHEMA_VERSION}
    if isinstance(record, PairRecord):
        return Row(
            id=row_id("pair", record.user_id, record.pair.id),
            metadata=metadata | {"pair_id": record.pair.id, "pair": record.pair.model_dump_json()},
        )
    if isinstance(record, StatedRecord):
        return Row(
            id=stated_row_id(record.user_id, record.stated),
            metadata=metadata
            | {
                "kind": "stated",
                "stated": record.stated.model_dump_json(),
                "created_at": record.created_at.isoformat(),
            },
        )
    return Row(
        id=profile_row_id(record.user_id),
        metadata=metadata | {"kind": "profile", "consent": record.consent},
    )


def row_id(*parts: str) -> str:
    """Ids are hashes: of one length, whatever the parts contain, and unique to user and content."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def stated_row_id(user_id: str, stated: StatedPreference) -> str:
    return row_id("stated", user_id, stated.kind, stated.text)


def profile_row_id(user_id: str) -> str:
    return row_id("profile", user_id)


def pair_from_row(identity: str, metadata: Mapping[str, object]) -> PreferencePair:
    """Read a row back.

    Raises:
        MemoryStoreError: This version did not write the row.
    """
    _check_version(identity, metadata)
    try:
        return PreferencePair.model_validate_json(str(metadata["pair"]))
    except (KeyError, InvalidInput) as error:
        raise _unreadable(identity, metadata, error) from error


def stated_from_row(
    identity: str, metadata: Mapping[str, object]
) -> tuple[datetime, StatedPreference]:
    """Read a row back, as when it was first stated and what.

    Raises:
        MemoryStoreError: This version did not write the row.
    """
    _check_version(identity, metadata)
    try:
        return (
            in_utc_if_naive(datetime.fromisoformat(str(metadata["created_at"]))),
            StatedPreference.model_validate_json(str(metadata["stated"])),
        )
    except (KeyError, ValueError) as error:
        raise _unreadable(identity, metadata, error) from error


def same_content(stored: PreferencePair, given: PreferencePair) -> bool:
    """Return whether two pairs of one id say the same.

    A retry that builds its pair again gets a new time stamp, so the time does not count.
    """
    return stored.model_copy(update={"created_at": given.created_at}) == given


def _check_size(what: str, texts: Iterable[str], most: int) -> None:
    characters = sum(map(len, texts))
    if characters > most:
        raise MemoryStoreError(
            f"{what} has {characters:,} characters of text; at most {most:,} are remembered: "
            "shorten it"
        )


def _check_version(identity: str, metadata: Mapping[str, object]) -> None:
    version = metadata.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise MemoryStoreError(
            f"row {identity} was written by a newer pgenrm-agent (schema version {version}; this "
            f"one reads up to {SCHEMA_VERSION}); upgrade pgenrm-agent"
        )


def _unreadable(
    identity: str, metadata: Mapping[str, object], error: Exception
) -> MemoryStoreError:
    return MemoryStoreError(
        f"row {identity} of user {metadata.get('user_id')!r} cannot be read "
        f"({type(error).__name__}); it was changed by another program: forget the user and import "
        "an export"
    )
