"""Recipes of stage 1 (PSI) for models that exist already; field descriptions are the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pgenrm_agent.training.recipe import TrainerRecipe, read_recipe

__all__ = ["SftRecipe", "load_sft_recipe"]


class SftRecipe(TrainerRecipe):
    """Supervised training on the chains of a dataset."""

    seed: Annotated[int, Field(ge=0, description="of the order, and of an adapter's first weights")]
    epochs: Annotated[float, Field(gt=0, description="times that each chain is seen")] = 1.0
    rows_per_step: Annotated[int, Field(gt=0, description="chains of an optimizer step")]
    rows_at_once: Annotated[int, Field(gt=0, description="chains in one process's forward pass")]
    max_tokens: Annotated[
        int, Field(gt=0, description="prompt and chain together; longer ones are left out")
    ]
    held_out: Annotated[
        float, Field(ge=0, lt=1, description="share of people whose chains only watch the loss")
    ] = 0.0
    learning_rate: Annotated[float, Field(gt=0, description="peak; it falls as a cosine")]
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


def load_sft_recipe(name_or_path: str | Path) -> SftRecipe:
    """A recipe by the name of a bundled file (without .yaml) or by path; see `read_recipe`."""
    return read_recipe(SftRecipe, name_or_path, folder="recipes/sft")
