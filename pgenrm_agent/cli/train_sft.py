"""`pgenrm train sft` and `pgenrm train merge`: stage 1 for models that exist, and plain checkpoints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgenrm_agent.cli.options import (
    DryRunOption,
    JsonOption,
    ModelFolderOption,
    OutOption,
    RecipeOption,
)
from pgenrm_agent.cli.output import print_summary

if TYPE_CHECKING:
    from pgenrm_agent.training.recipe import SftRecipe


def sft(
    data: Annotated[
        Path, typer.Option(help="Folder that `pgenrm train chains` wrote, or a dataset.jsonl.")
    ],
    model: ModelFolderOption,
    out: OutOption = Path("runs/sft"),
    recipe: RecipeOption = "tiny-cpu",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Stage 1 for any instruct model: supervised on a dataset of evaluation chains.

    All weights or a LoRA adapter, as the recipe says; on several processes with `accelerate launch
    --num_processes N -m pgenrm_agent.cli train sft ...`. `psi` trains a model from scratch.
    """
    from pgenrm_agent.model_files import refuse_without_model
    from pgenrm_agent.training.recipe import SftRecipe
    from pgenrm_agent.training.run import is_main_process
    from pgenrm_agent.training.sft import train_sft

    loaded = SftRecipe.load(recipe)
    refuse_without_model(model)
    if dry_run:
        print_summary(
            _plan(loaded, model, data), f"stage 1, {loaded.name}, dry run", as_json=as_json
        )
        return
    result = train_sft(loaded, model, data, out)
    if is_main_process():
        summary = {
            **asdict(result),
            "folder": str(result.folder),
            "seconds": round(result.seconds, 1),
            "loss": round(result.loss, 4),
        }
        print_summary(summary, f"stage 1, {loaded.name}", as_json=as_json)


def merge(
    adapter: Annotated[Path, typer.Option(help="Folder of a LoRA adapter.")],
    out: Annotated[Path, typer.Option(help="New folder for the plain checkpoint.")],
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of its base model; the one that the adapter names if not given."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="float32 or bfloat16, of the weights; as in the base if not given."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Add an adapter to its model, and write a plain checkpoint that every engine loads."""
    from pgenrm_agent.training.merge import merge_adapter

    base = merge_adapter(adapter, out, model=model, precision=precision)
    summary = {"model": str(out), "base": str(base), "adapter": str(adapter)}
    print_summary(summary, "merged", as_json=as_json)


def _plan(recipe: SftRecipe, model: Path, data: Path) -> dict[str, object]:
    from pgenrm_agent.training.memory_estimate import estimate_memory
    from pgenrm_agent.training.sft import plan_sft

    plan = plan_sft(recipe, model, data)
    return {
        "model": str(model),
        "data": str(data),
        **asdict(plan),
        **estimate_memory(model, recipe, tokens=recipe.rows_at_once * recipe.max_tokens),
        **{f"recipe.{key}": value for key, value in recipe.model_dump().items()},
    }
