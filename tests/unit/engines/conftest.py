"""A very small Llama with random weights, and a scripted server: engines are not about sense."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_server import ScriptedServer

from pgenrm_agent.engines.openai import OpenAIEngine

KEY = "sk-do-not-show-this"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture
def connect(server: ScriptedServer) -> Iterator[Callable[..., OpenAIEngine]]:
    engines: list[OpenAIEngine] = []

    def connected(**options: Any) -> OpenAIEngine:
        engine = OpenAIEngine("m", **{"base_url": server.url, "api_key": KEY, **options})
        engines.append(engine)
        return engine

    yield connected
    for engine in engines:
        asyncio.run(engine.aclose())


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random model with 256 positions and a chat template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from pgenrm_agent.training.bundled.tokenizer import train_tokenizer

    torch.manual_seed(5)
    words = "the person asked how and the answer said why, then what: one two three. "
    tokenizer = train_tokenizer([words * 20], size=600, context=256)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,
    )
    folder = tmp_path_factory.mktemp("tiny-llama")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
