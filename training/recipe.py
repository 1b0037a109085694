"""Recipes: one YAML file a run, validated; the field descriptions are the documentation."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.wording import place_of, said_of

COMMANDS = {"recipes": "psi", "recipes/sft": "sft", "recipes/grpo": "cre or curriculum"}
"""Which `pgenrm train` takes the recipes of a folder."""


class Section(BaseModel):
    """A part of a recipe: frozen, and a misspelled field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Recipe(Section):
    """What a run is made from: a YAML file, one of the bundled ones or the user's own."""

    folder: ClassVar[str]
    package: ClassVar[str] = "pgenrm_agent.training"
    name: str

    @classmethod
    def load(cls, name_or_path: str | Path) -> Self:
        """Read a recipe by the name of a file in `package`'s `folder`, or by a path ending in .yaml.

        Raises:
            ConfigurationError: no such recipe, not YAML, or a field is missing, unknown or out of
                range.
        """
        text = cls._read(name_or_path)
        try:
            return cls.model_validate(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise ConfigurationError(f"{name_or_path}: not valid YAML: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = place_of(first["loc"])
            field = f", field {where}" if where else ""
            raise ConfigurationError(f"{name_or_path}{field}: {said_of(first)}") from error

    @classmethod
    def _read(cls, name_or_path: str | Path) -> str:
        path = Path(name_or_path)
        if path.suffix in {".yaml", ".yml"}:
            if not path.is_file():
                raise ConfigurationError(f"{path}: no such recipe file")
            return path.read_text(encoding="utf-8")
        root = resources.files(cls.package)
        bundled = root.joinpath(*cls.folder.split("/"))
        known = sorted(
            Path(item.name).stem for item in bundled.iterdir() if item.name.endswith(".yaml")
        )
        if str(name_or_path) not in known:
            commands = [
                command
                for folder, command in COMMANDS.items()
                if root.joinpath(*folder.split("/"), f"{name_or_path}.yaml").is_file()
            ]
            hint = (
                f" One of that name is for pgenrm train {', '.join(commands)}." if commands else ""
            )
            raise ConfigurationError(
                f"no recipe named {str(name_or_path)!r}; bundled are: {', '.join(known)}."
                f"{hint} A path must end in .yaml"
            )
        return (bundled / f"{name_or_path}.yaml").read_text(encoding="utf-8")


class Adapter(Section):
    """A LoRA adapter instead of all weights."""

    rank: Annotated[int, Field(gt=0)] = 16
    alpha: Annotated[int, Field(gt=0, description="scale; the update is alpha / rank of it")] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Annotated[str, Field(description="modules, as PEFT names them")] = "all-linear"


class TrainerRecipe(Recipe):
    """What the stages on TRL's trainers share."""

    seed: Annotated[
        int, Field(ge=0, description="of the order, of samples, of an adapter's weights")
    ]
    rows_at_once: Annotated[int, Field(gt=0, description="chains in one process's forward pass")]
    learning_rate: Annotated[float, Field(gt=0, description="peak")]
    warmup_steps: Annotated[int, Field(ge=0)] = 0
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
        dict[Literal["read", "reason", "chain", "choice"], float],
        Field(
            description="share of examples by task; shares are normalized; `choice`, whole chains"
            " about real people's choices, takes a `start`"
        ),
    ]
    tokens: Annotated[
        int,
        Field(
            gt=0,
            description="padded tokens seen in this phase; with a `start`, tokens that are made for it",
        ),
    ]
    tokens_per_step: Annotated[int, Field(gt=0, description="padded tokens of an optimizer step")]


class PretrainedStart(Section):
    """A pretrained Llama with its own tokenizer to start from, and a schedule by the clock.

    Rows are packed, and what is learned ends up as a LoRA adapter: embeddings and norms stay as they are.
    """

    model: Annotated[str, Field(description="folder or hub name, unless another is given")]
    context: Annotated[
        int, Field(ge=512, le=32_000, description="longest prompt plus answer, in tokens")
    ]
    minutes: Annotated[float, Field(gt=0, description="of training; measuring takes none of them")]
    reading: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="share of the values of held-out texts, read right, at which reading is there:"
            " the first phase ends, and the learning rate begins to fall",
        ),
    ] = 0.9
    latest: Annotated[
        float, Field(gt=0, lt=1, description="share of the time after which both happen anyway")
    ] = 0.5
    reading_examples: Annotated[
        int, Field(gt=0, description="held-out examples that reading is measured on")
    ] = 96
    choices_at: Annotated[
        tuple[float, ...],
        Field(description="shares of the time at which some held-out choices are asked about"),
    ] = ()
    choices: Annotated[
        int, Field(ge=0, description="held-out choices asked about then; all of them at the end")
    ] = 48
    choices_seconds: Annotated[float, Field(gt=0, description="for asking, at most, each time")] = (
        60.0
    )
    choices_together: Annotated[
        int, Field(gt=0, description="held-out choices in a batch, two chains each")
    ] = 192
    compile: Annotated[
        bool, Field(description="compile the layers on a GPU, if a step then takes less time")
    ] = False
    kept: Annotated[
        float, Field(gt=0, le=1, description="share of what was learned that the adapter holds")
    ] = 0.99
    rank: Annotated[int, Field(gt=0, description="highest rank of the adapter")] = 96
    part_bytes: Annotated[
        int, Field(gt=0, description="largest file of the adapter; beyond that it is in parts")
    ] = 16_000_000


