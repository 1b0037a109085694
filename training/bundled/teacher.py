"""The rule-based teacher: writes evaluation chains from the shown signals alone.

It measures each shown answer, tallies which themes were chosen over which, turns the tally into a
weighted rubric and marks the candidates with it. It knows neither the tastes most users share nor
how tastes shift with the kind of query; a later stage's outcome reward can teach those.

The text is the wire format that `pgenrm_agent.chain` parses, in the bundled model's short form. It
is laid out for a small model: every line of working names all themes in one order, and every number
follows from at most two others at a fixed distance, so that no step asks for a sum of many terms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pgenrm_agent.training.bundled.attributes import KINDS
from pgenrm_agent.training.bundled.simulation import LOADINGS, THEMES

__all__ = [
    "Chain",
    "final_tally",
    "operands",
    "reading",
    "tally_lines",
    "theme_shares",
    "theme_values",
    "write_chain",
]

IntArray = npt.NDArray[np.int64]

MARK_LOW, MARK_HIGH = 1, 10
PAIR_LIMIT = 3
"""Most that one past choice adds to a theme's tally: one drastic pair must not drown the others."""
TALLY_LIMIT = 9
"""A tally stays a single digit."""
WISH_STRENGTH = 6
"""How much one stated wish counts, in the units of a theme's tally."""
_CAPS = np.array([theme.cap for theme in THEMES])
# A reversed attribute (formality, in warmth) counts its missing levels: 3 - level.
_OFFSETS = 3 * (LOADINGS < 0).sum(1)

_SCENES = {
    "how-to": "In this how-to question",
    "factual": "In this factual question",
    "advice": "Asking for advice",
    "writing": "In this writing task",
    "other": "In this request",
}


def theme_values(levels: IntArray) -> IntArray:
    """Attribute levels (..., 12) -> theme readings (..., 4), each 0 to its theme's cap."""
    values: IntArray = np.minimum(levels @ LOADINGS.T.astype(np.int64) + _OFFSETS, _CAPS)
    return values


def theme_shares(levels: IntArray) -> npt.NDArray[np.float64]:
    """Theme readings (..., 4) as shares of their caps, 0-1."""
    return np.asarray(theme_values(levels) / _CAPS)


def _by_theme(values: Sequence[str]) -> str:
    return " ".join(f"{theme.key} {value}" for theme, value in zip(THEMES, values, strict=True))


def reading(tag: str, levels: IntArray) -> str:
    """One answer read: the value of each theme, 0 to its cap."""
    return f"[{tag}] {_by_theme([str(value) for value in theme_values(levels)])}"


def _signed(values: IntArray) -> str:
    return _by_theme([f"{value:+d}" for value in values])


def _differences(pairs: Sequence[tuple[IntArray, IntArray]]) -> IntArray:
    """(h, 4): chosen minus rejected, by theme, at most PAIR_LIMIT either way."""
    if not pairs:
        return np.zeros((0, len(THEMES)), dtype=np.int64)
    differences = [theme_values(chosen) - theme_values(rejected) for chosen, rejected in pairs]
    return np.clip(np.array(differences), -PAIR_LIMIT, PAIR_LIMIT)


def _tally(pairs: Sequence[tuple[IntArray, IntArray]], wishes: IntArray) -> list[IntArray]:
    """The tally after nothing, after each pair, and after the wishes if there are any."""
    steps = [np.zeros(len(THEMES), dtype=np.int64)]
    for change in [*_differences(pairs), *([wishes] if wishes.any() else [])]:
        steps.append(np.clip(steps[-1] + change, -TALLY_LIMIT, TALLY_LIMIT))
    return steps


def final_tally(pairs: Sequence[tuple[IntArray, IntArray]]) -> IntArray:
    """Return the tally (4,) after all past choices, of a user who stated nothing."""
    return _tally(pairs, np.zeros(len(THEMES), dtype=np.int64))[-1]


