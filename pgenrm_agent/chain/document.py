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
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from pgenrm_agent.chain.agreement import check_winner, compare_readings
from pgenrm_agent.chain.decoder import DECODER, unique
from pgenrm_agent.chain.document_scores import is_beside_scores, read_scores
from pgenrm_agent.chain.parsed import MARK_HIGH, MARK_LOW, ParsedChain, complete_totals
from pgenrm_agent.chain.sections import Section, split_reasoning
from pgenrm_agent.chain.totals import read_total, stated_top
from pgenrm_agent.chain.versions import is_aside, which_counts
from pgenrm_agent.errors import ChainError
from pgenrm_agent.fields import Model, whole_characters
from pgenrm_agent.schema import Criterion, Persona, Rubric

Document: TypeAlias = dict[str, object]
JSONSchema: TypeAlias = dict[str, object]

KEYS: dict[Section, str] = {"persona": "persona", "rubric": "criteria", "scores": "scores"}
NESTED = "evaluation"
MOST_OBJECTS = 8
"""Objects with sections that are compared."""
MOST_BRACES = 64
"""Braces of a text at which an object is looked for: each one may take time for all that follows."""
DEEPEST = 16
"""Levels of an object; a chain has five."""
WEIGHT_TOLERANCE = 1.0
"""By how much weights may miss a sum of 100 before that is noted."""
ROUNDED = 0.015
"""By how much shares of 1 that are written twice may differ."""


