"""The vLLM engine with real vLLM on a CPU: the bundled model under a LoRA adapter.

What it writes at temperature 0 is compared with what the transformers engine writes.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pgenrm_agent.engines.openai import first_seed
from pgenrm_agent.engines.protocol import Engine, Prompt, SamplingParams
from pgenrm_agent.engines.vllm import VLLMEngine
from pgenrm_agent.errors import ConfigurationError, EngineUnavailable
from pgenrm_agent.schema import Message

if TYPE_CHECKING:
    from pgenrm_agent.engines.transformers import TransformersEngine

Write = Any  # the fixture of that name: see conftest.py

pytestmark = pytest.mark.long


async def _until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    for _ in range(int(timeout_s / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen in time")


def test_it_is_an_engine_that_continues(vllm_engine: VLLMEngine) -> None:
    assert isinstance(vllm_engine, Engine)
    assert vllm_engine.name == "vllm:pgenrm-tiny+another-taste"
    assert vllm_engine.capabilities.continues
    assert vllm_engine.capabilities.seeds == "per_batch"


async def test_each_prompt_gets_its_number_of_samples(
    vllm_engine: VLLMEngine, prompt: Prompt
) -> None:
    prompts = [prompt.model_copy(update={"n": n, "seed": n}) for n in (3, 1)]
    three, single = await vllm_engine.sample(prompts, SamplingParams(temperature=2, max_tokens=160))
    assert [len(three), len(single)] == [3, 1]
    assert len({sample.text for sample in three}) > 1
    # A prompt is read once for its samples.
    assert [sample.prompt_tokens > 50 for sample in three + single] == [True, False, False, True]
    for sample in three + single:
        assert 1 <= sample.tokens <= 160
        assert sample.finish_reason == "length" or sample.tokens < 160


async def test_it_writes_what_the_transformers_engine_writes_with_the_same_adapter(
    vllm_engine: VLLMEngine,
    adapted_reference: TransformersEngine,
    reference: TransformersEngine,
    write: Write,
) -> None:
    text = (await write(vllm_engine, 24)).text
    assert text == (await write(adapted_reference, 24)).text
    assert text != (await write(reference, 24)).text, "the adapter makes no difference"


async def test_a_begun_answer_is_extended(
    vllm_engine: VLLMEngine, adapted_reference: TransformersEngine, write: Write
) -> None:
    begun = "## Part 1: Analysis\n### Persona\n[1 chosen] length 1"
    continued = (await write(vllm_engine, 16, partial=begun)).text
    assert not continued.startswith(begun)
    assert continued == (await write(adapted_reference, 16, partial=begun)).text

    # Continuing from further on gives the rest of the same text.
    first = (await write(vllm_engine, 1, partial=begun)).text
    rest = (await write(vllm_engine, 15, partial=begun + first)).text
    assert first + rest == continued


async def test_a_stop_string_ends_the_answer_and_is_left_out(
    vllm_engine: VLLMEngine, write: Write
) -> None:
    text = (await write(vllm_engine, 24)).text
    stop = text[len(text) // 2 :][:3]
    stopped = await write(vllm_engine, 24, stop=("not in the text", stop))
    assert stopped.text == text[: text.index(stop)]
    assert stopped.finish_reason == "stop"
    assert (await write(vllm_engine, 24)).finish_reason == "length"


async def test_concurrent_calls_run_together_and_give_each_its_own(
    vllm_engine: VLLMEngine, prompt: Prompt
) -> None:
    params = SamplingParams(temperature=0, max_tokens=16)
    asked = [
        prompt.model_copy(update={"messages": (Message(role="user", content=f"Question {k}"),)})
        for k in range(6)
    ]
    alone = [await vllm_engine.sample([prompt], params) for prompt in asked]
    together = await asyncio.gather(*(vllm_engine.sample([prompt], params) for prompt in asked))
    assert together == alone


def test_one_engine_serves_several_event_loops_in_sequence(
    vllm_engine: VLLMEngine, write: Write
) -> None:
    first, second = (asyncio.run(write(vllm_engine, 4)) for _ in range(2))
    assert first == second


async def test_the_same_call_alone_in_the_engine_gives_the_same_samples(
    vllm_engine: VLLMEngine, prompt: Prompt
) -> None:
    async def sampled(seed: int) -> list[str]:
        seeded = prompt.model_copy(update={"n": 4, "seed": seed})
        [samples] = await vllm_engine.sample(
            [seeded], SamplingParams(temperature=2, max_tokens=160)
        )
        return [sample.text for sample in samples]

    assert await sampled(7) == await sampled(7)
    assert await sampled(7) != await sampled(8)


async def test_at_temperature_zero_all_samples_are_the_likeliest_text(
    vllm_engine: VLLMEngine, prompt: Prompt, write: Write
) -> None:
    three = prompt.model_copy(update={"n": 3})
    [samples] = await vllm_engine.sample([three], SamplingParams(temperature=0, max_tokens=8))
    assert [sample.text for sample in samples] == [(await write(vllm_engine, 8)).text] * 3


def test_a_prompt_read_before_is_not_read_again(vllm_engine: VLLMEngine, prompt: Prompt) -> None:
    """vLLM tells how many of a prompt's tokens it had already; the engine asks it the same way."""
    from vllm import SamplingParams as VLLMParams
    from vllm.inputs import tokens_input

    long = prompt.model_copy(
        update={"messages": (Message(role="user", content="Once more, " * 150),)}
    )
    ids = vllm_engine._encoder.encode(long).ids
    assert len(ids) > 256

    async def cached_tokens() -> int:
        async for output in vllm_engine._engine.generate(
            tokens_input(ids),
            VLLMParams(max_tokens=1),
            request_id=uuid.uuid4().hex,
            lora_request=vllm_engine._adapter,
        ):
            cached = output.num_cached_tokens
        return int(cached or 0)

    assert vllm_engine._loop.run_blocking(cached_tokens) == 0
    assert vllm_engine._loop.run_blocking(cached_tokens) >= 128