def tally_lines(pairs: Sequence[tuple[IntArray, IntArray]], wishes: IntArray) -> list[str]:
    """The working notes: readings of every past pair, wishes, and the running tally by theme."""
    tally = _tally(pairs, wishes)
    lines = [f"Tally: {_signed(tally[0])}"]
    for number, (pair, change) in enumerate(zip(pairs, _differences(pairs), strict=True), start=1):
        lines += [
            reading(f"{number} chosen", pair[0]),
            reading(f"{number} rejected", pair[1]),
            f"Pair {number}: {_signed(change)}",
            f"Tally: {_signed(tally[number])}",
        ]
    if wishes.any():
        lines += [f"Stated: {_signed(wishes)}", f"Tally: {_signed(tally[-1])}"]
    lines.append(f"Strength: {int(np.abs(tally[-1]).sum())}")
    return lines


@dataclass(frozen=True)
class Chain:
    """A written chain, with the numbers behind it.

    weights: (4,) percent, signed: below zero the user wants less of the theme.
    marks: (b, 4), 1-10, already in the wanted direction. totals: (b,), 1-10.
    """

    text: str
    weights: IntArray
    marks: IntArray
    totals: npt.NDArray[np.float64]


def rubric_weights(tally: IntArray) -> IntArray:
    """Signed percentages in steps of 5 that sum to 100 in absolute value.

    Proportional to the tally (by the largest remainder); equal when there is nothing to go by.
    """
    strength = np.abs(tally)
    if not strength.any():
        strength = np.ones(len(THEMES))
        sign = np.ones(len(THEMES), dtype=np.int64)
    else:
        sign = np.sign(tally)
    share = 20 * strength / strength.sum()
    steps = np.floor(share).astype(np.int64)
    for index in np.argsort(-(share - steps), kind="stable")[: 20 - int(steps.sum())]:
        steps[index] += 1
    return np.asarray(5 * steps * sign)


def marks_for(values: IntArray, weights: IntArray) -> IntArray:
    """Theme readings (b, 4) -> marks 1-10 in the direction that the weights want."""
    raised = np.rint((MARK_HIGH - MARK_LOW) * values / _CAPS).astype(np.int64)
    marks: IntArray = np.where(weights < 0, MARK_HIGH - raised, MARK_LOW + raised)
    return marks


def _persona(kind: int, weights: IntArray) -> str:
    order = [i for i in np.argsort(-np.abs(weights), kind="stable") if weights[i]]
    wanted = [(THEMES[i].more if weights[i] > 0 else THEMES[i].less).lower() for i in order]
    most = f"{_SCENES[KINDS[kind]]} this person wants {wanted[0]}"
    return f"{most}, then {wanted[1]}." if len(wanted) > 1 else f"{most}."


def write_chain(
    kind: int,
    pairs: Sequence[tuple[IntArray, IntArray]],
    wishes: IntArray,
    candidates: Sequence[IntArray],
) -> Chain:
    """A whole chain.

    Args:
        kind: the query's kind, an index into KINDS.
        pairs: attribute levels (12,) of the chosen and the rejected answer of each shown pair.
        wishes: (4,) what the stated criteria add to the tally.
        candidates: attribute levels (12,) of each candidate, in shown order.
    """
    tally = _tally(pairs, wishes)[-1]
    weights = rubric_weights(tally)
    known = bool(tally.any())
    values = theme_values(np.array(candidates))
    marks = marks_for(values, weights)
    totals = (marks * np.abs(weights)).sum(1) / 100
    order = [int(i) for i in np.flatnonzero(weights)]
    names = {i: THEMES[i].more if weights[i] > 0 else THEMES[i].less for i in order}

    lines = ["## Part 1: Analysis", "### Persona"]
    lines += tally_lines(pairs, wishes)
    lines.append(
        _persona(kind, weights)
        if known
        else f"{_SCENES[KINDS[kind]]} nothing is known of this person yet."
    )
    lines.append("### Criteria")
    for number, i in enumerate(order, start=1):
        lines.append(f"{number}. {names[i]} ({abs(weights[i])}%): {THEMES[i].key} {tally[i]:+d}")
    lines.append("## Part 2: Scoring")
    lines += candidate_lines(candidates)
    criteria = ", ".join(f"{names[i]} {abs(weights[i])}%" for i in order)
    breakdown = " ".join(
        f"Response {k}: {', '.join(f'{names[i]} {row[i]}' for i in order)}."
        for k, row in enumerate(marks, start=1)
    )
    scores = {f"response_{k}": round(float(total), 1) for k, total in enumerate(totals, start=1)}
    body = json.dumps({"rationale": f"A. {criteria}. B. {breakdown}", "better_response": scores})
    lines += ["<JSON_START>", body, "<JSON_END>"]
    return Chain("\n".join(lines), weights, marks, totals)


