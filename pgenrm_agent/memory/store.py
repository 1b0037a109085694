"""Opening Chroma: embedded with one owner process, or a server by URL."""

from __future__ import annotations

import inspect
import os
import secrets
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import numpy as np

from pgenrm_agent.arguments import refuse_other
from pgenrm_agent.embedding import Embedder, HashingEmbedder
from pgenrm_agent.errors import MemoryStoreError, PGenRMError
from pgenrm_agent.memory.choice_index import ChoiceIndexes
from pgenrm_agent.memory.mark import check_version, read_mark, write_mark
from pgenrm_agent.memory.ownership import DirectoryLock
from pgenrm_agent.memory.rows import SCHEMA_VERSION
from pgenrm_agent.memory.sqlite_statistics import (
    before_opening,
    end_refresh,
    holds_collections,
    refresh_statistics,
)
from pgenrm_agent.memory.vault import Vault
from pgenrm_agent.memory.vault_file import FileVault
from pgenrm_agent.memory.vault_opening import open_vault
from pgenrm_agent.memory.vector_index import VectorIndexCopies

if TYPE_CHECKING:
    from chromadb.api.client import Client
    from chromadb.api.models.Collection import Collection
    from chromadb.config import Settings

INTERACTIONS = "interactions"
USERS = "users"

VAULT = "vault"  # in the metadata of the interactions: whose keys seal the rows
VAULT_FILE = "vault.sqlite3"  # beside Chroma's own directory

MARK = "pgenrm_schema_version"  # in the metadata of each of our collections

CHANGES = "changes_in"  # in the metadata of a collection whose changes are noted; see Store.changed

# Every save of the vector index rewrites it whole, and we copy it; opening replays the writes since
# the last one. So a small index is saved often, and a large one as it grows by a twentieth.
SYNC_THRESHOLD = 500
SYNC_SHARE = 20

FIRST_UPKEEP = 16
"""Writes after which the planner's statistics are refreshed; then after twice as many, and so on."""


