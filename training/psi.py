"""Stage 1: persona-guided scoring induction (PSI), supervised on the teacher's chains.

Trains a small Llama-architecture model from scratch, tokenizer included, on simulated users over
real answers. The loss covers the chain only (paper 4.1, stage 1); prompts are context.

    pgenrm train psi --recipe tiny-cpu --data FOLDER --out runs/psi          (2 CPU cores)
    pgenrm train psi --recipe tiny-gpu --data FOLDER --out runs/psi          (1 GPU)

Running the same command again continues from the last checkpoint. From a pretrained checkpoint, with
these examples, heads and trainer: `pretrained.py`.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import PreTrainedTokenizerFast, Trainer, TrainingArguments, set_seed

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.files import write_json
from pgenrm_agent.run_folder import RUN, record_of, refuse_other_settings, weights_of
from pgenrm_agent.training.bundled.examples import Task, write_examples
from pgenrm_agent.training.bundled.simulation import Answers, load_answers
from pgenrm_agent.training.bundled.tokenizer import train_tokenizer
from pgenrm_agent.training.encoding import IGNORED, Encoded, TokenBudgetBatches, encode, pack
from pgenrm_agent.training.format_files import write_format
from pgenrm_agent.training.reading import ReadingLlama, build_model
from pgenrm_agent.training.recipe import PsiRecipe
from pgenrm_agent.training.run import (
    CHECKPOINTS,
    Curves,
    StopAfter,
    last_checkpoint,
    refuse_several_gpus,
)

LOOK_WEIGHT = 0.25
"""Of the losses on where to look: learned soon, after which a rare slip would outshout the rest."""
PANELS = (
    ("chain_loss", "loss per chain token (nats)"),
    ("eval_chain_loss", "the same for held-out queries"),
    ("loss", "with those of the reading heads, which are left behind"),
    ("eval_loss", "the same for held-out queries"),
)
TOKENIZER_CHAINS = 3000
"""Chains that join the answers in the tokenizer's training text."""
POOL_STEPS = 64
"""Optimizer steps whose examples are sorted by length together, so that a batch holds little padding."""
DRAWN_AT_ONCE = 64
KEPT_OF = 1000
"""Chains written to tell which share rejection sampling keeps."""
EVALUATION_EXAMPLES = 64
DEV_QUERIES = 40
"""Training-file queries held out to watch the loss; the test split is another file."""


@dataclass(frozen=True)
class PsiResult:
    """Where the run ended."""

    folder: Path
    steps: int
    tokens: int
    seconds: float
    final_loss: float
    chains: dict[str, int]


