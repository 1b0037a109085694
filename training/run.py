"""What the stages on TRL's trainers share: where a run goes on, its curves, and the folder it leaves."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.files import write_json, write_text
from pgenrm_agent.training.format_files import write_format
from pgenrm_agent.training.recipe import Adapter, GrpoRecipe, SftRecipe, TrainerRecipe

if TYPE_CHECKING:
    import torch
    from transformers import (
        PreTrainedTokenizerBase,
        Trainer,
        TrainerCallback,
        TrainerControl,
        TrainerState,
    )
    from transformers import TrainingArguments as Arguments
    from transformers.trainer_callback import PrinterCallback, ProgressCallback
else:
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

CHECKPOINTS = "checkpoints"
ELAPSED = "elapsed.json"


def is_main_process() -> bool:
    """Whether this process writes what all share. The launcher (`accelerate launch`) numbers them."""
    return process_number() == 0


def process_number() -> int:
    """Of this process among all that train together, from 0."""
    return int(os.environ.get("RANK", "0"))


def processes() -> int:
    """How many train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def own_device() -> str | None:
    """The GPU that the launcher meant for this process; None leaves the choice to whoever asks."""
    import torch

    number = os.environ.get("LOCAL_RANK")
    return None if number is None or not torch.cuda.is_available() else f"cuda:{number}"


def refuse_several_gpus(*, launched: bool = True) -> None:
    """Raises ConfigurationError where one process sees several GPUs, and no launcher shares them out.

    A trainer would split its batches among them otherwise than the recipe says. launched: whether the
    stage can be started on several at all.
    """
    import torch

    if (seen := torch.cuda.device_count()) > 1 and not (launched and "RANK" in os.environ):
        start = f"start with accelerate launch --num_processes {seen} -m pgenrm_agent.cli ..., or "
        raise ConfigurationError(
            f"one process sees {seen} GPUs: {start if launched else ''}set CUDA_VISIBLE_DEVICES to one"
            " of them"
        )


def refuse_without_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ConfigurationError for a model that was not made to be asked."""
    if not tokenizer.chat_template:
        raise ConfigurationError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template: use an instruct model"
        )


def last_checkpoint(run: Path) -> str | None:
    """Return a run's newest whole checkpoint; one that a killed run was still writing is none."""

    def step(folder: Path) -> int:
        return int(folder.name.rpartition("-")[2])

    for folder in sorted((run / CHECKPOINTS).glob("checkpoint-*"), key=step, reverse=True):
        try:
            # The trainer writes its state last.
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return str(folder)
    return None


def lora_config(adapter: Adapter | None) -> Any:
    """A recipe's adapter as PEFT's LoraConfig; None for all weights."""
    if adapter is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=adapter.targets,
        task_type="CAUSAL_LM",
    )


def start_width(recipe: TrainerRecipe) -> torch.dtype:
    """In which the weights of the start are loaded.

    An optimizer keeps its sums in float32: steps far below a weight's own size are lost in bfloat16.
    Weights that an adapter leaves alone need no such width.
    """
    import torch

    narrow = recipe.precision == "bfloat16" and recipe.adapter is not None
    return torch.bfloat16 if narrow else torch.float32


def trainer_options(recipe: SftRecipe | GrpoRecipe, out: Path, *, rows: int) -> dict[str, Any]:
    """Return the arguments that the trainers of both methods share.

    rows: of an optimizer step, over all processes. Sharding is FSDP 2.

    Raises ConfigurationError when the recipe shards and there is no GPU, or when the rows cannot be
    shared out evenly.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    if recipe.shard and not on_gpu:
        raise ConfigurationError(f"recipe {recipe.name}: shard needs GPUs; set it to false here")
    return {
        "output_dir": str(out / CHECKPOINTS),
        "per_device_train_batch_size": recipe.rows_at_once,
        "gradient_accumulation_steps": passes_per_step(recipe.name, rows, recipe.rows_at_once),
        "learning_rate": recipe.learning_rate,
        "warmup_steps": recipe.warmup_steps,
        "bf16": recipe.precision == "bfloat16",
        "use_cpu": not on_gpu,
        "gradient_checkpointing": recipe.recompute and not recipe.shard,
        "fsdp": recipe.shard or None,
        "fsdp_config": {"activation_checkpointing": recipe.recompute} if recipe.shard else None,
        "logging_steps": 1,
        "save_steps": recipe.save_every,
        "save_total_limit": 2,
        "report_to": [],
        "seed": recipe.seed,
    }


def trained_folder(recipe: TrainerRecipe, out: Path) -> Path:
    """Return where a run leaves its model, or its adapter."""
    return out / ("adapter" if recipe.adapter else "model")


def train(trainer: Trainer, format_place: str | Path, folder: Path, *, resumed: str | None) -> None:
    """Train, and write the model or adapter, its tokenizer and its chain format.

    format_place: of the format that is trained in, as `ChainFormat.load` takes it.
    Every process has to call it. The error stream shows a bar, without the figures that go to the
    curves anyway.
    """
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_Bar)
    trainer.train(resume_from_checkpoint=resumed)
    trainer.save_model(str(folder))  # gathers what is sharded over the processes
    if is_main_process():
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle that no engine reads
        write_format(folder, format_place)
    trainer.accelerator.wait_for_everyone()


def mean_of_last_tenth(trainer: Trainer, figure: str) -> float:
    """Return the mean of a logged figure over the last tenth of the steps; 0 if it never was."""
    values = [row[figure] for row in trainer.state.log_history if figure in row]
    return statistics.fmean(values[-max(1, len(values) // 10) :]) if values else 0.0


class _Bar(ProgressCallback):
    """A progress bar alone."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Leave the figures to the curves."""


