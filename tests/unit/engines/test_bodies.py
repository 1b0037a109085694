"""Bodies of responses: JSON behind comments and blank lines, events, and what is neither."""

from __future__ import annotations

import json

import pytest

from pgenrm_agent.engines.answers import read_answers
from pgenrm_agent.engines.bodies import data_in

BODY = {"choices": [{"index": 0, "message": {"content": "fine"}, "finish_reason": "stop"}]}
WHOLE = json.dumps(BODY)


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        f"\ufeff{WHOLE}",
        f"\n  \n{WHOLE}\n",
        f": PROCESSING\n\n: PROCESSING\n\n{WHOLE}",
        f": PROCESSING\n{json.dumps(BODY, indent=2)}",
        f"data: {WHOLE}\n\ndata: [DONE]\n\n",
        f"event: message\ndata: {WHOLE}\n\n",
    ],
)
def test_what_stands_around_a_body_does_not_matter(text: str) -> None:
    assert data_in(text) == BODY


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\x1e"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_what_ends_a_line_elsewhere_ends_none_here(end: str, newline: str) -> None:
    choice = {"index": 0, "message": {"content": f"fi{end}ne"}, "finish_reason": "stop"}
    body = {"choices": [choice]}
    whole = json.dumps(body, ensure_ascii=end == "\x1e")
    assert data_in(f": PROCESSING{newline}{newline}{whole}") == body
    assert data_in(f"data: {whole}{newline}{newline}data: [DONE]{newline}") == body


def delta(index: int, finish: str | None = None, **written: str) -> str:
    choice = {"index": index, "delta": written, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice], 'usage': None})}"


def test_events_are_joined_choice_by_choice() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    sent = [
        delta(1, content="sec"),
        delta(0, reasoning_content="h"),
        delta(0, reasoning_content="m"),
        delta(0, content="fi"),
        delta(1, "length", content="ond"),
        delta(0, content="rst"),
        delta(0, "stop"),
        f"data: {json.dumps({'choices': [], 'usage': usage})}",
        "data: [DONE]",
    ]
    answers, used = read_answers(data_in("\n\n".join(sent)))
    assert [(answer.text, answer.reasoning, answer.ended) for answer in answers] == [
        ("first", "hm", "stop"),
        ("second", "", "length"),
    ]
    assert (used.completion, used.prompt) == (5, 3)


@pytest.mark.parametrize("nothing", [None, {}, ""])
def test_an_error_that_is_none_counts_for_nothing(nothing: object) -> None:
    sent = [delta(0, content="fi"), delta(0, "stop", content="ne")]
    events = [json.loads(line.removeprefix("data: ")) | {"error": nothing} for line in sent]
    text = "\n\n".join(f"data: {json.dumps(event)}" for event in events)
    [answer], _ = read_answers(data_in(text))
    assert (answer.text, answer.ended) == ("fine", "stop")


def test_an_error_among_the_events_counts() -> None:
    error = {"error": {"message": "the provider hung up", "code": 502}}
    assert data_in(f"{delta(0, content='half')}\n\ndata: {json.dumps(error)}\n\n") == error


@pytest.mark.parametrize(
    "text", ["", "fine", "<html></html>", ": PROCESSING", "data: fine", WHOLE[:-1], "[" * 100_000]
)
def test_what_is_no_data_stays_text(text: str) -> None:
    assert data_in(text) == text
