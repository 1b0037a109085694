"""What the vLLM engine refuses before it needs vLLM."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from pgenrm_agent.engines.grammar import grammar_of
from pgenrm_agent.engines.prompting import EncodedPrompt
from pgenrm_agent.engines.protocol import Prompt, SamplingParams
from pgenrm_agent.engines.vllm import VLLMEngine
from pgenrm_agent.engines.vllm_sampling import VLLMSampler
from pgenrm_agent.errors import ConfigurationError, EngineUnavailable
from pgenrm_agent.schema import Message


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'pgenrm-agent\[vllm\]'"):
        VLLMEngine("some/model")


def test_a_folder_without_a_model_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"no config\.json there"):
        VLLMEngine(tmp_path)


def test_a_folder_without_an_adapter_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"no adapter_config\.json there"):
        VLLMEngine("some/model", adapter=tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [('{"peft_type": "IA3"}', "is no LoRA configuration"), ('{"r": 1024}', "rank 1024 is more")],
)
def test_an_adapter_that_vllm_has_no_room_for_is_unavailable(
    tmp_path: Path, config: str, message: str
) -> None:
    (tmp_path / "adapter_config.json").write_text(config)
    with pytest.raises(EngineUnavailable, match=message):
        VLLMEngine("some/model", adapter=tmp_path)


def test_a_parallel_size_below_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="tensor_parallel_size is 0"):
        VLLMEngine("some/model", tensor_parallel_size=0)


async def test_a_schema_is_read_beside_the_loop(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def recorded(prompt: Prompt) -> str | None:
        threads.append(threading.current_thread())
        return grammar_of(prompt)

    monkeypatch.setattr("pgenrm_agent.engines.vllm_sampling.grammar_of", recorded)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    sampler = VLLMSampler(None, tokenizer, 256, None)  # type: ignore[arg-type]
    prompt = Prompt(messages=(Message(role="user", content="How?"),), json_schema={"not": {}})
    with pytest.raises(ConfigurationError, match="'not' cannot be held to"):
        await sampler.sample(prompt, EncodedPrompt([1], ""), SamplingParams(), None)
    assert threading.current_thread() not in threads
    assert len(threads) == 1
