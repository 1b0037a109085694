"""An adapter that was trained here, in vLLM as a LoRA request and merged into a plain checkpoint."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

from pgenrm_agent.chain import parse_chain
from pgenrm_agent.engines.protocol import Engine, Prompt, SamplingParams
from pgenrm_agent.engines.transformers import TransformersEngine
from pgenrm_agent.errors import ChainError
from pgenrm_agent.model_files import format_of
from pgenrm_agent.schema import Message

pytestmark = pytest.mark.long
SAMPLES = 48

# In the bundled model's own form, of which it writes other marks without the adapter.
CHAIN = """## Notes
[response 1] substance 1 structure 0 warmth 3 caution 3
[response 2] substance 3 structure 1 warmth 7 caution 4
### Persona
They clearly want short answers.
### Criteria
1. Brevity (6): They asked for it.
### Marks
Response 1: Brevity {first}.
Response 2: Brevity 4."""


def ask(model: Path, number: int) -> tuple[Message, ...]:
    return format_of(model).messages(
        query=f"What is {number} plus one?",
        candidates=[f"{number + 1}.", f"Well, I believe that it is {number + 1}!"],
        history=(),
        stated=(),
        conversation=(),
    )


@pytest.fixture(scope="module")
def trained_adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes short chains that give the first response 9 or 6, and the second one 4."""
    from pgenrm_agent.training.chain_dataset import ChainRow
    from pgenrm_agent.training.recipe import Adapter, SftRecipe
    from pgenrm_agent.training.sft import train_sft

    folder = tmp_path_factory.mktemp("trained")
    rows = []
    for number in range(16):
        chain = Message(role="assistant", content=CHAIN.format(first=9 if number % 2 else 6))
        rows.append(ChainRow(user_id="ada", prompt=ask(model, number), completion=(chain,)))
    text = "".join(row.model_dump_json() + "\n" for row in rows)
    (folder / "dataset.jsonl").write_text(text, encoding="utf-8")
    recipe = SftRecipe(
        name="lora",
        seed=1,
        epochs=40,
        rows_per_step=16,
        rows_at_once=16,
        max_tokens=1000,
        learning_rate=0.01,
        save_every=100,
        adapter=Adapter(rank=8, alpha=16),
    )
    return train_sft(recipe, model, folder, folder / "run").folder


async def margins(engine: Engine, prompt: Prompt) -> list[float]:
    """Of the first response over the second, in each chain that can be read."""
    [samples] = await engine.sample([prompt], SamplingParams(temperature=1, max_tokens=300))
    gaps = []
    for sample in samples:
        try:
            chain = parse_chain(sample.text, ("first", "second"), asks_totals=False)
        except ChainError:
            continue
        if not chain.missing:
            gaps.append(chain.totals["first"] - chain.totals["second"])
    return gaps


async def test_vllm_scores_with_it_what_the_merged_model_scores(
    model: Path, trained_adapter: Path, start_vllm: Any, tmp_path: Path
) -> None:
    from pgenrm_agent.training.merge import merge_adapter

    merge_adapter(trained_adapter, tmp_path / "merged")
    prompt = Prompt(messages=ask(model, 40), n=SAMPLES, seed=2)
    results = []
    for engine in (
        start_vllm(trained_adapter),
        TransformersEngine(tmp_path / "merged", device="cpu"),
    ):
        try:
            results.append(await margins(engine, prompt))
        finally:
            await engine.aclose()
    in_vllm, merged = results
    assert len(in_vllm) > SAMPLES / 2 < len(merged)
    noise = math.hypot(*(stdev(sample) / math.sqrt(len(sample)) for sample in results))
    assert abs(fmean(in_vllm) - fmean(merged)) < 4 * noise
    # As it was trained: the first response is ahead, which it is for nobody without the adapter.
    assert fmean(in_vllm) > 1
    assert fmean(merged) > 1
