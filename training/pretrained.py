"""Stage 1 from a pretrained checkpoint, on packed rows and by the clock (`start` in the recipe).

    pgenrm train tokens --recipe smollm2-gpu --data DATA --choices people:FILE --model BASE --out FOLDER
    pgenrm train psi --recipe smollm2-gpu --data FOLDER --model BASE --out runs/psi

What is learned from is made beforehand (`token_file.py`): on the device there is nothing to do but to
train and to measure. The first phase teaches to read; its learning rate stays up until held-out texts are
read. What was learned is kept as a LoRA adapter, taken from the difference of the weights. A run that was
cut off begins anew: it is as long as its recipe says, and keeps no checkpoints.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset
from transformers import (
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    TrainerCallback,
    set_seed,
)

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.files import write_json
from pgenrm_agent.run_folder import RUN
from pgenrm_agent.training.choices import HeldOut, read_held_out
from pgenrm_agent.training.clock import Clock
from pgenrm_agent.training.encoding import PackedRows, fill_rows
from pgenrm_agent.training.extraction import extract, save_adapter, with_update
from pgenrm_agent.training.format_files import write_format
from pgenrm_agent.training.held_out import ChoiceReport, measure_choices
from pgenrm_agent.training.packed_attention import kernel_for
from pgenrm_agent.training.parts import split_file
from pgenrm_agent.training.psi import PANELS, ChainTrainer, arguments, device_name, only
from pgenrm_agent.training.reading import ReadingLlama, load_model, load_plain
from pgenrm_agent.training.recipe import PretrainedStart, PsiRecipe
from pgenrm_agent.training.run import Curves, refuse_several_gpus
from pgenrm_agent.training.token_file import read_token_file
from pgenrm_agent.training.token_folder import CHOICES, refuse_other_data

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState
    from transformers import TrainingArguments as Arguments

ADAPTER = "adapter"
ENDLESS = 10_000_000
"""Steps of a run whose end the clock tells."""
TRIED_STEPS = 3
READING_PANEL = ("eval_reading", "share of the values of held-out texts that are read right")


@dataclass(frozen=True)
class PretrainedResult:
    """Where the run ended.

    reading, reading_of_adapter: share of the values of held-out texts that are read right, by the
        weights as trained and by base and adapter. reading_at: the share of the time at which reading was
        there; None for never.
    """

    folder: Path
    steps: int
    tokens: int
    seconds: float
    reading: float
    reading_of_adapter: float
    reading_at: float | None
    kept: float
    record: dict[str, Any]


class TimedRows(Dataset[dict[str, torch.Tensor]]):
    """The rows of all phases: each item is the next row of the phase that it is time for."""

    def __init__(self, phases: Sequence[PackedRows], clock: Clock) -> None:
        self._phases = phases
        self._clock = clock
        self.taken = [0] * len(phases)

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        phase = self._clock.phase()
        rows = self._phases[phase]
        self.taken[phase] += 1
        return rows[(self.taken[phase] - 1) % len(rows)]


class TimedTrainer(ChainTrainer):
    """The trainer of stage 1 with a learning rate by the clock, which stands still for measuring."""

    def __init__(self, *args: Any, clock: Clock, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clock = clock

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> LambdaLR:
        """Follow the clock."""
        self.lr_scheduler = LambdaLR(cast(Any, optimizer or self.optimizer), self._clock.rate)
        return self.lr_scheduler

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure reading, and tell the clock of it."""
        with self._clock.paused():
            return super().evaluate(*args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Tell the clock how well texts are read."""
        super().log(logs, *args, **kwargs)
        if "eval_reading" in logs:
            self._clock.heard(logs["eval_reading"])


class _ByClock(TrainerCallback):
    """Ends a run when its time is over, and asks about held-out choices on the way."""

    def __init__(self, clock: Clock, asking: _Asking, marks: Sequence[float]) -> None:
        self._clock = clock
        self._asking = asking
        self._marks = sorted(marks)
        self.reports: list[dict[str, Any]] = []

    def on_train_begin(
        self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._clock.start()

    def on_step_end(
        self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the clock."""
        share = self._clock.share
        if share >= 1:
            control.should_evaluate = False
            control.should_training_stop = True
        elif self._marks and share >= self._marks[0]:
            self._marks = [mark for mark in self._marks if mark > share]
            with self._clock.paused():
                report = self._asking.about(kwargs["model"].without_heads())
            if report is not None:
                self.reports.append({"share": round(share, 3), **report.model_dump(mode="json")})


@dataclass(frozen=True)
class _Asking:
    """Asks a model about held-out choices, a few of each dataset or all of them."""

    start: PretrainedStart
    tokenizer: PreTrainedTokenizerFast
    chain_format: ChainFormat
    choices: Sequence[HeldOut]
    device: torch.device
    dtype: torch.dtype

    def about(self, model: LlamaForCausalLM, *, every: bool = False) -> ChoiceReport | None:
        """Return how often it favors what was chosen; None where there is nothing to ask about."""
        asked = list(self.choices) if every else list(self.choices[: self.start.choices])
        if not asked:
            return None
        torch.nn.Module.to(model, device=self.device, dtype=self.dtype)
        return measure_choices(
            model,
            self.tokenizer,
            self.chain_format,
            asked,
            seconds=self.start.choices_seconds,
            together=self.start.choices_together,
        )


def train_pretrained(
    recipe: PsiRecipe,
    data: Path,
    out: Path,
    *,
    model: str | Path | None = None,
    now: Callable[[], float] = time.monotonic,
) -> PretrainedResult:
    """Train from a checkpoint for as long as the recipe says; the adapter ends up in `out/adapter`.

    Args:
        recipe: with a `start`.
        data: the folder that `pgenrm train tokens` made for it.
        out: a new folder: adapter, curve.jsonl, curve.png, run.json.
        model: the folder of the checkpoint; what the recipe names if not given.
        now: seconds, from any moment on: by what the recipe's minutes are measured.

    Raises:
        ConfigurationError: there is a run in `out`; the data is missing, or was made for another recipe,
            chain format or tokenizer; the checkpoint is no Llama; there are several GPUs.
    """
    start = recipe.start
    if start is None:
        raise ConfigurationError(f"recipe {recipe.name} has no start: see train_psi")
    refuse_several_gpus(launched=False)
    if (out / RUN).exists():
        raise ConfigurationError(f"{out} holds a run already: choose another folder")
    set_seed(recipe.seed)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    place = str(model or start.model)
    llama = load_model(place, start.context)
    tokenizer = cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(place))
    chain_format = ChainFormat.load(recipe.chain_format)
    refuse_other_data(data, recipe, chain_format, tokenizer)
    file = read_token_file(data)
    choices = read_held_out(data / CHOICES)
    size = recipe.phases[0].tokens_per_step
    phases = [
        PackedRows(fill_rows(examples, size), size, cast(int, tokenizer.pad_token_id))
        for examples in file.phases
    ]
    held_out = PackedRows(fill_rows(file.held_out, size), size, cast(int, tokenizer.pad_token_id))
    clock = Clock(
        start.minutes,
        enough=start.reading,
        latest=start.latest,
        warmup_steps=recipe.warmup_steps,
        weights=[phase.tokens for phase in recipe.phases],
        now=now,
    )
    rows = TimedRows(phases, clock)
    out.mkdir(parents=True, exist_ok=True)
    curves = Curves(out, (*PANELS, READING_PANEL), of=("loss", "eval_loss"), resumed=None)
    trainer = TimedTrainer(
        model=llama,
        args=arguments(
            recipe,
            out,
            max_steps=ENDLESS,
            save_strategy="no",
            logging_nan_inf_filter=False,  # it waits for the device at every step
        ),
        train_dataset=rows,
        eval_dataset=held_out,
        data_collator=only,
        clock=clock,
    )
    half = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
    asking = _Asking(start, tokenizer, chain_format, choices, trainer.args.device, half)
    by_clock = _ByClock(clock, asking, start.choices_at)
    for callback in (curves, by_clock):
        trainer.add_callback(callback)
    compiled = _compile_where_it_pays(trainer, llama, phases[-1][0]) if start.compile else {}
    trainer.train()
    seconds = clock.seconds
    record: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json"),
        "base": place,
        "device": device_name(),
        "torch": torch.__version__,
        "attention": kernel_for(trainer.args.device, half),
        "compiled": compiled,
        "steps": trainer.state.global_step,
        "rows_by_phase": rows.taken,
        "tokens": size * trainer.state.global_step,
        "seconds": seconds,
        "reading_at": clock.read_at,
        "choices_on_the_way": by_clock.reports,
    }
    return _end(recipe, trainer, llama, asking, out, record)


