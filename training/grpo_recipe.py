"""Recipes of the two reinforcement stages, CRE and curriculum; field descriptions are the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pgenrm_agent.training.recipe import Section, TrainerRecipe, read_recipe

__all__ = ["CurriculumRecipe", "GrpoRecipe", "load_grpo_recipe"]


class CurriculumRecipe(Section):
    """How hard choices come in: their share grows from `start` to `end` over the run."""

    start: Annotated[float, Field(ge=0, le=1, description="share of hard choices at first")] = 0.2
    end: Annotated[float, Field(ge=0, le=1, description="share of hard choices at last")] = 0.8
    chains: Annotated[int, Field(gt=0, description="chains sampled to measure a choice")] = 4
    margin: Annotated[
        float, Field(ge=0, description="hard: mean margin of the chosen answer at most this")
    ] = 0.5


class GrpoRecipe(TrainerRecipe):
    """GRPO on choices with history shown and stated criteria withheld."""

    seed: Annotated[int, Field(ge=0)]
    choices: Annotated[int, Field(gt=0, description="choices to train on")]
    history: Annotated[int, Field(ge=0, description="past choices shown, at most")] = 3
    steps: Annotated[int, Field(gt=0, description="optimizer steps")]
    choices_per_step: Annotated[int, Field(gt=0, description="choices of an optimizer step")]
    samples: Annotated[int, Field(ge=2, description="chains of a choice: the group of GRPO")]
    rows_at_once: Annotated[int, Field(gt=0, description="chains in one forward pass")]
    alpha: Annotated[float, Field(ge=0, description="weight of the process reward")] = 0.5
    beta: Annotated[float, Field(ge=0, description="weight of the outcome reward")] = 1.0
    kl: Annotated[float, Field(ge=0, description="weight of the divergence from the start")] = 0.0
    learning_rate: Annotated[float, Field(gt=0)]
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    temperature: Annotated[float, Field(gt=0)] = 1.0
    max_tokens: Annotated[int, Field(gt=0, description="of a chain")]
    generation: Annotated[
        Literal["transformers", "vllm-colocated", "vllm-server"],
        Field(description="what samples the chains; vLLM needs a GPU here"),
    ] = "transformers"
    curriculum: CurriculumRecipe = CurriculumRecipe()


def load_grpo_recipe(name_or_path: str | Path) -> GrpoRecipe:
    """A recipe by the name of a bundled file (without .yaml) or by path; see `read_recipe`."""
    return read_recipe(GrpoRecipe, name_or_path, folder="recipes/grpo")
