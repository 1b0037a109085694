"""What a caller passes to `PGenRM`, checked, in the form that the evaluation graph starts with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast
from uuid import UUID

from pgenrm_agent.arguments import items_of, model_of, refuse_other, text_of
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
    from langchain_core.runnables import RunnableConfig

    from pgenrm_agent.graphs.state import EvaluationInput


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
        "choices_known": None if known is None else known["choices_known"],
    }


def run_config(config: RunnableConfig | None) -> RunnableConfig:
    """Return what of a caller's config an evaluation is run with: who listens, and how it is named.

    The rest of it is about the caller's own run: where that keeps its steps, and how many it may take.

    Raises:
        ConfigurationError: It is no config, or a part of it cannot be used.
    """
    if config is None:
        return {}
    from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
    from langchain_core.runnables.config import CONFIG_KEYS

    refuse_other(config, Mapping, "config", 'a RunnableConfig, such as {"callbacks": [...]}')
    for name in config:
        if name not in CONFIG_KEYS:
            raise ConfigurationError(
                f"config has {name!r:.80}, which is no part of a RunnableConfig: use "
                f"{', '.join(CONFIG_KEYS)}"
            )
    parts: dict[str, tuple[type | tuple[type, ...], type, str]] = {
        "callbacks": ((list, BaseCallbackManager), BaseCallbackHandler, "a list of handlers"),
        "tags": (list, str, "a list of texts"),
        "metadata": (Mapping, str, "a dict with texts as keys"),
        "run_name": (str, str, "a text"),
        "run_id": (UUID, str, "a UUID"),
    }
    taken: dict[str, object] = {}
    for name, (kind, inner, wanted) in parts.items():
        value = config.get(name)
        if value is None:
            continue
        items = value if isinstance(value, (list, Mapping)) else ()
        usable = all(isinstance(item, inner) for item in items)
        refuse_other(value, kind if usable else (), f'config["{name}"]', wanted)
        taken[name] = value
    return cast("RunnableConfig", taken)


def stated_preference(stated: StatedPreference | str) -> StatedPreference:
    """Return the statement; a plain text is one of style.

    Raises:
        ConfigurationError: The text is blank.
    """
    if isinstance(stated, str):
        return StatedPreference(text=stated)
    return model_of(StatedPreference, stated, "stated")