def candidate_lines(candidates: Sequence[IntArray]) -> list[str]:
    """The readings of the candidates, in shown order."""
    return [reading(f"response {k}", levels) for k, levels in enumerate(candidates, start=1)]


_VALUE = re.compile(rf" ({'|'.join(theme.key for theme in THEMES)}) ([+-]?)(\d)")
_CRITERION = re.compile(r"\d\. ([A-Z][a-z ]+) \((\d+)%\): (\w+) ([+-])(\d)")
_WEIGHT = re.compile(r"([A-Z][a-z ]+?) (\d+)%")
_RESPONSE = re.compile(r"Response (\d): ([^.]*)\.")
_MARK = re.compile(r"([A-Z][a-z ]+?) (\d+)")


def operands(chain: str) -> list[tuple[int, int, int]]:
    """What each number of a chain follows from: (character, first source, second source).

    All three are positions in the text. A character is a digit, the sign before it, or the first
    letter of a criterion's name; where there is one source only, it stands twice.
    """
    operands: list[tuple[int, int, int]] = []
    tally: dict[str, int] = {}
    change: dict[str, int] = {}
    readings: list[dict[str, int]] = []
    responses: list[dict[str, int]] = []
    themes: dict[str, str] = {}
    weights: dict[str, int] = {}
    strength = start = 0
    for line in chain.splitlines(keepends=True):
        places = {match[1]: start + match.start(3) for match in _VALUE.finditer(line)}
        signs = {match[1]: start + match.start(2) for match in _VALUE.finditer(line) if match[2]}
        if line.startswith("[response"):
            responses.append(places)
        elif line.startswith("["):
            readings.append(places)
        elif line.startswith(("Pair", "Tally:", "Stated:")):
            sources: tuple[dict[str, int], dict[str, int]] = ({}, {})
            if line.startswith("Pair"):
                sources = (readings[-2], readings[-1])
            elif line.startswith("Tally:"):
                sources = (tally, change)
            for key in places.keys() & sources[0].keys() & sources[1].keys():
                operands += [(at[key], sources[0][key], sources[1][key]) for at in (signs, places)]
            if line.startswith("Tally:"):
                tally = places
            else:
                change = places
        elif line.startswith("Strength:"):
            strength = start + len("Strength: ")
        elif match := _CRITERION.match(line):
            themes[match[1]] = match[3]
            weights[match[1]] = start + match.start(2)
            at = tally[match[3]]
            operands += [(start + match.start(group), at, at) for group in (1, 4, 5)]
            operands += [(start + i, at, strength) for i in range(match.start(2), match.end(2))]
        elif line.startswith("{"):
            for match in _WEIGHT.finditer(line):
                copied = weights[match[1].strip()]
                operands += [
                    (start + match.start(2) + i, copied + i, copied + i)
                    for i in range(len(match[2]))
                ]
            for response in _RESPONSE.finditer(line):
                for match in _MARK.finditer(response[2]):
                    key = themes[match[1].strip()]
                    at = start + response.start(2) + match.start(2)
                    read = responses[int(response[1]) - 1][key]
                    operands += [(at + i, read, tally[key]) for i in range(len(match[2]))]
        start += len(line)
    return operands
