"""Edits of a chain's text. What stood behind the edited section is dropped: it will be written anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pgenrm_agent.chain import (
    SECTIONS,
    ChainFormat,
    Section,
    parse_chain,
    read_criteria,
    section_spans,
    written_persona,
)
from pgenrm_agent.errors import ChainError, ConfigurationError
from pgenrm_agent.schema import Criterion, Rubric

if TYPE_CHECKING:
    from pgenrm_agent.graphs.state import Draft


def with_persona(draft: Draft, persona: str, chain_format: ChainFormat) -> Draft:
    """Return the draft with another persona, open to be continued with its rubric.

    Raises ConfigurationError for a blank persona, or one that would not be read back as it was given.
    """
    words = persona.strip()
    if not words:
        raise ConfigurationError("the persona is blank: write who the user is in this scenario")
    text = chain_format.with_persona(draft["text"], words)
    _refuse_misread(draft, text, "persona", words, chain_format)
    return {**draft, "text": text, "edited": text, "status": "open"}


def with_rubric(draft: Draft, rubric: Rubric, chain_format: ChainFormat) -> Draft:
    """Return the draft with other criteria, open to be continued with its scores.

    Raises ConfigurationError when the draft has no rubric to replace, or the criteria would not be
    read back as they were given.
    """
    text = chain_format.with_rubric(draft["text"], rubric)
    _refuse_misread(draft, text, "rubric", written_persona(draft["text"]) or "", chain_format)
    read = [(item.name, round(item.weight, 3)) for item in read_criteria(text)]
    meant = [(criterion.name, round(criterion.weight, 3)) for criterion in rubric.criteria]
    if read != meant:
        raise ConfigurationError(
            f"the criteria {meant} would be read back as {read}: use plain names, each once, of at"
            " most 80 characters and without percentages"
        )
    return {**draft, "text": text, "edited": text, "status": "open"}


def _refuse_misread(
    draft: Draft, text: str, section: Section, persona: str, chain_format: ChainFormat
) -> None:
    """Refuse an edit that a reader of chains does not take for the end of `section`.

    It might close the section, begin another one, or bring marks along that no model has given.
    """
    later = SECTIONS[SECTIONS.index(section) + 1 :]
    spans = section_spans(text)
    begun = any(text[slice(*spans[name])].strip() for name in later if name in spans)
    try:
        parse_chain(text, [str(i) for i in draft["order"]], asks_totals=draft["asks_totals"])
        scored = True
    except ChainError:
        scored = False
    same = (written_persona(text) or "").split() == persona.split()
    if begun or scored or not same or chain_format.complete_through(text) != section:
        raise ConfigurationError(
            f"the {section} would not be read back as it was given: it holds a heading, a marker or"
            " marks of a chain, or JSON; take lines such as '### Criteria', '<JSON_START>' and"
            " 'Response 1: 9' out"
        )


def rubric_of(criteria: Sequence[tuple[str, float, str]]) -> Rubric:
    """Make a rubric of criteria as they were given; their weights are scaled to sum to 100.

    Raises ConfigurationError for no criteria, a blank name or a weight that is not 0 to 100.
    """
    try:
        return Rubric.normalized(
            tuple(
                Criterion(name=" ".join(name.split()), weight=weight, reason=" ".join(why.split()))
                for name, weight, why in criteria
            )
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"this rubric cannot be used ({error}): give each criterion a name and a weight from 0"
            " to 100"
        ) from None
