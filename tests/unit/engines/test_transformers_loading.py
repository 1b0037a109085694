"""Models that the transformers engine is given, and those that it does not take."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from pgenrm_agent.engines import Prompt, SamplingParams
from pgenrm_agent.engines.attention import layer_kinds
from pgenrm_agent.engines.transformers import TransformersEngine
from pgenrm_agent.errors import ConfigurationError, EngineError, EngineUnavailable
from pgenrm_agent.schema import Message

PROMPT = Prompt(messages=(Message(role="user", content="how"),), n=2)
SHORT = SamplingParams(max_tokens=4)
SMALL: dict[str, Any] = {
    "vocab_size": 600,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
TEXT = {**SMALL, "head_dim": 8, "layer_types": ["full_attention"] * 2}
VISION = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "image_size": 56,
}
GPT: dict[str, Any] = {"vocab_size": 600, "n_embd": 32, "n_layer": 2, "n_head": 4}


def cut_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def garbage_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": 7}')


def other_shapes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))


def no_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama", "num_attention_heads": "four"}')


@pytest.mark.parametrize(
    "breaks", [cut_weights, no_weights, garbage_tokenizer, other_shapes, no_config]
)
def test_a_broken_folder_is_a_model_that_cannot_be_loaded(
    tiny_llama: Path, tmp_path: Path, breaks: Callable[[Path], None]
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_llama, folder)
    breaks(folder)
    with pytest.raises(EngineUnavailable, match=r"broken' cannot be loaded: .+; pass the folder"):
        TransformersEngine(folder, device="cpu")


def test_a_broken_adapter_cannot_be_applied(tiny_llama: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(EngineUnavailable, match="cannot be applied to"):
        TransformersEngine(tiny_llama, device="cpu", adapter=tmp_path)


@pytest.mark.parametrize("device", ["cudda", "cpu:x", ""])
def test_a_device_that_there_is_not_is_refused(tiny_llama: Path, device: str) -> None:
    with pytest.raises(ConfigurationError, match=f"device '{device}' is none of torch"):
        TransformersEngine(tiny_llama, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_here_is_unavailable(tiny_llama: Path) -> None:
    with pytest.raises(EngineUnavailable, match="cannot be moved to device 'cuda:7'"):
        TransformersEngine(tiny_llama, device="cuda:7")


def made(kind: str, **config: Any) -> PreTrainedModel:
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(getattr(transformers, f"{kind}Config")(**config))


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("Bloom", {"vocab_size": 600, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
        ("GPTJ", {**GPT, "rotary_dim": 4}),
        ("Rwkv", {"vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 2}),
        ("StableLm", SMALL),  # uses the interface, and tells its attention nothing
        ("Mistral", {**SMALL, "sliding_window": 16}),
        ("Mamba", {"vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 2}),
    ],
)
def test_a_model_of_another_kind_is_refused_when_it_is_loaded(
    tiny_llama: Path, kind: str, config: dict[str, Any]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    with pytest.raises(EngineUnavailable, match=r"does not sample from.*use engine='vllm'"):
        TransformersEngine(made(kind, **config), tokenizer=tokenizer, device="cpu")


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("Qwen2", SMALL),
        ("GPT2", GPT),
        ("Gemma", {**SMALL, "head_dim": 8}),
        ("GPTNeoX", SMALL),
        ("Gemma3", {"text_config": TEXT, "vision_config": VISION}),
    ],
)
async def test_full_attention_is_taken(tiny_llama: Path, kind: str, config: dict[str, Any]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    engine = TransformersEngine(made(kind, **config), tokenizer=tokenizer, device="cpu", threads=1)
    [samples] = await engine.sample([PROMPT], SHORT)
    assert len(samples) == 2
    await engine.aclose()


def test_layers_are_those_of_the_text_model() -> None:
    assert layer_kinds(transformers.Gemma3Config()) == {"full_attention", "sliding_attention"}
    assert layer_kinds(transformers.LlamaConfig()) == {"full_attention"}
    assert layer_kinds(transformers.LlavaConfig()) == {"full_attention"}


def test_a_loaded_model_stays_as_it_is_unless_told_otherwise(tiny_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16).train()
    TransformersEngine(model, tokenizer=tokenizer, threads=1)
    assert (model.dtype, model.device.type, model.training) == (torch.bfloat16, "cpu", False)
    TransformersEngine(model, tokenizer=tokenizer, threads=1, dtype="float32")
    assert model.dtype == torch.float32


async def test_samples_that_cannot_be_read_end_their_call_and_no_other(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TransformersEngine(tiny_llama, device="cpu", threads=1)
    await engine.sample([PROMPT], SHORT)
    with monkeypatch.context() as broken:
        broken.setattr(engine._reader, "read", lambda *_, **__: 1 / 0)
        with pytest.raises(EngineError, match="failed while sampling: division by zero"):
            await asyncio.wait_for(engine.sample([PROMPT], SHORT), 30)
    [samples] = await asyncio.wait_for(engine.sample([PROMPT], SHORT), 30)
    assert len(samples) == 2
    await engine.aclose()


async def test_a_closed_engine_is_unavailable(tiny_llama: Path) -> None:
    engine = TransformersEngine(tiny_llama, device="cpu", threads=1)
    await engine.aclose()
    with pytest.raises(EngineUnavailable, match="is closed: make another one"):
        await engine.sample([PROMPT], SHORT)
