"""Versions of the prototypes, kept in the Chroma of a user memory.

Each version has two collections of its own (centroids, members), and one row elsewhere says which
version counts. A build fills new collections and writes that row last, so a reader sees the old
version or the new one; a killed build leaves nothing but collections that the next one removes.

Reads are from memory: a version is loaded once, and again when the row names another or when its
members changed (somebody joined from another process, or was forgotten), of which a third collection
keeps count. Ranking in NumPy finds neighbors among 100,000 members in a few milliseconds, which a
filtered query does not, nor as much as a count of the members.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from pgenrm_agent.embedding import Vectors
from pgenrm_agent.errors import ConfigurationError, MemoryStoreError
from pgenrm_agent.fields import Model
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.memory.reading import settled
from pgenrm_agent.memory.rows import PSEUDONYM
from pgenrm_agent.memory.store import CHANGES, Store, reported
from pgenrm_agent.prototypes.version import Member, PrototypeSet

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

POINTER = "prototypes"
CURRENT = "current"
CENTROIDS, MEMBERS, CHANGED = "prototypes-", "members-", "changes-"
JOINED, REMEMBERED = "joined:", "remembered"
STAMP = "%Y%m%dT%H%M%S%f"  # begins the name of a version
# Bulk writing: Chroma rewrites its vector index after this many rows.
SYNC_THRESHOLD = 20_000
READ_AT_ONCE = 5000
LOADING_TRIES = 5


class PrototypeEntry(Model):
    """One group of users who judge alike: how many they are, and what their personas say."""

    users: int
    label: str


class PrototypeStatus(Model):
    """The prototypes in force, and how far they have fallen behind. Nobody is named.

    With the status "none" (before the first build) every chain is sampled from what is known of the
    user alone.

    Attributes:
        users: Members of the version, those who joined since included.
        joined: Personas that came after it was built.
        not_members: Users who agreed to take part and are in no prototype yet.
        pairs_since: Choices of users who agreed that are not among what it was learned from.
    """

    status: Literal["none", "in_force"] = "none"
    version: str | None = None
    built_at: str | None = None
    embedder: str | None = None
    prototypes: tuple[PrototypeEntry, ...] = ()
    users: int = 0
    joined: int = 0
    not_members: int = 0
    pairs_since: int = 0


class PrototypeStore:
    """The prototypes of the users in one user memory, which stays the caller's to close."""

    def __init__(self, memory: UserMemory) -> None:
        self._memory = memory
        self._lock = threading.RLock()
        self._loaded: PrototypeSet | None = None
        self._changes = 0  # of the version that is loaded, when it was

    # --- reading ---

    def current(self) -> PrototypeSet | None:
        """Return the version that counts now; None where none was built.

        Raises:
            MemoryStoreError: The store cannot be read.
        """
        store = self._memory.shared_store()
        for _ in range(LOADING_TRIES):
            with self._lock, reported("read the prototypes in", store.where):
                pointer = self._pointer(store)
                if pointer is None:
                    return None
                version = pointer["version"]
                # Before the rows are read: a change that comes in between is seen the next time.
                changes = _changes_of(store, version)
                loaded = self._loaded
                if loaded is not None and loaded.version == version and self._changes == changes:
                    return loaded
                built = self._load(store, pointer)
                if built is not None:
                    self._loaded, self._changes = built, changes
                    return built
                # Replaced and removed since the pointer was read: again.
        raise MemoryStoreError(
            f"the prototypes in {store.where} are being replaced again and again; try later"
        )

    def status(self) -> PrototypeStatus:
        """Return which version counts and how stale it is; reads every user's summary.

        Raises:
            MemoryStoreError: The store cannot be read.
        """
        consenting = [
            user for user in self._memory.users() if user.consent and (user.pairs or user.stated)
        ]
        version = self.current()
        if version is None:
            return PrototypeStatus(not_members=len(consenting))
        members = set(version.user_ids)
        return PrototypeStatus(
            status="in_force",
            version=version.version,
            built_at=version.built_at,
            embedder=version.embedder,
            prototypes=tuple(
                PrototypeEntry(users=int(size), label=label)
                for size, label in zip(version.sizes, version.labels, strict=True)
            ),
            users=len(members),
            joined=version.joined,
            not_members=sum(user.user_id not in members for user in consenting),
            pairs_since=sum(
                max(0, user.pairs - version.remembered.get(user.user_id, 0)) for user in consenting
            ),
        )

    # --- writing ---

    def replace(
        self,
        centroids: Vectors,
        members: Sequence[Member],
        *,
        embedder: str,
        labels: Sequence[str] = (),
        remembered: Mapping[str, int] | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> str:
        """Write a new version and switch to it; returns its name. Older ones are removed.

        centroids: (k, d), unit length. remembered: how many past choices there are of each member.

        Raises ConfigurationError for no members or shapes that do not fit, MemoryStoreError when it
        cannot be written, or another build, begun later, ended first; the version before, or of that
        build, then counts. Whoever withdraws consent or is forgotten while it is written is left
        out, as is who is not in the memory.
        """
        if not members or centroids.ndim != 2 or members[0].vector.shape != centroids[0].shape:
            raise ConfigurationError(
                f"{len(members)} members and centroids of shape {centroids.shape} make no version: "
                "pass at least one member, with vectors of the centroids' dimension"
            )
        store = self._memory.shared_store()
        now = datetime.now(UTC)
        version = _later_version(store, now)
        names = list(labels) or [""] * len(centroids)
        agreed = self._memory.consenting({member.user_id for member in members})
        with reported("read", store.where):
            keys = store.vault.keys_of(member.user_id for member in members)
        members = [member for member in members if member.user_id in keys]
        agreed &= keys.keys()
        with reported("write prototypes to", store.where), _unless_replaced(store.where):
            kept = store.collection(CENTROIDS + version)
            kept.add(
                ids=[str(number) for number in range(len(centroids))],
                embeddings=centroids,
                metadatas=[{"label": name} for name in names],
            )
            rows = store.collection(
                MEMBERS + version, {CHANGES: CHANGED + version}, sync_threshold=SYNC_THRESHOLD
            )
            for start in range(0, len(members), store.max_batch):
                some = members[start : start + store.max_batch]
                # The lock by batch: users go on remembering things while a build is written.
                with store.writing():
                    rows.add(
                        ids=[f"{start + number}" for number in range(len(some))],
                        embeddings=np.stack([member.vector for member in some]),
                        metadatas=[
                            {
                                PSEUDONYM: keys[member.user_id].pseudonym,
                                "prototype": member.prototype,
                                REMEMBERED: (remembered or {}).get(member.user_id, 0),
                            }
                            for member in some
                        ],
                    )
                    store.wrote()
                progress(min(start + len(some), len(members)), len(members))
            with store.writing(alone=True):
                for collection in (kept, rows):
                    store.client.get_collection(collection.name, embedding_function=None)
                # Rows written after somebody was forgotten would outlive them; from here on,
                # `forget` finds them.
                still = store.vault.keys_of(keys)
                forgotten = {user for user, key in keys.items() if still.get(user) != key}
                for user_id in forgotten | (agreed - self._memory.consenting(agreed)):
                    rows.delete(where={PSEUDONYM: keys[user_id].pseudonym})
                store.collection(POINTER).upsert(
                    ids=[CURRENT],
                    embeddings=np.ones((1, 1), dtype=np.float32),
                    metadatas=[
                        {
                            "version": version,
                            "built_at": now.isoformat(timespec="seconds"),
                            "embedder": embedder,
                            "salt": secrets.token_hex(8),
                        }
                    ],
                )
                store.wrote()
                _remove_older(store, version)
        return version

    def join(self, user_id: str, vector: Vectors) -> None:
        """Let a user into the prototype nearest to their persona, without a rebuild.

        A later call replaces what an earlier one wrote; what the build wrote of them stays. Nothing
        happens where there is no version, or nothing is known of the user.
        """
        store = self._memory.shared_store()
        with self._lock:
            version = self.current()
            if version is None:
                return
            prototype = int(version.nearest(vector)[0])
            with store.writing(), reported("write prototypes to", store.where):
                rows = _existing(store, MEMBERS + version.version)
                if rows is None:
                    return  # a new version has just come; they join that one the next time
                key = store.vault.key_of(user_id)
                if key is None:
                    return  # forgotten: nothing may be written of them any more
                rows.upsert(
                    ids=[JOINED + key.pseudonym],
                    embeddings=np.asarray([vector], dtype=np.float32),
                    metadatas=[{PSEUDONYM: key.pseudonym, "prototype": prototype}],
                )
                store.changed(rows)
                store.wrote()
            if user_id not in version.homes:
                # Where others changed it, too, there are more changes than this one.
                self._loaded = version.with_member(Member(user_id, prototype, vector))
                self._changes += 1

    def leave(self, user_id: str) -> None:
        """Take a user out of the version that counts, whoever wrote them there."""
        store = self._memory.shared_store()
        with self._lock:
            version = self.current()
            rows = None if version is None else _existing(store, MEMBERS + version.version)
            if rows is not None:
                with store.writing(), reported("write prototypes to", store.where):
                    key = store.vault.key_of(user_id)
                    if key is None:
                        return  # `forget` took their rows
                    rows.delete(where={PSEUDONYM: key.pseudonym})
                    store.changed(rows)
                    store.wrote()
            self._loaded = None

    # --- inside ---

    def _pointer(self, store: Store) -> dict[str, str] | None:
        pointer = _existing(store, POINTER)
        if pointer is None:
            return None
        rows = pointer.get(ids=[CURRENT], include=["metadatas"])["metadatas"]
        return {key: str(value) for key, value in rows[0].items()} if rows else None

    def _load(self, store: Store, pointer: dict[str, str]) -> PrototypeSet | None:
        """Return the version that the pointer names; None when it was removed meanwhile."""
        from chromadb.errors import NotFoundError

        version = pointer["version"]
        try:
            kept = _existing(store, CENTROIDS + version)
            rows = _existing(store, MEMBERS + version)
            if kept is None or rows is None:
                return None
            got = settled(partial(kept.get, include=["embeddings", "metadatas"]))
            pseudonyms: list[str] = []
            prototypes: list[int] = []
            vectors: list[Vectors] = []
            remembered: dict[str, int] = {}
            joined: list[bool] = []
            while True:
                part = settled(
                    partial(
                        rows.get,
                        limit=READ_AT_ONCE,
                        offset=len(pseudonyms),
                        include=["embeddings", "metadatas"],
                    )
                )
                metadatas = part["metadatas"] or []
                pseudonyms += [str(metadata[PSEUDONYM]) for metadata in metadatas]
                prototypes += [int(str(metadata["prototype"])) for metadata in metadatas]
                joined += [row_id.startswith(JOINED) for row_id in part["ids"]]
                remembered |= {
                    str(metadata[PSEUDONYM]): int(str(metadata[REMEMBERED]))
                    for metadata in metadatas
                    if REMEMBERED in metadata
                }
                vectors.append(np.asarray(part["embeddings"], dtype=np.float32))
                if len(metadatas) < READ_AT_ONCE:
                    break
        except NotFoundError:
            return None
        order = np.argsort([int(row_id) for row_id in got["ids"]])
        centroids = np.asarray(got["embeddings"], dtype=np.float32)[order]
        stacked = np.concatenate([part for part in vectors if part.size] or [centroids[:0]])
        keys = store.vault.keys_behind(pseudonyms)
        known = [row for row, pseudonym in enumerate(pseudonyms) if pseudonym in keys]
        return PrototypeSet(
            version=version,
            built_at=pointer["built_at"],
            embedder=pointer["embedder"],
            salt=pointer["salt"],
            centroids=centroids,
            labels=tuple(str((got["metadatas"] or [])[i].get("label", "")) for i in order),
            user_ids=tuple(keys[pseudonyms[row]].user_id for row in known),
            prototype_of=np.array(prototypes, dtype=np.int64)[known],
            vectors=stacked[known],
            joined=sum(joined[row] for row in known),
            remembered={
                keys[pseudonym].user_id: count
                for pseudonym, count in remembered.items()
                if pseudonym in keys
            },
        )


@contextmanager
def _unless_replaced(where: str) -> Iterator[None]:
    """Say so where another build, begun later, removes what this one is writing."""
    from chromadb.errors import NotFoundError

    try:
        yield
    except NotFoundError as error:
        raise MemoryStoreError(
            f"another build, begun later, has replaced the prototypes in {where} meanwhile: that one"
            " counts, and nothing of this one is kept"
        ) from error


def _existing(store: Store, name: str) -> Collection | None:
    from chromadb.errors import NotFoundError

    try:
        return store.client.get_collection(name, embedding_function=None)
    except NotFoundError:
        return None


def _changes_of(store: Store, version: str) -> int:
    noted = _existing(store, CHANGED + version)
    return 0 if noted is None else noted.count()


_VERSION = re.compile(rf"(?:{CENTROIDS}|{MEMBERS}|{CHANGED})(\d{{8}}T\d{{12}})-[0-9a-f]+")


def _later_version(store: Store, now: datetime) -> str:
    """Return a name that sorts behind those of all versions there are, wherever the clock stood."""
    for collection in store.client.list_collections():
        if begun := _VERSION.fullmatch(collection.name):
            last = datetime.strptime(begun[1], STAMP).replace(tzinfo=UTC)
            now = max(now, last + timedelta(microseconds=1))
    return f"{now.strftime(STAMP)}-{secrets.token_hex(3)}"


def _remove_older(store: Store, version: str) -> None:
    """Versions begun before this one; names sort by time. One begun later is somebody's build."""
    for collection in store.client.list_collections():
        for prefix in (CENTROIDS, MEMBERS, CHANGED):
            if collection.name.startswith(prefix) and collection.name < prefix + version:
                store.client.delete_collection(collection.name)
