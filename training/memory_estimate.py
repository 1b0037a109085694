"""How much memory training would take, roughly: what a dry run tells."""

from __future__ import annotations

from pathlib import Path

from pgenrm_agent.training.recipe import TrainerRecipe

BYTES = {"float32": 4, "bfloat16": 2}
STATES_PER_LAYER, STATES_RECOMPUTED = 12, 1
"""Activations kept for the way back, in units of one hidden state a token."""


def estimate_memory(model: Path, recipe: TrainerRecipe, *, tokens: int) -> dict[str, object]:
    """Return parameters in millions, and GiB over all processes for a pass over `tokens`.

    Weights, gradients and Adam's two moments in float32 for what is trained; frozen weights and
    activations, at least one layer's, in the recipe's precision. Generation comes on top.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    empty.tie_weights()
    parameters = empty.num_parameters()
    trained = parameters
    weights = 4 * parameters
    if recipe.adapter is not None:
        shapes = [
            part.weight.shape
            for name, part in empty.named_modules()
            if isinstance(part, torch.nn.Linear) and not name.endswith("lm_head")
        ]
        trained = recipe.adapter.rank * sum(sum(shape) for shape in shapes)
        weights = BYTES[recipe.precision] * parameters + 4 * trained
    kept = STATES_RECOMPUTED * config.num_hidden_layers + STATES_PER_LAYER
    if not recipe.recompute:
        kept = STATES_PER_LAYER * config.num_hidden_layers
    needed = weights + 12 * trained + BYTES[recipe.precision] * kept * tokens * config.hidden_size
    return {
        "parameters_M": round(parameters / 1e6, 2),
        "trained_M": round(trained / 1e6, 2),
        "estimated_memory_GiB": round(needed / 2**30, 2),
    }