def _end(
    recipe: PsiRecipe,
    trainer: TimedTrainer,
    llama: ReadingLlama,
    asking: _Asking,
    out: Path,
    record: dict[str, Any],
) -> PretrainedResult:
    """Save what was learned as an adapter, then measure it beside the weights as trained."""
    start, base, folder = recipe.start, record["base"], out / ADAPTER
    assert start is not None
    reading = trainer.evaluate()["eval_reading"]
    trained = llama.without_heads()
    extracted = extract(
        load_plain(base), trained, share=start.kept, largest=start.rank, device=trainer.args.device
    )
    save_adapter(extracted, base, folder)
    write_format(folder, recipe.chain_format)
    weights = folder / "adapter_model.safetensors"
    record["adapter"] = {
        "bytes": weights.stat().st_size,
        "ranks": extracted.ranks,
        "kept": extracted.kept,
    }
    if weights.stat().st_size > start.part_bytes:
        split_file(weights, start.part_bytes)
    adapted = with_update(load_plain(base), extracted)
    llama.load_state_dict(adapted.state_dict(), strict=False)
    reading_of_adapter = trainer.evaluate()["eval_reading"]
    record |= {"reading": reading, "reading_of_adapter": reading_of_adapter}
    write_json(out / RUN, record)  # what follows can be cut off
    for name, model in (("choices_of_adapter", adapted), ("choices", trained)):
        report = asking.about(model, every=True)
        record[name] = None if report is None else report.model_dump(mode="json")
        write_json(out / RUN, record)
    return PretrainedResult(
        folder=folder,
        steps=record["steps"],
        tokens=record["tokens"],
        seconds=record["seconds"],
        reading=reading,
        reading_of_adapter=reading_of_adapter,
        reading_at=record["reading_at"],
        kept=extracted.kept,
        record=record,
    )


