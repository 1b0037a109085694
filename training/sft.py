"""Stage 1 (PSI) for any instruct model: supervised on a dataset of evaluation chains, with TRL.

    pgenrm train sft --data runs/chains --model MODEL --recipe tiny-cpu --out runs/sft
    accelerate launch --num_processes 8 -m pgenrm_agent.cli train sft --recipe llama-8b ...

The dataset is what `pgenrm train chains` wrote. The loss covers the chain only (paper 4.1.1); the
prompt is what inference sends. All weights are trained, or a LoRA adapter, as the recipe says.
Running the same command again continues from the last checkpoint.

A model from scratch, tokenizer included, is another matter: `psi`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgenrm_agent.engines.prompting import render, render_answer, token_ids
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.people import place_of
from pgenrm_agent.files import write_json
from pgenrm_agent.run_folder import RUN, digest, refuse_other_settings, weights_of
from pgenrm_agent.training.chain_dataset import ChainRow, dataset_format, read_dataset
from pgenrm_agent.training.recipe import SftRecipe
from pgenrm_agent.training.run import (
    Curves,
    is_main_process,
    last_checkpoint,
    lora_config,
    mean_of_last_tenth,
    processes,
    refuse_several_gpus,
    refuse_without_chat_template,
    start_width,
    train,
    trained_folder,
    trainer_options,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PANELS = (
    ("loss", "loss per chain token (nats)"),
    ("eval_loss", "the same for held-out users"),
    ("mean_token_accuracy", "share of chain tokens predicted"),
    ("entropy", "entropy per chain token (nats)"),
    ("learning_rate", "learning rate"),
    ("grad_norm", "norm of the gradient"),
)
IGNORED = -100


@dataclass(frozen=True)
class SftPlan:
    """What a run would train on. tokens: of one epoch, prompts included."""

    rows: int
    held_out: int
    too_long: int
    tokens: int
    learned_tokens: int
    steps: int


@dataclass(frozen=True)
class SftResult:
    """What a run came to.

    folder: the model's (or adapter's). loss: mean of the last tenth of the steps, nats a token.
    """

    folder: Path
    steps: int
    seconds: float
    loss: float
    rows: int
    too_long: int


def plan_sft(recipe: SftRecipe, model: Path, data: Path) -> SftPlan:
    """Read and encode the dataset, and count.

    Raises ConfigurationError, as `train_sft` for its data.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return _encode_all(recipe, tokenizer, read_dataset(data), data)[2]


def train_sft(recipe: SftRecipe, model: Path, data: Path, out: Path) -> SftResult:
    """Run (or continue) stage 1; the model ends up in `out/model`, or `out/adapter` with LoRA.

    Args:
        recipe: for how long, how large, all weights or an adapter.
        model: a folder with a causal language model and its tokenizer (with a chat template).
        data: the folder of a chain dataset, or its dataset.jsonl. The chain format that it tells goes
            with what is trained; that of `model` where it tells none.
        out: checkpoints, curve.jsonl, curve.png and run.json go there, too. A run that has ended
            is not repeated.

    Raises:
        ConfigurationError: a malformed row (file, line and field), no row that is short enough, a
            batch that does not divide, `out` holds a run with other settings, sharding without a
            GPU, several GPUs without a launcher, a chain format that is nowhere, or extra "training"
            is missing.
    """
    try:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer
    except ImportError as error:
        raise ConfigurationError("stage 1 needs pip install 'pgenrm-agent[training]'") from error
    from transformers import AutoModelForCausalLM, AutoTokenizer

    refuse_several_gpus()
    options = trainer_options(recipe, out, rows=recipe.rows_per_step)
    read = read_dataset(data)
    format_place = dataset_format(data, model)
    settings = {
        "recipe": recipe.model_dump(mode="json"),
        "model": weights_of(model),
        "dataset": digest(row.model_dump_json() for row in read),
    }
    refuse_other_settings(out, settings, what="a run")
    folder = trained_folder(recipe, out)
    if (out / RUN).is_file():
        ended = json.loads((out / RUN).read_text(encoding="utf-8"))
        if ended["finished"]:
            return SftResult(**{**ended["result"], "folder": folder})

    tokenizer = AutoTokenizer.from_pretrained(model)
    rows, held_out, plan = _encode_all(recipe, tokenizer, read, data)
    start = AutoModelForCausalLM.from_pretrained(
        model, dtype=start_width(recipe), use_safetensors=True
    )
    last = last_checkpoint(out)
    curves = Curves(out, PANELS, of=("loss", "eval_loss"), resumed=last)
    trainer = SFTTrainer(
        model=start,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(held_out) if held_out else None,
        peft_config=lora_config(recipe.adapter),
        callbacks=[curves],
        args=SFTConfig(
            **options,
            max_steps=plan.steps,
            per_device_eval_batch_size=recipe.rows_at_once,
            max_length=None,  # rows that are too long were left out whole
            lr_scheduler_type="cosine",
            weight_decay=recipe.weight_decay,
            eval_strategy="steps" if held_out else "no",
            eval_steps=recipe.save_every,
        ),
    )
    train(trainer, format_place, folder, resumed=last)
    result = SftResult(
        folder,
        trainer.state.global_step,
        curves.seconds,
        mean_of_last_tenth(trainer, "loss"),
        plan.rows,
        plan.too_long,
    )
    if is_main_process():
        ended = {**asdict(result), "folder": folder.name}
        finished = result.steps >= plan.steps
        write_json(
            out / RUN,
            settings
            | {
                "finished": finished,
                "result": ended,
                "plan": asdict(plan),
                "processes": processes(),
            },
        )
    return result


# --- the dataset, as tokens ---


def _encode_all(
    recipe: SftRecipe, tokenizer: PreTrainedTokenizerBase, read: Sequence[ChainRow], data: Path
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], SftPlan]:
    """Rows to learn, rows of held-out users, and the counts."""
    refuse_without_chat_template(tokenizer)
    encoded = [(row.user_id, encode_row(row, tokenizer)) for row in read]
    short = [(user, row) for user, row in encoded if len(row["input_ids"]) <= recipe.max_tokens]
    held = [row for user, row in short if _place_of(user) < recipe.held_out]
    rows = [row for user, row in short if _place_of(user) >= recipe.held_out]
    if not rows:
        raise ConfigurationError(
            f"{data}: none of its {len(read)} chains can be learned from: {len(read) - len(short)}"
            f" have more than max_tokens = {recipe.max_tokens} with their prompt, {len(held)} are held"
            " out"
        )
    plan = SftPlan(
        rows=len(rows),
        held_out=len(held),
        too_long=len(read) - len(short),
        tokens=sum(len(row["input_ids"]) for row in rows),
        learned_tokens=sum(label != IGNORED for row in rows for label in row["labels"]),
        # An epoch ends with a step of its own, however few rows are left for it.
        steps=math.ceil(recipe.epochs * math.ceil(len(rows) / recipe.rows_per_step)),
    )
    return rows, held, plan


def _place_of(user: str) -> float:
    """In [0, 1). Not that of `people` splits, whose training users all stand in one part of it."""
    return place_of(f"sft\n{user}")


def encode_row(row: ChainRow, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """The tokens that the engines make of the prompt, then the chain up to the end of its turn."""
    prompt = token_ids(tokenizer, render(tokenizer, row.prompt))
    learned = token_ids(tokenizer, render_answer(tokenizer, row.prompt, row.completion[0].content))
    return {"input_ids": prompt + learned, "labels": [IGNORED] * len(prompt) + learned}