class PsiRecipe(Recipe):
    """Stage 1, persona-guided scoring induction: from scratch (`shape`), or from a `start`."""

    folder: ClassVar[str] = "recipes"
    seed: Annotated[int, Field(ge=0, description="of data, initial weights and order")]
    shape: ModelShape | None = None
    start: PretrainedStart | None = None
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

    @model_validator(mode="after")
    def _begins_in_a_single_way(self) -> Self:
        if (self.shape is None) == (self.start is None):
            raise ValueError("a recipe has a shape (from scratch) or a start (a checkpoint)")
        if self.start is None:
            if any("choice" in phase.tasks for phase in self.phases):
                raise ValueError("the task choice takes a start: from scratch, users are simulated")
            return self
        sizes = [phase.tokens_per_step for phase in self.phases]
        if len(set(sizes)) > 1 or sizes[0] < self.start.context:
            raise ValueError(
                "with a start all phases have the same tokens_per_step, at least start.context"
            )
        return self


class SftRecipe(TrainerRecipe):
    """Stage 1 for models that exist: supervised on the chains of a dataset."""

    folder: ClassVar[str] = "recipes/sft"

    epochs: Annotated[float, Field(gt=0, description="times that each chain is seen")] = 1.0
    rows_per_step: Annotated[int, Field(gt=0, description="chains of an optimizer step")]
    max_tokens: Annotated[
        int, Field(gt=0, description="prompt and chain together; longer ones are left out")
    ]
    held_out: Annotated[
        float, Field(ge=0, lt=1, description="share of users whose chains only watch the loss")
    ] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class CurriculumRecipe(Section):
    """How hard choices come in: their share grows from `start` to `end` over the run."""

    start: Annotated[float, Field(ge=0, le=1, description="share of hard choices at first")] = 0.2
    end: Annotated[float, Field(ge=0, le=1, description="share of hard choices at last")] = 0.8
    chains: Annotated[int, Field(gt=0, description="chains sampled to measure a choice")] = 4
    margin: Annotated[
        float, Field(ge=0, description="hard: mean margin of the chosen answer at most this")
    ] = 0.5


class GrpoRecipe(TrainerRecipe):
    """CRE and curriculum: GRPO on choices, history shown and stated criteria withheld."""

    folder: ClassVar[str] = "recipes/grpo"

    choices: Annotated[int, Field(gt=0, description="choices to train on")]
    history: Annotated[int, Field(ge=0, description="past choices shown, at most")] = 3
    steps: Annotated[int, Field(gt=0, description="optimizer steps")]
    choices_per_step: Annotated[int, Field(gt=0, description="choices of an optimizer step")]
    samples: Annotated[int, Field(ge=2, description="chains of a choice: the group of GRPO")]
    alpha: Annotated[float, Field(ge=0, description="weight of the process reward")] = 0.5
    beta: Annotated[float, Field(ge=0, description="weight of the outcome reward")] = 1.0
    kl: Annotated[float, Field(ge=0, description="weight of the divergence from the start")] = 0.0
    temperature: Annotated[float, Field(gt=0)] = 1.0
    max_tokens: Annotated[int, Field(gt=0, description="of a chain")]
    generation: Annotated[
        Literal["transformers", "vllm-colocated", "vllm-server"],
        Field(description="what samples the chains; vLLM needs a GPU here"),
    ] = "transformers"
    curriculum: CurriculumRecipe = CurriculumRecipe()
