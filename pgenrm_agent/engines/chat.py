"""The chat engine: any LangChain chat model, one request a sample.

For models that are reached in no other way. A chat model cannot extend a begun answer, and no
LangChain interface promises anything about seeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pgenrm_agent.background_loop import BackgroundLoop, all_or_cancel
from pgenrm_agent.engines.protocol import Capabilities, Completion, Prompt, SamplingParams
from pgenrm_agent.errors import (
    ConfigurationError,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    PGenRMError,
)
from pgenrm_agent.schema import Message

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage

__all__ = ["ChatModelEngine"]

LIMIT_FIELDS = ("max_tokens", "max_output_tokens", "num_predict", "max_new_tokens")
"""What integrations call the most new tokens; the first one a model has is set."""
CUT_SHORT = {"length", "max_tokens", "max_output_tokens", "content_filter"}
"""Finish reasons, in lower case, by which integrations report an answer that is not whole."""


class ChatModelEngine:
    """A LangChain chat model.

    chat_model: the model itself, before `bind`, `with_retry` or the like. Retries and time-outs are
        its own.
    concurrency: most requests in flight, over all callers.

    Temperature, top_p and the token limit are set on a copy of the model, for each of them that the
    model has a field for; a model without such a field keeps its own behavior. Stop strings are
    given to the model and applied to its answer as well, since not every integration knows them.

    Raises:
        ConfigurationError: `chat_model` is no chat model, or concurrency is less than 1.
    """

    def __init__(self, chat_model: BaseChatModel, *, concurrency: int = 8) -> None:
        from langchain_core.language_models import BaseChatModel

        if not isinstance(chat_model, BaseChatModel):
            raise ConfigurationError(
                f"{type(chat_model).__name__} is no LangChain chat model: pass the model itself,"
                " before .bind(...), .with_retry(...) or .with_structured_output(...)"
            )
        if concurrency < 1:
            raise ConfigurationError(f"concurrency is {concurrency}: pass at least 1")
        self._chat_model = chat_model
        self._slots = asyncio.Semaphore(concurrency)
        self._loop = BackgroundLoop(self.name)

    @property
    def name(self) -> str:
        for field in ("model_name", "model", "model_id"):
            named = getattr(self._chat_model, field, None)
            if isinstance(named, str) and named:
                return f"chat:{named}"
        return f"chat:{type(self._chat_model).__name__}"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(continues=False, seeds="none")

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        """Sample every prompt n times; see `Engine`. Seeds are not used.

        Raises:
            ConfigurationError: a prompt has a begun answer, or the model refuses the key.
            EngineTimeout, EngineUnavailable, EngineError: the model failed.
        """
        if any(prompt.partial for prompt in prompts):
            raise ConfigurationError(
                f"{self.name} cannot continue a begun answer: leave Prompt.partial empty, or use"
                " the transformers, vllm or openai engine"
            )
        if not prompts:
            return []
        return await self._loop.run(lambda: self._sample_all(prompts, params))

    async def aclose(self) -> None:
        """Cancel what is in flight. The chat model stays its owner's to close."""
        await asyncio.to_thread(self._loop.close)

    # --- on the background loop ---

    async def _sample_all(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        model = self._set_up(params)
        answers = iter(
            await all_or_cancel(
                [
                    self._ask(model, [_langchain(message) for message in prompt.messages], params)
                    for prompt in prompts
                    for _ in range(prompt.n)
                ]
            )
        )
        return [[next(answers) for _ in range(prompt.n)] for prompt in prompts]

    def _set_up(self, params: SamplingParams) -> BaseChatModel:
        """The model with these sampling parameters, as far as it has them.

        Fields of a copy rather than arguments of the call: an integration sends its fields to its
        provider under the right names, and not all of them accept unknown arguments.
        """
        fields = type(self._chat_model).model_fields
        wanted: dict[str, object] = {}
        if "temperature" in fields:
            wanted["temperature"] = params.temperature
        if "top_p" in fields and params.top_p < 1:
            wanted["top_p"] = params.top_p
        limit = next((name for name in LIMIT_FIELDS if name in fields), None)
        if limit is not None:
            wanted[limit] = params.max_tokens
        return self._chat_model.model_copy(update=wanted) if wanted else self._chat_model

    async def _ask(
        self, model: BaseChatModel, messages: list[BaseMessage], params: SamplingParams
    ) -> Completion:
        async with self._slots:
            try:
                answer = await model.ainvoke(messages, stop=list(params.stop) or None)
            except PGenRMError:
                raise
            except Exception as error:
                raise self._explained(error) from error
        return _completion(answer, params.stop)

    def _explained(self, error: Exception) -> PGenRMError:
        """Integrations have their own exceptions; most carry an HTTP status, time-outs a name."""
        lines = str(error).strip().splitlines()
        said = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
        status = getattr(error, "status_code", None)
        if status in {401, 403}:
            # The provider's message may quote the key.
            return ConfigurationError(
                f"{self.name} refuses the API key (HTTP {status}): check the chat model's key"
            )
        if isinstance(error, TimeoutError) or "timeout" in type(error).__name__.lower():
            return EngineTimeout(f"{self.name} did not answer in time ({said}): raise its timeout")
        if isinstance(error, ConnectionError) or "connect" in type(error).__name__.lower():
            return EngineUnavailable(f"{self.name} cannot be reached ({said}): check its base_url")
        if status in {404, 429, 502, 503, 504}:
            return EngineUnavailable(f"{self.name} is unavailable (HTTP {status}; {said})")
        if status in {400, 413, 422}:
            return ConfigurationError(f"{self.name} refuses the request (HTTP {status}; {said})")
        return EngineError(f"{self.name} failed ({said})")


def _langchain(message: Message) -> BaseMessage:
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

    if message.role == "system":
        return SystemMessage(message.content)
    if message.role == "user":
        return HumanMessage(message.content)
    return AIMessage(message.content)


def _completion(answer: AIMessage, stops: Sequence[str]) -> Completion:
    text = str(answer.text)
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    usage = answer.usage_metadata
    whole = text[: min(ends)] if ends else text
    return Completion(
        text=whole,
        # Words stand in where the model reports no usage.
        tokens=usage["output_tokens"] if usage else len(whole.split()),
        prompt_tokens=usage["input_tokens"] if usage else 0,
        finish_reason="length" if not ends and _cut_short(answer.response_metadata) else "stop",
    )


def _cut_short(metadata: Mapping[str, object]) -> bool:
    reasons = (metadata.get(key) for key in ("finish_reason", "stop_reason", "done_reason"))
    return any(str(reason).lower() in CUT_SHORT for reason in reasons)
