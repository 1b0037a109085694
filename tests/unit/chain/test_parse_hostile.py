"""Mutated and hostile outputs: no exception but ChainError, and no slow parse."""

from __future__ import annotations

import gc
import json
import random
import time

import pytest

from pgenrm_agent.chain import escape, parse_chain, split_sections
from pgenrm_agent.errors import ChainError
from pgenrm_agent.testing import write_chain

LIMIT_S = 0.05
PIECES = (
    "<JSON_START>",
    "<JSON_END>",
    "{",
    "}",
    '"',
    "\\",
    "\n",
    ":",
    ",",
    "%",
    "Response 1",
    "response_2",
    '"better_response"',
    '"rationale"',
    "## Part 2",
    "### Criteria",
    "### Persona",
    "NaN",
    "1e999",
    "-1",
    "10/10",
    "[",
    "]",
    "\\ud800",
    "\ud800",
    "```json",
    "|---|",
    "| 8 | 3 |",
    "weight 30",
    " and ",
    "x 0.3",
    "Response 20",
    "better_response",
    "Clear structure",
    "(60%)",
    "\r",
    "\u2028",
    "¹",
    "٣",
    "\x00",
    "\u202e",
    "😀",
    "A.",
    "B.",
    "99999999999999999999",
    "\u200b",
    "'",
    "**",
)


def mutate(text: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 8)):
        place, length = rng.randrange(len(text) + 1), rng.randint(0, 60)
        kind = rng.randrange(5)
        if kind == 0:
            text = text[:place] + text[place + length :]
        elif kind == 1:
            text = text[:place] + rng.choice(PIECES) * rng.choice((1, 1, 1, 3, 40)) + text[place:]
        elif kind == 2:
            text = text[:place] + text[place : place + length] * 2 + text[place + length :]
        elif kind == 3:
            text = text[:place]
        else:
            copied = rng.randrange(len(text) + 1)
            text = text[:place] + text[copied : copied + length] + text[place:]
    return text


def parsed_in(text: str) -> float:
    """CPU seconds of one parse; anything but ChainError is raised."""
    started = time.process_time()
    try:
        parse_chain(text, ["a", "b"])
    except ChainError as error:
        assert error.reason in {"empty", "no_scores", "no_persona", "no_totals"}
    return time.process_time() - started


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_mutated_outputs_raise_nothing_else_and_parse_quickly(
    small: str, large: str, count: int
) -> None:
    names = ("Clarity", "Depth of detail", "Tone", "Lists")
    many = write_chain(
        [[1 + (k + c) % 10 for c in range(4)] for k in range(20)],
        criteria=[(name, 25) for name in names],
    )
    ordinary = (small, large, f"{small}\n{large}", many)
    rng = random.Random(20261123)
    gc.collect()
    gc.disable()
    try:
        for number in range(count):
            text = mutate(rng.choice(ordinary), rng)
            seconds = parsed_in(text)
            if seconds > LIMIT_S:  # once more: another thread's work counts into process time
                seconds = min(seconds, parsed_in(text))
            assert seconds <= LIMIT_S, f"mutation {number} took {seconds:.3f} s: {text!r}"
    finally:
        gc.enable()


HOSTILE = {
    "braces": "{",
    "brackets": "[",
    "openings": "<JSON_START>",
    "opened braces": "<JSON_START>{",
    "percentages": "1%",
    "headings": "## Part 1\n",
    "parts": "A. ",
    "responses": "Response 1 ",
    "quotes": '"rationale":"',
    "totals": '"better_response":{',
    "spaces": " ",
    "colons": "a:",
    "hashes": "#",
    "backslashes": "\\",
    "nested keys": '{"a":',
    "labels": "User",
    "bars": "<|",
}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize(
    "frame", ["{}", "Someone.\n### Criteria\n1. Depth (60%)\n<JSON_START>{}", "{}\n<JSON_END>"]
)
def test_time_grows_with_length_only(piece: str, frame: str) -> None:
    def seconds(size: int) -> float:
        text = frame.replace("{}", piece * (size // len(piece)))
        best = min(parsed_in(text) for _ in range(2))
        started = time.process_time()
        escape(text)
        split_sections(text)
        return best + time.process_time() - started

    short, long = seconds(50_000), seconds(400_000)
    # Eight times the text: quadratic work would take 64 times as long.
    assert long <= 20 * max(short, 0.01)


def chain_of(criteria: str, rationale: object) -> str:
    body = json.dumps({"rationale": rationale, "better_response": {"response_1": 4}})
    return f"Someone.\n### Criteria\n{criteria}\n## Part 2\n<JSON_START>{body}<JSON_END>"


MEGABYTE = 1_000_000
SHORT = "\n".join(f"{number}. a{number} (4%)" for number in range(24))
ALIKE = "\n".join(f"{number}. {'a ' * 38}b{number} (4%)" for number in range(24))
WHOLE = {
    "names that begin alike": chain_of(ALIKE, "a " * (MEGABYTE // 2)),
    "a run of marks": chain_of(SHORT, "Response 1: a1 " + "8 " * (MEGABYTE // 2)),
    "marks upon marks": chain_of(SHORT, "Response 1: " + "a1 8 " * (MEGABYTE // 5)),
    "criteria without end": chain_of("a (1%)\n" * (MEGABYTE // 7), "x"),
    "criteria on one line": chain_of("a (1%), " * (MEGABYTE // 8), "x"),
    "part A without end": chain_of("", "A. " + "a 1% and " * (MEGABYTE // 9)),
    "a wide table row": chain_of(SHORT, "|---|\n" + "|a|b" * (MEGABYTE // 4)),
    "a long table": chain_of(SHORT, "|---|---|\n" + "|a|b\n" * (MEGABYTE // 5)),
    "many objects": chain_of(SHORT, [{"criterion": "a1", "response_1": 8}] * 20_000),
    "wide objects": chain_of(SHORT, {f"k{k}": {"a1": k % 10} for k in range(30_000)}),
    "digits": chain_of(SHORT, "1" * MEGABYTE),
    "a long number": "Someone.\n<JSON_START>{"
    + '"better_response": {"response_1": 1.'
    + "1" * MEGABYTE,
    "deep objects": 'Someone.\n<JSON_START>{"better_response": ' + '{"a":' * (MEGABYTE // 5),
    "deep lists": 'Someone.\n<JSON_START>{"better_response": ' + "[" * MEGABYTE,
    "prose": chain_of(SHORT, "x").replace(
        "<JSON", "Response 1: a1 8. " * (MEGABYTE // 18) + "<JSON"
    ),
    "objects": '{"rationale": "x", "better_response": {"response_1": 4}} ' * (MEGABYTE // 57),
}


@pytest.mark.parametrize("text", WHOLE.values(), ids=WHOLE.keys())
def test_a_megabyte_of_anything_is_read_or_refused_in_bounded_time(text: str) -> None:
    # A hundredth of what quadratic work would take; each takes under 0.7 s on one slow core.
    assert parsed_in(text) < 3
    started = time.process_time()
    escape(text)
    assert time.process_time() - started < 3
