"""The chat engine over LangChain chat models."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from pgenrm_agent.engines.chat import ChatModelEngine
from pgenrm_agent.engines.protocol import Engine, Prompt, SamplingParams
from pgenrm_agent.engines.reasoning import NO_ANSWER
from pgenrm_agent.errors import (
    ConfigurationError,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
)
from pgenrm_agent.schema import Message

PROMPT = Prompt(
    messages=(Message(role="system", content="Judge."), Message(role="user", content="Hello?"))
)


class Refusal(Exception):
    """An integration's own exception, with the status its provider sent."""

    def __init__(self, status_code: int, message: str) -> None:
        super().__init__(message)
        self.status_code = status_code


class ReadTimeout(Exception):
    """Named as HTTP clients name it."""


class EchoingModel(BaseChatModel):
    """A chat model that tells in its answer what it was asked, and with which parameters."""

    temperature: float | None = None
    num_predict: int | None = None
    finish_reason: str = "stop"
    fault: Exception | None = None
    seen: list[tuple[list[BaseMessage], list[str] | None]] = []  # noqa: RUF012
    running: list[int] = []  # noqa: RUF012
    most: list[int] = []  # noqa: RUF012

    @property
    def _llm_type(self) -> str:
        return "echoing"

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
        self.seen.append((messages, stop))
        self.running.append(1)
        self.most.append(len(self.running))
        await asyncio.sleep(0.02)
        self.running.pop()
        if self.fault is not None:
            raise self.fault
        answer = AIMessage(
            f"temperature {self.temperature}, limit {self.num_predict} <JSON_END> and on",
            usage_metadata={"input_tokens": 11, "output_tokens": 7, "total_tokens": 18},
            response_metadata={"done_reason": self.finish_reason},
        )
        return ChatResult(generations=[ChatGeneration(message=answer)])


def echoing(**fields: Any) -> EchoingModel:
    return EchoingModel(seen=[], running=[], most=[], **fields)


@pytest.fixture
async def fake() -> AsyncIterator[ChatModelEngine]:
    engine = ChatModelEngine(FakeListChatModel(responses=["first words", "second", "third"]))
    yield engine
    await engine.aclose()


async def test_a_chat_model_is_an_engine_without_seeds_or_continuation(
    fake: ChatModelEngine,
) -> None:
    assert isinstance(fake, Engine)
    assert fake.name == "chat:FakeListChatModel"
    assert not fake.capabilities.continues
    assert fake.capabilities.seeds == "none"


async def test_each_prompt_gets_its_number_of_samples(fake: ChatModelEngine) -> None:
    two, single = await fake.sample(
        [PROMPT.model_copy(update={"n": 2}), PROMPT], SamplingParams(max_tokens=8)
    )
    assert sorted(sample.text for sample in two + single) == ["first words", "second", "third"]
    assert [len(two), len(single)] == [2, 1]


async def test_words_are_counted_where_the_model_reports_no_tokens(fake: ChatModelEngine) -> None:
    [[sample]] = await fake.sample([PROMPT], SamplingParams())
    assert (sample.text, sample.tokens) == ("first words", 2)


async def test_parameters_and_roles_reach_the_model() -> None:
    model = echoing(temperature=0.1)
    engine = ChatModelEngine(model)
    [[sample]] = await engine.sample([PROMPT], SamplingParams(temperature=0.7, max_tokens=9))
    await engine.aclose()

    assert sample.text.startswith("temperature 0.7, limit 9")
    assert (sample.tokens, sample.prompt_tokens) == (7, 11)
    [(messages, _)] = model.seen
    assert [message.type for message in messages] == ["system", "human"]
    assert model.temperature == 0.1, "the caller's own model stays as it was"


async def test_a_stop_string_ends_the_answer_even_if_the_model_ignores_it() -> None:
    model = echoing()
    engine = ChatModelEngine(model)
    [[sample]] = await engine.sample([PROMPT], SamplingParams(stop=("<JSON_END>",)))
    await engine.aclose()
    assert sample.text.endswith("limit 3072 ")
    assert sample.finish_reason == "stop"
    assert model.seen[0][1] == ["<JSON_END>"]


async def test_an_answer_cut_by_the_limit_says_so() -> None:
    engine = ChatModelEngine(echoing(finish_reason="length"))
    [[sample]] = await engine.sample([PROMPT], SamplingParams())
    await engine.aclose()
    assert sample.finish_reason == "length"


THOUGHT = [{"type": "thinking", "thinking": "Hm.", "signature": "x"}]
HIDDEN = [{"type": "redacted_thinking", "data": "RXhhbXBsZQ=="}]
UNFINISHED = {
    "status": "incomplete",
    "incomplete_details": {"reason": "max_output_tokens"},
}


class ThinkingModel(BaseChatModel):
    """A chat model that answers with one message."""

    message: AIMessage

    @property
    def _llm_type(self) -> str:
        return "thinking"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.message)])


