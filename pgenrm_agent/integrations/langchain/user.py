"""Whose taste counts, in LangChain: told by the application, not by the model that calls a tool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import ToolException
from langgraph.config import get_stream_writer

from pgenrm_agent.evaluation_run import Progress

__all__ = ["UserFrom", "named_user", "stream_progress", "user_in_config"]

UserFrom: TypeAlias = Literal["argument", "config", "state"]

USER_KEY = "user_id"


def user_in_config(config: RunnableConfig | None) -> str | None:
    """Return `config["configurable"]["user_id"]`, of the given config or of the run that is going on."""
    user_id = ensure_config(config).get("configurable", {}).get(USER_KEY)
    return user_id if isinstance(user_id, str) and user_id.strip() else None


def named_user(
    bound: str | None, user_from: UserFrom, given: str | None, config: RunnableConfig
) -> str:
    """Return the user a tool call is for.

    Args:
        bound: The user the tool was made for.
        user_from: Who names the user otherwise.
        given: The argument `user_id`: of the model, or put there by LangGraph from the graph's
            state.
        config: Of the run.

    Raises:
        ToolException: Nobody is named; the calling model reads it.
    """
    if bound is not None:
        return bound
    if user_from == "config":
        named = user_in_config(config)
        if named is None:
            raise ToolException(
                'no user is named: run with config={"configurable": {"user_id": ...}}'
            )
        return named
    if not given:
        raise ToolException(
            "user_id is missing: pass the id of the user to rank for"
            if user_from == "argument"
            else "no user is named: the graph's state has no user_id"
        )
    return given


def stream_progress() -> Callable[[Progress], None] | None:
    """Make what writes progress to the custom stream of the LangGraph run that is going on; None without one.

    A chunk is `{"pgenrm": {"stage": ..., "seconds": ..., "chains": ...}}`.
    """
    try:
        write = get_stream_writer()
    except (RuntimeError, KeyError):  # no run at all; or a plain runnable's
        return None
    return lambda progress: write({"pgenrm": progress.model_dump()})
