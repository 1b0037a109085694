"""UserMemory: what each user chose and said, kept in Chroma."""

from __future__ import annotations

import json
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import JsonValue

from pgenrm_agent.arguments import (
    items_of,
    model_of,
    models_of,
    path_of,
    text_of,
    whole_number,
    yes_or_no,
)
from pgenrm_agent.embedding import Embedder, embedded
from pgenrm_agent.errors import ConfigurationError, MemoryStoreError
from pgenrm_agent.files import exporting, is_address, open_text
from pgenrm_agent.memory.agreement import standing_statements
from pgenrm_agent.memory.choice_index import Stated
from pgenrm_agent.memory.choosing import choices_in, recalled
from pgenrm_agent.memory.corrections import Corrections
from pgenrm_agent.memory.forgetting import forget_rows, tell_forgotten
from pgenrm_agent.memory.reading import all_rows, in_batches, rows_of, settled
from pgenrm_agent.memory.records import (
    ConsentRecord,
    PairRecord,
    Record,
    StatedRecord,
    UserSummary,
    has_moment,
    read_record,
)
from pgenrm_agent.memory.rows import (
    KIND,
    PSEUDONYM,
    STATED,
    consent_in,
    profile_row_id,
    stated_in,
    stated_row_id,
)
from pgenrm_agent.memory.selection import Selection, oldest_first, refuse_unusable
from pgenrm_agent.memory.store import (
    Store,
    connect,
    default_directory,
    open_embedded,
    release,
    reported,
)
from pgenrm_agent.memory.vault import UserKey
from pgenrm_agent.memory.writing import write_records
from pgenrm_agent.schema import PreferencePair, StatedPreference, UserSignals
from pgenrm_agent.user_ids import valid_user_id


