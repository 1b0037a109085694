"""Chat models that are not ChatOpenAI's kin: how an answer is held to a schema, and what is kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Literal

import pytest
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda

from pgenrm_agent.engines.chat import ChatModelEngine
from pgenrm_agent.engines.protocol import Completion, Prompt, SamplingParams, SchemaRefused
from pgenrm_agent.errors import ConfigurationError, EngineUnavailable
from pgenrm_agent.schema import Message

SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"persona": {"type": "string", "maxLength": 300}},
    "required": ["persona"],
}
PROMPT = Prompt(
    messages=(Message(role="system", content="Judge."), Message(role="user", content="Hello?")),
    json_schema=SCHEMA,
)
USAGE: Any = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
CALL: Any = {"name": "answer", "args": {"persona": "Short."}, "id": "1", "type": "tool_call"}

Answer = Callable[[list[BaseMessage], dict[str, Any]], AIMessage]


class Scripted(BaseChatModel):
    """A fake integration; `answer` is told the messages and what was bound."""

    answer: Any
    seen: list[dict[str, Any]]
    temperature: float | None = None

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        bound = {**kwargs, "stop": stop, "roles": [message.type for message in messages]}
        self.seen.append(bound)
        message = self.answer(messages, bound)
        return ChatResult(generations=[ChatGeneration(message=message)])


class WithTools(Scripted):
    """It calls tools, and nothing more: LangChain's own `with_structured_output` uses them."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=tools)


class WithMethods(WithTools):
    """It has a method for schemas beside its tools, as most integrations have."""

    def with_structured_output(  # type: ignore[override]
        self,
        schema: Any,
        *,
        method: Literal["function_calling", "json_schema"] = "function_calling",
        include_raw: bool = False,
    ) -> Runnable[Any, Any]:
        assert include_raw
        how = {"form": schema} if method == "json_schema" else {"tools": [schema]}
        raw = self.bind(**how)

        async def structured(messages: Any) -> dict[str, Any]:
            return {"raw": await raw.ainvoke(messages), "parsed": None, "parsing_error": None}

        return RunnableLambda(structured)


async def sampled(
    model: BaseChatModel, prompt: Prompt = PROMPT, **options: Any
) -> tuple[list[Completion], ChatModelEngine]:
    engine = ChatModelEngine(model, **options)
    try:
        [samples] = await engine.sample([prompt], SamplingParams(max_tokens=64))
    finally:
        await engine.aclose()
    return samples, engine


async def test_half_a_character_in_arguments_is_replaced() -> None:
    halved: Any = {**CALL, "args": {"persona": "Short \ud83d."}}
    model = WithTools(seen=[], answer=lambda *_: AIMessage("", tool_calls=[halved]))
    [[sample], _] = await sampled(model)
    assert sample.text == '{"persona": "Short \ufffd."}'
    whole = Completion(text="\ud83d\ude00", reasoning="\ude00", detail="\ud83d", tokens=1)
    assert (whole.text, whole.reasoning, whole.detail) == ("\U0001f600", "\ufffd", "\ufffd")


async def test_a_tool_calls_arguments_are_the_answer() -> None:
    thinking = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "I call it."}]
    model = WithTools(
        seen=[],
        answer=lambda *_: AIMessage(thinking, tool_calls=[CALL], usage_metadata=USAGE),  # type: ignore[arg-type]
    )
    assert ChatModelEngine(model).capabilities.json_schema
    [sample], _ = await sampled(model)
    assert json.loads(sample.text) == {"persona": "Short."}
    assert (sample.reasoning, sample.tokens, sample.prompt_tokens) == ("hm", 7, 11)
    assert sample.finish_reason == "stop"
    [tool] = model.seen[0]["tools"]
    assert "persona" in json.dumps(tool)


async def test_the_surest_method_is_taken_and_the_next_one_after_a_refusal() -> None:
    def answer(messages: list[BaseMessage], bound: dict[str, Any]) -> AIMessage:
        if "form" in bound:
            raise ValueError("structured outputs are not supported by this model")
        return AIMessage("", tool_calls=[CALL])

    model = WithMethods(seen=[], answer=answer)
    samples, engine = await sampled(model, PROMPT.model_copy(update={"n": 3}), concurrency=1)
    assert [json.loads(sample.text) for sample in samples] == [{"persona": "Short."}] * 3
    assert ["form" in bound for bound in model.seen] == [True, False, False, False]
    assert engine.capabilities.json_schema


async def test_a_model_that_refuses_every_way_is_declared_unable() -> None:
    def answer(messages: list[BaseMessage], bound: dict[str, Any]) -> AIMessage:
        if "form" in bound or "tools" in bound:
            raise ValueError("400: m does not support tools or schemas")
        return AIMessage("prose")

    model = WithMethods(seen=[], answer=answer)
    engine = ChatModelEngine(model)
    for _ in range(2):
        with pytest.raises(SchemaRefused, match="does not support tools"):
            await engine.sample([PROMPT], SamplingParams())
    assert len(model.seen) == 2, "the second call asks for nothing"
    assert not engine.capabilities.json_schema
    prose = PROMPT.model_copy(update={"json_schema": None})
    assert (await engine.sample([prose], SamplingParams()))[0][0].text == "prose"
    await engine.aclose()