class StopAfter(TrainerCallback):
    """Ends training after a step, with a checkpoint, as if the run had been cut off there."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(
        self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for the end once the step is reached."""
        if state.global_step >= self._step:
            control.should_save = True
            control.should_training_stop = True


class Curves(TrainerCallback):
    """Keeps curve.jsonl and elapsed.json and, at the end, curve.png: one panel for each logged figure.

    panels: figure and title. of: a logged row counts when it has one of these figures. resumed: the
    checkpoint that the run goes on from. elapsed.json: seconds of training by saved step.
    """

    def __init__(
        self,
        folder: Path,
        panels: Sequence[tuple[str, str]],
        *,
        of: Sequence[str],
        resumed: str | None,
    ) -> None:
        self._folder = folder
        self._panels = panels
        self._of = of
        self._elapsed: dict[str, float] = {}
        if resumed is not None and (folder / ELAPSED).is_file():
            self._elapsed = json.loads((folder / ELAPSED).read_text(encoding="utf-8"))
        self._before = self._elapsed.get(str(resumed).rpartition("-")[2], 0.0)
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long the run has trained, up to what it goes on from and since then."""
        return self._before + time.perf_counter() - self._started

    def on_train_begin(
        self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_log(
        self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the curve up to here."""
        if state.is_world_process_zero:
            rows = [row for row in state.log_history if any(key in row for key in self._of)]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            write_text(self._folder / "curve.jsonl", text)

    def on_save(
        self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note how long it took up to this checkpoint."""
        if state.is_world_process_zero:
            self._elapsed[str(state.global_step)] = self.seconds
            write_json(self._folder / ELAPSED, self._elapsed)

    def on_train_end(
        self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the curves."""
        if state.is_world_process_zero:
            _plot(state.log_history, self._panels, self._folder / "curve.png")


def passes_per_step(recipe: str, rows: int, at_once: int) -> int:
    """Return the forward passes of one process in an optimizer step over `rows`, `at_once` in each."""
    count = processes()
    if rows % (at_once * count):
        raise ConfigurationError(
            f"recipe {recipe}: the {rows} rows of a step are not divisible into passes of"
            f" rows_at_once = {at_once} on {count} process{'es' if count > 1 else ''}"
        )
    return rows // (at_once * count)


def _plot(
    history: Sequence[Mapping[str, float]], panels: Sequence[tuple[str, str]], path: Path
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [(key, label) for key, label in panels if any(key in row for row in history)]
    height = -(-max(1, len(shown)) // 2)
    figure, grid = pyplot.subplots(height, 2, figsize=(10, 2.6 * height), squeeze=False)
    for axes, (key, label) in zip(grid.flat, shown, strict=False):
        steps, values = zip(
            *((row["step"], row[key]) for row in history if key in row), strict=True
        )
        axes.plot(steps, values, "o", markersize=3, alpha=0.4)
        axes.plot(steps, _running_mean(values, max(1, len(values) // 10)), linewidth=1.8)
        axes.set_title(label, loc="left", fontsize=10)
        axes.set_xlabel("step")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    figure.suptitle("points: one step; line: running mean over a tenth of the run", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _running_mean(values: Sequence[float], window: int) -> list[float]:
    """The mean of each value and those before it, `window` in all; fewer at the start."""
    return [
        sum(values[max(0, at - window + 1) : at + 1]) / min(window, at + 1)
        for at in range(len(values))
    ]
