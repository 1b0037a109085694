"""Single entries of the memory: listed with their ids, forgotten, corrected."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

from pgenrm_agent.arguments import model_of, refuse_other, text_of
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.fields import Model, Moment, now
from pgenrm_agent.memory.agreement import overruled_choices, overruled_statements
from pgenrm_agent.memory.forgetting import tell_forgotten
from pgenrm_agent.memory.records import PairRecord, Record, StatedRecord, moment_of
from pgenrm_agent.memory.store import Store
from pgenrm_agent.memory.writing import exchange_record, put_record, remove_record
from pgenrm_agent.schema import PreferencePair, StatedPreference
from pgenrm_agent.user_ids import valid_user_id


class Entry(Model):
    """A choice or a statement that is remembered, by the id that `remember` or `state` returned.

    Attributes:
        pair, stated: One of them, what it is.
        overruled_by: Id of the newer entry that contradicts or repeats it, and counts in its place.
    """

    id: str
    created_at: Moment
    pair: PreferencePair | None = None
    stated: StatedPreference | None = None
    overruled_by: str | None = None

    def changed(
        self,
        *,
        text: str | None = None,
        query: str | None = None,
        chosen: str | None = None,
        rejected: str | None = None,
    ) -> PreferencePair | StatedPreference:
        """Return what it is with another text, of a statement, or other parts, of a choice.

        Raises:
            ConfigurationError: Nothing is changed, or what the entry does not have.
        """
        parts = {"query": query, "chosen": chosen, "rejected": rejected}
        said = {name: value for name, value in parts.items() if value}
        if self.stated is not None and text and not said:
            return StatedPreference(kind=self.stated.kind, text=text)
        if self.pair is not None and said and not text:
            return PreferencePair.model_validate({**self.pair.model_dump(), **said})
        kind, needed = (
            ("choice", "its query, chosen or rejected") if self.pair else ("statement", "its text")
        )
        raise ConfigurationError(f"{self.id!r} is a {kind}: say {needed}, and nothing else")


class Corrections(ABC):
    """What `UserMemory` can do to single entries, on top of what it reads and writes."""

    also_forget: set[Callable[[str], object]]

    def entries(self, user_id: str) -> tuple[Entry, ...]:
        """Return all choices of a user, then all statements, oldest first, with their ids.

        What a newer entry overrules is among them, and says by which.
        """
        user_id = valid_user_id(user_id)
        return (*_choices(self.history(user_id)), *_statements(self._stated(user_id)))

    def forget_entry(self, user_id: str, entry_id: str) -> bool:
        """Remove one choice or statement of a user; returns whether there was one of this id.

        What is in `also_forget` is called for the user: nothing that was made with it is kept.
        """
        user_id, entry_id = valid_user_id(user_id), text_of(entry_id, "entry_id")
        entry = next((entry for entry in self.entries(user_id) if entry.id == entry_id), None)
        if entry is None:
            return False
        remove_record(self.shared_store(), _record_of(user_id, entry))
        tell_forgotten(self.also_forget, user_id)
        return True

    def correct(self, user_id: str, entry_id: str, new: PreferencePair | StatedPreference) -> str:
        """Put a choice in the place of one, or a statement in the place of one; returns its id.

        A choice keeps an id that somebody gave it. An id that follows from the content, as a
        statement's does, goes with it, so there is another one then.

        Raises:
            ConfigurationError: The user has no such entry, or it is of the other kind.
            MemoryStoreError: It cannot be stored.
        """
        user_id, entry_id = valid_user_id(user_id), text_of(entry_id, "entry_id")
        refuse_other(new, (PreferencePair, StatedPreference), "new", "a choice or a statement")
        entry = entry_of(self.entries(user_id), entry_id)
        record: PairRecord | StatedRecord
        if isinstance(new, StatedPreference):
            if entry.stated is None:
                raise ConfigurationError(f"{entry_id!r} is a choice: pass a PreferencePair")
            record = StatedRecord(user_id=user_id, stated=new, created_at=now())
        elif entry.pair is None:
            raise ConfigurationError(f"{entry_id!r} is a statement: pass a StatedPreference")
        else:
            given = entry.pair.id != entry.pair.content_id
            kept = entry_id if given else new.content_id
            pair = model_of(PreferencePair, new, "new").model_copy(update={"id": kept})
            record = PairRecord(user_id=user_id, pair=pair)
        stored = exchange_record(self.shared_store(), _record_of(user_id, entry), record)
        if stored is None:
            raise _unknown(entry_id)
        tell_forgotten(self.also_forget, user_id)
        return record.pair.id if isinstance(record, PairRecord) else stored

    def put(self, user_id: str, pair: PreferencePair) -> None:
        """Store a choice, in the place of the one with its id where there is one."""
        record = PairRecord(user_id=valid_user_id(user_id), pair=pair)
        put_record(self.shared_store(), record)
        tell_forgotten(self.also_forget, record.user_id)

    def _again(self, records: Iterable[Record]) -> None:
        """Give what was said or chosen before its newest moment, where something contradicts it.

        Of a choice that has an id of its own, the id says that it is the same one, sent again.
        """
        latest: dict[str, dict[str, PairRecord | StatedRecord]] = {}
        for record in records:
            if isinstance(record, PairRecord):
                key = record.pair.id if record.pair.id == record.pair.content_id else ""
            elif isinstance(record, StatedRecord):
                key = record.stated.model_dump_json()
            else:
                continue
            own = latest.setdefault(record.user_id, {})
            if key and (key not in own or moment_of(record) >= moment_of(own[key])):
                own[key] = record
        for user_id, own in latest.items():
            # A repeated statement reads no choices, of which there may be many.
            kinds = {type(record) for record in own.values()}
            entries = [
                *(_choices(self.history(user_id)) if PairRecord in kinds else ()),
                *(_statements(self._stated(user_id)) if StatedRecord in kinds else ()),
            ]
            newer = {entry.overruled_by for entry in entries}
            for entry in entries:
                key = entry.id if entry.stated is None else entry.stated.model_dump_json()
                disputed = entry.overruled_by is not None or entry.id in newer
                if disputed and key in own and moment_of(own[key]) > entry.created_at:
                    exchange_record(self.shared_store(), own[key], own[key])

    @abstractmethod
    def history(self, user_id: str) -> tuple[PreferencePair, ...]:
        """Return all remembered choices of a user, oldest first."""

    @abstractmethod
    def shared_store(self) -> Store:
        """Return the open Chroma under this memory."""

    @abstractmethod
    def _stated(self, user_id: str) -> Sequence[tuple[str, datetime, StatedPreference]]:
        """Return all statements, oldest first, each after its row's id and when it was made."""


