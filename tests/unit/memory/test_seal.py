"""Texts that leave the memory for a while are open only while their user takes part."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgenrm_agent.memory import UserMemory
from pgenrm_agent.memory.seal import Seal


@pytest.fixture
def memory(tmp_path: Path) -> UserMemory:
    memory = UserMemory(tmp_path / "memory")
    for user in ("ann", "ben"):
        memory.set_consent(user, True)
    return memory


def test_a_text_is_open_until_its_user_withdraws_or_is_forgotten(memory: UserMemory) -> None:
    seal = Seal(memory)
    first, second = seal.seal("ann", "of ann"), seal.seal("ben", "of ben")
    beside = seal.seal_beside(first, "more of ann")
    assert seal.seal("ann", "of ann") == first
    assert "of ann" not in first + beside
    opened = {first: "of ann", beside: "more of ann", second: "of ben"}
    assert seal.unseal(opened) == opened
    memory.set_consent("ben", False)
    assert seal.unseal(opened) == {first: "of ann", beside: "more of ann"}
    memory.forget("ann")
    memory.set_consent("ann", True)
    assert seal.unseal(opened) == {}
    memory.close()


def test_what_no_key_is_left_for_is_sealed_for_nobody(memory: UserMemory, tmp_path: Path) -> None:
    seal = Seal(memory)
    first = seal.seal("ann", "of ann")
    with UserMemory(tmp_path / "another") as another:
        another.set_consent("ann", True)
        assert Seal(another).unseal([first, "no seal", "", "."]) == {}
        assert Seal(another).unseal([Seal(another).seal_beside(first, "more")]) == {}
    memory.forget("ann")
    later = seal.seal_beside(first, "later")
    assert "later" not in later
    assert seal.unseal([seal.seal("ann", "after"), seal.seal("nobody", "?"), later]) == {}
    changed = seal.seal("ben", "of ben")[:-6] + "AAAAA="
    assert seal.unseal([changed]) == {}
    memory.close()
