"""What a caller passes to `PGenRM`, checked, in the form that the evaluation graph starts with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pgenrm_agent.arguments import items_of, model_of, text_of
from pgenrm_agent.chat_messages import turn_of
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.schema import (
    Candidate,
    EvaluationRequest,
    Message,
    Scaling,
    StatedPreference,
    UserSignals,
)
from pgenrm_agent.user_ids import valid_user_id

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
    return EvaluationRequest(
        user_id=valid_user_id(user_id),
        query=text_of(query, "query"),
        candidates=tuple(
            model_of(
                Candidate,
                {"id": f"answer-{number}", "text": candidate}
                if isinstance(candidate, str)
                else candidate,
                f"candidates[{number - 1}]",
            )
            for number, candidate in enumerate(
                items_of(candidates, "candidates", "answers, such as ['first', 'second']"), start=1
            )
        ),
        conversation=tuple(
            turn_of(turn, f"conversation[{place}]")
            for place, turn in enumerate(items_of(conversation, "conversation", "Message objects"))
        ),
    )


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
    request = model_of(EvaluationRequest, request, "request")
    scaling = model_of(Scaling, scaling, "scaling")
    signals = None if signals is None else model_of(UserSignals, signals, "signals")
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
    if isinstance(stated, str):
        return StatedPreference(text=stated)
    return model_of(StatedPreference, stated, "stated")
