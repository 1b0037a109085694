"""What is remembered, as records: what a JSONL export has a line of, and what they may hold."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from pgenrm_agent.errors import EntryRefused, MemoryStoreError
from pgenrm_agent.fields import Model, Moment, UserId, YesOrNo
from pgenrm_agent.schema import PreferencePair, StatedPreference
from pgenrm_agent.wording import place_of, said_of

EXPORT_VERSION = 1
MAX_PAIR_CHARACTERS = 200_000  # query, both answers and the conversation together


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


def moment_of(record: PairRecord | StatedRecord) -> datetime:
    """Return when it was chosen or said."""
    return record.pair.created_at if isinstance(record, PairRecord) else record.created_at


def has_moment(record: Record) -> bool:
    """Return whether a row said when it was chosen; a choice that does not gets the time of its reading."""
    return not isinstance(record, PairRecord) or "created_at" in record.pair.model_fields_set


def read_record(row: object, where: str) -> Record:
    """Validate one row: an exported one, or a choice by its fields, as `pgenrm eval` reads it.

    `where` ("users.jsonl, line 3") opens the error message.
    """
    if isinstance(row, str | bytes):
        try:
            row = json.loads(row)
        except (ValueError, RecursionError) as error:
            raise MemoryStoreError(f"{where}: not JSON: {error}") from error
    if not isinstance(row, Mapping):
        raise MemoryStoreError(f"{where}: expected one JSON object, found {type(row).__name__}")
    version = row.get("schema_version")
    if isinstance(version, int) and version > EXPORT_VERSION:
        raise MemoryStoreError(
            f"{where}: field schema_version: {version} was written by a newer pgenrm-agent (this "
            f"one reads up to {EXPORT_VERSION}); upgrade pgenrm-agent"
        )
    if "record" not in row:
        row = _choice(row, where)
    try:
        record = _RECORD.validate_python(dict(row))
        check_limits(record)
    except ValidationError as error:
        first = error.errors()[0]
        # The first part of a tagged union's location is the tag, not a field.
        field = place_of(first["loc"][1:]) or "record"
        raise MemoryStoreError(f"{where}: field {field}: {said_of(first)}") from error
    except MemoryStoreError as error:
        raise MemoryStoreError(f"{where}: {error}") from error
    return record


def _choice(row: Mapping[str, object], where: str) -> Mapping[str, object]:
    """Return a choice that stands by its fields alone as the row that an export has of it."""
    if not {"user_id", "chosen", "rejected"} <= row.keys():
        raise MemoryStoreError(
            f"{where}: it is neither a line of an export, which has a field record, nor a choice with the"
            " fields user_id, query, chosen and rejected"
        )
    pair = {name: value for name, value in row.items() if name != "user_id"}
    return {"record": "preference_pair", "user_id": row["user_id"], "pair": pair}


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
                raise EntryRefused(
                    f"field {name} of pair {pair.id} is {value}: give a finite number or leave "
                    "it out"
                )


def same_content(stored: PreferencePair, given: PreferencePair) -> bool:
    """Return whether two pairs of one id say the same.

    A retry that builds its pair again gets a new time stamp, so the time does not count.
    """
    return stored.model_copy(update={"created_at": given.created_at}) == given


def _check_size(what: str, texts: Iterable[str], most: int) -> None:
    characters = sum(map(len, texts))
    if characters > most:
        raise EntryRefused(
            f"{what} has {characters:,} characters of text; at most {most:,} are remembered: "
            "shorten it"
        )
