"""Recipes: one YAML file a run, validated; the field descriptions are the documentation."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pgenrm_agent.errors import ConfigurationError

__all__ = [
    "Adapter",
    "ModelShape",
    "Phase",
    "PsiRecipe",
    "Section",
    "TrainerRecipe",
    "load_recipe",
    "read_recipe",
]

Recipe = TypeVar("Recipe", bound="Section")

COMMANDS = {
    "recipes": "psi",
    "recipes/sft": "sft",
    "recipes/grpo": "cre or curriculum",
}
"""Which `pgenrm train` takes the recipes of a folder."""


class Section(BaseModel):
    """A part of a recipe: frozen, and a misspelled field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Adapter(Section):
    """A LoRA adapter instead of all weights."""

    rank: Annotated[int, Field(gt=0)] = 16
    alpha: Annotated[int, Field(gt=0, description="scale; the update is alpha / rank of it")] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Annotated[str, Field(description="modules, as PEFT names them")] = "all-linear"


class TrainerRecipe(Section):
    """What the stages on TRL's trainers share."""

    name: str
    precision: Annotated[
        Literal["float32", "bfloat16"],
        Field(description="of activations, and of the weights under an adapter"),
    ] = "float32"
    save_every: Annotated[int, Field(gt=0, description="optimizer steps between checkpoints")]
    adapter: Adapter | None = None
    recompute: Annotated[
        bool, Field(description="activations again on the way back: less memory, more time")
    ] = False
    shard: Annotated[
        bool, Field(description="FSDP: weights and optimizer split over the GPUs' processes")
    ] = False


class ModelShape(Section):
    """A Llama-architecture model trained from scratch, with its own tokenizer."""

    hidden: Annotated[int, Field(gt=0, description="width of the residual stream")]
    layers: Annotated[int, Field(gt=0, description="number of transformer blocks")]
    heads: Annotated[int, Field(gt=0, description="attention heads (and key-value heads)")]
    feed_forward: Annotated[int, Field(gt=0, description="width of the gated feed-forward layer")]
    vocabulary: Annotated[int, Field(ge=512, description="tokens, markers included")]
    context: Annotated[int, Field(ge=512, description="longest prompt plus answer, in tokens")]


class Phase(Section):
    """A stretch of training on one mixture of tasks."""

    tasks: Annotated[
        dict[Literal["read", "reason", "chain"], float],
        Field(description="share of examples by task; shares are normalized"),
    ]
    tokens: Annotated[int, Field(gt=0, description="padded tokens seen in this phase")]
    tokens_per_step: Annotated[int, Field(gt=0, description="padded tokens of an optimizer step")]


class PsiRecipe(Section):
    """Stage 1, persona-guided scoring induction, from scratch on simulated people."""

    name: str
    seed: Annotated[int, Field(ge=0, description="of data, initial weights and order")]
    shape: ModelShape
    chain_format: Annotated[str, Field(description="name or folder of the chain format")]
    phases: tuple[Phase, ...]
    precision: Annotated[
        Literal["float32", "bfloat16"],
        Field(description="of activations; bfloat16 pays on a GPU or a CPU with AMX only"),
    ]
    learning_rate: Annotated[float, Field(gt=0, description="peak, after warm-up")]
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    save_every: Annotated[int, Field(gt=0, description="optimizer steps between checkpoints")]
    threads: Annotated[int | None, Field(description="CPU threads; null leaves torch's choice")] = (
        None
    )


def load_recipe(name_or_path: str | Path) -> PsiRecipe:
    """A stage-1 recipe by the name of a bundled file (without .yaml) or by path; see `read_recipe`."""
    return read_recipe(PsiRecipe, name_or_path)


def read_recipe(
    kind: type[Recipe],
    name_or_path: str | Path,
    *,
    folder: str = "recipes",
    package: str = "pgenrm_agent.training",
) -> Recipe:
    """A recipe of a kind, by the name of a file in `package`'s `folder` or by a path ending in .yaml.

    Raises:
        ConfigurationError: no such recipe, not YAML, or a field is missing, unknown or out of range.
    """
    path = Path(name_or_path)
    root = resources.files(package)
    bundled = root.joinpath(*folder.split("/"))
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise ConfigurationError(f"{path}: no such recipe file")
        text = path.read_text(encoding="utf-8")
    else:
        known = sorted(
            Path(item.name).stem for item in bundled.iterdir() if item.name.endswith(".yaml")
        )
        if str(name_or_path) not in known:
            others = [
                command
                for folder_of, command in COMMANDS.items()
                if root.joinpath(*folder_of.split("/"), f"{name_or_path}.yaml").is_file()
            ]
            hint = f" One of that name is for pgenrm train {', '.join(others)}." if others else ""
            raise ConfigurationError(
                f"no recipe named {str(name_or_path)!r}; bundled are: {', '.join(known)}."
                f"{hint} A path must end in .yaml"
            )
        text = (bundled / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    try:
        return kind.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{name_or_path}: not valid YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{name_or_path}, field {where}: {first['msg']}") from error
