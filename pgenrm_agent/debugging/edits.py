"""Edits of a chain's text. What stood behind the edited section is dropped: it will be written anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pgenrm_agent.chain import ChainFormat, read_criteria
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.schema import Criterion, Rubric

if TYPE_CHECKING:
    from pgenrm_agent.graphs.state import Draft

__all__ = ["rubric_of", "with_persona", "with_rubric"]


def with_persona(draft: Draft, persona: str, chain_format: ChainFormat) -> Draft:
    """Return the draft with another persona, open to be continued with its rubric.

    Raises ConfigurationError for a blank persona, or one that holds a heading of a chain.
    """
    words = persona.strip()
    if not words:
        raise ConfigurationError("the persona is blank: write who the user is in this scenario")
    text = chain_format.with_persona(draft["text"], words)
    return {**draft, "text": text, "edited": text, "status": "open"}


def with_rubric(draft: Draft, rubric: Rubric, chain_format: ChainFormat) -> Draft:
    """Return the draft with other criteria, open to be continued with its scores.

    Raises ConfigurationError when the draft has no rubric to replace, or the criteria would not be
    read back as they were given.
    """
    text = chain_format.with_rubric(draft["text"], rubric)
    read = [(item.name, round(item.weight, 3)) for item in read_criteria(text)]
    meant = [(criterion.name, round(criterion.weight, 3)) for criterion in rubric.criteria]
    if read != meant:
        raise ConfigurationError(
            f"the criteria {meant} would be read back as {read}: use plain names, each once, of at"
            " most 80 characters and without percentages"
        )
    return {**draft, "text": text, "edited": text, "status": "open"}


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
