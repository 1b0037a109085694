"""A chat model that answers n times and keeps what one user would like best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import ConfigDict, Field, SkipValidation

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Evaluation, Message

__all__ = ["BestOfN"]


class BestOfN(BaseChatModel):
    """Wraps a chat model: samples `n` answers, scores them, returns the user's best.

    What the choice rests on is in the message's `response_metadata["pgenrm"]`: `n`, the `index` of
    the answer taken, and the `evaluation` as JSON data. There is no evaluation, but a `reason`, when
    there is nothing to choose from: all answers are the same, or the first one calls a tool (an
    agent's step, not an answer to a user). Its usage is that of all n answers.

    Raises ConfigurationError when nobody is named or no question is in the messages, what the
    wrapped model raises, and what `PGenRM.score` raises.

    Attributes:
        model: Any chat model, or a chat model with tools bound.
        reward_model: What judges.
        n: Answers to sample, in one batch. Equal answers are scored once.
        user_id: Whose taste counts; a call can name another:
            `model.invoke(messages, user_id="bob")`, `model.bind(user_id="bob")`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: SkipValidation[Runnable[LanguageModelInput, AIMessage]]
    reward_model: SkipValidation[PGenRM] = Field(exclude=True, repr=False)
    n: Annotated[int, Field(ge=1, le=64)] = 4
    user_id: str | None = None

    @property
    def _llm_type(self) -> str:
        return "pgenrm-best-of-n"

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the same on the wrapped model with `tools` bound to it."""
        if not isinstance(self.model, BaseChatModel):
            raise ConfigurationError(
                f"the wrapped model is a {type(self.model).__name__} and takes no tools: bind them "
                "before wrapping it"
            )
        bound = self.model.bind_tools(tools, tool_choice=tool_choice, **kwargs)
        return self.model_copy(update={"model": bound})

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        user_id: str | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        user = self._user(user_id)
        query, conversation = _question(messages)
        answers = self.model.batch([messages] * self.n, **_with_stop(stop, kwargs))
        texts, reason = _candidates(answers)
        if reason is not None:
            return _result(answers, 0, {"reason": reason})
        evaluation = self.reward_model.score(user, query, texts, conversation=conversation)
        return self._chosen(answers, texts, evaluation)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        user_id: str | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        user = self._user(user_id)
        query, conversation = _question(messages)
        answers = await self.model.abatch([messages] * self.n, **_with_stop(stop, kwargs))
        texts, reason = _candidates(answers)
        if reason is not None:
            return _result(answers, 0, {"reason": reason})
        evaluation = await self.reward_model.ascore(user, query, texts, conversation=conversation)
        return self._chosen(answers, texts, evaluation)

    def _user(self, named: str | None) -> str:
        user = named or self.user_id
        if not user:
            raise ConfigurationError(
                "no user is named: pass user_id to BestOfN, or to the call: invoke(..., "
                "user_id=...)"
            )
        return user

    def _chosen(
        self, answers: Sequence[AIMessage], texts: Sequence[str], evaluation: Evaluation
    ) -> ChatResult:
        best = {candidate.id: candidate.text for candidate in evaluation.request.candidates}[
            evaluation.ranking[0]
        ]
        index = next(i for i, answer in enumerate(answers) if _text(answer) == best)
        return _result(answers, index, {"evaluation": evaluation.model_dump(mode="json")})


def _with_stop(stop: list[str] | None, others: dict[str, Any]) -> dict[str, Any]:
    return others if stop is None else {**others, "stop": stop}


def _question(messages: Sequence[BaseMessage]) -> tuple[str, list[Message]]:
    """The last thing the user wrote, and the turns before it that are text."""
    asked = [i for i, message in enumerate(messages) if isinstance(message, HumanMessage)]
    if not asked or not messages[asked[-1]].text.strip():
        raise ConfigurationError(
            "the messages hold no question of a user, so there is nothing to judge answers by: "
            "the last human message has to be a text"
        )
    roles = {HumanMessage: "user", AIMessage: "assistant", SystemMessage: "system"}
    before = [
        Message.model_validate({"role": role, "content": message.text})
        for message in messages[: asked[-1]]
        for kind, role in roles.items()
        if isinstance(message, kind) and message.text.strip()
    ]
    return messages[asked[-1]].text, before


def _candidates(answers: Sequence[AIMessage]) -> tuple[list[str], str | None]:
    """The different answers, in order; or why there is nothing to choose from."""
    if answers[0].tool_calls:
        return [], "the first answer calls a tool"
    different = dict.fromkeys(
        text for answer in answers if not answer.tool_calls and (text := _text(answer)).strip()
    )
    if not different:
        return [], "no answer has a text"
    if len(different) == 1 and len(answers) > 1:
        return [], "the answers are all the same"
    return list(different), None


def _text(answer: AIMessage) -> str:
    return str(answer.text)


def _result(answers: Sequence[AIMessage], index: int, why: dict[str, object]) -> ChatResult:
    usage: UsageMetadata | None = None
    for answer in answers:
        usage = add_usage(usage, answer.usage_metadata)
    metadata = {
        **answers[index].response_metadata,
        "pgenrm": {"n": len(answers), "index": index, **why},
    }
    message = answers[index].model_copy(
        update={
            "response_metadata": metadata,
            "usage_metadata": usage if any(answer.usage_metadata for answer in answers) else None,
        }
    )
    return ChatResult(generations=[ChatGeneration(message=message)])
