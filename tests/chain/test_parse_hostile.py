"""Mutated and hostile outputs: no exception but ChainError, and no slow parse."""

from __future__ import annotations

import gc
import random
import time

import pytest

from pgenrm_agent.chain import neutralise, parse_chain, split_sections
from pgenrm_agent.errors import ChainError

LIMIT_S = 0.05
PIECES = (
    "<JSON_START>", "<JSON_END>", "{", "}", '"', "\\", "\n", ":", ",", "%", "Response 1", "response_2",
    '"better_response"', '"rationale"', "## Part 2", "### Criteria", "### Persona", "NaN", "1e999", "-1",
    "10/10", "[", "]", "\x00", "\u202e", "😀", "A.", "B.", "99999999999999999999", "\u200b", "'", "**",
)  # fmt: skip


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
            other = rng.randrange(len(text) + 1)
            text = text[:place] + text[other : other + length] + text[place:]
    return text


def parsed_in(text: str) -> float:
    """CPU seconds of one parse; anything but ChainError is raised."""
    started = time.process_time()
    try:
        parse_chain(text, ["a", "b"])
    except ChainError as error:
        assert error.reason in {"empty", "no_scores", "no_persona", "no_totals"}
    return time.process_time() - started


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_mutated_outputs_raise_nothing_else_and_parse_quickly(
    small: str, large: str, count: int
) -> None:
    rng = random.Random(20261123)
    gc.collect()
    gc.disable()
    try:
        for number in range(count):
            text = mutate(rng.choice((small, large)), rng)
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
        neutralise(text)
        split_sections(text)
        return best + time.process_time() - started

    short, long = seconds(50_000), seconds(400_000)
    # Eight times the text: quadratic work would take 64 times as long.
    assert long <= 20 * max(short, 0.01)
