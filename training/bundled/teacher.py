"""The rule-based teacher: writes evaluation chains from the shown signals alone.

It reads each shown text, tallies which themes were chosen over which, turns the tally into criteria
with points and marks the candidates by them, in the form of chain format compact-2. It does not know
the tastes that most users share; a later stage's outcome reward can teach those.

The notes are laid out for a small model: every line names all themes in one order, and every number
follows from at most two others at a fixed distance, so that no step asks for a sum of many terms.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.chain.notes import (
    ASKED,
    CRITERIA,
    EDITED,
    EVEN_MARK,
    GENERAL,
    MARKS,
    NOTES,
    PAIR_LIMIT,
    PERSONA,
    STRENGTHS,
    UNDECIDED,
    UNKNOWN,
    cite,
)
from pgenrm_agent.chain.signs import CAPS

IntArray = npt.NDArray[np.int64]

TALLY_LIMIT = 9
"""A tally stays a single digit."""
WISH_STRENGTH = 6
"""How much one stated wish counts, in the units of a theme's tally."""
CLEAR = 2
"""A difference between two texts that is worth naming."""
STRONG, SLIGHT = 6, 2
"""Tallies from which on, and up to which, a wish is called clear, or only seems to be there."""
EDITED_POINTS = (6, 3)
"""Points of the first and the second wish of a persona that somebody wrote."""
themes = ChainFormat.load("compact-2").settings.themes
assert themes is not None
THEMES = themes
"""With the words for their poles, as the format has them."""


def _by_theme(values: Sequence[str]) -> str:
    return " ".join(f"{theme.key} {value}" for theme, value in zip(THEMES, values, strict=True))


def reading(tag: str, values: IntArray) -> str:
    """One text read: the value of each theme, 0 to its cap."""
    return f"[{tag}] {_by_theme([str(value) for value in values])}"


def _signed(values: IntArray) -> str:
    return _by_theme([f"{value:+d}" for value in values])


def _differences(pairs: Sequence[tuple[IntArray, IntArray]]) -> IntArray:
    """(h, 4): chosen minus rejected, by theme, at most PAIR_LIMIT either way."""
    if not pairs:
        return np.zeros((0, len(THEMES)), dtype=np.int64)
    differences = np.array([chosen - rejected for chosen, rejected in pairs])
    return np.clip(differences, -PAIR_LIMIT, PAIR_LIMIT)


def _tallies(differences: IntArray, wishes: IntArray, stated: bool) -> list[IntArray]:
    """The tally after each pair, and after what was stated."""
    tally = np.zeros(len(THEMES), dtype=np.int64)
    steps = []
    for change in [*differences, *([wishes] if stated else [])]:
        tally = np.clip(tally + change, -TALLY_LIMIT, TALLY_LIMIT)
        steps.append(tally)
    return steps


def tally_of(pairs: Sequence[tuple[IntArray, IntArray]], wishes: IntArray) -> IntArray:
    """Return the tally (4,) after all past choices and wishes."""
    steps = _tallies(_differences(pairs), wishes, stated=True)
    return steps[-1]


def _notes(
    pairs: Sequence[tuple[IntArray, IntArray]],
    wishes: IntArray,
    candidates: Sequence[IntArray],
    stated: bool,
) -> list[str]:
    """The working notes: readings of all texts, and the running tally by theme."""
    differences = _differences(pairs)
    tallies = _tallies(differences, wishes, stated)
    lines = []
    for number, (pair, change) in enumerate(zip(pairs, differences, strict=True), start=1):
        lines += [
            reading(f"{number} chosen", pair[0]),
            reading(f"{number} rejected", pair[1]),
            f"Pair {number}: {_signed(change)}",
            f"Tally: {_signed(tallies[number - 1])}",
        ]
    if stated:
        lines += [f"Stated: {_signed(wishes)}", f"Tally: {_signed(tallies[-1])}"]
    return lines + [reading(f"response {k}", values) for k, values in enumerate(candidates, 1)]