def only(batches: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Collate: an item already is a batch."""
    (batch,) = batches
    return batch


class ChainTrainer(Trainer):
    """Trainer over ready-made batches in the given order, with logits for learned tokens only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parts: defaultdict[str, list[torch.Tensor]] = defaultdict(list)

    def forget_losses(self) -> None:
        """Leave what was computed so far out of the next log."""
        self._parts.clear()

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the means of the losses that `loss`, or `eval_loss`, is the sum of, since the last log."""
        for name in [
            name for name in self._parts if name.startswith("eval_") == ("eval_loss" in logs)
        ]:
            values = self._parts.pop(name)
            logs[name] = float(torch.stack(values).mean())
        super().log(logs, *args, **kwargs)

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        return SequentialSampler(cast(Any, train_dataset or self.train_dataset))

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss of the chain's tokens and, added to it, those of the reading heads."""
        core = self.accelerator.unwrap_model(model)
        kind = "" if model.training else "eval_"
        with self.accelerator.autocast():
            states, final = core.read(inputs)
            targets = inputs["labels"][:, 1:]
            learned = targets != IGNORED
            logits = core.lm_head(final[:, :-1][learned])
            loss = cross_entropy(logits.float(), targets[learned])
            parts = {"chain_loss": loss, **core.side_losses(states, inputs)}
            if kind and len(inputs["value_at"]):
                parts["reading"] = _share_read(core, final, inputs)
        for name, part in parts.items():
            self._parts[kind + name].append(part.detach().float())
            if name.endswith("look"):
                loss = loss + LOOK_WEIGHT * part
            elif name not in ("chain_loss", "reading"):
                loss = loss + part
        return (loss, {"logits": logits}) if return_outputs else loss


def _share_read(
    model: ReadingLlama, final: torch.Tensor, inputs: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Return the share of values of readings whose likeliest token is the right one."""
    at = inputs["value_at"]
    likeliest = model.lm_head(final.flatten(0, 1)[at]).argmax(-1)
    right: torch.Tensor = likeliest == inputs["input_ids"].flatten()[at + 1]
    return right.float().mean()


class Steps(Dataset[dict[str, torch.Tensor]]):
    """The optimizer steps of a run: item i is the batch of step i, made when it is asked for.

    The same recipe always gives the same steps, in any order: each group of POOL_STEPS has its own
    seed, so that a run that goes on has nothing to make again.
    """

    def __init__(
        self,
        recipe: PsiRecipe,
        answers: Answers,
        chain_format: ChainFormat,
        tokenizer: PreTrainedTokenizerFast,
    ) -> None:
        self._recipe = recipe
        self._answers = answers
        self._format = chain_format
        self._tokenizer = tokenizer
        assert recipe.shape is not None
        self._context = recipe.shape.context
        self._ends = list(
            accumulate(round(phase.tokens / phase.tokens_per_step) for phase in recipe.phases)
        )
        self._pool: tuple[tuple[int, int], TokenBudgetBatches] | None = None

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        number = bisect_right(self._ends, step)
        pool, at = divmod(step - (self._ends[number - 1] if number else 0), POOL_STEPS)
        if self._pool is None or self._pool[0] != (number, pool):
            pad = cast(int, self._tokenizer.pad_token_id)
            self._pool = (number, pool), TokenBudgetBatches(self._made(number, pool), pad)
        return self._pool[1][at]

    def tokens(self, steps: int) -> int:
        """Return the most padded tokens that the first steps hold."""
        starts = [0, *self._ends]
        return sum(
            max(0, min(steps, end) - start) * phase.tokens_per_step
            for phase, start, end in zip(self._recipe.phases, starts, self._ends, strict=False)
        )

    def _made(self, number: int, pool: int) -> list[list[Encoded]]:
        """Batches of a group of steps: examples of like length together, in random order."""
        phase, recipe = self._recipe.phases[number], self._recipe
        seeds = np.random.SeedSequence([recipe.seed, number, pool]).generate_state(4)
        tasks = list(phase.tasks)
        streams = {
            task: write_examples(cast(Task, task), self._answers, self._format, seed=int(seed))
            for task, seed in zip(tasks, seeds, strict=False)
        }
        draw = random.Random(int(seeds[3]))
        weights = [phase.tasks[task] for task in tasks]
        examples: list[Encoded] = []
        batches: list[list[Encoded]] = []
        while len(batches) < POOL_STEPS:
            for _ in range(DRAWN_AT_ONCE):
                example = next(streams[draw.choices(tasks, weights)[0]])
                encoded = encode(example, self._tokenizer)
                if len(encoded.input_ids) <= min(self._context, phase.tokens_per_step):
                    examples.append(encoded)
            batches = pack(examples, phase.tokens_per_step)
        draw.shuffle(batches)
        return batches[:POOL_STEPS]


def _tokenizer_text(answers: Answers, chain_format: ChainFormat, seed: int) -> Iterator[str]:
    yield from answers.queries
    yield from answers.texts
    for example in islice(
        write_examples("chain", answers, chain_format, seed=seed), TOKENIZER_CHAINS
    ):
        yield from (message.content for message in example.messages)
        yield example.target


def _kept(answers: Answers, chain_format: ChainFormat, seed: int) -> dict[str, int]:
    """What becomes of chains in rejection sampling, counted over KEPT_OF that are kept."""
    outcomes: Counter[str] = Counter()
    examples = write_examples("chain", answers, chain_format, seed=seed, outcomes=outcomes)
    deque(islice(examples, KEPT_OF), maxlen=0)
    return dict(outcomes)


def arguments(recipe: PsiRecipe, out: Path, **more: Any) -> TrainingArguments:
    """Return the trainer's arguments that every run of stage 1 has, and `more`."""
    return TrainingArguments(
        output_dir=str(out / CHECKPOINTS),
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        adam_beta2=0.98,
        bf16=recipe.precision == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        logging_steps=20,
        eval_strategy="steps",
        eval_steps=recipe.save_every,
        prediction_loss_only=True,
        remove_unused_columns=False,
        report_to=[],
        seed=recipe.seed,
        **more,
    )


def device_name() -> str:
    """Return what a run computes on."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def train_psi(
    recipe: PsiRecipe,
    data: Path,
    out: Path,
    *,
    start_from: Path | None = None,
    stop_after: int | None = None,
) -> PsiResult:
    """Run (or continue) stage 1; the model ends up in `out/model`.

    Args:
        recipe: the model's shape, what it learns from, and for how long.
        data: folder with train.jsonl.gz (queries with real answers).
        out: the run's folder: checkpoints, curve.jsonl, curve.png, model, run.json.
        start_from: the folder of an earlier run of the same shape: its last checkpoint's weights and
            its tokenizer are taken over.
        stop_after: end after this step already, and save the model as it is then. The learning rate
            follows the whole recipe; a later call without it trains on from the last checkpoint.

    Raises:
        ConfigurationError: the data is missing or malformed; `start_from` has no checkpoint; `out` holds
            a run with other settings, or from another start; there are several GPUs; the recipe starts
            from a pretrained checkpoint (`train_pretrained` does that).
    """
    shape = recipe.shape
    if shape is None:
        raise ConfigurationError(
            f"recipe {recipe.name} has no shape, but a start: see train_pretrained"
        )
    refuse_several_gpus(launched=False)
    earlier = None if start_from is None else last_checkpoint(start_from)
    if start_from is not None and earlier is None:
        raise ConfigurationError(
            f"{start_from} holds no checkpoint to start from: name the folder of a `pgenrm train psi`"
            " run"
        )
    set_seed(recipe.seed)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    out.mkdir(parents=True, exist_ok=True)
    chain_format = ChainFormat.load(recipe.chain_format)
    refuse_other_settings(
        out,
        {
            "recipe": recipe.model_dump(
                mode="json", exclude={"name", "threads", "save_every"}, exclude_none=True
            ),
            "chain_format": chain_format.digest,
            "data": sha256((data / "train.jsonl.gz").read_bytes()).hexdigest()
            if (data / "train.jsonl.gz").is_file()
            else "",
            "start_from": None if earlier is None else weights_of(Path(earlier)),
        },
        what="a run",
    )
    every = load_answers(data / "train.jsonl.gz")
    held = range(len(every.queries) - DEV_QUERIES, len(every.queries))
    answers = every.subset(range(len(every.queries) - DEV_QUERIES))

    folder = out / "model"
    if (folder / "tokenizer.json").is_file():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    elif start_from is not None:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(start_from / "model")
        tokenizer.save_pretrained(folder)
    else:
        tokenizer = train_tokenizer(
            _tokenizer_text(answers, chain_format, recipe.seed),
            size=shape.vocabulary,
            context=shape.context,
        )
        tokenizer.save_pretrained(folder)

    steps = Steps(recipe, answers, chain_format, tokenizer)
    held_out = write_examples("chain", every.subset(held), chain_format, seed=recipe.seed)
    evaluation = [encode(example, tokenizer) for example in islice(held_out, EVALUATION_EXAMPLES)]
    pad = cast(int, tokenizer.pad_token_id)
    model = build_model(shape, tokenizer)
    if earlier is not None:
        model.load_state_dict(
            ReadingLlama.from_pretrained(earlier, use_safetensors=True).state_dict()
        )
    last = last_checkpoint(out)
    curves = Curves(out, PANELS, of=("loss", "eval_loss"), resumed=last)
    trainer = ChainTrainer(
        model=model,
        args=arguments(
            recipe,
            out,
            max_steps=len(steps),
            lr_scheduler_type="cosine",
            warmup_steps=recipe.warmup_steps,
            save_steps=recipe.save_every,
            save_total_limit=2,
            dataloader_num_workers=1,
            dataloader_prefetch_factor=8,
        ),
        train_dataset=steps,
        eval_dataset=TokenBudgetBatches(pack(evaluation, recipe.phases[-1].tokens_per_step), pad),
        data_collator=only,
        callbacks=[curves, *([StopAfter(stop_after)] if stop_after else [])],
    )
    output = trainer.train(resume_from_checkpoint=last)
    plain = model.without_heads()
    torch.nn.Module.to(plain, dtype=torch.bfloat16)
    plain.save_pretrained(folder)
    write_format(folder, recipe.chain_format)
    result = PsiResult(
        folder=folder,
        steps=trainer.state.global_step,
        tokens=steps.tokens(trainer.state.global_step),
        seconds=curves.seconds,
        final_loss=float(output.training_loss),
        chains=_kept(answers, chain_format, recipe.seed),
    )
    write_json(
        out / RUN,
        {
            "recipe": recipe.model_dump(),
            "start_from": None if start_from is None else record_of(start_from),
            "device": device_name(),
            "torch": torch.__version__,
            "parameters": plain.num_parameters(),
            "steps": result.steps,
            "recipe_steps": len(steps),
            "padded_tokens": result.tokens,
            "seconds": result.seconds,
            "chains": result.chains,
        },
    )
    return result