_WEIGHTS_KEY = re.compile(
    r"(?:(?:criteri(?:a|on)|rubric|final|personali[sz]ed)[_ ]?)?weights", re.IGNORECASE
)
# "...", "<who they are>"
_PLACEHOLDER = re.compile(r"[\W_]*|\s*(?:<[^<>]*>|\[[^\[\]]*\]|string)\s*")


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

    Of several objects those with the most sections count. Where these differ, the words before them
    tell which one is meant ("For example", "Corrected:"); where they do not, no section has a value.
    What else surrounds it (reasoning, a fence, a sentence) does not matter.
    """
    answer = split_reasoning(text).answer
    if not any(f'"{key}"' in answer for key in (*KEYS.values(), NESTED)):
        return None
    documents: list[Document] = []
    introductions: list[str] = []
    place, reached = answer.find("{"), 0
    for _ in range(MOST_BRACES):
        if place < 0 or len(documents) == MOST_OBJECTS:
            break
        try:
            value, end = DECODER.raw_decode(answer, place)
            document = _flat(_storable(value))
        except (ValueError, RecursionError):
            end = place + 1
        else:
            if document:
                documents.append(document)
                introductions.append(answer[reached:place])
                reached = end
        place = answer.find("{", end)
    if not documents:
        return None
    held = [sum(key in document for key in KEYS.values()) for document in documents]
    fullest = [place for place, count in enumerate(held) if count == max(held)]
    # A schema, or a form that is still to be filled in, counts for nothing before the chain.
    while len(fullest) > 1 and not _is_filled(documents[fullest[0]]):
        del fullest[0]
    last = documents[fullest[-1]]
    # Behind an example, the chain itself may be cut off.
    is_cut = '"persona"' in answer[reached:].partition("{")[2]
    is_cut = is_cut and is_aside(introductions[fullest[-1]])
    if all(_is_alike(documents[place], last) for place in fullest) and not is_cut:
        return last
    counts = which_counts([introductions[place] for place in fullest])
    if counts is None:
        return dict.fromkeys(key for key in KEYS.values() if key in last)
    return documents[fullest[counts]]


def _flat(value: object) -> Document | None:
    if not isinstance(value, dict):
        return None
    whole = _whole(value)
    is_chain = all(key in whole for key in KEYS.values())
    # Of a chain in prose the scores are such an object, too: it is told by its own keys.
    if ("better_response" in whole or "rationale" in whole) and not is_chain:
        return None
    if not any(key in whole for key in KEYS.values()):
        # {"name": "answer", "arguments": {...}}
        inner = [_whole(part) for part in value.values() if isinstance(part, dict)]
        inner = [part for part in inner if isinstance(part.get("persona"), str)]
        return _flat(inner[0]) if len(inner) == 1 else None
    document = {key: whole[key] for key in KEYS.values() if key in whole}
    return document | {key: part for key, part in whole.items() if _is_beside(key, whole)}


def _is_beside(key: str, document: Document) -> bool:
    """Whether a key says something about a section that stands beside it."""
    if "scores" in document and is_beside_scores(key):
        return True
    return "criteria" in document and is_weights(key)


def _is_filled(document: Document) -> bool:
    """Whether the persona and the criteria that an object has say something, and can be read."""
    said = [persona_of(document) or ""] if "persona" in document else []
    try:
        said += [name for name, _ in _weights_in(document)]
    except ChainError:
        return False
    return not any(_PLACEHOLDER.fullmatch(text) for text in said)


def _weights_in(document: Document) -> list[tuple[str, float]]:
    written = criteria_of(document) if "criteria" in document else ()
    return [(criterion.name, criterion.weight) for criterion in written]


def _is_alike(document: Document, last: Document) -> bool:
    """Whether two objects have the same weights and marks, whatever words stand beside them."""
    if document == last:
        return True
    words = {"persona", "criteria"} if "scores" in last else {"criteria"}
    rest, rest_of_last = (
        {
            key: _without_reasons(part)
            for key, part in version.items()
            if key not in words and not is_weights(key)
        }
        for version in (document, last)
    )
    try:
        return rest == rest_of_last and _weights_in(document) == _weights_in(last)
    except ChainError:
        return False


def _without_reasons(value: object) -> object:
    if isinstance(value, Mapping):
        return {
            key: _without_reasons(part)
            for key, part in value.items()
            if key != "why" or not isinstance(part, str)
        }
    return value


def is_weights(key: str) -> bool:
    """Whether a key of the whole object holds weights of the criteria beside it."""
    return _WEIGHTS_KEY.fullmatch(key) is not None


def _whole(value: Document) -> Document:
    """`value` with what its nested object holds; what stands in both, differently, counts in neither."""
    nested = value.get(NESTED)
    if not isinstance(nested, dict):
        return value
    both = {key for key in nested if key in value and value[key] != nested[key]}
    return {**value, **nested, **dict.fromkeys(both)}


def _storable(value: object, depth: int = 0) -> object:
    """Return the value with U+FFFD for what no file or store takes: see `whole_characters`.

    Raises ValueError for a value that is nested too deep.
    """
    if depth > DEEPEST:
        raise ValueError("this is nested too deep")
    if isinstance(value, str):
        return whole_characters(value)
    if isinstance(value, list):
        return [_storable(part, depth + 1) for part in value]
    if isinstance(value, dict):
        return unique(
            [(whole_characters(key), _storable(part, depth + 1)) for key, part in value.items()]
        )
    return value


def write_document(document: Document) -> str:
    """Write the sections in their order, each on a line of its own, and what stands beside them."""
    return "".join(_pieces(document))


def part_of(document: Document, section: Section) -> Document:
    """Return one section, and what stands beside it."""
    part = {KEYS[section]: document[KEYS[section]]}
    return part | {key: value for key, value in document.items() if _is_beside(key, part)}


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
        if number % 2 and number // 2 < len(held):
            spans[held[number // 2]] = (place, place + len(piece))
        place += len(piece)
    return spans


def _pieces(document: Document) -> list[str]:
    """Return what stands before, in and between the sections: values have the odd places."""
    pieces: list[str] = []
    sections = [key for key in KEYS.values() if key in document]
    for key in (*sections, *(key for key in document if key not in KEYS.values())):
        opening = ",\n" if pieces else "{"
        value = json.dumps(document[key], ensure_ascii=False)
        pieces += [f"{opening}{json.dumps(key, ensure_ascii=False)}: ", value]
    return [*pieces, "}"]


# --- what it says ---


def criteria_of(document: Document) -> tuple[Criterion, ...]:
    """Return the criteria as they were written, weights not normalized.

    Raises ChainError "no_rubric" where they cannot be read.
    """
    rows = _rows(document)
    if not rows:
        raise ChainError("there are no criteria", reason="no_rubric")
    criteria = tuple(_criterion(number, row) for number, row in enumerate(rows, start=1))
    weights = [criterion.weight for criterion in criteria]
    shares = [_is_share(row["weight"]) for row in rows if isinstance(row, Mapping)]
    mixed = any(shares) and not all(shares)
    mixed = mixed or (max(weights) > 1 and any(0 < weight < 1 for weight in weights))
    if not any(weights) or (mixed and abs(sum(weights) - 100) > WEIGHT_TOLERANCE):
        raise ChainError(
            "the weights are all 0, or shares of 1 beside shares of 100", reason="no_rubric"
        )
    return criteria


def _rows(document: Document) -> list[object]:
    """The criteria, also where they are given by name, or as names and with their weights beside them.

    Raises ChainError "no_rubric" where criteria and the weights beside them do not go together.
    """
    rows = document.get("criteria")
    if isinstance(rows, Mapping):
        rows = [
            {"name": name, **(value if isinstance(value, Mapping) else {"weight": value})}
            for name, value in rows.items()
        ]
    listed = rows if isinstance(rows, list) else []
    read: list[object] = [{"name": row} if isinstance(row, str) else row for row in listed]
    for key, weights in document.items():
        if not is_weights(key) or not isinstance(weights, Mapping) or not weights:
            continue
        names = [_folded(_name_in(row)) for row in read]
        by_name = {_folded(str(name)): part for name, part in weights.items()}
        is_clear = len(by_name) == len(weights)
        for total in {"total", "sum"} - set(names):
            by_name.pop(total, None)
        named = [row for row in read if isinstance(row, Mapping)]
        own = [_weight(row.get("weight")) for row in named]
        is_theirs = is_clear and all(names) and set(by_name) == set(names)
        beside = [by_name[name] for name in names] if is_theirs else [*by_name.values()]
        if not (_are_same_shares(own, [*map(_weight, beside)]) if any(own) else is_theirs):
            raise ChainError(
                f"{key!r:.40} and the criteria do not go together: which weights count is not sure",
                reason="no_rubric",
            )
        if not any(own):
            read = [{**row, "weight": weight} for row, weight in zip(named, beside, strict=True)]
    return read


def _folded(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def _are_same_shares(own: Sequence[float | None], beside: Sequence[float | None]) -> bool:
    shares, again = (
        [(weight or 0.0) / (sum(weight or 0.0 for weight in weights) or 1.0) for weight in weights]
        for weights in (own, beside)
    )
    return len(shares) == len(again) and all(
        abs(share - written) <= ROUNDED for share, written in zip(shares, again, strict=True)
    )


def _name_in(row: object) -> str:
    return " ".join(_text(row.get("name")).split()) if isinstance(row, Mapping) else ""


def _criterion(number: int, row: object) -> Criterion:
    name = _name_in(row)
    weight = _weight(row.get("weight")) if isinstance(row, Mapping) else None
    if not name or weight is None or not 0 <= weight <= 100:
        raise ChainError(
            f"criterion {number} lacks a name, or a weight from 0 to 100", reason="no_rubric"
        )
    assert isinstance(row, Mapping)
    return Criterion(name=name, weight=weight, reason=_text(row.get("reason")).strip())


def _weight(value: object) -> float | None:
    """A weight as it was written; in percent where it says of what it is a share."""
    weight = read_total(value.strip().removesuffix("%") if isinstance(value, str) else value)
    # A number that is out of something was read as one out of ten.
    return weight if weight is None or stated_top(value) is None else weight * 10


def _is_share(weight: object) -> bool:
    text = weight.strip() if isinstance(weight, str) else ""
    return text.endswith("%") or stated_top(text) is not None


def persona_of(document: Document) -> str | None:
    """Return the persona; None where there is none."""
    return _text(document.get("persona")).strip() or None


def parse_document(document: Document, candidate_ids: Sequence[str]) -> ParsedChain:
    """Read a whole chain; a candidate without a mark for every criterion has no total.

    Raises:
        ChainError: with reason "no_persona", "no_rubric", "no_scores", "no_totals" or "contradictory"
            (the model wrote totals, or a winner, that are not what its marks come to; or several
            whole objects, and nothing says which one counts).
    """
    if len(document) > 1 and all(value is None for value in document.values()):
        raise ChainError(
            "there are several objects with a whole chain, and nothing says which one counts",
            reason="contradictory",
        )
    persona = persona_of(document)
    if persona is None:
        raise ChainError("there is no persona", reason="no_persona")
    written = criteria_of(document)
    repairs: list[str] = []
    total_weight = sum(criterion.weight for criterion in written)
    if abs(total_weight - 100) > WEIGHT_TOLERANCE:
        repairs.append("weights_normalized")
    rubric = Rubric.normalized(written)
    names = [criterion.name for criterion in rubric.criteria]
    scores = read_scores(document, names, _rows(document), candidate_ids)
    compare_readings(rubric.criteria, scores.marks, scores.reported)
    totals = complete_totals(rubric.criteria, scores.marks)
    if not totals:
        raise ChainError(
            f"no response has a mark from {MARK_LOW} to {MARK_HIGH} for each of the"
            f" {len(names)} criteria",
            reason="no_totals",
        )
    check_winner(scores.winner, totals)
    missing = tuple(name for name in candidate_ids if name not in totals)
    if missing:
        repairs.append("marks_incomplete")
    return ParsedChain(
        persona=Persona(text=" ".join(persona.split())),
        rubric=rubric,
        marks=scores.marks,
        reported=scores.reported,
        totals=totals,
        totals_from="marks",
        reasons=scores.reasons,
        repairs=tuple(repairs),
        missing=missing,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