def kept_themes(tally: IntArray) -> list[int]:
    """The themes that become criteria, strongest first; far weaker ones are left out."""
    strength = np.abs(tally)
    return [
        int(i)
        for i in np.argsort(-strength, kind="stable")
        if strength[i] and 4 * strength[i] >= strength.max()
    ]


def _sign(value: int) -> int:
    return 1 if value > 0 else -1


def persona_of(tally: IntArray) -> str:
    """One sentence on what the person wants most, and next."""
    first, *rest = kept_themes(tally)
    strength = abs(int(tally[first]))
    level = 0 if strength >= STRONG else 1 if strength > SLIGHT else 2
    wanted = [THEMES[i].wants(_sign(tally[i])) for i in [first, *rest[:1]]]
    return f"They {STRENGTHS[level]} {', and '.join(wanted)}."


def _reason(theme: int, sign: int, differences: IntArray, wishes: IntArray) -> str:
    asked = wishes[theme] * sign > 0
    agreeing = differences[:, theme] * sign
    clear = [i for i, size in enumerate(agreeing, 1) if size >= CLEAR]
    slight = [i for i, size in enumerate(agreeing, 1) if size > 0]
    seen = ""
    if clear:
        shows = THEMES[theme].shows(sign)
        seen = f"ou can see it in {cite(clear)}: the chosen answer was {shows}."
    elif slight:
        seen = f"here is a slight sign of it in {cite(slight)}."
    initial = "y" if clear else "t"
    if asked:
        return f"They asked for it, and {initial}{seen}" if seen else ASKED
    return initial.upper() + seen


@dataclass(frozen=True)
class Chain:
    """A written chain, with the numbers behind it.

    points: (4,), signed: below zero the user wants less of the theme; all 0 where nothing is known.
    marks: (b, 4), 1-10, already in the wanted direction. totals: (b,), 1-10.
    """

    text: str
    points: IntArray
    marks: IntArray
    totals: npt.NDArray[np.float64]


def marks_for(values: IntArray, points: IntArray) -> IntArray:
    """Theme readings (b, 4) -> marks 1-10 in the direction that the points want."""
    raised = np.rint(9 * values / CAPS).astype(np.int64)
    marks: IntArray = np.where(points < 0, 10 - raised, 1 + raised)
    return marks


def write_chain(
    pairs: Sequence[tuple[IntArray, IntArray]],
    wishes: IntArray,
    candidates: Sequence[IntArray],
    *,
    stated: bool = False,
    edited: IntArray | None = None,
    persona: str | None = None,
) -> Chain:
    """A whole chain.

    Args:
        pairs: theme readings (4,) of the chosen and the rejected text of each shown pair.
        wishes: (4,) what the stated criteria add to the tally.
        candidates: theme readings (4,) of each candidate, in shown order.
        stated: whether anything was stated, wish or not.
        edited: (4,) signed points of a persona that somebody put in place of the model's own; the
            criteria then follow it alone.
        persona: the words of the edited persona.
    """
    differences = _differences(pairs)
    tally = tally_of(pairs, wishes) if edited is None else edited
    kept = kept_themes(tally)
    points = np.zeros(len(THEMES), dtype=np.int64)
    points[kept] = tally[kept]
    values = np.array(candidates)
    marks = marks_for(values, points)
    if kept:
        persona = persona or persona_of(tally)
        signs = {i: _sign(tally[i]) for i in kept}
        criteria = [
            (
                THEMES[i].name(signs[i]),
                abs(int(points[i])),
                _reason(i, signs[i], differences, wishes) if edited is None else EDITED,
            )
            for i in sorted(kept)
        ]
        rows = [[int(mark) for mark in row[sorted(kept)]] for row in marks]
        totals = (marks * np.abs(points)).sum(1) / np.abs(points).sum()
    else:
        persona = UNDECIDED if len(pairs) or stated else UNKNOWN
        criteria = [(GENERAL, 1, persona)]
        rows = [[EVEN_MARK]] * len(values)
        totals = np.full(len(values), float(EVEN_MARK))
    lines = [NOTES, *_notes(pairs, wishes, candidates, stated), PERSONA, persona, CRITERIA]
    lines += [f"{n}. {name} ({size}): {why}" for n, (name, size, why) in enumerate(criteria, 1)]
    lines.append(MARKS)
    names = [name for name, _, _ in criteria]
    lines += [
        f"Response {k}: {', '.join(f'{name} {mark}' for name, mark in zip(names, row, strict=True))}."
        for k, row in enumerate(rows, 1)
    ]
    return Chain("\n".join(lines), points, marks, totals)


