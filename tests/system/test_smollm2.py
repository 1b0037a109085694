"""A real instruct model held to a schema shaped like a chain: every answer is valid.

What SmolLM2-135M writes means nothing; that it has the form does.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from vllm_server import Server

from pgenrm_agent.engines.protocol import Prompt, SamplingParams
from pgenrm_agent.schema import Message

MARK: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": 10}
CRITERION: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "weight": {"type": "integer", "minimum": 1, "maximum": 100},
        "reason": {"type": "string", "maxLength": 40},
    },
    "required": ["name", "weight", "reason"],
    "additionalProperties": False,
}
CHAIN: dict[str, Any] = {
    "type": "object",
    "properties": {
        "persona": {"type": "string", "maxLength": 60},
        "criteria": {"type": "array", "items": CRITERION, "minItems": 3, "maxItems": 6},
        "marks": {
            "type": "array",
            "items": {"type": "array", "items": MARK, "minItems": 3, "maxItems": 6},
            "minItems": 2,
            "maxItems": 2,
        },
    },
    "required": ["persona", "criteria", "marks"],
    "additionalProperties": False,
}
MESSAGES = (
    Message(
        role="system",
        content="You judge two answers for one person. Answer in JSON: persona, criteria, marks.",
    ),
    Message(
        role="user",
        content="They once chose a short list over a long text.\nQuestion: How do I cook rice?\n"
        "Answer 1: Just cook it.\nAnswer 2: - Rinse it.\n- Boil it.",
    ),
)
SAMPLES = 5
TOKENS = 500


def check(texts: list[str]) -> None:
    assert len(texts) == SAMPLES
    for text in texts:
        jsonschema.validate(json.loads(text), CHAIN)
    assert len(set(texts)) == SAMPLES


@pytest.mark.long
def test_five_of_five_through_transformers(smollm2: Path) -> None:
    from pgenrm_agent.engines.transformers import TransformersEngine

    async def sampled() -> list[str]:
        engine = TransformersEngine(smollm2, device="cpu")
        asked = Prompt(messages=MESSAGES, n=SAMPLES, seed=1, json_schema=CHAIN)
        [samples] = await engine.sample([asked], SamplingParams(max_tokens=TOKENS))
        await engine.aclose()
        assert {sample.finish_reason for sample in samples} == {"stop"}
        return [sample.text for sample in samples]

    check(asyncio.run(sampled()))


@pytest.mark.long
def test_five_of_five_through_a_vllm_server(smollm2_server: Server) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=smollm2_server.url, api_key=smollm2_server.key, timeout=300)
    answer = client.chat.completions.create(
        model=smollm2_server.model,
        messages=[message.model_dump() for message in MESSAGES],  # type: ignore[misc]
        n=SAMPLES,
        seed=1,
        max_tokens=TOKENS,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "chain", "schema": CHAIN, "strict": True},
        },
    )
    check([choice.message.content or "" for choice in answer.choices])
