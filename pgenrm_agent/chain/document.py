"""A chain that is one JSON object: its schema, its text, and what it says.

    {"persona": "...",
    "criteria": [{"name": "...", "weight": 40, "reason": "..."}, ...],
    "scores": {"response_1": {"why": "...", "marks": [7, 3, ...]}, ...}}

Totals come from marks and weights alone (paper Eq. 2). A model that writes criteria and scores in
one go holds them in an object "evaluation", since only there a schema can say that there are as many
marks as criteria; the text kept has the form above.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from pgenrm_agent.chain.numbers import read_total
from pgenrm_agent.chain.parsed import MARK_HIGH, MARK_LOW, ParsedChain, complete_totals
from pgenrm_agent.chain.response_names import response_key
from pgenrm_agent.chain.sections import Section, split_reasoning
from pgenrm_agent.errors import ChainError
from pgenrm_agent.fields import Model, whole_characters
from pgenrm_agent.schema import Criterion, Persona, Rubric

Document: TypeAlias = dict[str, object]
JSONSchema: TypeAlias = dict[str, object]

KEYS: dict[Section, str] = {"persona": "persona", "rubric": "criteria", "scores": "scores"}
NESTED = "evaluation"
MOST_OBJECTS = 8
WEIGHT_TOLERANCE = 1.0
"""By how much weights may miss a sum of 100 before that is noted."""

_DECODER = json.JSONDecoder(strict=False)  # models write real line breaks inside strings


class Lengths(Model):
    """Most characters of each string of a chain."""

    persona: int
    name: int
    reason: int
    why: int


# --- the schema ---


def schema_of(
    sections: Iterable[Section], *, candidates: int, criteria: Sequence[int], lengths: Lengths
) -> JSONSchema:
    """Return the JSON schema of an object with these sections.

    criteria: how many there may be, each number that is allowed. Scores without criteria beside them
        are for the first of these numbers.
    """
    wanted = tuple(sections)
    properties: JSONSchema = {}
    if "persona" in wanted:
        properties["persona"] = _string(lengths.persona)
    if "rubric" in wanted and "scores" in wanted:
        properties[NESTED] = {
            "anyOf": [
                _object(
                    {
                        "criteria": _criteria((count,), lengths),
                        "scores": _scores(candidates, count, lengths),
                    }
                )
                for count in criteria
            ]
        }
    elif "rubric" in wanted:
        properties["criteria"] = _criteria(criteria, lengths)
    elif "scores" in wanted:
        properties["scores"] = _scores(candidates, criteria[0], lengths)
    return _object(properties)


def _object(properties: JSONSchema) -> JSONSchema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _string(longest: int) -> JSONSchema:
    return {"type": "string", "minLength": 1, "maxLength": longest}


def _list(items: JSONSchema, fewest: int, most: int) -> JSONSchema:
    return {"type": "array", "items": items, "minItems": fewest, "maxItems": most}


def _criteria(counts: Sequence[int], lengths: Lengths) -> JSONSchema:
    criterion = _object(
        {
            "name": _string(lengths.name),
            "weight": {"type": "integer", "minimum": 1, "maximum": 100},
            "reason": _string(lengths.reason),
        }
    )
    return _list(criterion, min(counts), max(counts))


def _scores(candidates: int, criteria: int, lengths: Lengths) -> JSONSchema:
    mark: JSONSchema = {"type": "integer", "minimum": MARK_LOW, "maximum": MARK_HIGH}
    score = _object({"why": _string(lengths.why), "marks": _list(mark, criteria, criteria)})
    return _object({_label(number): score for number in range(1, candidates + 1)})


def _label(number: int) -> str:
    return f"response_{number}"


# --- the text ---


def document_in(text: str) -> Document | None:
    """Return the sections that a text has, by key; None for a text that is no such object.

    Of several objects the last one counts. What surrounds it (reasoning, a fence, a sentence) does
    not matter.
    """
    answer = split_reasoning(text).answer
    if not any(f'"{key}"' in answer for key in (*KEYS.values(), NESTED)):
        return None
    document: Document | None = None
    place = answer.find("{")
    for _ in range(MOST_OBJECTS):
        if place < 0:
            break
        try:
            value, end = _DECODER.raw_decode(answer, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            document = _flat(_encodable(value)) or document
        place = answer.find("{", end)
    return document


def _flat(value: object) -> Document | None:
    if not isinstance(value, dict):
        return None
    nested = value.get(NESTED)
    whole = {**value, **nested} if isinstance(nested, dict) else value
    # Of a chain in prose the scores are such an object, too: it is told by its own keys.
    if "better_response" in whole or "rationale" in whole:
        return None
    return {key: whole[key] for key in KEYS.values() if key in whole} or None


def _encodable(value: object) -> object:
    """Return the value without halves of characters, as a limit on a string's length leaves them."""
    text = json.dumps(value, ensure_ascii=False)
    whole = whole_characters(text)
    return value if whole == text else json.loads(whole)


def write_document(document: Document) -> str:
    """Write the sections in their order, each on a line of its own."""
    return "".join(_pieces(document))


