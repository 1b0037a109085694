"""The OpenAI engine against `vllm serve` with the bundled model on a CPU."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from pgenrm_agent.engines.openai import OpenAIEngine
from pgenrm_agent.engines.protocol import Prompt, SamplingParams
from pgenrm_agent.errors import ConfigurationError, EngineUnavailable
from pgenrm_agent.schema import Message

if TYPE_CHECKING:
    from pgenrm_agent.engines.transformers import TransformersEngine

Server = Any  # the fixtures of these names: see conftest.py
Write = Any

pytestmark = pytest.mark.long


@pytest.fixture
async def engine(vllm_server: Server) -> AsyncIterator[OpenAIEngine]:
    engine = OpenAIEngine(
        vllm_server.model, base_url=vllm_server.url, api_key=vllm_server.key, timeout_s=300
    )
    yield engine
    await engine.aclose()


async def test_a_vllm_server_is_recognized(engine: OpenAIEngine) -> None:
    assert engine.capabilities.continues
    assert engine.capabilities.seeds == "per_batch"


async def test_n_samples_come_in_one_answer_with_their_tokens_counted(
    engine: OpenAIEngine, prompt: Prompt, caplog: pytest.LogCaptureFixture
) -> None:
    [samples] = await engine.sample(
        [prompt.model_copy(update={"n": 5})], SamplingParams(temperature=2, max_tokens=160)
    )
    assert len(samples) == 5
    assert len({sample.text for sample in samples}) > 1
    assert all(1 <= sample.tokens <= 160 for sample in samples)
    assert samples[0].prompt_tokens > 50
    assert not caplog.records


async def test_it_writes_what_the_transformers_engine_writes(
    engine: OpenAIEngine, reference: TransformersEngine, write: Write
) -> None:
    text = (await write(engine, 24)).text
    assert text == (await write(reference, 24)).text


@pytest.mark.parametrize(
    "begun", ["## Part 1: Analysis\n### Persona\n[1 chosen] length", "## Part 1: Analysis\n"]
)
async def test_a_begun_answer_is_continued_as_the_transformers_engine_does(
    engine: OpenAIEngine, reference: TransformersEngine, write: Write, begun: str
) -> None:
    continued = (await write(engine, 16, partial=begun)).text
    assert continued == (await write(reference, 16, partial=begun)).text


async def test_a_stop_string_ends_the_answer_and_is_left_out(
    engine: OpenAIEngine, write: Write
) -> None:
    text = (await write(engine, 24)).text
    stop = text[len(text) // 2 :][:3]
    stopped = await write(engine, 24, stop=("not in the text", stop))
    assert stopped.text == text[: text.index(stop)]
    assert stopped.finish_reason == "stop"


async def test_the_same_call_alone_on_the_server_gives_the_same_samples(
    engine: OpenAIEngine, prompt: Prompt
) -> None:
    async def sampled(seed: int) -> list[str]:
        seeded = prompt.model_copy(update={"n": 3, "seed": seed})
        [samples] = await engine.sample([seeded], SamplingParams(temperature=2, max_tokens=160))
        return [sample.text for sample in samples]

    assert await sampled(7) == await sampled(7)
    assert await sampled(7) != await sampled(8)


async def test_many_tasks_share_the_engine(engine: OpenAIEngine, prompt: Prompt) -> None:
    params = SamplingParams(temperature=0, max_tokens=8)
    asked = [
        prompt.model_copy(update={"messages": (Message(role="user", content=f"Question {k}"),)})
        for k in range(6)
    ]
    alone = [await engine.sample([prompt], params) for prompt in asked]
    assert await asyncio.gather(*(engine.sample([prompt], params) for prompt in asked)) == alone


async def test_at_temperature_zero_all_samples_are_the_likeliest_text(
    engine: OpenAIEngine, prompt: Prompt, write: Write
) -> None:
    three = prompt.model_copy(update={"n": 3})
    [samples] = await engine.sample([three], SamplingParams(temperature=0, max_tokens=8))
    assert samples == [await write(engine, 8)] * 3


async def test_a_prompt_longer_than_the_context_says_what_to_do(
    engine: OpenAIEngine, prompt: Prompt
) -> None:
    long = prompt.model_copy(update={"partial": "word " * 2000})
    with pytest.raises(ConfigurationError, match=r"too long.*show fewer past choices"):
        await engine.sample([long], SamplingParams(max_tokens=4))


async def test_an_answer_ends_where_the_context_ends(engine: OpenAIEngine, prompt: Prompt) -> None:
    nearly_full = prompt.model_copy(update={"partial": "1" * 850})
    [[sample]] = await engine.sample([nearly_full], SamplingParams(max_tokens=900))
    assert 1 <= sample.tokens < 900


async def test_a_wrong_key_is_refused_and_not_shown(vllm_server: Server, prompt: Prompt) -> None:
    engine = OpenAIEngine(vllm_server.model, base_url=vllm_server.url, api_key="sk-wrong-key")
    with pytest.raises(ConfigurationError, match="refuses the API key") as caught:
        await engine.sample([prompt], SamplingParams(max_tokens=4))
    assert "sk-wrong-key" not in str(caught.value)
    await engine.aclose()


async def test_a_model_that_is_not_served_is_unavailable(
    vllm_server: Server, prompt: Prompt
) -> None:
    engine = OpenAIEngine("another-model", base_url=vllm_server.url, api_key=vllm_server.key)
    assert not engine.capabilities.continues
    with pytest.raises(EngineUnavailable, match="another-model"):
        await engine.sample([prompt], SamplingParams(max_tokens=4))
    await engine.aclose()