async def test_a_canceled_call_leaves_vllm_with_nothing_to_do(
    vllm_engine: VLLMEngine, prompt: Prompt, write: Write
) -> None:
    many = prompt.model_copy(update={"n": 16})
    call = asyncio.create_task(vllm_engine.sample([many] * 2, SamplingParams(max_tokens=700)))
    await _until(lambda: vllm_engine._engine.get_num_unfinished_requests() == 32)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await _until(lambda: vllm_engine._engine.get_num_unfinished_requests() == 0)
    assert (await write(vllm_engine, 4)).text


async def test_eight_samples_cost_less_than_eight_times_one(
    vllm_engine: VLLMEngine, prompt: Prompt, record_property: pytest.RecordProperty
) -> None:
    """The benchmark command has the real figure; this one only catches samples run one by one."""

    async def seconds(n: int) -> float:
        started = time.perf_counter()
        await vllm_engine.sample(
            [prompt.model_copy(update={"n": n, "partial": "## Part 1"})],
            SamplingParams(max_tokens=64),
        )
        return time.perf_counter() - started

    await seconds(1)
    single = min([await seconds(1) for _ in range(3)])
    eight = min([await seconds(8) for _ in range(3)])
    record_property("eight_samples_cost", eight / single)
    print(f"8 samples cost {eight / single:.2f} times one")
    assert eight < 6 * single


async def test_a_prompt_longer_than_the_context_says_what_to_do(
    vllm_engine: VLLMEngine, prompt: Prompt
) -> None:
    long = prompt.model_copy(update={"partial": "word " * 2000})
    with pytest.raises(ConfigurationError, match=r"reads at most 1024.*show fewer past choices"):
        await vllm_engine.sample([long, long], SamplingParams(max_tokens=4))
    [[sample], [failed]] = await vllm_engine.sample([prompt, long], SamplingParams(max_tokens=4))
    assert (sample.finish_reason, failed.finish_reason) == ("length", "failed")


async def test_an_answer_ends_where_the_context_ends(
    vllm_engine: VLLMEngine, prompt: Prompt, adapted_reference: TransformersEngine
) -> None:
    taken = len(vllm_engine._encoder.encode(prompt).ids)
    assert taken == len(adapted_reference._encoder.encode(prompt).ids)
    [[sample]] = await vllm_engine.sample(
        [prompt.model_copy(update={"partial": "1" * (1000 - taken)})],
        SamplingParams(max_tokens=500),
    )
    assert sample.tokens <= 24


def test_samples_of_a_prompt_have_consecutive_seeds_in_vllm() -> None:
    """The OpenAI engine fills missing samples with the seeds that vLLM would have used."""
    from vllm import SamplingParams as VLLMParams
    from vllm.v1.engine.parallel_sampling import ParentRequest

    class Request:
        request_id = external_req_id = "1"
        params = VLLMParams(n=3, seed=first_seed(5))

    parent = ParentRequest(Request())  # type: ignore[arg-type]
    seeds = [parent.get_child_info(j)[1].seed for j in range(3)]
    assert seeds == [first_seed(5) + j for j in range(3)]


def test_batch_invariance_is_refused_on_a_cpu(model: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such mode on cpu"):
        VLLMEngine(model, batch_invariant=True)
    assert "VLLM_BATCH_INVARIANT" not in os.environ


def test_an_unknown_argument_is_named(model: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_lengthh"):
        VLLMEngine(model, max_lengthh=12)


def test_a_model_that_vllm_cannot_load_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-architecture"}')
    with pytest.raises(EngineUnavailable, match="cannot start with model"):
        VLLMEngine(tmp_path)