def spans_in(text: str) -> dict[Section, tuple[int, int]]:
    """Return [start, end) of each section's value, for a text as `write_document` writes it."""
    document = document_in(text)
    if document is None:
        return {}
    pieces = _pieces(document)
    if "".join(pieces) != text:
        return {}
    spans: dict[Section, tuple[int, int]] = {}
    place = 0
    held = [section for section, key in KEYS.items() if key in document]
    for number, piece in enumerate(pieces):
        if number % 2:
            spans[held[number // 2]] = (place, place + len(piece))
        place += len(piece)
    return spans


def _pieces(document: Document) -> list[str]:
    """Return what stands before, in and between the sections: values have the odd places."""
    pieces: list[str] = []
    for key in KEYS.values():
        if key in document:
            opening = ",\n" if pieces else "{"
            value = json.dumps(document[key], ensure_ascii=False)
            pieces += [f'{opening}"{key}": ', value]
    return [*pieces, "}"]


# --- what it says ---


def criteria_of(document: Document) -> tuple[Criterion, ...]:
    """Return the criteria as they were written, weights not normalized.

    Raises ChainError "no_rubric" where they cannot be read.
    """
    rows = document.get("criteria")
    if not isinstance(rows, list) or not rows:
        raise ChainError("there are no criteria", reason="no_rubric")
    return tuple(_criterion(number, row) for number, row in enumerate(rows, start=1))


def _criterion(number: int, row: object) -> Criterion:
    name = " ".join(_text(row.get("name")).split()) if isinstance(row, Mapping) else ""
    weight = _weight(row.get("weight")) if isinstance(row, Mapping) else None
    if not name or weight is None or not 0 <= weight <= 100:
        raise ChainError(
            f"criterion {number} lacks a name, or a weight from 0 to 100", reason="no_rubric"
        )
    assert isinstance(row, Mapping)
    return Criterion(name=name, weight=weight, reason=_text(row.get("reason")).strip())


def persona_of(document: Document) -> str | None:
    """Return the persona; None where there is none."""
    return _text(document.get("persona")).strip() or None


def parse_document(document: Document, candidate_ids: Sequence[str]) -> ParsedChain:
    """Read a whole chain; a candidate without a mark for every criterion has no total.

    Raises:
        ChainError: with reason "no_persona", "no_rubric", "no_scores" or "no_totals".
    """
    persona = persona_of(document)
    if persona is None:
        raise ChainError("there is no persona", reason="no_persona")
    written = criteria_of(document)
    repairs: list[str] = []
    total_weight = sum(criterion.weight for criterion in written)
    if abs(total_weight - 100) > WEIGHT_TOLERANCE:
        repairs.append("weights_normalized")
    rubric = Rubric.normalized(written)
    scores = document.get("scores")
    if not isinstance(scores, Mapping):
        raise ChainError("there are no scores", reason="no_scores")
    names = [criterion.name.casefold() for criterion in rubric.criteria]
    marks: dict[str, tuple[float | None, ...]] = {}
    reasons: dict[str, str] = {}
    written_for = {response_key(str(key)): score for key, score in scores.items()}
    for place, candidate_id in enumerate(candidate_ids):
        score = written_for.get(place)
        given = score.get("marks") if isinstance(score, Mapping) else score
        row = _marks(given, names)
        if row is not None:
            marks[candidate_id] = row
        if isinstance(score, Mapping) and (why := _text(score.get("why")).strip()):
            reasons[candidate_id] = why
    off_scale = [
        mark
        for row in marks.values()
        for mark in row
        if mark is not None and not MARK_LOW <= mark <= MARK_HIGH
    ]
    if off_scale:
        raise ChainError(
            f"a mark is {off_scale[0]:g}, and the scale is {MARK_LOW} to {MARK_HIGH}: what the other"
            " marks mean is unknown",
            reason="no_totals",
        )
    totals = complete_totals(rubric.criteria, marks)
    if not totals:
        raise ChainError(
            f"no response has a mark from {MARK_LOW} to {MARK_HIGH} for each of the"
            f" {len(names)} criteria",
            reason="no_totals",
        )
    missing = tuple(name for name in candidate_ids if name not in totals)
    if missing:
        repairs.append("marks_incomplete")
    return ParsedChain(
        persona=Persona(text=" ".join(persona.split())),
        rubric=rubric,
        marks=marks,
        reported={},
        totals=totals,
        totals_from="marks",
        reasons=reasons,
        repairs=tuple(repairs),
        missing=missing,
    )


def _marks(given: object, names: Sequence[str]) -> tuple[float | None, ...] | None:
    """Return one mark a criterion; None where it cannot be told which mark is whose."""
    if isinstance(given, Mapping):
        by_name = {str(name).casefold(): mark for name, mark in given.items()}
        values = [by_name.get(name) for name in names]
    elif isinstance(given, list) and len(given) == len(names):
        values = given
    else:
        return None
    return tuple(read_total(value) for value in values)


def _weight(value: object) -> float | None:
    return read_total(value.strip().removesuffix("%") if isinstance(value, str) else value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
