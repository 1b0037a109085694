"""The prototype store on a real Chroma: versions, switching, joining, forgetting."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pgenrm_agent.errors import ConfigurationError, MemoryStoreError
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.prototypes import Member, PrototypeStore
from pgenrm_agent.schema import PreferencePair

PAIR = PreferencePair(query="Tea?", chosen="Yes.", rejected="Perhaps, it depends.")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[UserMemory]:
    with UserMemory(tmp_path / "memory") as opened:
        joining = [f"{who}{number}" for who in "xy" for number in range(5)]
        known(opened, "ann", "bob", "eve", "new", "new-1", "half-9", *joining)
        yield opened


def known(memory: UserMemory, *users: str) -> None:
    """Make keys, as whoever is in the memory has one."""
    memory.shared_store().vault.keys_for(users)


def write(
    memory: UserMemory, store: PrototypeStore, number: int, *, users: int = 30, k: int = 3
) -> str:
    """A version in which every number says which version it is: mixtures cannot go unseen."""
    vector = np.full(4, 0.5, dtype=np.float32)
    names = [f"u{i}-{number}" for i in range(users)]
    known(memory, *names)
    return store.replace(
        np.stack([vector] * k),
        [Member(user, (i + number) % k, vector) for i, user in enumerate(names)],
        embedder=f"e{number}",
        labels=[f"label {number}"] * k,
    )


def numbers_in(store: PrototypeStore) -> set[str]:
    """Every number that one reading of the current version has; more than one is a mixture."""
    version = store.current()
    assert version is not None
    return {
        version.embedder.removeprefix("e"),
        *(label.removeprefix("label ") for label in version.labels),
        *(user.split("-")[1] for user in version.user_ids),
    }


def test_what_was_written_is_read_back(memory: UserMemory) -> None:
    store = PrototypeStore(memory)
    assert store.current() is None
    centroids = np.eye(4, dtype=np.float32)[:2]
    rows = [
        Member("ann", 0, centroids[0]),
        Member("ann", 1, centroids[1]),
        Member("bob", 1, centroids[1]),
    ]
    version = store.replace(centroids, rows, embedder="e", labels=["plain", "warm"])
    for reader in (store, PrototypeStore(memory)):
        current = reader.current()
        assert current is not None
        assert (current.version, current.embedder, current.labels) == (
            version,
            "e",
            ("plain", "warm"),
        )
        assert current.user_ids == ("ann", "ann", "bob")
        assert current.prototype_of.tolist() == [0, 1, 1]
        np.testing.assert_allclose(current.centroids, centroids)
        np.testing.assert_allclose(current.vectors, centroids[[0, 1, 1]])


def test_a_new_version_replaces_the_old_and_leaves_nothing_of_it(memory: UserMemory) -> None:
    store = PrototypeStore(memory)
    write(memory, store, 1)
    second = write(memory, store, 2)
    assert numbers_in(store) == {"2"}
    names = {collection.name for collection in memory.shared_store().client.list_collections()}
    assert names == {
        "interactions",
        "users",
        "prototypes",
        f"members-{second}",
        f"prototypes-{second}",
    }


def test_a_build_that_ended_half_way_is_never_seen_and_is_cleared_away(memory: UserMemory) -> None:
    store = PrototypeStore(memory)
    write(memory, store, 1)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.replace(
            np.ones((1, 4), dtype=np.float32) / 2,
            [Member("half-9", 0, np.full(4, 0.5, np.float32))],
            embedder="e9",
            progress=stop,
        )
    assert numbers_in(store) == {"1"}
    write(memory, store, 3)
    assert len(memory.shared_store().client.list_collections()) == 5


@pytest.mark.parametrize("users", [1, 700], ids=["one batch", "two batches"])
def test_of_two_builds_at_once_the_one_begun_later_counts_and_the_other_says_so(
    memory: UserMemory, users: int
) -> None:
    store, later = PrototypeStore(memory), PrototypeStore(memory)
    vector = np.full(4, 0.5, np.float32)
    names = [f"m{number}" for number in range(users)]
    known(memory, *names)
    begun: list[str] = []

    def meanwhile(done: int, total: int) -> None:
        if not begun:
            begun.append(write(memory, later, 2))

    with pytest.raises(MemoryStoreError, match="another build, begun later, has replaced"):
        store.replace(
            vector[None],
            [Member(name, 0, vector) for name in names],
            embedder="e1",
            progress=meanwhile,
        )
    assert numbers_in(store) == {"2"}
    assert len(memory.shared_store().client.list_collections()) == 5
    write(memory, store, 3)
    assert numbers_in(later) == {"3"}
    assert len(memory.shared_store().client.list_collections()) == 5


def test_versions_written_before_the_clock_was_set_back_are_cleared_away(
    memory: UserMemory,
) -> None:
    store = PrototypeStore(memory)
    client = memory.shared_store().client
    ahead = write(memory, store, 1)
    later = f"2999{ahead[4:]}"
    for collection in client.list_collections():
        if collection.name.endswith(ahead):
            collection.modify(name=collection.name.replace(ahead, later))
    write(memory, store, 2)
    newest = write(memory, store, 3)
    assert newest > later
    assert numbers_in(PrototypeStore(memory)) == {"3"}
    left = [collection.name for collection in client.list_collections()]
    assert not [name for name in left if "-" in name and not name.endswith(newest)]


def test_no_reader_sees_a_mixture_while_versions_are_written(memory: UserMemory) -> None:
    writer, reader = PrototypeStore(memory), PrototypeStore(memory)
    write(memory, writer, 0)
    seen: list[set[str]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(numbers_in(reader))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(1, 7):
        write(memory, writer, number, users=600)  # more than one batch
    done.set()
    for thread in threads:
        thread.join()
    assert all(len(numbers) == 1 for numbers in seen)
    assert len({number for numbers in seen for number in numbers}) >= 3


def test_whoever_is_forgotten_while_a_version_is_written_is_not_in_it(memory: UserMemory) -> None:
    store = PrototypeStore(memory)
    centroids = np.eye(4, dtype=np.float32)[:2]
    users = [f"user-{number:04d}" for number in range(600)]  # more than one batch
    last = users[-1]
    known(memory, *users)
    for user in (users[0], last):
        memory.set_consent(user, True)

    def forget_her(done: int, total: int) -> None:
        if done < total:  # her row is in the batch that comes after
            memory.forget(last)
            memory.set_consent(users[0], False)

    members = [Member(user, 0, centroids[0]) for user in users]
    store.replace(centroids, members, embedder="e", progress=forget_her)
    version = store.current()
    assert version is not None
    assert {users[0], last}.isdisjoint(version.user_ids)
    assert len(version.user_ids) == 598
    assert store.status().joined == 0


def test_joining_needs_no_rebuild_and_is_seen_by_other_readers(memory: UserMemory) -> None:
    store, second = PrototypeStore(memory), PrototypeStore(memory)
    centroids = np.eye(4, dtype=np.float32)[:2]
    store.replace(centroids, [Member("ann", 0, centroids[0])], embedder="e")
    assert second.current() is not None
    store.join("new", centroids[1])
    store.join("new", centroids[1])
    for reader in (store, second):
        version = reader.current()
        assert version is not None
        assert version.user_ids == ("ann", "new")
        assert version.prototype_of.tolist() == [0, 1]


def test_one_who_leaves_as_another_joins_is_seen_by_other_readers(memory: UserMemory) -> None:
    store, second = PrototypeStore(memory), PrototypeStore(memory)
    centroids = np.eye(4, dtype=np.float32)[:2]
    store.replace(
        centroids, [Member("ann", 0, centroids[0]), Member("bob", 1, centroids[1])], embedder="e"
    )
    assert second.current() is not None
    memory.forget("bob")
    store.join("new", centroids[1])
    for reader in (store, second):
        version = reader.current()
        assert version is not None
        assert version.user_ids == ("ann", "new")


def test_two_who_write_at_the_same_time_do_not_hide_each_other(memory: UserMemory) -> None:
    stores = [PrototypeStore(memory) for _ in range(3)]
    centroids = np.eye(4, dtype=np.float32)[:2]
    stores[0].replace(centroids, [Member("ann", 0, centroids[0])], embedder="e")

    def join(store: PrototypeStore, who: str) -> None:
        for number in range(5):
            store.join(f"{who}{number}", centroids[1])

    threads = [
        threading.Thread(target=join, args=(store, who))
        for store, who in zip(stores, "xy", strict=False)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everybody = {"ann", *(f"{who}{number}" for who in "xy" for number in range(5))}
    for store in stores:
        version = store.current()
        assert version is not None
        assert set(version.user_ids) == everybody


def test_an_unchanged_version_is_read_once_and_a_changed_one_again(memory: UserMemory) -> None:
    store, second = PrototypeStore(memory), PrototypeStore(memory)
    write(memory, store, 1)
    first = second.current()
    assert second.current() is first
    memory.remember("u0-1", PAIR)  # other collections' changes are none of this one
    assert second.current() is first
    store.join("new-1", np.full(4, 0.5, dtype=np.float32))
    assert second.current() is not first
    write(memory, store, 2)
    names = {collection.name for collection in memory.shared_store().client.list_collections()}
    assert not [name for name in names if name.startswith("changes-")]


def test_whoever_is_forgotten_is_in_no_prototype(memory: UserMemory) -> None:
    store = PrototypeStore(memory)
    centroids = np.eye(4, dtype=np.float32)[:2]
    store.replace(
        centroids, [Member("ann", 0, centroids[0]), Member("bob", 1, centroids[1])], embedder="e"
    )
    store.join("eve", centroids[1])
    memory.remember("bob", PAIR)
    assert memory.forget("bob") == 2
    assert memory.forget("eve") == 1
    version = store.current()
    assert version is not None
    assert version.user_ids == ("ann",)


def test_the_status_says_how_stale_a_version_is(memory: UserMemory) -> None:
    store = PrototypeStore(memory)
    for user in ("ann", "bob", "cid"):
        memory.remember(user, PAIR.model_copy(update={"id": user}))
        memory.set_consent(user, user != "cid")
    assert store.status().model_dump(include={"version", "not_members"}) == {
        "version": None,
        "not_members": 2,
    }
    centroids = np.eye(4, dtype=np.float32)[:2]
    member = Member("ann", 0, centroids[0])
    store.replace(centroids, [member], embedder="e", remembered={"ann": 1})
    memory.remember("ann", PAIR.model_copy(update={"id": "second"}))
    status = store.status()
    assert (status.users, status.joined, status.not_members, status.pairs_since) == (1, 0, 1, 2)
    store.join("bob", centroids[1])
    status = store.status()
    assert (status.users, status.joined, status.not_members) == (2, 1, 0)


@pytest.mark.parametrize("gone", ["forgotten", "withdrawn"])
def test_who_goes_hides_neither_who_joined_nor_what_was_chosen_since(
    memory: UserMemory, gone: str
) -> None:
    people = ("ann", "bob", "cid", "dee")
    for user in people:
        memory.remember_many(user, [PAIR.model_copy(update={"id": f"{user}{n}"}) for n in range(3)])
        memory.set_consent(user, True)
    store = PrototypeStore(memory)
    centroids = np.eye(4, dtype=np.float32)[:2]
    built = [Member(user, row % 2, centroids[row % 2]) for user in people[:2] for row in range(3)]
    store.replace(centroids, built, embedder="e", remembered=dict.fromkeys(people[:2], 3))
    if gone == "forgotten":
        memory.forget("ann")
    else:
        memory.set_consent("ann", False)
    for user in people[2:]:
        store.join(user, centroids[0])
    memory.remember("bob", PAIR.model_copy(update={"id": "later"}))
    for reader in (store, PrototypeStore(memory)):
        status = reader.status()
        # One more of bob, and three each of those who have only joined.
        assert (status.joined, status.pairs_since) == (2, 7)


def test_whoever_leaves_is_seen_to_be_gone_by_all_readers(memory: UserMemory) -> None:
    store, second = PrototypeStore(memory), PrototypeStore(memory)
    store.leave("ann")  # nothing to leave yet
    centroids = np.eye(4, dtype=np.float32)[:2]
    members = [Member(user, 0, centroids[0]) for user in ("ann", "bob")]
    store.replace(centroids, members, embedder="e")
    store.join("new", centroids[1])
    for user in ("ann", "new"):
        store.leave(user)
    for reader in (store, second):
        version = reader.current()
        assert version is not None
        assert version.user_ids == ("bob",)


def test_what_makes_no_version_is_refused(memory: UserMemory) -> None:
    store = PrototypeStore(memory)
    with pytest.raises(ConfigurationError, match="at least one member"):
        store.replace(np.eye(2, dtype=np.float32), [], embedder="e")
    with pytest.raises(ConfigurationError, match="dimension"):
        store.replace(
            np.eye(2, dtype=np.float32), [Member("a", 0, np.ones(3, np.float32))], embedder="e"
        )


READER = """
import sys, time
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.prototypes import PrototypeStore
with UserMemory(url=sys.argv[1]) as memory:
    store, seen = PrototypeStore(memory), set()
    print("reading", flush=True)
    while True:
        found = store.current()
        numbers = {user.split("-")[1] for user in found.user_ids} | {found.embedder[1:]}
        numbers |= {label.removeprefix("label ") for label in found.labels}
        assert len(numbers) == 1, numbers
        seen |= numbers
        if "5" in numbers:
            break
    print(len(seen))
"""


@pytest.mark.long
def test_another_process_on_a_server_sees_no_mixture_either(chroma_server: str) -> None:
    with UserMemory(url=chroma_server) as memory:
        store = PrototypeStore(memory)
        write(memory, store, 0)
        reader = subprocess.Popen(
            [sys.executable, "-P", "-c", READER, chroma_server], stdout=subprocess.PIPE, text=True
        )
        assert reader.stdout is not None
        assert reader.stdout.readline().strip() == "reading"
        for number in range(1, 6):
            write(memory, store, number, users=300)
        said, _ = reader.communicate(timeout=240)
        assert reader.returncode == 0
        assert int(said) >= 2
