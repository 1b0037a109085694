"""Read a chain, whichever way it was written: prose, one JSON object, or behind notes."""

from __future__ import annotations

from collections.abc import Sequence

import pgenrm_agent.chain.prose as prose
from pgenrm_agent.chain.document import (
    criteria_of,
    document_in,
    parse_document,
    persona_of,
    spans_in,
)
from pgenrm_agent.chain.notes import criteria_of_noted, noted_in, parse_noted, spans_in_noted
from pgenrm_agent.chain.parsed import ParsedChain
from pgenrm_agent.chain.sections import Section, split_sections
from pgenrm_agent.errors import ChainError
from pgenrm_agent.schema import Criterion, Rubric


def parse_chain(
    text: str, candidate_ids: Sequence[str], *, asks_totals: bool = True
) -> ParsedChain:
    """Read one chain. Text before the end of a reasoning model's thinking is no part of it.

    Args:
        text: What the model wrote.
        candidate_ids: Ids in the order in which the prompt showed the candidates.
        asks_totals: Whether the model was asked to work out totals, so that they have to agree with
            its marks. Where it was not, those that it writes in prose count for nothing.

    Raises:
        ChainError: With reason "empty" (no text), "unfinished_reasoning" (the model thought and
            never answered), "no_scores" (nothing that looks like scores), "no_persona" (no analysis
            before the scores), "contradictory" (the model's totals are not what its marks come to, or
            several whole objects differ and nothing says which one counts),
            "no_rubric" (a JSON object whose criteria cannot be read) or
            "no_totals" (scores, but none that is readable, in range and of a candidate).
    """
    if (noted := noted_in(text)) is not None:
        return parse_noted(noted, candidate_ids)
    document = document_in(text)
    if document is None:
        return prose.parse_chain(text, candidate_ids, asks_totals=asks_totals)
    return parse_document(document, candidate_ids)


def read_persona(text: str) -> str | None:
    """Return the persona of a chain, whole or only begun, in one line; None where there is none."""
    if (noted := noted_in(text)) is not None:
        persona = noted.persona
    elif (document := document_in(text)) is not None:
        persona = persona_of(document)
    else:
        return prose.read_persona(text)
    return persona and " ".join(persona.split())


def written_persona(text: str) -> str | None:
    """Return what stands in the place of the persona, working notes included; None for nothing."""
    if (noted := noted_in(text)) is not None:
        return noted.persona or None
    document = document_in(text)
    if document is not None:
        return persona_of(document)
    return (split_sections(text).persona or "").strip() or None


def read_notes(text: str) -> str:
    """Return what a model worked out before the persona, where its format has a place for that."""
    noted = noted_in(text)
    return noted.notes if noted else ""


def read_criteria(text: str) -> tuple[Criterion, ...]:
    """Return the criteria of a text that may lack scores yet, weights normalized; () for none."""
    document = document_in(text)
    try:
        if (noted := noted_in(text)) is not None:
            return Rubric.normalized(criteria_of_noted(noted)).criteria
        if document is not None:
            return Rubric.normalized(criteria_of(document)).criteria
        end = split_sections(text).spans.get("rubric")
        if end is None:
            return ()
        # The reader wants whole chains, so the analysis gets the smallest scores there can be.
        smallest = '\n<JSON_START>{"better_response":{"response_1":5}}'
        rubric = prose.parse_chain(text[: end[1]] + smallest, ["1"]).rubric
    except ChainError:
        return ()
    return rubric.criteria if rubric else ()


def section_spans(text: str) -> dict[Section, tuple[int, int]]:
    """Return [start, end) of each section that a text has; headings and keys are left out."""
    noted = spans_in_noted(text)
    if noted is not None:
        return noted
    return spans_in(text) or split_sections(text).spans
