"""Other programs' chat messages: which text is judged, and what stands around it."""

from __future__ import annotations

from typing import Any

import pytest

from pgenrm_agent.chat_messages import last_answer, question_in, turn_of
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.fields import MAX_TURNS, whole_characters
from pgenrm_agent.schema import Message

CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
STEPS: list[dict[str, Any]] = [
    {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "content": "7 degrees"},
]
ANSWER = {"role": "assistant", "content": "Take a coat."}


@pytest.mark.parametrize(
    ("messages", "answer"),
    [
        ([*STEPS, ANSWER], "Take a coat."),
        ([ANSWER, {"role": "assistant", "content": " "}], "Take a coat."),
        (
            [{"role": "assistant", "content": [{"type": "text", "text": "Take "}, "a coat."]}],
            "Take a coat.",
        ),
        ([{"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm."}]}], ""),
        ([{"role": "assistant", "content": [{"type": "reasoning", "text": "Hm."}]}], ""),
        (
            [
                {
                    "role": "assistant",
                    "content": [
                        {"type": "reasoning", "text": "Hm."},
                        {"type": "summary_text", "text": "Hm."},
                        {"type": "output_text", "text": "Yes."},
                    ],
                }
            ],
            "Yes.",
        ),
        ([ANSWER, *STEPS], ""),
        (STEPS[:1], ""),
        ([{"role": "assistant", "content": None, "function_call": {"name": "weather"}}], ""),
        (
            [
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "name": "weather", "input": {}}],
                }
            ],
            "",
        ),
        ([{"role": "assistant", "content": "Cut \ud83d"}], "Cut \ufffd"),
        ([], ""),
    ],
)
def test_only_the_last_text_of_the_assistant_is_the_answer(
    messages: list[dict[str, Any]], answer: str
) -> None:
    assert last_answer(messages) == answer


def test_what_tools_were_asked_and_said_is_context_of_the_question() -> None:
    query, around = question_in(
        [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": None},
            {"role": "user", "content": [{"type": "text", "text": "Coat?"}, {"type": "image_url"}]},
            *STEPS,
        ]
    )
    assert query == "Coat?(image)"
    assert [(turn.role, turn.content) for turn in around] == [
        ("system", "Be brief."),
        ("user", "Hello"),
        ("assistant", 'Let me look.\n(calls weather: {"city": "Oslo"})'),
        ("assistant", "(weather returned: 7 degrees)"),
    ]


def test_long_results_of_tools_and_long_runs_of_agents_are_shortened() -> None:
    asked = {"role": "user", "content": "Coat?"}
    _, around = question_in([asked, *([{"role": "tool", "content": "x" * 60_000}] * 300)])
    assert len(around) == MAX_TURNS
    assert all(len(turn.content) < 2_100 for turn in around)


@pytest.mark.parametrize(
    "messages", [[], [ANSWER], [{"role": "system", "content": "Be brief."}, *STEPS]]
)
def test_messages_without_a_user_hold_no_question(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigurationError, match="no question to judge answers by"):
        question_in(messages)


def test_what_is_no_message_is_refused_by_its_place() -> None:
    for value in ("Hello", {"role": "wizard", "content": "x"}, {"role": "user"}, {"content": "x"}):
        with pytest.raises(ConfigurationError, match=r"^turns\[3\]"):
            turn_of(value, "turns[3]")
    for read in (question_in, last_answer):
        with pytest.raises(ConfigurationError, match=r"^messages\[1\] is 'So\.'"):
            read([ANSWER, "So."])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("a\ud83d", "a\ufffd"),
        ("\ude00b", "\ufffdb"),
        ("\ud83d\ude00", "\U0001f600"),
        ("\ud83dxyz\ud83d", "\ufffdxyz\ufffd"),
        ("\U0001f600", "\U0001f600"),
    ],
    ids=ascii,
)
def test_half_a_character_becomes_the_sign_for_it(text: str, whole: str) -> None:
    assert whole_characters(text) == whole
    assert Message(role="user", content=text).model_dump_json().encode()