class UserMemory(Corrections):
    """Past choices and stated preferences of many users (H and E of the paper).

    Embedded by default, in a directory with one owner process; objects of one process that name the
    same directory share it. With `url`, on a Chroma server that many processes can share.

    Safe to use from several threads. Not from a forked child. Every method raises MemoryStoreError
    when the store cannot be read or written, and when the memory is closed.
    """

    def __init__(
        self,
        path: Path | str | None = None,
        *,
        url: str | None = None,
        vault: Path | str | None = None,
        embedder: Embedder | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Open the memory, making it when there is none.

        Args:
            path: The directory; None means `default_directory()`.
            url: A Chroma server such as "http://127.0.0.1:8000", instead of a directory.
            vault: Where the keys are that seal what is on a server: a file, for processes of one
                machine, or a PostgreSQL URL for those of several; None means the setting `vault`. The
                keys of a directory are in it.
            embedder: For recall by similarity; None means HashingEmbedder. A store keeps to the
                embedder it was made with and refuses another.
            headers: Sent to the server with every request, such as its access token.

        Raises:
            ConfigurationError: A directory and a server are both given, or headers or a vault without
                a server, or a server without a vault.
            MemoryStoreError: The store cannot be opened, or belongs to another process.
        """
        if url is not None and path is not None:
            raise ConfigurationError(
                f"UserMemory got a directory ({path}) and a server ({url}): give one of them"
            )
        if url is None:
            if headers or vault is not None:
                raise ConfigurationError(
                    f"{'headers are' if headers else 'a vault is'} for a Chroma server: give its url, too"
                )
            if is_address(path):
                raise ConfigurationError(
                    f"path {path!r} is an address: name a folder, or a Chroma server as url=..."
                )
            folder = default_directory() if path is None else path_of(path, "path")
            store = open_embedded(folder, embedder)
        else:
            store = connect(text_of(url, "url"), vault, embedder, headers)
        self._shared = store
        self.also_forget = store.also_forget
        self.also_forget_whole = store.also_forget_whole
        self._close = weakref.finalize(self, release, store)
        # At exit the operating system releases everything, and Chroma's threads may be gone.
        self._close.atexit = False

    # --- writing ---

    def remember(self, user_id: str, pair: PreferencePair) -> str:
        """Store one choice, and return the pair's id. After that a killed process loses nothing.

        The same pair again (same id and content) does nothing. A choice without an id of its own
        that a newer one has overruled counts again when it is made again.

        Raises:
            EntryConflict: The user has another pair with this id.
            EntryRefused: It is too long, or holds a number that is none.
            MemoryStoreError: The store cannot be written.
        """
        return self.remember_many(user_id, [model_of(PreferencePair, pair, "pair")])[0]

    def remember_many(self, user_id: str, pairs: Iterable[PreferencePair]) -> list[str]:
        """Store several choices of one user; nothing is stored when one of them is refused."""
        user_id = valid_user_id(user_id)
        checked = models_of(PreferencePair, pairs, "pairs")
        records = [PairRecord(user_id=user_id, pair=pair) for pair in checked]
        if write_records(self._store, records).new < len(records):
            self._again(records)
        return [record.pair.id for record in records]

    def state(self, user_id: str, stated: StatedPreference) -> str:
        """Store what a user said they want; returns the row's id. Again, it is the newest word."""
        user_id, stated = valid_user_id(user_id), model_of(StatedPreference, stated, "stated")
        record = StatedRecord(user_id=user_id, stated=stated, created_at=datetime.now(UTC))
        written = write_records(self._store, [record])
        if not written.new:
            self._again([record])
        return stated_row_id(written.keys[user_id], stated)

    def set_consent(self, user_id: str, consent: bool) -> None:
        """Set whether this user's choices may help to score answers for similar users."""
        consent = yes_or_no(consent, "consent")
        record = ConsentRecord(user_id=valid_user_id(user_id), consent=consent)
        write_records(self._store, [record])

    def forget(self, user_id: str) -> int:
        """Remove every row of a user, then their key; returns how many rows that were.

        Then what is in `also_forget` and `also_forget_whole` is called. Whatever copy of a row is
        left anywhere can no longer be read or traced.
        """
        user_id = valid_user_id(user_id)
        forgotten = forget_rows(self._store, user_id)
        tell_forgotten(self.also_forget | self.also_forget_whole, user_id)
        return forgotten

    # --- reading ---

    def recall(
        self,
        user_id: str,
        *,
        query: str | None = None,
        limit: int | None = None,
        selection: Selection = "random",
        seed: int = 0,
    ) -> UserSignals:
        """Return what is known of a user: at most `limit` past choices, and all that they stated.

        A user nobody has heard of has empty signals. What a newer choice or statement contradicts or
        repeats is left out (`entries` has it).

        Args:
            user_id: Whose.
            query: What past queries are compared with, for the selection "similar".
            limit: How many past choices; None for all.
            selection: "random": drawn by `seed`, the same pairs and seed give the same draw.
                "similar": those whose query is most like `query`, most similar first. "recent":
                newest first.
            seed: For "random".

        Raises:
            ConfigurationError: The selection is unknown or lacks its query, or the limit is negative.
            MemoryStoreError: The store cannot be read.
        """
        user_id = valid_user_id(user_id)
        refuse_unusable(selection, limit, query, seed)
        history: tuple[PreferencePair, ...] = ()
        choices_known = None if limit == 0 else 0
        store, key = self._store, self._key_of(user_id)
        if limit != 0 and key is not None:
            with reported("read", store.where):
                history, choices_known = recalled(
                    store, key, selection, limit, seed=seed, query=query
                )
        stated = standing_statements([stated for *_, stated in self._statements(key)])
        return UserSignals(
            user_id=user_id, history=history, stated=stated, choices_known=choices_known
        )

    def history(self, user_id: str) -> tuple[PreferencePair, ...]:
        """Return all remembered choices of a user, oldest first."""
        return self._history(self._key_of(valid_user_id(user_id)))

    def consent(self, user_id: str) -> bool:
        """Return whether the user has agreed to take part; False until they do."""
        return bool(self.consenting([valid_user_id(user_id)]))

    def consenting(self, user_ids: Iterable[str]) -> set[str]:
        """Return those of `user_ids` who agreed; a few hundred in one read."""
        given = {
            valid_user_id(user_id): user_id for user_id in items_of(user_ids, "user_ids", "ids")
        }
        store = self._store
        agreed: set[str] = set()
        with reported("read", store.where):
            keys = store.vault.keys_of(given)
            owners = {profile_row_id(key): key for key in keys.values()}
            for some in in_batches(list(owners), store.max_batch):
                agreed |= {
                    str(given[owners[row_id].user_id])
                    for row_id, metadata in rows_of(store.users, ids=list(some))
                    if consent_in(row_id, metadata, owners[row_id])
                }
        return agreed

    def users_who_were_asked(self, query: str, *, limit: int) -> list[str]:
        """Return who made the `limit` remembered choices with the most similar queries, nearest first.

        Each user is in it once. By Chroma's vector index, so now and then a choice is missed.
        """
        text_of(query, "query")
        whole_number(limit, "limit", least=1)
        store = self._store
        with reported("read", store.where):
            vector = embedded(store.embedder, [query])
            got = settled(
                lambda: store.interactions.query(
                    query_embeddings=vector, n_results=limit, include=["metadatas"]
                )
            )
            metadatas = (got["metadatas"] or [[]])[0]
            asked = list(dict.fromkeys(str(metadata[PSEUDONYM]) for metadata in metadatas))
            keys = store.vault.keys_behind(asked)
        return [keys[pseudonym].user_id for pseudonym in asked if pseudonym in keys]

    def users(self) -> list[UserSummary]:
        """Return everyone of whom anything is remembered, by id."""
        store = self._store
        pairs: Counter[str] = Counter()
        stated: Counter[str] = Counter()
        consents: dict[str, bool] = {}
        with reported("list the users in", store.where):
            keys = {key.pseudonym: key for key in store.vault.everybody()}
            for _, metadata in all_rows(store.interactions):
                if key := keys.get(str(metadata[PSEUDONYM])):
                    pairs[key.user_id] += 1
            for row_id, metadata in all_rows(store.users):
                if (key := keys.get(str(metadata[PSEUDONYM]))) is None:
                    continue
                if metadata.get(KIND) == STATED:
                    stated[key.user_id] += 1
                else:
                    consents[key.user_id] = consent_in(row_id, metadata, key)
        return [
            UserSummary(
                user_id=user_id,
                pairs=pairs[user_id],
                stated=stated[user_id],
                consent=consents.get(user_id, False),
            )
            for user_id in sorted({*pairs, *stated, *consents})
        ]

    # --- export and import ---

    def export(self, user_id: str | None = None) -> Iterator[dict[str, JsonValue]]:
        """Return everything remembered of one user, or of all: rows that `import_` takes back.

        By user id; a user's pairs and stated preferences oldest first, then the consent.
        """
        ids = (
            [summary.user_id for summary in self.users()]
            if user_id is None
            else [valid_user_id(user_id)]
        )
        return (
            record.model_dump(mode="json") for user_id in ids for record in self._records(user_id)
        )

    def import_(
        self,
        rows: Iterable[Mapping[str, JsonValue] | str],
        *,
        source: str = "import",
    ) -> int:
        """Store exported rows (objects, or JSON texts); returns how many were new.

        All rows are checked before the first is stored. Importing the same rows again changes
        nothing.

        Args:
            rows: One a line; blank lines count but are passed over.
            source: Where they come from, for errors.

        Raises:
            MemoryStoreError: A row cannot be used (it names `source`, the line from 1 and the field),
                or the store cannot be written.
        """
        records: list[Record] = []
        lines: list[int] = []
        for line, row in enumerate(items_of(rows, "rows", "exported rows"), start=1):
            if isinstance(row, str) and not row.strip():
                continue
            records.append(read_record(row, f"{source}, line {line}"))
            lines.append(line)
        written = write_records(
            self._store, records, lambda index: f"{source}, line {lines[index]}: "
        )
        if written.new < len(records):
            self._again(record for record in records if has_moment(record))
        return written.new

    def export_jsonl(
        self, path: Path | str, user_id: str | None = None, *, replace: bool = False
    ) -> int:
        """Write an export to a file, one JSON object a line; returns the number of lines.

        The file is for its owner alone to read. replace: it may take the place of an older file.
        """
        path = path_of(path, "path")
        lines = 0
        with (
            reported("write the export", str(path)),
            exporting(path, replace=yes_or_no(replace, "replace")) as beside,
            beside.open("w", encoding="utf-8", newline="\n") as file,
        ):
            for row in self.export(user_id):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                lines += 1
        return lines

    def import_jsonl(self, path: Path | str) -> int:
        """Import a file that `export_jsonl` wrote; returns how many rows were new."""
        path = path_of(path, "path")
        with (
            reported("read the import", str(path), "it must be UTF-8 text, one JSON object a line"),
            open_text(path, newline="\n") as file,
        ):
            return self.import_(file, source=str(path))

    # --- life ---

    def close(self) -> None:
        """Give the store up; the last one to do so closes it. Calling it again does nothing."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<UserMemory in {self.where}{'' if self._close.alive else ', closed'}>"

    @property
    def where(self) -> str:
        """The directory, or "the Chroma server at ..."."""
        return self._shared.where

    @property
    def embedder(self) -> Embedder:
        """What turns queries into vectors here."""
        return self._shared.embedder

    # --- for the package's own modules ---

    def shared_store(self) -> Store:
        """Return the open Chroma under this memory, for what else is kept there."""
        return self._store

    # --- inside ---

    @property
    def _store(self) -> Store:
        store = self._shared
        store.check_process()
        if not self._close.alive:
            raise MemoryStoreError(f"this UserMemory ({store.where}) is closed: open a new one")
        return store

    def _key_of(self, user_id: str) -> UserKey | None:
        store = self._store
        with reported("read", store.where):
            return store.vault.key_of(user_id)

    def _history(self, key: UserKey | None) -> tuple[PreferencePair, ...]:
        if key is None:
            return ()
        store = self._store
        with reported("read", store.where):
            return tuple(oldest_first(choices_in(store, key)))

    def _stated(self, user_id: str) -> Sequence[Stated]:
        return self._statements(self._key_of(user_id))

    def _statements(self, key: UserKey | None) -> Sequence[Stated]:
        if key is None:
            return ()
        store = self._store
        known = store.indexes.stated(key.pseudonym)
        if known is not None:
            return known
        edition = store.indexes.edition(key.pseudonym)
        with reported("read", store.where):
            # One condition and a filter here: Chroma takes four times as long for two conditions.
            statements = [
                (row_id, *stated_in(row_id, metadata, key))
                for row_id, metadata in rows_of(store.users, where={PSEUDONYM: key.pseudonym})
                if metadata.get(KIND) == STATED
            ]
        stated = tuple(sorted(statements, key=lambda statement: (statement[1], statement[0])))
        store.indexes.keep_stated(key.pseudonym, edition, stated)
        return stated

    def _records(self, user_id: str) -> Iterator[Record]:
        if (key := self._key_of(user_id)) is None:
            return
        for pair in self._history(key):
            yield PairRecord(user_id=user_id, pair=pair)
        for _, created_at, stated in self._statements(key):
            yield StatedRecord(user_id=user_id, stated=stated, created_at=created_at)
        store = self._store
        with reported("read", store.where):
            profile = rows_of(store.users, ids=[profile_row_id(key)])
            consents = [consent_in(*row, key) for row in profile]
        for consent in consents:
            yield ConsentRecord(user_id=user_id, consent=consent)
