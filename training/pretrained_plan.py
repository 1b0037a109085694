"""What a run from a pretrained checkpoint takes: what its dry run tells."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig

from pgenrm_agent.training.encoding import IGNORED, fill_rows
from pgenrm_agent.training.packed_attention import kernel_for
from pgenrm_agent.training.psi import device_name
from pgenrm_agent.training.reading import load_plain
from pgenrm_agent.training.recipe import PsiRecipe
from pgenrm_agent.training.token_file import TokenFile, read_token_file

UTILIZATION = 0.35
"""Share of what a matrix product reaches that a whole step is taken to reach."""
NUMBERS_PER_STATE = 15
"""Activations kept for the way back, in units of one hidden state a token and layer."""
LOGIT_BYTES = 14
"""Of each learned position and token of the vocabulary: the logits, in float32 too, and gradients."""
PRODUCT_TRIES = 5


@dataclass(frozen=True)
class _Rows:
    """Of a token file, in numbers. learned: the share of positions that are learned."""

    rows: list[int]
    tokens: list[int]
    learned: float
    mean_length: float


def plan_pretrained(recipe: PsiRecipe, data: Path, base: str | Path) -> dict[str, Any]:
    """Return tokens, memory and expected speed of a run on this machine, without running anything.

    The speed is what a step's floating-point operations take at a share of the speed that a matrix
    product of the model's size reaches here, which is measured. minutes_with_asking: of training, and of
    asking about held-out choices at most; loading, compiling, measuring reading and making the adapter
    come on top.
    """
    start = recipe.start
    assert start is not None
    model = load_plain(base)
    size = recipe.phases[0].tokens_per_step
    file = _in_numbers(read_token_file(data), size)
    parameters = model.num_parameters()
    trained = sum(weight.numel() for name, weight in model.named_parameters() if "_proj." in name)
    half = recipe.precision == "bfloat16"
    config = model.config
    states = NUMBERS_PER_STATE * config.num_hidden_layers * config.hidden_size * (2 if half else 4)
    logits = LOGIT_BYTES * file.learned * config.vocab_size
    needed = 4 * parameters + 12 * trained + size * (states + logits)
    flops = flops_a_token(config, trained, learned=file.learned, length=file.mean_length)
    rate = UTILIZATION * _product_rate(size, config, half=half) / flops
    seen = rate * 60 * start.minutes
    asking = start.choices_seconds * (2 + len(start.choices_at)) / 60
    return {
        "device": device_name(),
        "attention": kernel_for(_device(), torch.bfloat16 if half else torch.float32),
        "tokens_by_phase": file.tokens,
        "rows_by_phase": file.rows,
        "learned_share": round(file.learned, 3),
        "parameters_M": round(parameters / 1e6, 2),
        "trained_M": round(trained / 1e6, 2),
        "estimated_memory_GiB": round(needed / 2**30, 2),
        "expected_tokens_per_s": round(rate),
        "expected_tokens": round(seen),
        "expected_steps": round(seen / size),
        "times_through_the_data": round(seen / sum(file.tokens), 2),
        "minutes": start.minutes,
        "minutes_with_asking": round(start.minutes + asking, 1),
    }


def flops_a_token(config: LlamaConfig, trained: int, *, learned: float, length: float) -> float:
    """Return the floating-point operations of a token's pass forward and back.

    trained: weights of the layers. learned: share of positions with logits. length: mean of examples.
    """
    head = learned * config.vocab_size * config.hidden_size
    attention = config.num_hidden_layers * config.hidden_size * length  # causal: half of all pairs
    # Forward and back take 2 and 4 a weight; the output layer is frozen and gets no gradient.
    return 6 * trained + 4 * head + 6 * attention


def _in_numbers(file: TokenFile, size: int) -> _Rows:
    examples = [example for phase in file.phases for example in phase]
    tokens = sum(file.tokens())
    learned = sum(int((np.asarray(example.labels) != IGNORED).sum()) for example in examples)
    return _Rows(
        [len(fill_rows(phase, size)) for phase in file.phases],
        file.tokens(),
        learned / tokens,
        sum(len(example.input_ids) ** 2 for example in examples) / tokens,
    )


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _product_rate(tokens: int, config: LlamaConfig, *, half: bool) -> float:
    """Operations a second of a product of a row's states with a layer's weights."""
    device, dtype = _device(), torch.bfloat16 if half else torch.float32
    states = torch.randn(tokens, config.hidden_size, device=device, dtype=dtype)
    weights = torch.randn(config.hidden_size, config.intermediate_size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(PRODUCT_TRIES):
        started = time.perf_counter()
        product = states @ weights
        float(product[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * tokens * config.hidden_size * config.intermediate_size / best