def compile_layers(model: ReadingLlama, **options: Any) -> None:
    """Compile each layer; they share what is compiled, since all rows have the same shapes."""
    for layer in model.model.layers:
        layer.compile(dynamic=False, **options)


def _compile_where_it_pays(
    trainer: TimedTrainer, model: ReadingLlama, row: dict[str, torch.Tensor]
) -> dict[str, Any]:
    """Compile the layers on a GPU unless steps take longer with it; tell the seconds of a step."""
    device = trainer.args.device
    if device.type != "cuda":
        return {}
    torch.nn.Module.to(model, device=device)
    inputs = {name: tensor.to(device) for name, tensor in row.items()}
    plain = _seconds_a_step(trainer, model, inputs)
    started = time.monotonic()
    try:
        compile_layers(model)
        compiled = _seconds_a_step(trainer, model, inputs)
    except Exception as error:  # whatever a compiler says: a run goes on without it
        _leave_uncompiled(model)
        return {"used": False, "plain_s": plain, "error": repr(error)[:300]}
    finally:
        trainer.forget_losses()
    took = time.monotonic() - started
    if compiled > plain:
        _leave_uncompiled(model)
    return {
        "used": compiled <= plain,
        "plain_s": plain,
        "compiled_s": compiled,
        "compiling_s": took,
    }


def _leave_uncompiled(model: ReadingLlama) -> None:
    for layer in model.model.layers:
        layer._compiled_call_impl = None


def _seconds_a_step(
    trainer: TimedTrainer, model: ReadingLlama, inputs: dict[str, torch.Tensor]
) -> float:
    """How long a pass forward and back takes, once everything is warm."""
    model.train()
    best = float("inf")
    for _ in range(TRIED_STEPS):
        torch.cuda.synchronize()
        started = time.monotonic()
        trainer.compute_loss(model, inputs).backward()
        torch.cuda.synchronize()
        best = min(best, time.monotonic() - started)
        model.zero_grad(set_to_none=True)
    return best