@pytest.mark.parametrize(
    ("content", "metadata", "spent"),
    [
        (THOUGHT, {"stop_reason": "max_tokens"}, True),
        (HIDDEN, {"stop_reason": "max_tokens"}, True),
        (THOUGHT, {"finish_reason": "MAX_TOKENS"}, True),
        (THOUGHT, {"stopReason": "max_tokens"}, True),
        ([{"type": "reasoning", "summary": []}], UNFINISHED, True),
        ("", UNFINISHED, True),
        ("<think>Hm.", {"done_reason": "length"}, True),
        (THOUGHT, {"stop_reason": "end_turn"}, False),
        (HIDDEN, {"stop_reason": "end_turn"}, False),
        ([{"type": "reasoning", "summary": []}], {"status": "completed"}, False),
        (THOUGHT, {}, False),
        ("<think>Hm.</think>", {"finish_reason": "stop"}, False),
    ],
)
async def test_an_answer_of_nothing_but_thought_says_where_the_budget_went(
    content: str | list[Any], metadata: dict[str, Any], spent: bool
) -> None:
    message = AIMessage(content=content, response_metadata=metadata)
    engine = ChatModelEngine(ThinkingModel(message=message))
    [[sample]] = await engine.sample([PROMPT], SamplingParams(max_tokens=64))
    await engine.aclose()
    assert (sample.text, sample.finish_reason) == ("", "length" if spent else "failed")
    budget = "the budget of 64 tokens went into thinking: raise max_tokens"
    assert sample.detail == (budget if spent else NO_ANSWER)


async def test_requests_in_flight_are_bounded() -> None:
    model = echoing()
    engine = ChatModelEngine(model, concurrency=3)
    eight = PROMPT.model_copy(update={"n": 8})
    await asyncio.gather(*(engine.sample([eight], SamplingParams()) for _ in range(2)))
    await engine.aclose()
    assert len(model.seen) == 16
    assert max(model.most) == 3


def test_one_engine_serves_several_event_loops_in_sequence() -> None:
    engine = ChatModelEngine(echoing())
    for _ in range(2):
        assert asyncio.run(engine.sample([PROMPT], SamplingParams()))
    asyncio.run(engine.aclose())
    with pytest.raises(EngineUnavailable, match="closed"):
        asyncio.run(engine.sample([PROMPT], SamplingParams()))


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (Refusal(401, "bad key sk-1234"), ConfigurationError, "refuses the API key"),
        (Refusal(429, "slow down"), EngineUnavailable, "slow down"),
        (Refusal(400, "too long"), ConfigurationError, "too long"),
        (Refusal(500, "oh"), EngineError, "Refusal: oh"),
        (ReadTimeout(), EngineTimeout, "raise its timeout"),
        (TimeoutError(), EngineTimeout, "raise its timeout"),
        (ConnectionRefusedError("no one there"), EngineUnavailable, "no one there"),
        (KeyError("choices"), EngineError, "KeyError: 'choices'"),
    ],
)
async def test_the_models_own_errors_become_engine_errors(
    fault: Exception, error: type[Exception], message: str
) -> None:
    engine = ChatModelEngine(echoing(fault=fault))
    with pytest.raises(error, match=message) as caught:
        await engine.sample([PROMPT, PROMPT], SamplingParams())
    await engine.aclose()
    assert type(caught.value) is error
    assert "sk-1234" not in str(caught.value)


async def test_a_begun_answer_is_refused(fake: ChatModelEngine) -> None:
    with pytest.raises(ConfigurationError, match="cannot continue a begun answer"):
        await fake.sample([PROMPT.model_copy(update={"partial": "## Part 1"})], SamplingParams())


def test_something_that_is_no_chat_model_is_refused() -> None:
    bound = FakeListChatModel(responses=["a"]).bind(stop=["b"])
    with pytest.raises(ConfigurationError, match="pass the model itself"):
        ChatModelEngine(bound)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="concurrency is 0"):
        ChatModelEngine(FakeListChatModel(responses=["a"]), concurrency=0)


class HangingModel(FakeListChatModel):
    """A chat model without a way to be awaited, whose provider does not answer."""

    asked: Any = None
    free: Any = None

    def _call(self, *args: Any, **kwargs: Any) -> str:
        self.asked.set()
        self.free.wait(60)
        return "late"


async def test_closing_does_not_wait_without_end_for_a_model_that_hangs_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pgenrm_agent.background_loop.GRACE_S", 0.2)
    asked, free = threading.Event(), threading.Event()
    engine = ChatModelEngine(HangingModel(responses=["x"], asked=asked, free=free))
    call = asyncio.create_task(engine.sample([PROMPT], SamplingParams()))
    try:
        await asyncio.to_thread(asked.wait, 30)
        started = time.monotonic()
        await engine.aclose()
        assert time.monotonic() - started < 10
        with pytest.raises(EngineUnavailable, match="was closed during this call"):
            await call
    finally:
        free.set()
