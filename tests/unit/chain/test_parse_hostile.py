"""Mutated and hostile outputs: no exception but ChainError, and no slow parse."""

from __future__ import annotations

import gc
import json
import random
import time
from collections.abc import Sequence
from itertools import combinations

import pytest
from readings import CORPUS, readings, text_of

from pgenrm_agent.chain import ParsedChain, escape, parse_chain, split_sections
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


NAMES = ("Clarity", "Depth of detail", "Tone", "Lists")
MANY = write_chain(
    [[1 + (k + c) % 10 for c in range(4)] for k in range(20)],
    criteria=[(name, 25) for name in NAMES],
)
NESTED = {"B": {"response_1": {"Clarity": 8, "Depth": {"score": 2}}, "response_2": [1, [2, {}]]}}
REASONS = {
    "empty",
    "unfinished_reasoning",
    "no_scores",
    "no_persona",
    "no_rubric",
    "no_totals",
    "contradictory",
}


def mutate(text: str, rng: random.Random) -> str:
    """`text` with pieces left out, repeated, moved, exchanged, cut off or put in, and other digits."""
    for _ in range(rng.randint(1, 8)):
        place, length = rng.randrange(len(text) + 1), rng.randint(0, 60)
        end = place + length
        kind = rng.randrange(9)
        if kind == 0:
            text = text[:place] + text[end:]
        elif kind == 1:
            text = text[:place] + rng.choice(PIECES) * rng.choice((1, 1, 1, 3, 40)) + text[place:]
        elif kind == 2:
            text = text[:place] + text[place:end] * 2 + text[end:]
        elif kind == 3:
            text = text[:place]
        elif kind == 4:
            copied = rng.randrange(len(text) + 1)
            text = text[:place] + text[copied : copied + length] + text[place:]
        elif kind == 5:
            text = text[:place] + text[end : end + length] + text[place:end] + text[end + length :]
        elif kind == 6:
            # Another digit in places is what tells a reader that guesses from one that compares.
            digits = [at for at, char in enumerate(text) if char in "0123456789"]
            for at in rng.sample(digits, min(len(digits), rng.randint(1, 3))):
                text = text[:at] + rng.choice("0123456789") + text[at + 1 :]
        elif kind == 7:
            text = (
                text[:place] + chr(rng.choice((rng.randrange(0x20, 0x3000), 0xFF18))) + text[end:]
            )
        else:
            text = text[:place] + json.dumps(NESTED)[: rng.randint(1, 200)] + text[place:]
    return text


def parsed_in(text: str, ids: Sequence[str] = ("a", "b")) -> float:
    """CPU seconds of one parse; anything but ChainError is raised, and a contradiction fails."""
    started = time.thread_time()
    try:
        chain = parse_chain(text, ids)
    except ChainError as error:
        seconds = time.thread_time() - started
        assert error.reason in REASONS
        return seconds
    seconds = time.thread_time() - started
    assert not contradiction_in(chain), text
    return seconds


def contradiction_in(chain: ParsedChain) -> str | None:
    """How marks x weights and the reported totals differ, worked out anew; None where they agree."""
    both: dict[str, tuple[float, float]] = {}
    for candidate_id, row in chain.marks.items():
        assert chain.rubric is not None
        assert all(mark is None or 1 <= mark <= 10 for mark in row)
        weights = [
            c.weight if mark is not None else 0
            for c, mark in zip(chain.rubric.criteria, row, strict=True)
        ]
        if sum(weights) and candidate_id in chain.reported:
            total = sum(w * (m or 0) for w, m in zip(weights, row, strict=True)) / sum(weights)
            both[candidate_id] = total, chain.reported[candidate_id]
    for candidate_id, (total, reported) in both.items():
        if abs(total - reported) > 1.0 + 1e-9:
            return f"{candidate_id}: {total} and {reported}"
    for first, second in combinations(both.values(), 2):
        apart = min(abs(left - right) for left, right in zip(first, second, strict=True))
        if apart > 0.5 + 1e-9 and (first[0] > second[0]) != (first[1] > second[1]):
            return f"{first} and {second}"
    assert all(1 <= total <= 10 for total in chain.totals.values())
    return None


@pytest.mark.parametrize(
    "count",
    [pytest.param(2_000, marks=pytest.mark.small), pytest.param(100_000, marks=pytest.mark.long)],
)
def test_mutated_outputs_raise_nothing_else_and_are_never_scored_against_themselves(
    small: str, large: str, count: int
) -> None:
    chains = [*map(text_of, readings(CORPUS)), small, large, f"{small}\n{large}", MANY]
    many = [f"c{number}" for number in range(20)]
    rng = random.Random(20261128)
    scored = 0
    gc.collect()
    gc.disable()
    try:
        for number in range(count):
            original = rng.choice(chains)
            ids = many if original is MANY else ("a", "b")
            text = mutate(original, rng)
            seconds = parsed_in(text, ids)
            if seconds > LIMIT_S:  # once more: a thread's first use of a pattern compiles it
                seconds = min(seconds, parsed_in(text, ids))
            assert seconds <= LIMIT_S, f"mutation {number} took {seconds:.3f} s: {text!r}"
            scored += number % 10 == 0 and is_read(text, ids)
    finally:
        gc.enable()
    # Mutations that spoil every chain would show nothing.
    assert scored > count // 100


def is_read(text: str, ids: Sequence[str]) -> bool:
    try:
        parse_chain(text, ids)
    except ChainError:
        return False
    return True


HOSTILE = {
    "braces": "{",
    "brackets": "[",
    "openings": "<JSON_START>",
    "opened braces": "<JSON_START>{",
    "percentages": "1%",
    "headings": "## Part 1\n",
    "parts": "A. ",
    "responses": "Response 1 ",
    "responses in words": "the second answer, response a: ",
    "marks before responses": "8 for Response 1, ",
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
    "marks before names": chain_of(SHORT, "a1: " + "8 for Response 1, " * (MEGABYTE // 18)),
    "responses without digits": chain_of(SHORT, "the second answer, answer a: a1 8. " * 25_000),
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
