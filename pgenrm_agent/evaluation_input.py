"""What a caller passes to `PGenRM`, checked, in the form that the evaluation graph starts with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.schema import (
    Candidate,
    EvaluationRequest,
    Message,
    Scaling,
    StatedPreference,
    UserSignals,
)

if TYPE_CHECKING:
    from pgenrm_agent.graphs.state import EvaluationInput

__all__ = ["evaluation_input", "evaluation_request", "stated_preference"]


def evaluation_request(
    user_id: str,
    query: str,
    candidates: Sequence[str | Candidate],
    conversation: Sequence[Message] = (),
) -> EvaluationRequest:
    """Return the request; candidates that are texts get the ids "answer-1", "answer-2", ...

    Raises:
        ConfigurationError: The schema refuses a part of it.
    """
    if isinstance(candidates, (str, Candidate)):
        raise ConfigurationError(
            "candidates is a single answer: pass a list, such as ['first answer', 'second answer']"
        )
    try:
        return EvaluationRequest(
            user_id=user_id,
            query=query,
            candidates=tuple(
                candidate
                if isinstance(candidate, Candidate)
                else Candidate(id=f"answer-{number}", text=candidate)
                for number, candidate in enumerate(candidates, start=1)
            ),
            conversation=tuple(conversation),
        )
    except ValidationError as error:
        raise _refused("request", error) from None


def evaluation_input(
    request: EvaluationRequest, scaling: Scaling, signals: UserSignals | None
) -> EvaluationInput:
    """Return what the evaluation graph is started with.

    Args:
        request: What is asked, of whom, and the answers.
        scaling: How many chains and from what.
        signals: What is known of the user, instead of what the memory knows.

    Raises:
        ConfigurationError: The signals are somebody else's.
    """
    if signals is not None and signals.user_id != request.user_id:
        raise ConfigurationError(
            f"the signals are those of user {signals.user_id!r}, and the answers are for "
            f"{request.user_id!r}: pass the same user_id in both places"
        )
    known = None if signals is None else signals.model_dump(mode="json")
    return {
        "request": request.model_dump(mode="json"),
        "scaling": scaling.model_dump(mode="json"),
        "history": None if known is None else known["history"],
        "stated": None if known is None else known["stated"],
    }


def stated_preference(stated: StatedPreference | str) -> StatedPreference:
    """Return the statement; a plain text is one of style.

    Raises:
        ConfigurationError: The text is blank.
    """
    if isinstance(stated, StatedPreference):
        return stated
    try:
        return StatedPreference(text=stated)
    except ValidationError as error:
        raise _refused("stated preference", error) from None


def _refused(what: str, error: ValidationError) -> ConfigurationError:
    """Return the schema's complaints in one line: where, what, and the value."""
    complaints = []
    for problem in error.errors(include_url=False, include_context=False):
        place = ".".join(str(part) for part in problem["loc"])
        shown = json.dumps(problem["input"], default=lambda value: type(value).__name__)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        complaints.append(f"{place}: {problem['msg']} (got {shown})" if place else problem["msg"])
    return ConfigurationError(f"this {what} cannot be used: {'; '.join(complaints)}")