class Store:
    """An open Chroma with our two collections. Made by `open_embedded` and `connect`.

    Writes are made within `writing`, and each is followed by `wrote`.
    """

    def __init__(
        self,
        client: Client,
        where: str,
        *,
        vault: Vault,
        embedder: Embedder | None,
        lock: DirectoryLock | None = None,
        copies: VectorIndexCopies | None = None,
        database: Path | None = None,
        rows: int = 0,
    ) -> None:
        """lock, copies, database, rows (about how many it holds): of an embedded store."""
        self.client = client
        self.where = where
        self.vault = vault
        self._writing = threading.RLock()
        self.pid = os.getpid()
        self.users_of_this = 1
        self.also_forget: set[Callable[[str], object]] = set()
        """What is called with a user who is forgotten, in whole or in part, by every memory on this store."""
        self.also_forget_whole: set[Callable[[str], object]] = set()
        """What is called with a user who is forgotten in whole, and not for an entry."""
        self.indexes = ChoiceIndexes()
        self._lock = lock
        self._copies = copies
        self._database = database
        self._writes = 0
        self._refresh_due = False
        self._refresh: subprocess.Popen[bytes] | None = None
        with reported("open the memory in", where, _advice(where) if lock else ""):
            self.embedder = embedder or HashingEmbedder()
            self.interactions = self._collection(INTERACTIONS, given=embedder is not None)
            if rows // SYNC_SHARE > SYNC_THRESHOLD:
                # Before the first read, which is when Chroma looks at it.
                self.interactions.modify(
                    configuration={"hnsw": {"sync_threshold": rows // SYNC_SHARE}}
                )
            self.users = self._collection(USERS, given=False)
            self._bind(vault)
            # The first read replays the log; do it now, while nobody else can be writing.
            self.interactions.count()
            self.users.count()
            self.max_batch = min(int(client.get_max_batch_size()), 500)
        self.wrote()

    @property
    def embedded(self) -> bool:
        """Whether it lies in a directory that this process owns, and not on a server."""
        return self._lock is not None

    def check_process(self) -> None:
        """Refuse to work in a forked child: Chroma's threads and locks did not come along."""
        if os.getpid() != self.pid:
            raise MemoryStoreError(
                f"the memory in {self.where} was opened in process {self.pid} and cannot be used "
                f"in process {os.getpid()}, which was forked from it: open UserMemory after the "
                "fork (several processes: UserMemory(url=...) of a Chroma server), or start "
                "workers with the 'spawn' method"
            )

    @contextmanager
    def writing(self, *, alone: bool = False) -> Iterator[None]:
        """Serialize writes: an idempotent write reads before it writes.

        alone: no other process writes meanwhile, so that nothing comes after that should not.
        """
        with self._writing, self.vault.writing(alone=alone):
            yield
            due, self._refresh_due = self._refresh_due, False
        # Not under the lock: starting a process takes a while.
        if due and self._database is not None:
            self._refresh = refresh_statistics(self._database)

    def wrote(self) -> None:
        """Note a write that has just been made; the vector index is copied if it was saved."""
        if self._copies is not None:
            with reported("protect the vector index", self.where):
                self._copies.after_write()
        self._writes += 1
        doubled = self._writes.bit_count() == 1 and self._writes >= FIRST_UPKEEP
        refreshing = self._refresh is not None and self._refresh.poll() is None
        if doubled and not refreshing:
            self._refresh_due = True

    def changed(self, collection: Collection) -> None:
        """To be called after rows were put into or taken out of a collection that is there to stay.

        Where its metadata names another collection (CHANGES), that one gets a row more. Who holds
        the rows in memory then sees in a count of few rows whether they are still the same; the
        number of the rows themselves takes long to count, and stays as it is when one comes and
        another goes.
        """
        noted_in = (collection.metadata or {}).get(CHANGES)
        if isinstance(noted_in, str):
            self.collection(noted_in).add(
                ids=[secrets.token_hex(16)], embeddings=np.ones((1, 1), dtype=np.float32)
            )

    def close(self) -> None:
        """Close Chroma and give the directory up, which it does even where closing fails.

        Raises:
            MemoryStoreError: Chroma cannot be closed.
        """
        end_refresh(self._refresh)
        try:
            # Not under somebody who writes.
            with self._writing, reported("close the memory in", self.where):
                self.client.close()
        finally:
            self.vault.close()
            if self._lock is not None:
                self._lock.release()

    def collections(self) -> list[Collection]:
        """Every collection of ours, those of later versions included; no one else's."""
        return [
            self.client.get_collection(collection.name, embedding_function=None)
            for collection in self.client.list_collections()
            if MARK in (collection.metadata or {})
        ]

    def collection(
        self,
        name: str,
        marks: Mapping[str, str | int] | None = None,
        *,
        sync_threshold: int | None = None,
    ) -> Collection:
        """Return the collection of that name, made with our mark and `marks` where there is none.

        sync_threshold: writes after which Chroma saves its vector index, SYNC_THRESHOLD if not said;
            more suits bulk writing.
        """
        from chromadb.errors import NotFoundError

        threshold = SYNC_THRESHOLD if sync_threshold is None else sync_threshold
        try:
            return self.client.get_collection(name, embedding_function=None)
        except NotFoundError:
            # get_or_create: two processes may meet here on a server.
            return self.client.get_or_create_collection(
                name,
                metadata={MARK: SCHEMA_VERSION, **(marks or {})},
                configuration={
                    "hnsw": {
                        "space": "cosine",
                        "max_neighbors": 8,
                        "ef_construction": 32,
                        "sync_threshold": threshold,
                        "batch_size": min(100, threshold),
                    }
                },
                embedding_function=None,
            )

    def _collection(self, name: str, *, given: bool) -> Collection:
        collection = self.collection(name, self._marks(name))
        marks = collection.metadata or {}
        version = marks.get(MARK)
        if not isinstance(version, int):
            raise MemoryStoreError(
                f"the collection {name!r} in {self.where} was not made by pgenrm-agent; use "
                "another directory or Chroma server for the memory"
            )
        check_version(version, self.where)
        if name == INTERACTIONS and marks.get("embedder") != self.embedder.name:
            stored = str(marks.get("embedder"))
            raise MemoryStoreError(
                _other_embedder(self.where, stored, self.embedder if given else None)
            )
        return collection

    def _bind(self, vault: Vault) -> None:
        """Refuse keys that are another memory's, and have this one keep to its keys."""
        marks = self.interactions.metadata or {}
        if marks.get(VAULT, vault.id) != vault.id:
            raise MemoryStoreError(
                f"the keys in {vault.where} are not those that sealed the memory in {self.where}: "
                "restore the vault from a backup, or name the right one"
            )
        vault.bind(str(self.interactions.id))
        if VAULT not in marks:
            self.interactions.modify(metadata={**marks, VAULT: vault.id})

    def _marks(self, name: str) -> dict[str, str | int]:
        if name != INTERACTIONS:
            return {}
        return {
            "embedder": self.embedder.name,
            "dimension": self.embedder.dimension,
        }


def default_directory() -> Path:
    """Return where the memory is kept when nothing else is said.

    `memory` in the folder that the setting `home` (PGENRM_HOME) names, else in the user's data
    directory of the operating system.
    """
    from pgenrm_agent.settings import data_folder

    return data_folder() / "memory"


@contextmanager
def reported(doing: str, where: str, advice: str = "") -> Iterator[None]:
    """Turn whatever Chroma, SQLite or the file system raises into one MemoryStoreError line."""
    try:
        yield
    except PGenRMError:
        raise
    except BaseException as error:
        # A panic in Chroma's Rust code arrives as a BaseException of this name.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise MemoryStoreError(
            f"cannot {doing} {where}: {reason}" + (f"; {advice}" if advice else "")
        ) from error


_open: dict[tuple[int, int], Store] = {}
# Reentrant: dropping the last reference to a UserMemory, wherever that happens, releases its store.
_opening = threading.RLock()


def open_embedded(directory: Path, embedder: Embedder | None) -> Store:
    """Return the store in `directory`, shared by everyone in this process who opens the same directory."""
    _refuse_no_embedder(embedder)
    with _opening:
        with reported("open the memory in", str(directory), _advice(str(directory))):
            directory = _made(directory)
            status = directory.stat()
        # Device and inode, not the path: a directory with two names is still one store.
        key = (status.st_dev, status.st_ino)
        store = _open.get(key)
        if store is None:
            store = _open[key] = _open_first(directory, embedder)
            return store
        store.check_process()
        if embedder is not None and embedder.name != store.embedder.name:
            raise MemoryStoreError(_other_embedder(store.where, store.embedder.name, embedder))
        store.users_of_this += 1
        return store


def connect(
    url: str,
    vault: Path | str | None,
    embedder: Embedder | None,
    headers: Mapping[str, str] | None,
) -> Store:
    """Return the store on the Chroma server at `url`, with its keys in `vault` (see `open_vault`)."""
    _refuse_no_embedder(embedder)
    where = f"the Chroma server at {url}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise MemoryStoreError(
            f"url {url!r} is no address of a Chroma server: write it like http://127.0.0.1:8000"
        )
    from chromadb import HttpClient

    with ExitStack() as opened:
        keys = open_vault(vault)
        opened.callback(keys.close)
        with reported(
            "reach", where, "start it with `chroma run --path DIRECTORY`, or correct the url"
        ):
            client = cast(
                "Client",
                HttpClient(
                    host=parts.hostname,
                    port=port or (443 if parts.scheme == "https" else 8000),
                    ssl=parts.scheme == "https",
                    headers=dict(headers or {}),
                    settings=chroma_settings(),
                ),
            )
        opened.callback(client.close)
        store = Store(client, where, vault=keys, embedder=embedder)
        opened.pop_all()
        return store


