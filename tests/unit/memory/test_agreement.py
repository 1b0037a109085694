"""What a newer choice or statement overrules, and what it leaves alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pgenrm_agent.memory.agreement import (
    overruled_choices,
    overruled_statements,
    standing_statements,
)
from pgenrm_agent.memory.selection import select
from pgenrm_agent.schema import Message, PreferencePair, StatedPreference


def choice(
    id: str, chosen: str, rejected: str, query: str = "How?", **more: object
) -> PreferencePair:
    made = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=int(id))
    return PreferencePair.model_validate(
        {
            "id": id,
            "query": query,
            "chosen": chosen,
            "rejected": rejected,
            "created_at": made,
            **more,
        }
    )


def test_the_same_choice_the_other_way_round_overrules_the_older() -> None:
    pairs = [
        choice("1", "A", "B"),
        choice("3", "b", " A ", query=" how? "),
        choice("2", "A", "B"),
        choice("4", "B", "A"),
    ]
    assert overruled_choices(pairs) == {"1": "4", "2": "4"}
    for selection in ("random", "recent"):
        assert {pair.id for pair in select(pairs, selection, None)} == {"3", "4"}
    shown = select(pairs, "similar", 2, similarity=[0.9, 0.1, 0.8, 0.2])
    assert [pair.id for pair in shown] == ["4", "3"]
    # A mind that is changed again.
    again = [*pairs, choice("5", "A", "B")]
    assert overruled_choices(again) == {"3": "5", "4": "5"}


def test_other_choices_contradict_nothing() -> None:
    turn = Message(role="user", content="Hello.")
    pairs = [
        choice("1", "A", "B"),
        choice("2", "B", "A", query="Why?"),
        choice("3", "B", "C"),
        choice("4", "B", "A", conversation=(turn,)),
    ]
    assert overruled_choices(pairs) == {}


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        # The same in other words.
        ("Short answers, please.", "I prefer short answers"),
        ("numbers and steps", "Steps and numbers, please!"),
        ("Please keep it brief", "short answers"),
        ("I'm vegetarian.", "I am vegetarian"),
        ("短い答えをください", "短い答えをください。"),
        # The opposite of the same.
        ("Short answers, please.", "I want long answers now"),
        ("I like lists", "No lists, please."),
        ("No lists", "Use lists"),
        ("less formal", "more formal"),
        ("I don\u2019t like long answers", "long answers please"),
        ("I am vegetarian", "I am not vegetarian anymore"),
        ("I eat meat", "I no longer eat meat"),
        ("Not too long.", "It should not be too long"),
        ("Use emojis too", "No emojis"),
        ("I like short answers too", "I want long answers"),
        ("Be direct.", "Don't be direct"),
    ],
)
def test_a_newer_statement_overrules_what_it_repeats_or_denies(older: str, newer: str) -> None:
    stated = [StatedPreference(text=older), StatedPreference(text=newer)]
    assert overruled_statements(stated) == {0: 1}
    assert [statement.text for statement in standing_statements(stated)] == [newer]
    assert overruled_statements(stated[::-1]) == {0: 1}


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("short answers", "steps and numbers"),
        ("long answers with lists", "short answers"),
        ("lists", "no jargon in lists"),
        ("I am from Iran", "I am from Iraq"),
        ("I have two children", "I have no garden"),
        ("use 2 examples", "use 3 examples"),
        ("no jargon", "no lists"),
        ("please", "I want more"),
        ("Ich mag Listen", "Ich mag Listen nicht"),
        ("I am a nurse; no jargon", "jargon"),
        # A limit on one side asks for nothing on the other.
        ("Not too formal.", "Not too casual."),
        ("Not too short.", "Not too long."),
        ("Your answers are too long.", "Short answers, please."),
        ("Long answers.", "Not too short."),
        # What goes together.
        ("Be friendly.", "Be factual."),
        ("Be direct.", "Be careful."),
        ("Be polite.", "Keep it casual."),
    ],
)
def test_statements_about_other_matters_stand_beside_each_other(older: str, newer: str) -> None:
    stated = [StatedPreference(text=older), StatedPreference(text=newer)]
    assert standing_statements(stated) == tuple(stated)


def test_statements_of_another_kind_are_about_another_matter() -> None:
    stated = [
        StatedPreference(kind="style", text="formal"),
        StatedPreference(kind="self_description", text="informal"),
    ]
    assert standing_statements(stated) == tuple(stated)
