"""What is wrong with a value is said in our words, and counted things have their plural."""

from __future__ import annotations

from typing import Any

import pytest

from pgenrm_agent.errors import InvalidInput
from pgenrm_agent.schema import EvaluationRequest, PreferencePair, Prices, Scaling
from pgenrm_agent.wording import counted, kind_of, place_of

PAIR = {"query": "q", "chosen": "a", "rejected": "b"}
PYDANTICS = (
    "Input should",
    "Field required",
    "Extra inputs",
    "validation",
    "Value error",
    "unable to",
)


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        (Scaling, {"individual": "many"}, 'individual: a whole number is needed (got "many")'),
        (Scaling, {"individual": 5000}, "individual: use 1024 or less (got 5000)"),
        (Scaling, {"temperature": -1}, "temperature: use 0 or more (got -1)"),
        (Scaling, {"individal": 3}, "individal: there is no such field (got 3)"),
        (
            Scaling,
            {"history_selection": "newest"},
            "history_selection: use 'random', 'similar' or 'recent' (got \"newest\")",
        ),
        (PreferencePair, {"query": "q", "chosen": "a"}, "rejected: it is missing"),
        (PreferencePair, {**PAIR, "chosen": 1}, "chosen: a text is needed (got 1)"),
        (
            PreferencePair,
            {**PAIR, "created_at": "yesterday"},
            "created_at: a date and time is needed",
        ),
        (
            PreferencePair,
            {**PAIR, "attributes": {"tone": "x"}},
            "attributes.tone: a number is needed",
        ),
        (PreferencePair, {**PAIR, "conversation": 1}, "conversation: a list is needed (got 1)"),
        (
            Prices,
            {"prompt": -1, "completion": 1},
            "these prices cannot be used: prompt: use 0 or more",
        ),
        (
            EvaluationRequest,
            {"user_id": "ada", "query": "q", "candidates": []},
            "candidates: it is empty (got [])",
        ),
    ],
)
def test_what_is_wrong_is_said_in_our_words(kind: Any, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        kind(**fields)
    assert said in str(caught.value)
    assert not [words for words in PYDANTICS if words in str(caught.value)]


def test_a_place_has_no_names_of_types_in_it() -> None:
    where = ("body", "documents", 1, "function-before[_whole(), str]")
    assert place_of(where) == "body.documents.1"
    assert place_of(("documents", 0, "str")) == "documents.0"


def test_counts_and_kinds_are_english() -> None:
    assert [counted(number, "entry") for number in (0, 1, 2)] == [
        "0 entries",
        "1 entry",
        "2 entries",
    ]
    assert counted(1024, "choice") == "1,024 choices"
    assert [kind_of(value) for value in (1, "x", ())] == ["an int", "a str", "a tuple"]
