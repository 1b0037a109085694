"""What a row of the memory looks like in Chroma: a pseudonym, and what only the user's key opens."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TypeAlias, TypeVar

from pgenrm_agent.errors import MemoryStoreError
from pgenrm_agent.fields import Model, Moment, YesOrNo
from pgenrm_agent.memory.records import PairRecord, Record, StatedRecord
from pgenrm_agent.memory.vault import UserKey
from pgenrm_agent.schema import PreferencePair, StatedPreference

SCHEMA_VERSION = 2
PSEUDONYM = "pseudonym"
SEALED = "sealed"
KIND = "kind"
STATED, PROFILE = "stated", "profile"

MetadataValue: TypeAlias = str | int | float | bool
Content = TypeVar("Content", bound=Model)


class Row(Model):
    """One row of a Chroma collection."""

    id: str
    metadata: dict[str, MetadataValue]


class _Statement(Model):
    stated: StatedPreference
    created_at: Moment


class _Profile(Model):
    consent: YesOrNo


def row_of(record: Record, key: UserKey) -> Row:
    """Return the Chroma row of a record, sealed.

    It is metadata, not a Chroma document: documents are also entered into a full-text index.
    """
    if isinstance(record, PairRecord):
        return _sealed(pair_row_id(key, record.pair.id), record.pair, key, {})
    if isinstance(record, StatedRecord):
        statement = _Statement(stated=record.stated, created_at=record.created_at)
        return _sealed(stated_row_id(key, record.stated), statement, key, {KIND: STATED})
    return _sealed(profile_row_id(key), _Profile(consent=record.consent), key, {KIND: PROFILE})


def pair_row_id(key: UserKey, pair_id: str) -> str:
    """Return the id of the row that holds a choice: nobody without the key can test a guess at it."""
    return key.name("pair", pair_id)


def stated_row_id(key: UserKey, stated: StatedPreference) -> str:
    """Return the id of the row that holds a statement: the same statement twice is one row."""
    return key.name("stated", stated.kind, stated.text)


def profile_row_id(key: UserKey) -> str:
    """Return the id of the row that holds whether the user agreed."""
    return key.name("profile")


def pair_in(row_id: str, metadata: Mapping[str, object], key: UserKey) -> PreferencePair:
    """Return the choice that a row holds.

    Raises:
        MemoryStoreError: This version did not write the row.
    """
    return _opened(row_id, metadata, key, PreferencePair)


def stated_in(
    row_id: str, metadata: Mapping[str, object], key: UserKey
) -> tuple[datetime, StatedPreference]:
    """Return when something was first stated, and what.

    Raises:
        MemoryStoreError: This version did not write the row.
    """
    statement = _opened(row_id, metadata, key, _Statement)
    return statement.created_at, statement.stated


def consent_in(row_id: str, metadata: Mapping[str, object], key: UserKey) -> bool:
    """Return whether a user agreed to take part.

    Raises:
        MemoryStoreError: This version did not write the row.
    """
    return _opened(row_id, metadata, key, _Profile).consent


def _sealed(row_id: str, content: Model, key: UserKey, marks: Mapping[str, MetadataValue]) -> Row:
    return Row(
        id=row_id,
        metadata={
            PSEUDONYM: key.pseudonym,
            "schema_version": SCHEMA_VERSION,
            SEALED: key.seal(content.model_dump_json(), row_id),
            **marks,
        },
    )


def _opened(
    row_id: str, metadata: Mapping[str, object], key: UserKey, kind: type[Content]
) -> Content:
    version = metadata.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise MemoryStoreError(
            f"row {row_id} was written by a newer pgenrm-agent (schema version {version}; this "
            f"one reads up to {SCHEMA_VERSION}); upgrade pgenrm-agent"
        )
    try:
        return kind.model_validate_json(key.open(str(metadata[SEALED]), row_id))
    except (KeyError, ValueError) as error:
        raise MemoryStoreError(
            f"row {row_id} of user {key.user_id!r} cannot be read ({type(error).__name__}); it was "
            "changed by another program: forget the user and import an export"
        ) from error