def release(store: Store) -> None:
    """Give up one share of the store; the last one closes it."""
    if os.getpid() != store.pid:
        return  # a forked child has nothing that it could close
    if not store.embedded:
        store.close()
        return
    with _opening:
        store.users_of_this -= 1
        if store.users_of_this == 0:
            for key in [key for key, known in _open.items() if known is store]:
                del _open[key]
            store.close()


def _open_first(directory: Path, embedder: Embedder | None) -> Store:
    where = str(directory)
    with ExitStack() as opened:
        with reported("open the memory in", where, _advice(where)):
            lock = DirectoryLock(directory)
            lock.acquire()
            opened.callback(lock.release)
            chroma = directory / "chroma"
            marked = read_mark(directory)
            chroma.mkdir(exist_ok=True)
            copies = VectorIndexCopies(chroma, directory / "index-copies")
            copies.restore()
            database = chroma / "chroma.sqlite3"
            rows = before_opening(database)
            if marked.used and not holds_collections(database, {INTERACTIONS, USERS}):
                raise MemoryStoreError(
                    f"the memory in {where} has lost what it held: {database} is missing or empty. "
                    "Restore it from a backup, or move the directory away and import an export into "
                    "a new one"
                )
            vault = FileVault(directory / VAULT_FILE, make=not marked.used)
            opened.callback(vault.close)
        from chromadb import PersistentClient

        with reported("open the memory in", where, _advice(where)):
            client = cast("Client", PersistentClient(chroma, settings=chroma_settings()))
            opened.callback(client.close)
        store = Store(
            client,
            where,
            vault=vault,
            embedder=embedder,
            lock=lock,
            copies=copies,
            database=database,
            rows=rows,
        )
        if not marked.used:
            with reported("open the memory in", where):
                write_mark(directory, marked.model_copy(update={"used": True}))
        opened.pop_all()
        return store


def _made(directory: Path) -> Path:
    directory = directory.expanduser()
    if directory.exists() and not directory.is_dir():
        raise MemoryStoreError(f"{directory} is a file; the memory needs a directory")
    # What people chose is nobody else's business on a shared machine.
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory.resolve()


def _refuse_no_embedder(embedder: object) -> None:
    # Not asked for its dimension yet: an encoder would be loaded for that.
    wanted = ("name", "dimension", "embed")
    whole = all(inspect.getattr_static(embedder, name, None) is not None for name in wanted)
    if embedder is not None and (isinstance(embedder, type) or not whole):
        refuse_other(embedder, (), "embedder", "an embedder, such as HashingEmbedder()")


def _other_embedder(where: str, stored: str, given: Embedder | None) -> str:
    mismatch = f"the memory in {where} holds vectors of the embedder {stored!r}"
    if given is None:
        return f"{mismatch}: open it in Python, with UserMemory(..., embedder=...) of that name"
    return (
        f"{mismatch}, not of {given.name!r}: open it with that embedder, or export it and import into "
        "a new memory"
    )


def _advice(where: str) -> str:
    return (
        f"check that {where} is writable and has free space; if it is damaged, restore it from a "
        "backup, or move it away and import an export into a new memory"
    )


def chroma_settings() -> Settings:
    """Return the settings of every Chroma that is opened here: nothing is told to anybody."""
    from chromadb.config import Settings

    return Settings(anonymized_telemetry=False)


def _forked() -> None:
    """In a forked child the lock may have been taken by a thread that does not exist there."""
    global _opening
    _opening = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
