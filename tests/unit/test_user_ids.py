"""One grammar of user ids: what the library and the shell take, and what they refuse."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from awkward_ids import TYPED_ANOTHER_WAY, UNUSABLE, USABLE
from command_line import pgenrm
from hypothesis import given
from hypothesis import strategies as st

from pgenrm_agent import (
    ConfigurationError,
    EvaluationCache,
    PGenRM,
    PreferencePair,
    Scaling,
    StatedPreference,
    UserMemory,
)
from pgenrm_agent.testing import ScriptedEngine, write_chain
from pgenrm_agent.user_ids import normal_user_id, user_id_of, valid_user_id

ANSWERS = ["So.", "Not so."]
PAIR = PreferencePair(query="How?", chosen="So.", rejected="Not so.", id="choice")


@pytest.fixture
def rm(tmp_path: Path) -> Iterator[PGenRM]:
    cache = EvaluationCache(tmp_path / "cache.sqlite")
    scaling = Scaling(individual=1, seed=1)
    with PGenRM(
        engine=ScriptedEngine(lambda prompt, sample: write_chain([7, 3])),
        memory=tmp_path / "memory",
        scaling=scaling,
        cache=cache,
    ) as reward_model:
        yield reward_model
    cache.close()


def test_the_library_stores_scores_lists_exports_and_forgets_every_usable_id(
    rm: PGenRM, tmp_path: Path
) -> None:
    for user in USABLE:
        rm.remember(user, PAIR)
        rm.state_preference(user, "Be brief.")
        rm.memory.set_consent(user, True)
    assert [summary.user_id for summary in rm.memory.users()] == sorted(USABLE)
    assert rm.memory.consenting(USABLE) == set(USABLE)
    for user in USABLE:
        assert rm.score(user, "How?", ANSWERS).request.user_id == user
        assert rm.memory.history(user) == (PAIR,)
        assert {row["user_id"] for row in rm.memory.export(user)} == {user}
    rm.memory.export_jsonl(tmp_path / "all.jsonl")
    for user in USABLE:
        assert rm.forget(user) == 3
    assert rm.memory.users() == []
    assert rm.memory.import_jsonl(tmp_path / "all.jsonl") == 3 * len(USABLE)


def test_an_id_is_the_same_however_it_was_typed(rm: PGenRM) -> None:
    rm.remember(TYPED_ANOTHER_WAY, PAIR)
    assert rm.memory.history("jos\u00e9") == (PAIR,)
    again = [rm.score(user, "How?", ANSWERS) for user in (TYPED_ANOTHER_WAY, "jos\u00e9")]
    assert [evaluation.cached for evaluation in again] == [False, True]
    assert rm.forget(TYPED_ANOTHER_WAY) == 1
    assert not rm.score("jos\u00e9", "How?", ANSWERS).cached


@pytest.mark.parametrize("user", [*UNUSABLE, None, 7, b"ada", ["ada"]], ids=ascii)
def test_no_method_takes_another_id(rm: PGenRM, user: str) -> None:
    memory: UserMemory = rm.memory
    calls: list[Callable[[], object]] = [
        lambda: rm.score(user, "How?", ANSWERS),
        lambda: rm.rerank(user, "How?", ANSWERS),
        lambda: rm.remember(user, PAIR),
        lambda: rm.state_preference(user, "Be brief."),
        lambda: rm.forget(user),
        lambda: memory.remember_many(user, []),
        lambda: memory.state(user, StatedPreference(text="Be brief.")),
        lambda: memory.set_consent(user, True),
        lambda: memory.consent(user),
        lambda: memory.consenting([user]),
        lambda: memory.recall(user),
        lambda: memory.history(user),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match="user_id"):
            call()


def test_the_shell_lists_shows_and_forgets_every_usable_id(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    with UserMemory(folder) as memory:
        for user in USABLE:
            memory.remember(user, PAIR)
    where = ("--memory", folder)
    listed = json.loads(pgenrm("users", "list", *where, "--json").stdout)
    assert [summary["user_id"] for summary in listed] == sorted(USABLE)
    for user in USABLE:
        shown = pgenrm("users", "show", *where, "--json", "--", user)
        assert json.loads(shown.stdout)["user_id"] == user
        assert pgenrm("users", "export", *where, "--", user).stdout.count("\n") == 1
        assert "1 entry " in pgenrm("users", "forget", *where, "--yes", "--", user).stdout
    assert json.loads(pgenrm("users", "list", *where, "--json").stdout) == []


def test_the_shell_exports_into_a_new_private_file(tmp_path: Path) -> None:
    file, folder = tmp_path / "all.jsonl", tmp_path / "memory"
    with UserMemory(folder) as memory:
        memory.remember("ada", PAIR)
    command = ("users", "export", "--memory", folder, "--out", file)
    assert pgenrm(*command).returncode == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text())["user_id"] == "ada"
    refused = pgenrm(*command)
    assert refused.returncode == 1
    assert "--force" in refused.complaint
    assert pgenrm(*command, "--force").returncode == 0


@pytest.mark.parametrize("user", [user for user in UNUSABLE if "\0" not in user], ids=ascii)
def test_the_shell_refuses_what_the_library_refuses(tmp_path: Path, user: str) -> None:
    where = ("--memory", tmp_path / "memory")
    for command in (
        ("users", "show", *where, "--", user),
        ("users", "export", *where, "--", user),
        ("users", "forget", *where, "--yes", "--", user),
        ("users", "consent", *where, "--give", "--", user),
        ("score", *where, "-q", "How?", "--user", user, "So."),
        ("mcp", *where, "--user", user),
    ):
        done = pgenrm(*command)
        assert done.returncode == 2, command
        assert "no usable id" in done.complaint


def test_an_application_may_keep_ids_as_whole_numbers_or_uuids() -> None:
    number = UUID("3f8a6c1e-52c4-4d8e-9a3b-0d1f5f4f7e21")
    assert user_id_of(17, "user_id") == "17"
    assert user_id_of(number, "user_id") == str(number)
    for value in (True, 1.5, None, b"ada", {"id": "ada"}):
        with pytest.raises(ConfigurationError, match="user_id is"):
            user_id_of(value, "user_id")


@given(st.text(st.characters()))
def test_a_usable_id_is_printable_in_normal_form_and_stays_as_it_is(text: str) -> None:
    try:
        user = normal_user_id(text)
    except ValueError:
        with pytest.raises(ConfigurationError, match="no usable id"):
            valid_user_id(text)
        return
    assert 1 <= len(user) <= 256
    assert user.isprintable()
    assert user == user.strip() == unicodedata.normalize("NFC", text)
    assert normal_user_id(user) == valid_user_id(user) == user
    assert user.encode().decode() == user
