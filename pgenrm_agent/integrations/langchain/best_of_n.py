"""A chat model that answers n times and keeps what one user would like best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from langchain_core.caches import BaseCache
from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    BaseRunManager,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, ChatMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import ConfigDict, Field

from pgenrm_agent.chat_messages import question_in
from pgenrm_agent.engines.chat_errors import keys_of, words_of
from pgenrm_agent.engines.masking import without_key
from pgenrm_agent.errors import ConfigurationError, PGenRMError
from pgenrm_agent.integrations.langchain.refusals import RefusesInOurWords
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Candidate, Evaluation, Message
from pgenrm_agent.user_ids import valid_user_id

__all__ = ["BestOfN"]


class BestOfN(RefusesInOurWords, BaseChatModel):
    """Wraps a chat model: samples `n` answers, scores them, returns the user's best.

    What the choice rests on is in the message's `response_metadata["pgenrm"]`: `n`, the `index` of
    the answer taken, and the `evaluation` as JSON data. There is no evaluation, but a `reason`, when
    there is nothing to choose from: all answers are the same, or the first one calls a tool (an
    agent's step, not an answer to a user). So it is when the answers could not be judged: the first
    that can be used is returned then. Answers that failed or cannot be judged are left out, and
    `left_out` says why. Its usage is that of all n answers.

    Who streams a graph's messages gets the answer that was taken, and not the n drafts. LangChain's
    global cache is not used, nor by a chat model that is wrapped: what is best depends on what is
    remembered, and n answers out of a cache are the same.

    Raises ConfigurationError when it is made with a field that is of no use, nobody is named or no
    question is in the messages, and what the wrapped model raises where every answer fails.

    Attributes:
        model: Any chat model, or a chat model with tools bound.
        reward_model: What judges.
        n: Answers to sample, in one batch. Equal answers are scored once.
        user_id: Whose taste counts; a call can name another:
            `model.invoke(messages, user_id="bob")`, `model.bind(user_id="bob")`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: Runnable[LanguageModelInput, AIMessage]
    reward_model: PGenRM = Field(exclude=True, repr=False)
    n: Annotated[int, Field(ge=1, le=64)] = 4
    user_id: str | None = None
    cache: BaseCache | bool | None = Field(default=False, exclude=True)

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        # Of a cache that somebody names all the same: no answer of one user is another's.
        return {"model": str(self.model), "n": self.n, "user_id": self.user_id}

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
        asked: list[LanguageModelInput] = [messages] * self.n
        config = _heard_by(run_manager)
        answers = _Answers.of(
            _uncached(self.model).batch(
                asked, config, return_exceptions=True, **_with_stop(stop, kwargs)
            ),
            keys=keys_of(self.model),
        )
        texts, reason = answers.candidates()
        if reason is not None:
            return answers.result(answers.first, reason=reason)
        try:
            return answers.best(
                self.reward_model.score(
                    user, query, texts, conversation=conversation, config=config
                )
            )
        except PGenRMError as error:
            return answers.unjudged(error)

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
        asked: list[LanguageModelInput] = [messages] * self.n
        config = _heard_by(run_manager)
        answers = _Answers.of(
            await _uncached(self.model).abatch(
                asked, config, return_exceptions=True, **_with_stop(stop, kwargs)
            ),
            keys=keys_of(self.model),
        )
        texts, reason = answers.candidates()
        if reason is not None:
            return answers.result(answers.first, reason=reason)
        try:
            return answers.best(
                await self.reward_model.ascore(
                    user, query, texts, conversation=conversation, config=config
                )
            )
        except PGenRMError as error:
            return answers.unjudged(error)

    def _user(self, named: str | None) -> str:
        user = self.user_id if named is None else named
        if user is None:
            raise ConfigurationError(
                "no user is named: pass user_id to BestOfN, or to the call: invoke(..., "
                "user_id=...)"
            )
        return valid_user_id(user)


@dataclass(frozen=True)
class _Answers:
    """The n answers by number. left_out: why an answer takes no part."""

    n: int
    came: Mapping[int, AIMessage]
    left_out: Mapping[int, str]

    @classmethod
    def of(cls, outcomes: Sequence[AIMessage | Exception], keys: Sequence[str]) -> _Answers:
        """Raises the first error where every answer failed. keys: what no reason may hold a part of."""
        came = {i: answer for i, answer in enumerate(outcomes) if isinstance(answer, AIMessage)}
        failed = {i: error for i, error in enumerate(outcomes) if isinstance(error, Exception)}
        if not came:
            raise next(iter(failed.values()))
        left_out = {i: _reason(error, keys) for i, error in failed.items()}
        left_out |= {i: "it has no text" for i, answer in came.items() if not _text(answer).strip()}
        left_out |= {i: "it calls a tool" for i, answer in came.items() if answer.tool_calls}
        for i, answer in came.items():
            unusable = Candidate(id="answer", text=_text(answer)).unusable
            if i not in left_out and unusable:
                left_out[i] = unusable
        return cls(len(outcomes), came, left_out)

    @property
    def first(self) -> int:
        """The number of the first answer that can be used, else of the first that came."""
        if self._steps_first:
            return min(self.came)
        return min(self._usable, default=min(self.came))

    def candidates(self) -> tuple[list[str], str | None]:
        """Return the different answers, in order; or why there is nothing to choose from."""
        if self._steps_first:
            return [], "the first answer calls a tool"
        different = list(dict.fromkeys(self._usable.values()))
        if not different:
            return [], "no answer has a text"
        if len(different) == 1 and self.n > 1:
            alone = "only one answer can be used" if len(self._usable) == 1 else None
            return [], alone or "the answers are all the same"
        return different, None

    def best(self, evaluation: Evaluation) -> ChatResult:
        """Return the answer that is the best in an evaluation of the candidates."""
        if not evaluation.ranking:
            return self.result(self.first, reason="no chain has scored enough of the answers")
        places = {
            candidate.id: place for place, candidate in enumerate(evaluation.request.candidates)
        }
        text = self.candidates()[0][places[evaluation.ranking[0]]]
        index = next(i for i, usable in self._usable.items() if usable == text)
        return self.result(index, evaluation=evaluation.model_dump(mode="json"))

    def unjudged(self, error: PGenRMError) -> ChatResult:
        """Return the first answer that can be used: all are paid for, and none could be judged."""
        return self.result(self.first, reason=f"the answers could not be judged: {error}")

    def result(self, index: int, **why: object) -> ChatResult:
        """Return an answer, with what the choice rests on and what all of them cost."""
        usage: UsageMetadata | None = None
        for answer in self.came.values():
            usage = add_usage(usage, answer.usage_metadata)
        chosen = self.came[index]
        basis: dict[str, object] = {"n": self.n, "index": index, **why}
        if self.left_out:
            basis["left_out"] = {str(i): reason for i, reason in sorted(self.left_out.items())}
        counted = any(answer.usage_metadata for answer in self.came.values())
        message = chosen.model_copy(
            update={
                "response_metadata": {**chosen.response_metadata, "pgenrm": basis},
                "usage_metadata": usage if counted else None,
            }
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    @property
    def _steps_first(self) -> bool:
        return bool(self.came[min(self.came)].tool_calls)

    @property
    def _usable(self) -> dict[int, str]:
        return {i: _text(answer) for i, answer in self.came.items() if i not in self.left_out}


def _reason(error: Exception, keys: Sequence[str]) -> str:
    return without_key(f"{type(error).__name__}: {words_of(error).text}", keys)


def _heard_by(run: BaseRunManager | None) -> RunnableConfig:
    """Let whoever listens to a call hear what is asked within it; streams of messages do not."""
    if run is None:
        return {}
    children = CallbackManager(handlers=[], parent_run_id=run.run_id)
    children.set_handlers(run.inheritable_handlers)
    children.add_tags([*run.inheritable_tags, "nostream"])
    children.add_metadata(run.inheritable_metadata)
    return {"callbacks": children}


def _uncached(
    model: Runnable[LanguageModelInput, AIMessage],
) -> Runnable[LanguageModelInput, AIMessage]:
    """Let a chat model answer anew each time: out of a cache all n answers would be the same."""
    if isinstance(model, BaseChatModel):
        cached = get_llm_cache() if model.cache is None else model.cache
        # A copy only where one is needed: it would begin anew where a model counts its calls.
        return model.model_copy(update={"cache": False}) if cached else model
    if isinstance(model, RunnableBinding):
        return model.model_copy(update={"bound": _uncached(model.bound)})
    return model


def _with_stop(stop: list[str] | None, others: dict[str, Any]) -> dict[str, Any]:
    return others if stop is None else {**others, "stop": stop}


def _question(messages: Sequence[BaseMessage]) -> tuple[str, tuple[Message, ...]]:
    """The last thing the user said, and the turns around it: what tools returned is among them."""
    query, conversation = question_in([_as_chat_message(message) for message in messages])
    if not query.strip():
        raise ConfigurationError(
            "the last message of the user is blank, so there is no question to judge answers by"
        )
    return query, conversation


def _as_chat_message(message: BaseMessage) -> dict[str, object]:
    role = message.role if isinstance(message, ChatMessage) else message.type
    calls = message.tool_calls if isinstance(message, AIMessage) else []
    content = message.content if message.content or calls else ""
    return {"role": role, "content": content, "name": message.name, "tool_calls": calls}


def _text(answer: AIMessage) -> str:
    return str(answer.text)