async def test_a_model_without_any_way_says_so_before_it_is_asked() -> None:
    model = FakeListChatModel(responses=["a"])
    engine = ChatModelEngine(model)
    assert not engine.capabilities.json_schema
    with pytest.raises(SchemaRefused, match="use a format in prose"):
        await engine.sample([PROMPT], SamplingParams())
    await engine.aclose()


async def test_an_answer_in_text_is_kept_as_it_is() -> None:
    model = WithMethods(seen=[], answer=lambda *_: AIMessage('{"persona": "Short."}'))
    [sample], _ = await sampled(model)
    assert sample.text == '{"persona": "Short."}'
    assert model.seen[0]["form"]["properties"] == SCHEMA["properties"]


async def test_a_call_whose_arguments_are_no_json_is_left_to_the_reader() -> None:
    broken: Any = {"name": "answer", "args": '{"persona": "Sho', "id": "1", "error": "cut"}
    model = WithTools(seen=[], answer=lambda *_: AIMessage("", invalid_tool_calls=[broken]))
    [sample], _ = await sampled(model)
    assert sample.text == '{"persona": "Sho'


@pytest.mark.parametrize(
    ("words", "roles"),
    [
        ("Developer instruction is not enabled for models/gemma-3", ["human"]),
        ("jinja2.exceptions.TemplateError: System role not supported", ["human"]),
        ("messages: roles must alternate between user and assistant", ["human"]),
    ],
)
async def test_a_refused_system_role_is_folded_into_the_question(
    words: str, roles: list[str]
) -> None:
    def answer(messages: list[BaseMessage], bound: dict[str, Any]) -> AIMessage:
        if "system" in bound["roles"]:
            raise ValueError(words)
        return AIMessage(str(messages[0].content))

    prose = PROMPT.model_copy(update={"json_schema": None, "n": 2})
    model = Scripted(seen=[], answer=answer)
    samples, _ = await sampled(model, prose, concurrency=1)
    assert [sample.text for sample in samples] == ["Judge.\n\nHello?"] * 2
    assert [bound["roles"] for bound in model.seen] == [["system", "human"], roles, roles]


async def test_one_failure_is_one_failed_sample() -> None:
    answers = iter([AIMessage("a"), RuntimeError("lost"), AIMessage("c")])

    def answer(*_: object) -> AIMessage:
        given = next(answers)
        if isinstance(given, Exception):
            raise given
        return given

    prose = PROMPT.model_copy(update={"json_schema": None, "n": 3})
    samples, _ = await sampled(Scripted(seen=[], answer=answer), prose, concurrency=1)
    assert [sample.finish_reason for sample in samples] == ["stop", "failed", "stop"]
    assert "RuntimeError: lost" in samples[1].detail


async def test_an_answer_that_is_late_is_a_timeout() -> None:
    class Slow(Scripted):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
            if len(self.seen) == 1:
                await asyncio.sleep(30)
            return await super()._agenerate(*args, **kwargs)

    engine = ChatModelEngine(Slow(seen=[], answer=lambda *_: AIMessage("a")), concurrency=1)
    prose = PROMPT.model_copy(update={"json_schema": None, "n": 2})
    [samples] = await engine.sample([prose], SamplingParams(timeout_s=0.5))
    await engine.aclose()
    assert [sample.finish_reason for sample in samples] == ["stop", "timeout"]


async def test_an_error_within_an_answer_is_tried_again_and_others_are_not() -> None:
    faults = iter([ValueError({"message": "overloaded", "code": 503}), None])

    def answer(*_: object) -> AIMessage:
        fault = next(faults, None)
        if fault is not None:
            raise fault
        return AIMessage("a")

    prose = PROMPT.model_copy(update={"json_schema": None})
    model = Scripted(seen=[], answer=answer)
    [sample], _ = await sampled(model, prose)
    assert (sample.text, len(model.seen)) == ("a", 2)

    def unavailable(*_: object) -> AIMessage:
        raise ConnectionError("gone")

    model = Scripted(seen=[], answer=unavailable)
    with pytest.raises(EngineUnavailable, match="gone"):
        await sampled(model, prose)
    assert len(model.seen) == 1, "the model has its own repetitions"


async def test_a_limit_of_ones_own_counts_more_than_the_calls() -> None:
    class Limited(Scripted):
        max_output_tokens: int | None = None

        async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
            self.seen.append({"limit": self.max_output_tokens})
            return await super()._agenerate(*args, **kwargs)

    prose = PROMPT.model_copy(update={"json_schema": None})
    model = Limited(seen=[], answer=lambda *_: AIMessage("a"))
    await sampled(model, prose, max_tokens=5000)
    assert model.seen[0] == {"limit": 5000}
    with pytest.raises(ConfigurationError, match="max_tokens is 0"):
        ChatModelEngine(model, max_tokens=0)
