"""What a model thought before its answer is never read, wherever its marks stand."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm_agent.chain import (
    ChainFormat,
    answer_in,
    parse_chain,
    read_persona,
    split_reasoning,
    split_sections,
)
from pgenrm_agent.errors import ChainError
from pgenrm_agent.testing import write_chain

IDS = ["a", "b"]
CRITERIA = [("Clarity", 70.0), ("Depth", 30.0)]
CHAIN = write_chain([(8, 2), (3, 9)], criteria=CRITERIA)
TOTALS = {"a": 6.2, "b": 4.8}
# Read as the chain, this would reverse the order.
TRIED = write_chain([(2, 8), (9, 3)], criteria=CRITERIA, persona="Somebody else.")
CUT_SHORT = TRIED[: TRIED.index('"better_response"')]


@pytest.mark.parametrize(
    "before",
    [
        f"<think>\n{TRIED}\nNo, the other way.\n</think>\n\n",
        f"Let me see.\n{TRIED}\n</think>\n",  # the chat template opened it
        f"<think>{CUT_SHORT} no ...</think>",
        f"Well.\n{CUT_SHORT} no ...\n</think>\n",
        "<think>I am to write <JSON_START> and <JSON_END>.</think>",
        "<think>\n\n</think>\n\n",
        f"<think>{TRIED}</think>\nHmm.\n{TRIED}\n</think>\n",
        f"<think>{TRIED}</think>\n<think>{TRIED}</think>\n",
        f"<think>They ask for no `</think>` here.\n{TRIED}\n</think>",
        f"<THINK>\n{TRIED}\n</ think >\n",
        f"<thinking>{TRIED}</thinking>",
        f"<thought>\n{TRIED}</thought>",
        f"<reasoning>{TRIED}</reasoning>",
        f"<seed:think>{TRIED}</seed:think>",
        f"[THINK]{TRIED}[/THINK]",
        f"◁think▷{TRIED}◁/think▷",
    ],
)
def test_what_was_tried_out_while_thinking_is_not_read(before: str) -> None:
    text = before + CHAIN
    reasoning, answer, finished = split_reasoning(text)
    assert (reasoning, answer.lstrip()) == (before.rstrip(), CHAIN)
    assert finished
    chain = parse_chain(text, IDS)
    assert chain.totals == pytest.approx(TOTALS)
    assert chain == parse_chain(CHAIN, IDS)
    assert read_persona(text) == "This person wants a useful answer."
    for section, (start, end) in split_sections(text).spans.items():
        assert text[start:end].strip("\r\n") == getattr(split_sections(CHAIN), section)


@pytest.mark.parametrize("mark", ["</think>", '\\"</think>\\"', "`</think>`", "<think>", "[THINK]"])
def test_a_mark_in_what_is_said_of_an_answer_ends_nothing(mark: str) -> None:
    chain = CHAIN.replace("B. Response 1:", f"B. An answer shows {mark} to the reader. Response 1:")
    assert mark in chain
    for text in (chain, f"<think>\n{TRIED}\n</think>\n{chain}", f"Hm.</think>\n{chain}"):
        assert parse_chain(text, IDS).totals == pytest.approx(TOTALS)
        assert split_reasoning(text).answer.lstrip() == chain


@pytest.mark.parametrize("written", ['{"persona": "a </think> b"}', '{\n "persona": "a </think> b'])
@pytest.mark.parametrize(
    "before",
    [
        "",
        "\ufeff",
        "```json\n",
        "<think>hm</think>",
        "hm\n</think>\n```\n",
        '{"no </think>',
        "<think>{",
    ],
)
def test_a_mark_in_a_string_of_an_object_splits_nothing(before: str, written: str) -> None:
    if before in ('{"no </think>', "<think>{"):
        before += "</think>"
    reasoning, answer, finished = split_reasoning(before + written)
    assert finished
    assert answer.lstrip().removeprefix("\ufeff").lstrip("`json\n") == written
    assert reasoning == (before[: before.rindex(">") + 1] if ">" in before else "")


def test_a_mark_in_the_middle_of_a_line_opens_no_reasoning() -> None:
    persona = "Asks how a <think> block is hidden."
    chain = write_chain([(8, 2), (3, 9)], criteria=CRITERIA, persona=persona)
    assert read_persona(chain) == persona
    assert parse_chain(chain, IDS).totals == pytest.approx(TOTALS)


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\n{TRIED}",
        "<think>Let me see. What do they like? ",
        f"  <thinking>{CUT_SHORT}",
        f"<think>One.</think>\n<think>\n{TRIED}",
        f"Okay.\n[THINK]\n{TRIED}",
    ],
)
def test_reasoning_that_never_ends_is_no_chain_and_says_so(text: str) -> None:
    assert split_reasoning(text) == (text, "", False)
    with pytest.raises(ChainError, match="reasoning never ends") as caught:
        parse_chain(text, IDS)
    assert caught.value.reason == "unfinished_reasoning"
    assert read_persona(text) is None
    assert split_sections(text).spans == {}


def test_nothing_behind_the_reasoning_is_an_empty_answer() -> None:
    assert answer_in("<think>Hm.</think>") == ""
    with pytest.raises(ChainError) as caught:
        parse_chain("<think>Hm.</think>\n", IDS)
    assert caught.value.reason == "empty"


def test_no_section_is_complete_while_the_model_thinks() -> None:
    """A begun text is continued, stage by stage, until its sections stand behind the reasoning."""
    chain_format = ChainFormat.load("published")
    begun = chain_format.join("", "<think>\n### Persona\nShe may like lists.", "persona")
    assert chain_format.complete_through(begun) is None
    assert chain_format.complete_through(f"{begun}\n{TRIED}\n<JSON_END>") is None
    headings = chain_format.settings.headings
    answered = f"{begun}1. Lists (100%)\n</think>\n## Part 1\n### Persona\nPlain words.\n"
    assert chain_format.complete_through(answered) is None
    assert chain_format.complete_through(f"{answered}{headings.rubric}\n") == "persona"
    assert chain_format.join("", answered, "persona") == f"{answered}{headings.rubric}\n"
    assert read_persona(answered) == "Plain words."


PIECES = st.sampled_from(
    ["<think>", "</think>", "[/THINK]", "<JSON_START>{", "<JSON_END>", "\n", '"', "### Criteria\n"]
)


@given(st.lists(st.one_of(PIECES, st.text(max_size=10)), max_size=12).map("".join))
def test_the_parts_are_the_whole_and_an_answer_has_no_reasoning_left(text: str) -> None:
    reasoning, answer, finished = split_reasoning(text)
    assert reasoning + answer == text
    if finished:
        assert split_reasoning(answer) == ("", answer, True)
    else:
        assert answer == ""


@pytest.mark.parametrize(
    "piece", ["<think>", "</think>", "\n<think>", '"</think>" ', "<JSON_START>{"]
)
def test_the_time_grows_with_the_length_only(piece: str) -> None:
    def seconds(count: int) -> float:
        started = time.thread_time()
        split_reasoning(piece * count + "</think>")
        return time.thread_time() - started

    assert seconds(80_000) < 40 * max(seconds(8_000), 0.001)
