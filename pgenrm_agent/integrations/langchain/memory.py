"""LangChain tools with which an agent keeps what one person likes, and forgets it when asked."""

from __future__ import annotations

from typing import Annotated, Literal

from langchain_core.callbacks import AsyncCallbackManagerForToolRun, CallbackManagerForToolRun
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import ArgsSchema, BaseTool, ToolException
from langgraph.prebuilt import InjectedState
from pydantic import BaseModel, ConfigDict, Field, SkipValidation, ValidationError

from pgenrm_agent.errors import ConfigurationError, PGenRMError
from pgenrm_agent.integrations.langchain.user import UserFrom, named_user
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import PreferencePair, StatedPreference

__all__ = ["ForgetMe", "RememberPreference", "StatePreference", "memory_tools"]

Kind = Literal["style", "self_description", "demographics", "attributes"]


class RememberArguments(BaseModel):
    """What the person chose."""

    query: str = Field(description="What the person asked.")
    chosen: str = Field(description="The answer the person preferred, in full.")
    rejected: str = Field(description="The answer the person liked less, in full.")


class StateArguments(BaseModel):
    """What the person said."""

    text: str = Field(description="What the person said they want, in their words.")
    kind: Kind = Field(default="style", description="What the statement is about.")


class ForgetArguments(BaseModel):
    """Leave to delete."""

    confirmed: bool = Field(
        description="True only when the person has asked, in this conversation, to be forgotten."
    )


class _RememberInState(RememberArguments):
    user_id: Annotated[str, InjectedState("user_id")]


class _StateInState(StateArguments):
    user_id: Annotated[str, InjectedState("user_id")]


class _ForgetInState(ForgetArguments):
    user_id: Annotated[str, InjectedState("user_id")]


class _MemoryTool(BaseTool):
    """Common to the memory tools: whom they write about, and errors that the model can read."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    handle_tool_error: bool = True
    reward_model: SkipValidation[PGenRM] = Field(exclude=True, repr=False)
    bound_user: str | None = None
    user_from: UserFrom = "config"

    def _person(self, given: str | None, config: RunnableConfig) -> str:
        return named_user(self.bound_user, self.user_from, given, config)


class RememberPreference(_MemoryTool):
    """Remembers that the person preferred one answer to another; made by `memory_tools`."""

    name: str = "remember_preference"
    description: str = (
        "Remembers that the person preferred one answer to another, so that later answers can be "
        "judged by it. Use it when the person picks, praises or corrects an answer."
    )
    args_schema: ArgsSchema | None = RememberArguments

    def _run(
        self,
        query: str,
        chosen: str,
        rejected: str,
        user_id: str | None = None,
        *,
        config: RunnableConfig,
        run_manager: CallbackManagerForToolRun | None = None,
    ) -> str:
        person = self._person(user_id, config)
        try:
            pair = PreferencePair(query=query, chosen=chosen, rejected=rejected)
            self.reward_model.remember(person, pair)
        except (PGenRMError, ValidationError) as error:
            raise ToolException(_told(error)) from error
        return "Remembered."

    async def _arun(
        self,
        query: str,
        chosen: str,
        rejected: str,
        user_id: str | None = None,
        *,
        config: RunnableConfig,
        run_manager: AsyncCallbackManagerForToolRun | None = None,
    ) -> str:
        person = self._person(user_id, config)
        try:
            pair = PreferencePair(query=query, chosen=chosen, rejected=rejected)
            await self.reward_model.aremember(person, pair)
        except (PGenRMError, ValidationError) as error:
            raise ToolException(_told(error)) from error
        return "Remembered."


class StatePreference(_MemoryTool):
    """Remembers what the person says they want; made by `memory_tools`."""

    name: str = "state_preference"
    description: str = (
        "Remembers what the person says they want from answers, such as a style, a fact about "
        "themselves or what matters to them."
    )
    args_schema: ArgsSchema | None = StateArguments

    def _run(
        self,
        text: str,
        kind: Kind = "style",
        user_id: str | None = None,
        *,
        config: RunnableConfig,
        run_manager: CallbackManagerForToolRun | None = None,
    ) -> str:
        person = self._person(user_id, config)
        try:
            self.reward_model.state_preference(person, StatedPreference(kind=kind, text=text))
        except (PGenRMError, ValidationError) as error:
            raise ToolException(_told(error)) from error
        return "Remembered."

    async def _arun(
        self,
        text: str,
        kind: Kind = "style",
        user_id: str | None = None,
        *,
        config: RunnableConfig,
        run_manager: AsyncCallbackManagerForToolRun | None = None,
    ) -> str:
        person = self._person(user_id, config)
        try:
            await self.reward_model.astate_preference(
                person, StatedPreference(kind=kind, text=text)
            )
        except (PGenRMError, ValidationError) as error:
            raise ToolException(_told(error)) from error
        return "Remembered."


class ForgetMe(_MemoryTool):
    """Removes everything kept about the person; made by `memory_tools`."""

    name: str = "forget_me"
    description: str = (
        "Removes everything that is remembered about the person, for good. Use it only when the "
        "person asks to be forgotten."
    )
    args_schema: ArgsSchema | None = ForgetArguments

    def _run(
        self,
        confirmed: bool,
        user_id: str | None = None,
        *,
        config: RunnableConfig,
        run_manager: CallbackManagerForToolRun | None = None,
    ) -> str:
        person = self._person(user_id, config)
        _refuse_unconfirmed(confirmed)
        try:
            return _forgotten(self.reward_model.forget(person))
        except PGenRMError as error:
            raise ToolException(_told(error)) from error

    async def _arun(
        self,
        confirmed: bool,
        user_id: str | None = None,
        *,
        config: RunnableConfig,
        run_manager: AsyncCallbackManagerForToolRun | None = None,
    ) -> str:
        person = self._person(user_id, config)
        _refuse_unconfirmed(confirmed)
        try:
            return _forgotten(await self.reward_model.aforget(person))
        except PGenRMError as error:
            raise ToolException(_told(error)) from error


def memory_tools(
    reward_model: PGenRM, *, user_id: str | None = None, user_from: UserFrom = "config"
) -> list[BaseTool]:
    """Tools to remember a preference, to state one, and to be forgotten.

    user_id: whom they write about, always.
    user_from: where that is not given, who names the person: "config" for
        `config["configurable"]["user_id"]`, "state" for the graph's state. Never the model: one
        that could name anybody could delete anybody.

    Raises ConfigurationError for `user_from="argument"`.
    """
    if user_from == "argument":
        raise ConfigurationError(
            'user_from "argument" would let the calling model write about anybody: use "config" or '
            '"state", or pass user_id'
        )
    in_state = user_from == "state" and user_id is None
    common = {"reward_model": reward_model, "bound_user": user_id, "user_from": user_from}
    return [
        RememberPreference(
            **common, args_schema=_RememberInState if in_state else RememberArguments
        ),
        StatePreference(**common, args_schema=_StateInState if in_state else StateArguments),
        ForgetMe(**common, args_schema=_ForgetInState if in_state else ForgetArguments),
    ]


def _refuse_unconfirmed(confirmed: bool) -> None:
    if not confirmed:
        raise ToolException("nothing was removed: ask the person first, then pass confirmed=true")


def _forgotten(entries: int) -> str:
    return f"Forgotten: {entries} entries removed."


def _told(error: PGenRMError | ValidationError) -> str:
    if isinstance(error, PGenRMError):
        return str(error)
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"this cannot be remembered: {': '.join(filter(None, (place, first['msg'])))}"