def entry_of(entries: Iterable[Entry], entry_id: str) -> Entry:
    """Return the entry of this id.

    Raises:
        ConfigurationError: There is none.
    """
    for entry in entries:
        if entry.id == entry_id:
            return entry
    raise _unknown(entry_id)


def _unknown(entry_id: str) -> ConfigurationError:
    return ConfigurationError(
        f"nothing with the id {entry_id!r} is remembered of this user: what is, tell `entries` and"
        " `pgenrm users entries`"
    )


def _choices(history: tuple[PreferencePair, ...]) -> Iterator[Entry]:
    overruled = overruled_choices(history)
    for pair in history:
        yield Entry(
            id=pair.id,
            created_at=pair.created_at,
            pair=pair,
            overruled_by=overruled.get(pair.id),
        )


def _statements(
    statements: Sequence[tuple[str, datetime, StatedPreference]],
) -> Iterator[Entry]:
    overruled = overruled_statements([stated for *_, stated in statements])
    for place, (row_id, created_at, stated) in enumerate(statements):
        newer = overruled.get(place)
        yield Entry(
            id=row_id,
            created_at=created_at,
            stated=stated,
            overruled_by=None if newer is None else statements[newer][0],
        )


def _record_of(user_id: str, entry: Entry) -> PairRecord | StatedRecord:
    if entry.pair is not None:
        return PairRecord(user_id=user_id, pair=entry.pair)
    assert entry.stated is not None  # it is one of them
    return StatedRecord(user_id=user_id, stated=entry.stated, created_at=entry.created_at)
