"""Answers of the vLLM engine that are held to a schema, and a model that thinks first."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fixtures.models import ANSWER
from vllm_server import QUIET

from pgenrm_agent.engines.protocol import Prompt, SamplingParams
from pgenrm_agent.engines.vllm import VLLMEngine
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.schema import Message

pytestmark = pytest.mark.long

CHAIN: dict[str, Any] = {
    "type": "object",
    "properties": {
        "persona": {"type": "string", "maxLength": 12},
        "marks": {
            "type": "array",
            "items": {"type": "integer", "minimum": 1, "maximum": 10},
            "minItems": 2,
            "maxItems": 2,
        },
    },
    "required": ["persona", "marks"],
    "additionalProperties": False,
}


def prompt(text: str, *, n: int = 1, schema: Any = None) -> Prompt:
    return Prompt(messages=(Message(role="user", content=text),), n=n, json_schema=schema)


@pytest.fixture(scope="module")
def engine(thinking_llama: Path) -> Iterator[VLLMEngine]:
    os.environ.update(QUIET)
    engine = VLLMEngine(
        thinking_llama, kv_cache_memory_bytes=2**26, enforce_eager=True, dtype="float32"
    )
    yield engine
    asyncio.run(engine.aclose())


GREEDY = SamplingParams(temperature=0, max_tokens=120)


def test_it_says_that_it_holds_to_schemas(engine: VLLMEngine) -> None:
    assert engine.capabilities.json_schema


async def test_what_a_model_thinks_is_no_part_of_its_text(engine: VLLMEngine) -> None:
    [[sample], [plain]] = await engine.sample([prompt("how"), prompt("why")], GREEDY)
    assert (sample.reasoning, sample.text) == ("one STOP two", ANSWER)
    assert (plain.reasoning, plain.text) == ("", ANSWER)


async def test_no_stop_string_fires_within_the_thinking(engine: VLLMEngine) -> None:
    params = SamplingParams(temperature=0, max_tokens=120, stop=("STOP",))
    [[sample], [plain]] = await engine.sample([prompt("how"), prompt("why")], params)
    assert (sample.reasoning, sample.text) == ("one STOP two", "the answer said ")
    assert (plain.reasoning, plain.text) == ("", "the answer said ")
    assert sample.finish_reason == plain.finish_reason == "stop"
    assert sample.tokens > plain.tokens


async def test_a_grammar_holds_and_stop_strings_cut_within_it(engine: VLLMEngine) -> None:
    assert engine.capabilities.grammar
    grammar = r'''root ::= "## Marks\n" mark mark
mark ::= "Response " [1-3] ": " ([1-9] | "10") "\n"'''
    asked = prompt("why", n=4).model_copy(update={"grammar": grammar})
    [samples] = await engine.sample([asked], SamplingParams(max_tokens=120))
    for sample in samples:
        assert re.fullmatch(r"## Marks\n(Response [1-3]: ([1-9]|10)\n){2}", sample.text)
    [cut] = await engine.sample([asked], SamplingParams(max_tokens=120, stop=("Response",)))
    assert {sample.text for sample in cut} == {"## Marks\n"}


async def test_a_schema_holds_with_and_without_thinking_before_it(engine: VLLMEngine) -> None:
    params = SamplingParams(max_tokens=120)
    asked = [prompt("how", n=3, schema=CHAIN), prompt("why", n=3, schema=CHAIN), prompt("why")]
    thought, plain, free = await engine.sample(asked, params)
    for sample in thought + plain:
        assert sample.finish_reason == "stop", sample
        jsonschema.validate(json.loads(sample.text), CHAIN)
        assert ": " not in sample.text.split('"', 3)[-1]
    assert any(sample.reasoning for sample in thought)
    assert not free[0].text.startswith("{")


async def test_thinking_that_never_ends_leaves_no_text(engine: VLLMEngine) -> None:
    for schema in (None, CHAIN):
        params = SamplingParams(temperature=0, max_tokens=30, stop=("STOP",))
        [[sample]] = await engine.sample([prompt("what", schema=schema)], params)
        assert (sample.text, sample.finish_reason, sample.tokens) == ("", "length", 30)
        assert sample.reasoning.startswith("one two three one two")
        assert "raise max_tokens" in sample.detail


async def test_a_prompt_that_fails_fails_alone(engine: VLLMEngine) -> None:
    asked = [prompt("how"), prompt("one " * 400, n=2), prompt("why", schema={"type": "strin"})]
    [[usable], failed, refused] = await engine.sample(asked, SamplingParams(max_tokens=4))
    assert usable.tokens == 4
    assert [sample.finish_reason for sample in failed + refused] == ["failed"] * 3
    assert "reads at most 256" in failed[0].detail
    assert "strin" in refused[0].detail
    with pytest.raises(ConfigurationError, match="reads at most 256"):
        await engine.sample(asked[1:2], GREEDY)


async def test_at_the_deadline_samples_come_back_as_they_are(engine: VLLMEngine) -> None:
    loop = asyncio.get_running_loop()
    for params in (
        SamplingParams(max_tokens=200, timeout_s=0.15),
        SamplingParams(max_tokens=200, timeout_s=0.15, stop=("STOP",)),
    ):
        started = loop.time()
        [samples] = await engine.sample([prompt("what", n=24)], params)
        assert loop.time() - started < 10
        assert len(samples) == 24
        late = [sample for sample in samples if sample.finish_reason == "timeout"]
        assert late
        assert all("0.15 s were over" in sample.detail for sample in late)
        assert all(sample.tokens < 200 for sample in late)
    for _ in range(200):
        if not engine._engine.get_num_unfinished_requests():
            break
        await asyncio.sleep(0.02)
    assert engine._engine.get_num_unfinished_requests() == 0
