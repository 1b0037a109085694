"""LangChain tools with which an agent keeps what a user likes, and forgets it when asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from langgraph.prebuilt import InjectedState
from pydantic import BaseModel, Field, create_model

from pgenrm_agent.arguments import refuse_other
from pgenrm_agent.errors import ConfigurationError, PGenRMError
from pgenrm_agent.fields import YesOrNo
from pgenrm_agent.integrations.langchain.refusals import wrong_call
from pgenrm_agent.integrations.langchain.user import UserFrom, named_user, refuse_unknown_source
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import PreferencePair, StatedPreference
from pgenrm_agent.user_ids import valid_user_id

__all__ = ["memory_tools"]

Kind = Literal["style", "self_description", "demographics", "attributes"]


class RememberArguments(BaseModel):
    """What the user chose."""

    query: str = Field(description="What the user asked.")
    chosen: str = Field(description="The answer the user preferred, in full.")
    rejected: str = Field(description="The answer the user liked less, in full.")


class StateArguments(BaseModel):
    """What the user said."""

    text: str = Field(description="What the user said they want, in their words.")
    kind: Kind = Field(default="style", description="What the statement is about.")


class ForgetArguments(BaseModel):
    """Leave to delete."""

    confirmed: YesOrNo = Field(
        description="True only when the user has asked, in this conversation, to be forgotten."
    )


class _UserInState(BaseModel):
    user_id: Annotated[Any, InjectedState("user_id")] = None


def memory_tools(
    reward_model: PGenRM, *, user_id: str | None = None, user_from: UserFrom = "config"
) -> list[BaseTool]:
    """Make tools to remember a preference, to state one, and to be forgotten.

    Args:
        reward_model: Whose memory they write to.
        user_id: Whom they write about, always.
        user_from: Where that is not given, who names the user: "config" for
            `config["configurable"]["user_id"]` or the `context`, "state" for the graph's state.
            Never the model: one that could name anybody could delete anybody. A call for which the
            application names nobody raises ConfigurationError.

    Raises:
        ConfigurationError: `reward_model` is no PGenRM, `user_from` is "argument", or `user_id` is no
            usable id.
    """
    refuse_other(reward_model, PGenRM, "reward_model", "a PGenRM")
    refuse_unknown_source(user_from)
    if user_from == "argument":
        raise ConfigurationError(
            'user_from "argument" would let the calling model write about anybody: use "config" or '
            '"state", or pass user_id'
        )
    bound = None if user_id is None else valid_user_id(user_id)

    def remember_preference(user: str, query: str, chosen: str, rejected: str) -> str:
        pair = PreferencePair(query=query, chosen=chosen, rejected=rejected)
        reward_model.remember(user, pair)
        return "Remembered."

    def state_preference(user: str, text: str, kind: Kind = "style") -> str:
        reward_model.state_preference(user, StatedPreference(kind=kind, text=text))
        return "Remembered."

    def forget_me(user: str, confirmed: bool) -> str:
        if not confirmed:
            raise ToolException("nothing was removed: ask the user first, then pass confirmed=true")
        return f"Forgotten: {reward_model.forget(user)} entries removed."

    def tool(
        work: Callable[..., str], arguments: type[BaseModel], description: str
    ) -> StructuredTool:
        def call(config: RunnableConfig, user_id: object = None, **given: object) -> str:
            user = named_user(bound, user_from, user_id, config)
            try:
                return work(user, **given)
            except PGenRMError as error:
                raise ToolException(str(error)) from error

        in_state = bound is None and user_from == "state"
        return StructuredTool(
            name=work.__name__,
            description=description,
            func=call,
            args_schema=_for_user_in_state(arguments) if in_state else arguments,
            handle_tool_error=True,
            handle_validation_error=wrong_call,
        )

    return [
        tool(
            remember_preference,
            RememberArguments,
            "Remembers that the user preferred one answer to another, so that later answers can be "
            "judged by it. Use it when the user picks, praises or corrects an answer.",
        ),
        tool(
            state_preference,
            StateArguments,
            "Remembers what the user says they want from answers, such as a style, a fact about "
            "themselves or what matters to them.",
        ),
        tool(
            forget_me,
            ForgetArguments,
            "Removes everything that is remembered about the user, for good. Use it only when the "
            "user asks to be forgotten.",
        ),
    ]


def _for_user_in_state(arguments: type[BaseModel]) -> type[BaseModel]:
    """Return the arguments, and the id that LangGraph puts there, which the model does not see."""
    return create_model(
        arguments.__name__, __base__=(arguments, _UserInState), __doc__=arguments.__doc__
    )