_VALUE = re.compile(rf" ({'|'.join(theme.key for theme in THEMES)}) ([+-]?)(\d)")
_CRITERION = re.compile(r"\d\. ([A-Z][a-z ]+) \((\d)\): (.*)")
_RESPONSE = re.compile(r"Response (\d): (.*)\.$")
_MARK = re.compile(r"([A-Z][a-z ]+?) (\d+)")
_KEY_OF = {theme.name(sign): theme.key for theme in THEMES for sign in (1, -1)}
_WANTED = {theme.wants(sign): theme.key for theme in THEMES for sign in (1, -1)}


def operands(chain: str) -> list[tuple[int, int, int]]:
    """What each number of a chain follows from: (character, first source, second source).

    All three are positions in the text. A character is a sign (its digit follows in the same token),
    a digit, or the first letter of a criterion's name; where there is one source only, it stands twice.
    """
    rows: list[tuple[int, int, int]] = []
    tally: dict[str, int] = {}
    change: dict[str, int] = {}
    pairs: list[dict[str, int]] = []
    readings: list[dict[str, int]] = []
    responses: list[dict[str, int]] = []
    start = 0
    section = ""
    edited = f": {EDITED}" in chain  # then criteria follow from the persona's words
    for line in chain.splitlines(keepends=True):
        body = line.rstrip("\n")
        if body.startswith("#"):
            section = body
        places = {
            match[1]: start + (match.start(2) if match[2] else match.start(3))
            for match in _VALUE.finditer(body)
        }
        if body.startswith("[response"):
            responses.append(places)
        elif body.startswith("["):
            readings.append(places)
        elif body.startswith(("Pair", "Stated:")):
            if body.startswith("Pair"):
                rows += [(at, readings[-2][key], readings[-1][key]) for key, at in places.items()]
                pairs.append(places)
            change = places
        elif body.startswith("Tally:"):
            before = tally or change
            rows += [(at, before[key], change[key]) for key, at in places.items()]
            tally = places
        elif section == PERSONA and tally and not edited and not body.startswith("#"):
            for words, key in _WANTED.items():
                if (at := body.find(words)) >= 0:
                    rows.append((start + at, tally[key], tally[key]))
        elif section == CRITERIA and not edited and (match := _CRITERION.match(body)):
            key = _KEY_OF.get(match[1], "")
            if key in tally:
                rows += [(start + match.start(group), tally[key], tally[key]) for group in (1, 2)]
                for cited in re.finditer(r"\d", match[3]):
                    at = pairs[int(cited[0]) - 1][key] if int(cited[0]) <= len(pairs) else -1
                    if at >= 0:
                        rows.append((start + match.start(3) + cited.start(), at, at))
        elif section == MARKS and (response := _RESPONSE.match(body)):
            for match in _MARK.finditer(response[2]):
                key = _KEY_OF.get(match[1].strip(), "")
                if key in tally:
                    read = responses[int(response[1]) - 1][key]
                    at = start + response.start(2) + match.start(2)
                    wanted = read if edited else tally[key]
                    rows += [(at + i, read, wanted) for i in range(len(match[2]))]
        start += len(line)
    return rows
