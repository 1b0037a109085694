"""What a reasoning model thought, and what it answered."""

from __future__ import annotations

import pytest

from pgenrm_agent.engines.protocol import FinishReason
from pgenrm_agent.engines.reasoning import OPENING_MARKS, bare, closing, open_mark, read_completion


@pytest.mark.parametrize("mark", OPENING_MARKS)
def test_every_kind_of_mark_is_known_to_the_chain_reader_and_opened_by_templates(mark: str) -> None:
    written = f"{mark}\nHm. A list?\n{closing(mark)}\n\n## Persona"
    sample = read_completion(written, tokens=9)
    assert (sample.reasoning, sample.text) == ("Hm. A list?", "## Persona")
    assert open_mark(f"<|im_start|>assistant\n{mark}\n") == mark
    opened = read_completion(written.removeprefix(mark), tokens=9, opened=mark)
    assert (opened.reasoning, opened.text) == ("Hm. A list?", "## Persona")


@pytest.mark.parametrize(
    ("written", "opened", "ended", "reasoning", "text", "finish"),
    [
        ("plain", "", "stop", "", "plain", "stop"),
        ("plain", "", "length", "", "plain", "length"),
        ("  indented", "", "stop", "", "  indented", "stop"),
        ("a </think>b", "", "stop", "a", "b", "stop"),
        ("a STOP b</think>cSTOPd", "", "stop", "a STOP b", "c", "stop"),
        ("cSTOPd", "", "length", "", "c", "stop"),
        ("<think>on and on", "", "length", "on and on", "", "length"),
        ("on and on", "<think>", "length", "on and on", "", "length"),
        ("on and", "<think>", "timeout", "on and", "", "timeout"),
        ("<think>on and on", "", "stop", "on and on", "", "failed"),
        ("a </think>\n", "<think>", "stop", "a", "", "failed"),
        ("a </think>\n", "<think>", "length", "a", "", "length"),
        # The template opened it, the model did not take it up and ended its turn.
        ("answerSTOP", "<think>", "stop", "", "answer", "stop"),
        ("<think>a</think>\n<think>b</think>c", "", "stop", "a</think>\n<think>b", "c", "stop"),
        ('hm</think>{"a": "b </think> c"}', "", "stop", "hm", '{"a": "b </think> c"}', "stop"),
        (
            'hm</think>{"a": "b </think> c"}',
            "<think>",
            "stop",
            "hm",
            '{"a": "b </think> c"}',
            "stop",
        ),
        ('{"a": "b </think> c"}', "<think>", "stop", "", '{"a": "b </think> c"}', "stop"),
        ("say '</think>' twice", "", "stop", "", "say '</think>' twice", "stop"),
    ],
)
def test_thinking_and_answer_come_apart(
    written: str, opened: str, ended: FinishReason, reasoning: str, text: str, finish: str
) -> None:
    sample = read_completion(written, tokens=7, opened=opened, ended=ended, stop=("STOP",))
    assert (sample.reasoning, sample.text) == (reasoning, text)
    assert (sample.finish_reason, sample.tokens) == (finish, 7)


def test_a_budget_that_went_into_thinking_says_what_to_do() -> None:
    sample = read_completion("hm, ", opened="<think>", tokens=40, ended="length")
    assert "40 tokens went into thinking" in sample.detail
    assert "raise max_tokens" in sample.detail


@pytest.mark.parametrize("text", ["x", "a < b", "<think> a", "a </think>", "[THINK]a[/THINK]"])
def test_marks_around_a_thought_are_left_out(text: str) -> None:
    assert bare(text) in {"x", "a < b", "a"}
