"""The vault: one key a user, sealed texts, and nothing left of a key that was deleted."""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from leftovers import files_holding

from pgenrm_agent.errors import MemoryStoreError
from pgenrm_agent.memory.vault import UserKey
from pgenrm_agent.memory.vault_file import FileVault


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[FileVault]:
    opened = FileVault(tmp_path / "vault.sqlite3")
    yield opened
    opened.close()


def key_of(vault: FileVault, user: str) -> UserKey:
    return vault.keys_for([user])[user]


# --- sealing ---


@given(text=st.text(), place=st.text())
def test_what_is_sealed_is_opened_with_the_key_and_at_its_place_alone(
    text: str, place: str
) -> None:
    ann, ben = (UserKey(user, user, secrets.token_bytes(64)) for user in ("ann", "ben"))
    sealed = ann.seal(text, place)
    assert ann.open(sealed, place) == text
    assert ann.seal(text, place) == sealed  # a node that is run again gives the same
    for key, where in ((ben, place), (ann, f"{place}!")):
        with pytest.raises(ValueError, match="another key, or changed"):
            key.open(sealed, where)
        assert key.seal(text, where) != sealed


@pytest.mark.parametrize("damaged", ["", "AAAA", "no base64!", "x" * 40])
def test_what_was_never_sealed_is_refused(damaged: str) -> None:
    key = UserKey("ann", "p", secrets.token_bytes(64))
    with pytest.raises(ValueError, match=r".+"):
        key.open(damaged, "place")


def test_names_are_alike_for_one_user_and_differ_for_others() -> None:
    ann, ben = (UserKey(user, user, secrets.token_bytes(64)) for user in ("ann", "ben"))
    assert ann.name("pair", "1") == ann.name("pair", "1")
    ours = {ann.name("pair", "1"), ann.name("pair1"), ann.name("1", "pair")}
    assert len(ours | {ben.name("pair", "1")}) == 4


def test_a_key_does_not_show_itself() -> None:
    secret = secrets.token_bytes(64)
    assert repr(secret)[2:10] not in repr(UserKey("ann", "p", secret))


# --- keys ---


def test_a_user_keeps_their_key_and_pseudonym(tmp_path: Path) -> None:
    first = FileVault(tmp_path / "vault.sqlite3")
    key = key_of(first, "用户一")
    assert "用户一" not in key.pseudonym
    assert first.keys_behind([key.pseudonym, "unknown"]) == {key.pseudonym: key}
    first.close()
    again = FileVault(tmp_path / "vault.sqlite3", make=False)
    assert key_of(again, "用户一") == key
    assert again.everybody() == [key]
    assert again.id == first.id
    again.close()


def test_many_keys_are_read_at_once(vault: FileVault) -> None:
    users = [f"user-{number}" for number in range(1200)]
    keys = vault.keys_for(users)
    assert len({key.pseudonym for key in keys.values()}) == 1200
    assert vault.keys_of([*users, "nobody"]) == keys
    assert vault.key_of("nobody") is None


def test_threads_that_make_a_key_at_once_get_the_same(vault: FileVault) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: key_of(vault, "ann"), range(32)))
    assert len(made) == 1


def test_whoever_comes_back_after_being_forgotten_is_somebody_new(vault: FileVault) -> None:
    before = key_of(vault, "ann")
    vault.remove("ann")
    vault.remove("ann")
    after = key_of(vault, "ann")
    assert before.pseudonym != after.pseudonym
    assert before.name("x") != after.name("x")


# --- the file ---


def test_its_owner_alone_can_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "vault.sqlite3"
    before = os.umask(0)
    try:
        FileVault(path).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)  # as some backup programs put files back
    FileVault(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("lost", ["deleted", "emptied", "damaged"])
def test_keys_that_are_gone_are_not_made_anew(tmp_path: Path, lost: str) -> None:
    path = tmp_path / "vault.sqlite3"
    FileVault(path).close()
    if lost == "damaged":
        path.write_bytes(b"no database at all " * 400)
    else:
        path.unlink()
        if lost == "emptied":
            path.touch()
    for _ in range(2):
        with pytest.raises(MemoryStoreError, match=r"vault\.sqlite3.*from a backup"):
            FileVault(path, make=False)


def test_a_vault_serves_one_memory(vault: FileVault) -> None:
    vault.bind("memory one")
    vault.bind("memory one")
    with pytest.raises(MemoryStoreError, match="belong to another memory"):
        vault.bind("memory two")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["keep", "keep", "forget"]), st.integers(0, 40)), max_size=120
    )
)
def test_nothing_is_left_of_deleted_keys(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("vault")
    vault = FileVault(folder / "vault.sqlite3")
    alive: dict[str, UserKey] = {}
    gone: list[UserKey] = []
    for step, number in steps:
        user = f"user-{number}-" + "long" * number
        if step == "keep":
            alive[user] = key_of(vault, user)
        elif user in alive:
            vault.remove(user)
            gone.append(alive.pop(user))
    traces = [trace for key in gone for trace in (key.pseudonym, key.secret[:32], key.secret[32:])]
    traces += [key.user_id.encode() for key in gone if key.user_id not in alive]
    assert files_holding(folder, traces) == set()
    assert {key.user_id: key for key in vault.everybody()} == alive
    vault.close()


FORGETS = """
import sys
from pathlib import Path
from pgenrm_agent.memory.vault_file import FileVault

vault = FileVault(Path(sys.argv[1]))
for number in range(100_000):
    (key,) = vault.keys_for([f"user-{number}"]).values()
    print("made", key.user_id, key.pseudonym, key.secret.hex(), flush=True)
    if number % 2:
        vault.remove(key.user_id)
        print("gone", key.user_id, flush=True)
"""


@pytest.mark.parametrize(
    "kills",
    [pytest.param(1, marks=pytest.mark.small), pytest.param(3, marks=pytest.mark.long)],
)
def test_a_kill_loses_no_key_and_brings_none_back(tmp_path: Path, kills: int) -> None:
    path = tmp_path / "vault.sqlite3"
    for kill in range(kills):
        path.unlink(missing_ok=True)
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", FORGETS, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(40 + 33 * kill)]
        child.kill()
        lines += child.stdout.readlines()
        child.wait()
        said = [line.split() for line in lines if line.endswith("\n")]
        gone = {words[1] for words in said if words[0] == "gone"}
        vault = FileVault(path, make=False)
        left = {key.user_id: key.secret.hex() for key in vault.everybody()}
        made = {words[1]: words[3] for words in said if words[0] == "made"}
        *_, last = made  # it may have been deleted before that was said
        assert {user: made[user] for user in made.keys() - gone - {last}}.items() <= left.items()
        assert gone.isdisjoint(left)
        keys = [bytes.fromhex(made[user])[:32] for user in gone]
        assert files_holding(tmp_path, keys) == set()
        vault.close()
