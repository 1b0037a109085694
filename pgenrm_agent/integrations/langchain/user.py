"""Whose taste counts, in LangChain: told by the application, not by the model that calls a tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, get_args

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import ToolException
from langgraph.config import get_stream_writer
from langgraph.runtime import Runtime, get_runtime

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation_run import Progress
from pgenrm_agent.user_ids import user_id_of, valid_user_id

UserFrom: TypeAlias = Literal["argument", "config", "state"]

USER_KEY = "user_id"


def refuse_unknown_source(user_from: object) -> None:
    """Raises ConfigurationError for a `user_from` that is none."""
    if user_from not in get_args(UserFrom):
        raise ConfigurationError(
            f"user_from is {user_from!r}: use one of {', '.join(get_args(UserFrom))}"
        )


def user_of_run(config: RunnableConfig | None) -> str | None:
    """Return whom the application has named for the run that is going on; None for nobody.

    In `config["configurable"]["user_id"]`, or in the field `user_id` of LangGraph's `context`, as a
    text, a whole number or a UUID.

    Raises:
        ConfigurationError: It is something else, no usable id, or another one in each place.
    """
    configured = ensure_config(config).get("configurable", {}).get(USER_KEY)
    in_context = _in_context()
    named = {
        user_id_of(value, where)
        for value, where in (
            (configured, 'config["configurable"]["user_id"]'),
            (in_context, "context's user_id"),
        )
        if value is not None
    }
    if len(named) > 1:
        raise ConfigurationError(
            f"the run names two users, {configured!r} in configurable and {in_context!r} in context:"
            " name one of them"
        )
    return next(iter(named), None)


def _in_context() -> object:
    try:
        runtime: Runtime[Any] | None = get_runtime()
    except (RuntimeError, KeyError):  # no run at all; or a plain runnable's
        return None
    context = None if runtime is None else runtime.context
    if isinstance(context, Mapping):
        return context.get(USER_KEY)
    return getattr(context, USER_KEY, None)


def named_user(
    bound: str | None, user_from: UserFrom, given: object, config: RunnableConfig
) -> str:
    """Return the user a tool call is for.

    Args:
        bound: The user the tool was made for.
        user_from: Who names the user otherwise.
        given: The argument `user_id`: of the model, or put there by LangGraph from the graph's
            state.
        config: Of the run.

    Raises:
        ConfigurationError: The application was to name a user, and has named nobody, or with no
            usable id. The calling model cannot mend that, and never reads it.
        ToolException: The calling model was to name the user, and has not; it reads that.
    """
    if bound is not None:
        return valid_user_id(bound)
    if user_from == "argument":
        try:
            return valid_user_id(given)
        except ConfigurationError as error:
            missing = "user_id is missing: pass the id of the user"
            raise ToolException(missing if given is None else str(error)) from error
    if user_from == "state":
        if given is None:
            raise ConfigurationError(
                "no user is named: the graph's state has no user_id; put it there before this tool"
                " is called"
            )
        return valid_user_id(given, "user_id in the graph's state")
    named = user_of_run(config)
    if named is None:
        raise ConfigurationError(
            'no user is named: run with config={"configurable": {"user_id": ...}}, or with'
            ' context={"user_id": ...}'
        )
    return named


def stream_progress() -> Callable[[Progress], None] | None:
    """Make what writes progress to the custom stream of the LangGraph run that is going on; None without one.

    A chunk is `{"pgenrm": {"stage": ..., "seconds": ..., "chains": ...}}`.
    """
    try:
        write = get_stream_writer()
    except (RuntimeError, KeyError):  # no run at all; or a plain runnable's
        return None
    return lambda progress: write({"pgenrm": progress.model_dump()})
