"""The chat engine: any LangChain chat model, one request a sample.

For models that are reached in no other way. A chat model cannot extend a begun answer, and no
LangChain interface promises anything about seeds.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pgenrm_agent.background_loop import BackgroundLoop
from pgenrm_agent.engines.answers import (
    Answer,
    Usage,
    check_read_whole,
    cut_short,
    read_answers,
    read_message,
    share_tokens,
)
from pgenrm_agent.engines.asking import Asking, Gathering, Pace, asked_again
from pgenrm_agent.engines.chat_errors import fault_of, keys_of
from pgenrm_agent.engines.confidential import counted_span, silent, unseen, unwatched
from pgenrm_agent.engines.dialect import METHOD, Dialect, Request
from pgenrm_agent.engines.identity import identity
from pgenrm_agent.engines.masking import without_credentials
from pgenrm_agent.engines.protocol import Capabilities, Completion, Prompt, SamplingParams
from pgenrm_agent.engines.server_errors import (
    Advice,
    ServerFault,
    ServerWords,
)
from pgenrm_agent.errors import ConfigurationError, PGenRMError
from pgenrm_agent.schema import Message

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.runnables import RunnableConfig

__all__ = ["ChatModelEngine"]

LIMIT_FIELDS = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "num_predict",
    "max_new_tokens",
)
"""What integrations call the most new tokens; the first one a model has is set."""
ADDRESS_FIELDS = (
    "base_url",
    "openai_api_base",
    "api_base",
    "anthropic_api_url",
    "azure_endpoint",
    "endpoint_url",
    "endpoint",
)
"""What integrations call the address of their server."""
FINISH_FIELDS = (
    "finish_reason",
    "stop_reason",
    "done_reason",
    "stopReason",
    "finishReason",
    "status",
)
"""What integrations call the reason for which an answer ended."""
NAME_FIELDS = ("model_name", "model", "model_id", "deployment_name", "deployment_id")
"""What integrations call the model, or the deployment that decides it."""
METHODS = ("json_schema", "function_calling", "json_mode")
"""Ways of `with_structured_output`, the surest first."""


class ChatModelEngine:
    """A LangChain chat model.

    chat_model: the model itself, before `bind`, `with_retry` or the like. Repetitions and time-outs
        are its own.
    concurrency: most requests in flight, over all callers.
    requests_per_minute: most requests begun in a minute, evenly spread; None for no cap.
    max_tokens: new tokens a sample may take, thinking included, in place of what a call asks for.
    retries: further attempts after an error that came with status 200, or a rate limit that came with
        400, 403 or 413, which the model's own repetitions do not see.

    Temperature, top_p and the token limit are set on a copy of the model, for each of them that the
    model has a field for; a model without such a field keeps its own behavior. Stop strings are
    given to the model and applied to its answer as well, since not every integration knows them.
    An answer is held to a schema by `response_format` (ChatOpenAI and its kin) or by
    `with_structured_output`; a model that has neither does not hold to one.

    What a server refuses by name is left out or said in another way from then on, as in the OpenAI
    engine.

    Of confidential prompts, no callback, tracer, cache or log sees anything; traces have a span with
    counts for them.

    Raises:
        ConfigurationError: `chat_model` is no chat model, or a number is out of its range.
    """

    def __init__(
        self,
        chat_model: BaseChatModel,
        *,
        concurrency: int = 8,
        requests_per_minute: float | None = None,
        max_tokens: int | None = None,
        retries: int = 2,
    ) -> None:
        from langchain_core.language_models import BaseChatModel

        if not isinstance(chat_model, BaseChatModel):
            raise ConfigurationError(
                f"{type(chat_model).__name__} is no LangChain chat model: pass the model itself,"
                " before .bind(...), .with_retry(...) or .with_structured_output(...)"
            )
        if max_tokens is not None and max_tokens < 1:
            raise ConfigurationError(f"max_tokens is {max_tokens}: pass at least 1")
        self._chat_model = chat_model
        self._max_tokens = max_tokens
        self._asking = Asking(
            self.name,
            Dialect(limit=_limits(chat_model), schema_ways=_schema_ways(chat_model)),
            pace=Pace(concurrency, requests_per_minute),
            retries=retries,
            advice=Advice(
                key="check the chat model's key",
                timeout="raise its timeout",
                unreachable="check its base_url",
                overload="lower concurrency, or set requests_per_minute",
                missing="check the chat model's model and base_url",
            ),
            keys=keys_of(chat_model),
        )
        self._loop = BackgroundLoop(self.name)

    @property
    def name(self) -> str:
        """Name the engine in results and errors."""
        return f"chat:{next(iter(self.models), type(self._chat_model).__name__)}"

    @property
    def models(self) -> tuple[str, ...]:
        """The model's name; none where the chat model has no field for it."""
        named = _first_text(self._chat_model, NAME_FIELDS)
        return (named,) if named else ()

    @property
    def source(self) -> str:
        """What is asked: the chat model's class, model and address, and a digest of its settings.

        Empty where nothing names the model.
        """
        from langchain_core.language_models import BaseChatModel

        if not self.models:
            return ""
        kind = type(self._chat_model)
        settings = {
            name: getattr(self._chat_model, name, None)
            for name in kind.model_fields
            if name not in BaseChatModel.model_fields
        }
        settings |= self._chat_model.model_extra or {}
        return identity(
            kind.__name__,
            *self.models,
            without_credentials(_first_text(self._chat_model, ADDRESS_FIELDS)),
            max_tokens=self._max_tokens,
            chat_model=settings,
        )

    @property
    def capabilities(self) -> Capabilities:
        """Say what it can do."""
        return Capabilities(
            continues=False, seeds="none", json_schema=bool(self._asking.dialect.schema_ways)
        )

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        """Sample every prompt n times; see `Engine`. Seeds are not used.

        Raises, where every sample fails:
            ConfigurationError: a prompt has a begun answer, or the model refuses the key.
            SchemaRefused: the model knows no way to hold to a schema.
            EngineTimeout, EngineUnavailable, EngineError: the model failed.
        """
        if any(prompt.partial for prompt in prompts):
            raise ConfigurationError(
                f"{self.name} cannot continue a begun answer: leave Prompt.partial empty, or use"
                " the transformers, vllm or openai engine"
            )
        if self._max_tokens is not None:
            params = params.model_copy(update={"max_tokens": self._max_tokens})
        hidden = [place for place, prompt in enumerate(prompts) if prompt.confidential]
        async with counted_span(sum(prompts[place].n for place in hidden)) as counts:
            samples = await self._loop.run(lambda: self._sample_all(prompts, params))
            unseen_samples = [sample for place in hidden for sample in samples[place]]
            counts["whole"] = sum(sample.finish_reason == "stop" for sample in unseen_samples)
            counts["prompt_tokens"] = sum(sample.prompt_tokens for sample in unseen_samples)
            counts["completion_tokens"] = sum(sample.tokens for sample in unseen_samples)
        return samples

    async def aclose(self) -> None:
        """Cancel what is in flight. The chat model itself is its owner's. Again: nothing happens."""
        await asyncio.to_thread(self._loop.close)

    # --- on the background loop ---

    async def _sample_all(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        gathering = Gathering(prompts)
        work = [
            gathering.put(place, number, 1, self._sample(prompt, params, gathering))
            for place, prompt in enumerate(prompts)
            for number in range(prompt.n)
        ]
        return await gathering.finish(work, params.timeout_s)

    async def _sample(
        self, prompt: Prompt, params: SamplingParams, gathering: Gathering
    ) -> list[Completion]:
        request: Request = {
            "messages": prompt.messages,
            "temperature": params.temperature,
            "max_tokens": params.max_tokens,
        }
        if params.top_p < 1:
            request["top_p"] = params.top_p
        if params.stop:
            request["stop"] = list(params.stop)
        if prompt.json_schema is not None:
            request["json_schema"] = prompt.json_schema
        told, (answer, usage) = await self._asking.ask(
            request,
            partial(self._send, confidential=prompt.confidential),
            gathering,
            confidential=prompt.confidential,
        )
        check_read_whole(prompt.messages, usage)
        [tokens] = share_tokens([answer], usage.completion)
        sample = self._asking.sample(answer, params, tokens=tokens, prompt_tokens=usage.prompt)
        if "stop" in told and answer.ended == "stop" and answer.is_only_thought:
            self._asking.stop_here("it ends the thinking, too")
            return await asked_again(self._sample(prompt, params, gathering), sample)
        return [sample]

    async def _send(self, request: Request, *, confidential: bool) -> tuple[Answer, Usage]:
        """Make one attempt. Raises ServerFault."""
        if not confidential:
            return await self._ask_model(self._chat_model, request, None)
        model = unwatched(self._chat_model)
        return await unseen(lambda: self._ask_model(model, request, {"callbacks": [silent()]}))

    async def _ask_model(
        self, model: BaseChatModel, request: Request, config: RunnableConfig | None
    ) -> tuple[Answer, Usage]:
        messages = request["messages"]
        assert isinstance(messages, tuple)
        asked = [_langchain(message) for message in messages]
        model = self._set_up(model, request)
        form = request.get("response_format")
        further = {name: request[name] for name in ("stop",) if name in request}
        try:
            if isinstance(form, Mapping) and str(form["type"]).startswith(METHOD):
                answer = await _ask_structured(model, asked, form, config)
            else:
                if form is not None:
                    further["response_format"] = form
                answer = await model.ainvoke(asked, config, **further)  # type: ignore[arg-type]
        except (PGenRMError, ServerFault):
            raise
        except Exception as error:
            cut = getattr(error, "completion", None)
            fault = fault_of(error)
            if fault.is_about_reached_limit:
                [cut_answer], usage = cut_short(request)
                return cut_answer, usage
            if cut is None:
                raise fault from error
            # The client of OpenAI raises where an answer with a schema is not whole.
            [cut_answer, *_], usage = read_answers(cut.model_dump())
            return cut_answer, usage
        return _read(answer)

    def _set_up(self, model: BaseChatModel, request: Request) -> BaseChatModel:
        """The model with what the request asks for, as far as it has fields for it.

        Fields of a copy rather than arguments of the call: an integration sends its fields to its
        provider under the right names, and not all of them accept unknown arguments.
        """
        fields = type(self._chat_model).model_fields
        dropped = self._asking.dialect.dropped
        wanted: dict[str, object] = {
            name: request.get(name)
            for name in ("temperature", "top_p")
            if name in fields and (name in request or name in dropped)
        }
        own = next((name for name in LIMIT_FIELDS if name in fields), None)
        first, *others = _limits(self._chat_model) or ("",)
        if own is not None:
            if first in request:
                wanted[own] = request[first]
            elif first not in self._asking.dialect.limit:
                wanted[own] = None
        for name in others:
            if name in request:
                body = getattr(self._chat_model, "extra_body", None) or {}
                wanted["extra_body"] = {**body, name: request[name]}
        return model.model_copy(update=wanted) if wanted else model


async def _ask_structured(
    model: BaseChatModel,
    messages: list[BaseMessage],
    form: Mapping[str, object],
    config: RunnableConfig | None,
) -> AIMessage:
    method = str(form["type"]).removeprefix(METHOD)
    schema = form["schema"]
    assert isinstance(schema, Mapping)
    named = {"title": "answer", "description": "The answer.", **schema}
    options = {"method": method} if method else {}
    try:
        structured = model.with_structured_output(named, include_raw=True, **options)
    except (NotImplementedError, ValueError, TypeError, ImportError) as error:
        words = ServerWords(str(error), everything=str(error), fields=("response_format",))
        raise ServerFault(words, status=400) from error
    result = await structured.ainvoke(messages, config)
    raw: AIMessage = result["raw"]  # type: ignore[index]
    return raw


def _first_text(model: BaseChatModel, fields: Sequence[str]) -> str:
    """The first of the fields that holds text; "" if none does."""
    values = (getattr(model, field, None) for field in fields)
    return next((value for value in values if isinstance(value, str) and value), "")


def _limits(model: BaseChatModel) -> tuple[str, ...]:
    """The names of the token limit that can be told to the model, its own first."""
    fields = type(model).model_fields
    if not any(name in fields for name in LIMIT_FIELDS):
        return ()
    if _is_openai(model) and "extra_body" in fields:
        return ("max_completion_tokens", "max_tokens")
    return ("max_tokens",)


def _is_openai(model: BaseChatModel) -> bool:
    return any(kind.__name__ == "BaseChatOpenAI" for kind in type(model).__mro__)


def _schema_ways(model: BaseChatModel) -> tuple[str, ...]:
    """The ways in which an integration can hold an answer to a schema, by what it has."""
    from langchain_core.language_models import BaseChatModel

    kind = type(model)
    arguments = {
        *inspect.signature(kind._generate).parameters,
        *inspect.signature(kind._agenerate).parameters,
    }
    if _is_openai(model) or "response_format" in arguments:
        return ("json_schema", "json_object")
    if kind.with_structured_output is not BaseChatModel.with_structured_output:
        parameter = inspect.signature(kind.with_structured_output).parameters.get("method")
        offered = "" if parameter is None else str(parameter.annotation)
        named = tuple(f"{METHOD}{method}" for method in METHODS if method in offered)
        return named or (METHOD,)
    return () if kind.bind_tools is BaseChatModel.bind_tools else (METHOD,)


def _langchain(message: Message) -> BaseMessage:
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

    if message.role == "system":
        return SystemMessage(message.content)
    if message.role == "user":
        return HumanMessage(message.content)
    return AIMessage(message.content)


def _read(message: AIMessage) -> tuple[Answer, Usage]:
    metadata = message.response_metadata
    incomplete = metadata.get("incomplete_details")
    ends = [incomplete.get("reason")] if isinstance(incomplete, Mapping) else []
    ends += [metadata.get(name) for name in FINISH_FIELDS]
    finish = next((str(end) for end in ends if end), "")
    content: object = message.content
    if message.tool_calls:
        content = json.dumps(message.tool_calls[0]["args"], ensure_ascii=False)
    elif message.invalid_tool_calls:
        content = message.invalid_tool_calls[0]["args"] or ""
    fields = {**message.additional_kwargs}
    if isinstance(message.content, list) and content is not message.content:
        fields["thinking_blocks"] = [
            block
            for block in message.content
            if isinstance(block, Mapping) and block.get("type") != "text"
        ]
    try:
        answer = read_message(content, fields, finish=finish)
    except ValueError as error:
        raise ServerFault(ServerWords(str(error)), kind="senseless", retried=True) from None
    usage = message.usage_metadata
    return answer, Usage(usage["output_tokens"], usage["input_tokens"]) if usage else Usage()
