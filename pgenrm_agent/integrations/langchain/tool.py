"""A LangChain tool that ranks candidate answers by what one user would like best."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForToolRun, CallbackManagerForToolRun
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import ArgsSchema, BaseTool, ToolException
from langgraph.prebuilt import InjectedState
from pydantic import BaseModel, ConfigDict, Field

from pgenrm_agent.arguments import refuse_other
from pgenrm_agent.errors import PGenRMError
from pgenrm_agent.integrations.langchain.refusals import RefusesInOurWords, wrong_call
from pgenrm_agent.integrations.langchain.user import (
    UserFrom,
    named_user,
    refuse_unknown_source,
    stream_progress,
)
from pgenrm_agent.ranking import describe
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.user_ids import valid_user_id


class RankArguments(BaseModel):
    """Arguments of a tool that judges for one user, known beforehand."""

    query: str = Field(description="What the user asked.")
    candidates: list[str] = Field(description="The candidate answers to compare, in full.")


class RankForArguments(RankArguments):
    """Arguments of a tool that judges for whomever the caller names."""

    user_id: str | None = Field(
        default=None, description="Id of the user whose preferences decide."
    )


class RankForStateArguments(RankArguments):
    """Arguments of a tool that judges for the user in the graph's state; the model sees no id."""

    user_id: Annotated[Any, InjectedState("user_id")] = None


class PGenRMTool(RefusesInOurWords, BaseTool):
    """Ranks answers for one user; the text is a short ranking, the artifact the evaluation.

    Made by `as_tool`. With `bound_user`, or with `user_from` "config" or "state", the tool
    has no `user_id` argument, so that the model which calls it cannot look into others'
    preferences. Inside a LangGraph run every stage is told on the custom stream.

    The artifact is JSON data, so that every checkpointer gives back what it got;
    `Evaluation.model_validate` reads it.

    A request that cannot be scored, or has arguments of no use, is answered to the model as a tool
    error, in one line. Where the application was to name the user and has not, ConfigurationError is
    raised; so it is by the constructor for a field that is of no use.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str = "rank_answers_for_user"
    description: str = (
        "Ranks candidate answers to a question by how much one particular user would like them, "
        "judging from that user's remembered preferences. Returns the answers best first, with "
        "scores from 1 to 10."
    )
    args_schema: ArgsSchema | None = RankForArguments
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: bool = True
    handle_validation_error: Any = wrong_call
    reward_model: PGenRM = Field(exclude=True, repr=False)
    bound_user: str | None = None
    user_from: UserFrom = "argument"

    def model_post_init(self, context: object, /) -> None:
        """Leave out of the arguments what the model must not choose."""
        super().model_post_init(context)
        if self.args_schema is not RankForArguments:
            return
        if self.bound_user is not None or self.user_from == "config":
            self.args_schema = RankArguments
        elif self.user_from == "state":
            self.args_schema = RankForStateArguments

    def _run(
        self,
        query: str,
        candidates: list[str],
        user_id: object = None,
        *,
        config: RunnableConfig,
        run_manager: CallbackManagerForToolRun | None = None,
    ) -> tuple[str, dict[str, Any]]:
        user = named_user(self.bound_user, self.user_from, user_id, config)
        try:
            evaluation = self.reward_model.score(
                user, query, candidates, on_progress=stream_progress()
            )
        except PGenRMError as error:
            raise ToolException(str(error)) from error
        return describe(evaluation), evaluation.model_dump(mode="json")

    async def _arun(
        self,
        query: str,
        candidates: list[str],
        user_id: object = None,
        *,
        config: RunnableConfig,
        run_manager: AsyncCallbackManagerForToolRun | None = None,
    ) -> tuple[str, dict[str, Any]]:
        user = named_user(self.bound_user, self.user_from, user_id, config)
        try:
            evaluation = await self.reward_model.ascore(
                user, query, candidates, on_progress=stream_progress()
            )
        except PGenRMError as error:
            raise ToolException(str(error)) from error
        return describe(evaluation), evaluation.model_dump(mode="json")


def as_tool(
    reward_model: PGenRM, *, user_id: str | None = None, user_from: UserFrom = "argument"
) -> PGenRMTool:
    """Make a LangChain tool that ranks candidate answers, with the evaluation, as JSON data, as its artifact.

    Args:
        reward_model: What judges.
        user_id: Whom the tool judges for, always.
        user_from: Where that is not given, who names the user. "argument": the model that calls
            the tool, which so can ask about anyone in the memory. "config": the run's
            `config["configurable"]["user_id"]`, or the field `user_id` of its `context`, as a text,
            a whole number or a UUID. "state": the field `user_id` of the graph's state, a text.
            With the last two the tool has no such argument, and the model cannot choose; a call for
            which the application names nobody raises ConfigurationError.

    Raises:
        ConfigurationError: `reward_model` is no PGenRM, or `user_id` no usable id.
    """
    refuse_other(reward_model, PGenRM, "reward_model", "a PGenRM")
    refuse_unknown_source(user_from)
    if user_id is not None:
        user_id = valid_user_id(user_id)
    return PGenRMTool(reward_model=reward_model, bound_user=user_id, user_from=user_from)
