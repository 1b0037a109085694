"""How fast chains are read: `parse_chain` on chains of the length that models write."""

from __future__ import annotations

import json
import time

from pgenrm_agent.chain import parse_chain

ROUNDS = 5
IDS = ("a", "b")


def chain_texts() -> dict[str, str]:
    """A chain by size: short as a small model writes it, long as one of 8 B parameters does."""
    criteria = ("Directness", "Accuracy of facts", "Tone", "Depth of detail", "Structure")
    persona = " ".join(
        f"In their choice number {number} this person turned down an answer that wandered off, and"
        " took the one that said first what to do, so being direct counts for much here."
        for number in range(1, 13)
    )
    return {
        "short chain": _chain(
            "Someone who wants to know what to do, and no more.", criteria[:2], 0
        ),
        "long chain": _chain(persona, criteria, 160),
    }


def measure_parser(*, repeats: int) -> dict[str, float]:
    """Megabytes of UTF-8 a second and core, by kind of chain: the best of a few rounds.

    repeats: parses a round. Processor time, so that other work on the machine counts little.
    """
    rates = {}
    for name, text in chain_texts().items():
        parse_chain(text, IDS)
        best = float("inf")
        for _ in range(ROUNDS):
            started = time.process_time()
            for _ in range(repeats):
                parse_chain(text, IDS)
            best = min(best, (time.process_time() - started) / repeats)
        rates[name] = len(text.encode()) / best / 1e6
    return rates


def _chain(persona: str, criteria: tuple[str, ...], explained: int) -> str:
    """`explained`: characters of reasons with every criterion and mark."""
    share = 100 / len(criteria)
    reason = (persona * 2)[:explained]
    listed = "\n".join(
        f"{number}. **{name}** ({share:g}%): {reason}"
        for number, name in enumerate(criteria, start=1)
    )
    weights = ", ".join(f"{name} {share:g}%" for name in criteria)
    why = f" ({reason})" if reason else ""
    given = " ".join(
        f"Response {number}: " + ", ".join(f"{name} {5 + number}{why}" for name in criteria) + "."
        for number in (1, 2)
    )
    body = {
        "rationale": f"A. {weights}. B. {given}",
        "better_response": {"response_1": 6.0, "response_2": 7.0},
    }
    return (
        f"## Part 1: Analysis\n### Persona\n{persona}\n### Criteria\n{listed}\n"
        f"## Part 2: Scoring\n<JSON_START>\n{json.dumps(body)}\n<JSON_END>"
    )
