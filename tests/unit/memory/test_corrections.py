"""Single entries: listed with what overrules them, corrected, forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.memory import Entry, UserMemory
from pgenrm_agent.schema import PreferencePair, StatedPreference

QUERY = "How do I bake bread?"


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[UserMemory]:
    with UserMemory(tmp_path / "memory") as opened:
        yield opened


def choice(id: str, chosen: str, rejected: str, day: int = 1) -> PreferencePair:
    made = datetime(2026, 1, day, tzinfo=UTC)
    return PreferencePair(id=id, query=QUERY, chosen=chosen, rejected=rejected, created_at=made)


def test_a_newer_word_counts_and_both_can_be_seen(memory: UserMemory) -> None:
    memory.remember("ada", choice("a", "plain", "chatty"))
    memory.remember("ada", choice("b", "chatty", "plain", day=2))
    old = memory.state("ada", StatedPreference(text="Short answers, please."))
    new = memory.state("ada", StatedPreference(text="I want long answers"))
    signals = memory.recall("ada", query=QUERY, selection="similar")
    assert [pair.id for pair in signals.history] == ["b"]
    assert [stated.text for stated in signals.stated] == ["I want long answers"]
    seen = {entry.id: entry.overruled_by for entry in memory.entries("ada")}
    assert seen == {"a": "b", "b": None, old: new, new: None}
    assert [pair.id for pair in memory.history("ada")] == ["a", "b"]
    assert len(list(memory.export("ada"))) == 4


def test_who_says_it_again_means_it_again(memory: UserMemory) -> None:
    for text in ("short answers", "I love cats", "long answers", "short answers", "I love cats"):
        memory.state("ada", StatedPreference(text=text))
    stated = [statement.text for statement in memory.recall("ada").stated]
    assert stated == ["I love cats", "short answers"]
    assert len(memory.entries("ada")) == 3


def test_one_entry_is_forgotten_and_the_others_stay(memory: UserMemory) -> None:
    told: list[str] = []
    memory.also_forget.add(told.append)
    memory.remember_many("ada", [choice("a", "x", "y"), choice("b", "x", "z")])
    memory.remember("bob", choice("a", "x", "y"))
    stated = memory.state("ada", StatedPreference(text="Be brief."))
    for user, entry in (("ada", "nowhere"), ("bob", "b"), ("bob", stated), ("eve", "a")):
        assert not memory.forget_entry(user, entry)
    assert told == []
    assert memory.forget_entry("ada", "a")
    assert memory.forget_entry("ada", stated)
    assert not memory.forget_entry("ada", "a")
    assert told == ["ada", "ada"]
    assert [entry.id for entry in memory.entries("ada")] == ["b"]
    assert [entry.id for entry in memory.entries("bob")] == ["a"]
    memory.remember("ada", choice("a", "new", "y"))  # the id is free again
    assert len(memory.history("ada")) == 2


def test_one_entry_is_corrected(memory: UserMemory) -> None:
    memory.remember("ada", choice("a", "x", "y"))
    said = memory.state("ada", StatedPreference(kind="demographics", text="age 31"))
    assert memory.correct("ada", "a", choice("ignored", "y", "x")) == "a"
    again = memory.correct("ada", said, StatedPreference(kind="demographics", text="age 32"))
    assert again != said
    assert (
        memory.correct("ada", again, StatedPreference(kind="demographics", text="age 32")) == again
    )
    first, second = memory.entries("ada")
    assert first.pair == choice("a", "y", "x")
    assert second.stated == StatedPreference(kind="demographics", text="age 32")
    assert memory.recall("ada", query=QUERY, selection="similar").history == (
        choice("a", "y", "x"),
    )
    memory.close()
    with UserMemory(memory.where) as opened:
        assert opened.history("ada") == (choice("a", "y", "x"),)


def test_what_cannot_be_corrected_says_why(memory: UserMemory) -> None:
    memory.remember("ada", choice("a", "x", "y"))
    said = memory.state("ada", StatedPreference(text="Be brief."))
    with pytest.raises(ConfigurationError, match="nothing with the id 'b'"):
        memory.correct("ada", "b", choice("b", "x", "y"))
    with pytest.raises(ConfigurationError, match="is a choice"):
        memory.correct("ada", "a", StatedPreference(text="Be brief."))
    with pytest.raises(ConfigurationError, match="is a statement"):
        memory.correct("ada", said, choice("b", "x", "y"))
    first, second = memory.entries("ada")
    for entry, changes in (
        (first, {"text": "x"}),
        (second, {"query": "x"}),
        (first, {}),
        (second, {}),
    ):
        with pytest.raises(ConfigurationError, match="and nothing else"):
            entry.changed(**changes)
    assert first.changed(chosen="z") == choice("a", "z", "y")


def unnamed(chosen: str, rejected: str, day: int = 1, **more: object) -> PreferencePair:
    """A choice without an id of its own."""
    made = datetime(2026, 1, day, tzinfo=UTC)
    return PreferencePair.model_validate(
        {"query": QUERY, "chosen": chosen, "rejected": rejected, "created_at": made, **more}
    )


def test_the_same_choice_twice_is_one_choice(memory: UserMemory) -> None:
    first = memory.remember("ada", unnamed("plain", "chatty"))
    assert memory.remember("ada", unnamed("plain", "chatty", day=2)) == first
    turns = ({"role": "user", "content": "Hello."},)
    for differs in (
        {"query": "How do I bake a cake?"},
        {"conversation": turns},
        {"attributes": {"brevity": 70}},
        {"chosen_score": 9},
    ):
        assert memory.remember("ada", unnamed("plain", "chatty", **differs)) != first
    assert memory.remember("bob", unnamed("plain", "chatty")) == first
    memory.remember_many("bob", [unnamed("plain", "chatty", day=day) for day in range(1, 9)])
    assert (len(memory.history("ada")), len(memory.history("bob"))) == (5, 1)
    # Two people's rows of one choice have nothing in common.
    ids = memory.shared_store().interactions.get(include=[])["ids"]
    assert len(set(ids)) == 6


def test_who_chooses_it_again_means_it_again(memory: UserMemory) -> None:
    one_way, other_way = unnamed("plain", "chatty"), unnamed("chatty", "plain", day=2)
    memory.remember_many("ada", [one_way, other_way])
    memory.remember("ada", one_way)  # the same request, late
    assert memory.recall("ada").history == (other_way,)
    again = one_way.model_copy(update={"created_at": one_way.created_at + timedelta(days=2)})
    assert memory.remember("ada", again) == one_way.id
    assert memory.recall("ada").history == (again,)
    assert memory.history("ada") == (other_way, again)
    memory.remember_many("bob", [one_way, other_way, again])
    assert memory.recall("bob").history == (again,)
    # With an id of its own it is the same choice, however often it is sent.
    memory.remember_many("eve", [choice("a", "x", "y"), choice("b", "y", "x", day=2)])
    memory.remember("eve", choice("a", "x", "y", day=3))
    assert [pair.id for pair in memory.recall("eve").history] == ["b"]


def test_an_id_that_follows_from_the_content_goes_with_it(memory: UserMemory) -> None:
    wrong = memory.remember("ada", unnamed("x", "y"))
    right = memory.correct("ada", wrong, unnamed("x", "z"))
    assert right == unnamed("x", "z").id
    assert memory.history("ada") == (unnamed("x", "z"),)
    # So the old choice can be made again.
    assert memory.remember("ada", unnamed("x", "y")) == wrong
    assert memory.correct("ada", wrong, unnamed("x", "z")) == right
    assert memory.history("ada") == (unnamed("x", "z"),)


@pytest.mark.parametrize("stated", [True, False])
def test_nobody_who_is_forgotten_meanwhile_comes_back_by_a_correction(
    memory: UserMemory, monkeypatch: pytest.MonkeyPatch, stated: bool
) -> None:
    entry = memory.remember("ada", choice("a", "x", "y"))
    if stated:
        entry = memory.state("ada", StatedPreference(text="Be brief."))
    read = memory.entries

    def then_forgotten(user_id: str) -> tuple[Entry, ...]:
        entries = read(user_id)
        memory.forget(user_id)
        return entries

    monkeypatch.setattr(memory, "entries", then_forgotten)
    new = StatedPreference(text="Be long.") if stated else choice("a", "y", "x")
    with pytest.raises(ConfigurationError, match="nothing with the id"):
        memory.correct("ada", entry, new)
    assert memory.shared_store().vault.key_of("ada") is None
    assert memory.users() == []
