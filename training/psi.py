"""Stage 1: persona-guided scoring induction (PSI), supervised on the teacher's chains.

Trains a small Llama-architecture model from scratch, tokenizer included, on simulated people over
real answers. The loss covers the chain only (paper 4.1, stage 1); prompts are context.

    pgenrm train psi --recipe tiny-cpu --data FOLDER --out runs/psi          (2 CPU cores)
    pgenrm train psi --recipe tiny-gpu --data FOLDER --out runs/psi          (1 GPU)

Running the same command again continues from the last checkpoint. Left out on purpose: pretraining
on other text, and any model larger than the demonstration needs.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pgenrm_agent.training.attributes import ATTRIBUTES, LEVELS, measure_along
from pgenrm_agent.training.attributes import levels as measured_levels
from pgenrm_agent.training.chains import Example, write_examples
from pgenrm_agent.training.recipe import ModelShape, Phase, PsiRecipe
from pgenrm_agent.training.simulation import VERSION, Answers, World, load_answers
from pgenrm_agent.training.teacher import operands
from pgenrm_agent.training.tokenizer import END, answer_tags, train_tokenizer
from torch.nn.functional import cross_entropy, linear
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.trainer_utils import get_last_checkpoint

from pgenrm_agent.chain import ChainFormat

IGNORED = -100
LOOK_WEIGHT = 0.25
"""Of the losses on where to look: learned soon, after which a rare slip would outshout the rest."""
GUIDED_HEADS = 2
"""Attention heads of a layer that are shown where to look."""
COUNTED = 16
"""Tokens of each answer at which the levels up to there are asked for."""
OPERANDS = 40
"""Numbers of each chain whose operands are shown."""
NO_LEVELS = np.zeros((0, len(ATTRIBUTES)), dtype=np.uint8)

__all__ = ["PsiResult", "build_model", "encode", "train_psi"]

TOKENIZER_CHAINS = 3000
"""Chains that join the answers in the tokenizer's training text."""
LENGTH_POOL = 512
"""Examples sorted by length together, so that a batch holds little padding."""
EVALUATION_EXAMPLES = 64
DEV_QUERIES = 40
"""Training-file queries held out to watch the loss; the test split is another file."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of prompt and answer; labels are -100 where nothing is learned.

    notice_at: positions of all tokens of the prompt's answers. noticed: (len(notice_at), 12), which
    attributes each of them adds to. count_at, counted: (len(count_at), 12), some of these positions,
    and the levels of the answer up to there. read_at: the tags that end the answers. recall_at: the
    tags with which the target takes them up. levels: (answers, 12), of each as a whole.
    value_at, value_from: positions that write a value of a reading, and the tag of its line.
    operand_at, operand_from: (n,), (2n,) some positions that write a number, and its two operands.
    """

    input_ids: list[int]
    labels: list[int]
    notice_at: list[int]
    noticed: NDArray[np.uint8]
    count_at: list[int]
    counted: NDArray[np.uint8]
    read_at: list[int]
    recall_at: list[int]
    levels: NDArray[np.uint8]
    value_at: list[int]
    value_from: list[int]
    operand_at: list[int]
    operand_from: list[int]


ASKED = ("noticed", "counted", "levels")
PLACES = (
    "notice_at", "count_at", "read_at", "recall_at", "value_at", "value_from", "operand_at",
    "operand_from",
)  # fmt: skip


@dataclass(frozen=True)
class PsiResult:
    """Where the run ended."""

    folder: Path
    steps: int
    tokens: int
    seconds: float
    final_loss: float
    chains: dict[str, int]


def encode(example: Example, tokenizer: PreTrainedTokenizerFast) -> Encoded:
    """Prompt and given part without loss; the target and the end token with loss."""
    prompt = cast(
        str,
        tokenizer.apply_chat_template(
            [message.model_dump() for message in example.messages],
            tokenize=False,
            add_generation_prompt=True,
        ),
    )
    encoding = tokenizer(
        prompt + example.given, add_special_tokens=False, return_offsets_mapping=True
    )
    context = cast(list[int], encoding["input_ids"])
    ids, labels = list(context), [IGNORED] * len(context)
    value_at: list[int] = []
    value_from: list[int] = []
    token_at: list[int] = []  # by character of the target
    for line in (example.target + END).splitlines(keepends=True):
        piece = tokenizer(line, add_special_tokens=False, return_offsets_mapping=True)
        tokens = cast(list[int], piece["input_ids"])
        where = [len(ids)] * len(line)
        for index, (begin, end) in enumerate(cast(list[tuple[int, int]], piece["offset_mapping"])):
            where[begin:end] = [len(ids) + index] * (end - begin)
        token_at += where
        if line.startswith("["):
            digits = [where[i] for i in range(line.index("]"), len(line)) if line[i].isdigit()]
            value_at += [digit - 1 for digit in digits]
            value_from += [len(ids)] * len(digits)
        ids += tokens
        given = bool(example.unlearned) and line.startswith(example.unlearned)
        labels += [IGNORED] * len(tokens) if given else tokens
    worked = operands(example.target)
    worked = random.Random(example.target).sample(worked, min(OPERANDS, len(worked)))
    operand_at = [token_at[at] - 1 for at, _, _ in worked]
    operand_from = [token_at[source] for _, *sources in worked for source in sources]
    known = {tokenizer.convert_tokens_to_ids(tag) for tag in answer_tags()}
    tags = [position for position, token in enumerate(ids) if token in known]
    if not example.answers:
        tags = []  # a "reason" prompt: nothing to read
    # The target takes up the prompt's answers one by one, in the prompt's order.
    read_at, recall_at = tags[: len(example.answers)], tags[len(example.answers) :]
    assert len(recall_at) == len(read_at) == len(example.answers)
    spans = cast(list[tuple[int, int]], encoding["offset_mapping"])
    notice_at: list[int] = []
    count_at: list[int] = []
    noticed, counted, levels = [NO_LEVELS], [NO_LEVELS], [NO_LEVELS]
    for text, tag in zip(example.answers, read_at, strict=True):
        places, cuts = _tokens_of(text, tag, prompt, spans)
        raw = measure_along(text, [0, *cuts, len(text)])
        along = measured_levels(raw).astype(np.uint8)
        notice_at += places
        noticed.append((np.diff(raw[:-1], axis=0) > 0).astype(np.uint8))
        drawn = random.Random(text).sample(range(len(places)), min(COUNTED, len(places)))
        count_at += [places[i] for i in drawn]
        counted.append(along[[i + 1 for i in drawn]])
        levels.append(along[-1:])
    return Encoded(
        ids, labels,
        notice_at, np.concatenate(noticed), count_at, np.concatenate(counted),
        read_at, recall_at, np.concatenate(levels), value_at, value_from,
        operand_at, operand_from,
    )  # fmt: skip


def _tokens_of(
    text: str, tag: int, prompt: str, spans: Sequence[tuple[int, int]]
) -> tuple[list[int], list[int]]:
    """The positions of an answer's tokens before its tag, and how much of it stands up to each."""
    end = spans[tag][0] - 1  # one space stands before the tag
    start = end - len(text)
    if prompt[start:end] != text:  # shortened, or with a marker made harmless
        return [], []
    inside = [i for i in range(max(0, tag - len(text) - 1), tag) if spans[i][0] >= start]
    return inside, [min(spans[i][1], end) - start for i in inside]


class TokenBudgetBatches(Dataset[dict[str, torch.Tensor]]):
    """Ready-made batches: item i is one optimiser step of about `budget` padded tokens."""

    def __init__(self, batches: Sequence[Sequence[Encoded]], pad: int) -> None:
        self._batches = batches
        self._pad = pad

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        batch = self._batches[index]
        width = max(len(one.input_ids) for one in batch)
        ids = torch.full((len(batch), width), self._pad)
        labels = torch.full((len(batch), width), IGNORED)
        for row, one in enumerate(batch):
            size = len(one.input_ids)
            ids[row, :size] = torch.tensor(one.input_ids)
            labels[row, :size] = torch.tensor(one.labels)

        def places(name: str) -> torch.Tensor:
            flat = [row * width + at for row, one in enumerate(batch) for at in getattr(one, name)]
            return torch.tensor(flat, dtype=torch.long)

        return {
            "input_ids": ids,
            "labels": labels,
            **{name: _stacked([getattr(one, name) for one in batch]) for name in ASKED},
            **{name: places(name) for name in PLACES},
        }


def _stacked(parts: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))


def _only(batches: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Collate: an item already is a batch."""
    (batch,) = batches
    return batch


def pack(examples: Sequence[Encoded], budget: int) -> list[list[Encoded]]:
    """Group examples of like length so that rows x longest row stays within `budget` tokens."""
    batches: list[list[Encoded]] = []
    current: list[Encoded] = []
    for example in sorted(examples, key=lambda one: len(one.input_ids)):
        if current and (len(current) + 1) * len(example.input_ids) > budget:
            batches.append(current)
            current = []
        current.append(example)
    if current:
        batches.append(current)
    return batches


class ChainTrainer(Trainer):
    """Trainer over ready-made batches in the given order, with logits for learned tokens only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parts: defaultdict[str, list[float]] = defaultdict(list)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the mean side losses since the last log; `loss` is everything together."""
        logs |= {name: sum(values) / len(values) for name, values in self._parts.items()}
        self._parts.clear()
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
        core = self.accelerator.unwrap_model(model)
        # Rows are padded on the right, so causal attention alone keeps padding out: no mask, and
        # the fast kernel.
        outputs = core.model(
            input_ids=inputs["input_ids"], use_cache=False, output_hidden_states=True
        )
        targets = inputs["labels"][:, 1:]
        learned = targets != IGNORED
        logits = core.lm_head(outputs.last_hidden_state[:, :-1][learned])
        loss = cross_entropy(logits.float(), targets[learned])
        for name, part in core.side_losses(outputs.hidden_states, inputs).items():
            self._parts[name].append(float(part.detach()))
            loss = loss + (LOOK_WEIGHT if name.endswith("look") else 1.0) * part
        return (loss, {"logits": logits}) if return_outputs else loss


class CurveCallback(TrainerCallback):
    """Keeps curve.jsonl, curve.png and elapsed.json up to date while training goes on.

    elapsed.json: seconds of training by saved step, earlier starts included.
    """

    def __init__(self, folder: Path, checkpoint: Path | None) -> None:
        self._folder = folder
        self._elapsed: dict[str, float] = {}
        record = folder / "elapsed.json"
        if checkpoint is not None and record.is_file():
            self._elapsed = json.loads(record.read_text(encoding="utf-8"))
        self.before = self._elapsed.get(checkpoint.name.split("-")[-1], 0.0) if checkpoint else 0.0
        self._started = time.perf_counter()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started = time.perf_counter()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        rows = [row for row in state.log_history if "loss" in row or "eval_loss" in row]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (self._folder / "curve.jsonl").write_text(text, encoding="utf-8")

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        plot_curve(state.log_history, self._folder / "curve.png")
        self._elapsed[str(state.global_step)] = self.before + time.perf_counter() - self._started
        (self._folder / "elapsed.json").write_text(json.dumps(self._elapsed), encoding="utf-8")


def plot_curve(history: Sequence[dict[str, float]], path: Path) -> None:
    """Training and held-out loss by step, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for key, label in (("loss", "training"), ("eval_loss", "held-out queries")):
        points = [(row["step"], row[key]) for row in history if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=label)
    axes.set(xlabel="step", ylabel="loss per chain token (nats)", yscale="log")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


class Head(torch.nn.Module):
    """`classes` classes for each attribute, out of the states after `depth` layers."""

    def __init__(self, depth: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.depth = depth
        self.classes = classes
        self.norm = torch.nn.RMSNorm(hidden)
        self.out = torch.nn.Linear(hidden, len(ATTRIBUTES) * classes)

    def loss(
        self, states: Sequence[torch.Tensor], at: torch.Tensor, right: torch.Tensor
    ) -> torch.Tensor:
        """Mean cross-entropy (nats) at positions (n,) of flattened rows; right: (n, 12) classes."""
        logits = self.out(self.norm(states[self.depth].flatten(0, 1)[at])).float()
        return cross_entropy(logits.reshape(-1, self.classes), right.reshape(-1))


class ReadingLlama(LlamaForCausalLM):
    """A Llama that is shown, while it trains, what to find in its prompt and where.

    Deep supervision, from the bottom up: after one layer, which attributes a token adds to
    (`notice`); half-way up, the attribute levels of an answer so far, along the answer (`count`) and
    at the tag that ends it (`read`). One layer on, at the tag with which the chain takes an answer
    up: look at the answer's own tag (`recall`: its levels). One more, where a value of the reading
    is written: look at that line's tag. The chain's own loss would reach the layers that count and
    those that look up only through all that is built on them. The heads are left behind when the
    model is saved.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        layers = config.num_hidden_layers
        half = (layers + 1) // 2
        depths = {"notice": 1, "count": half, "read": half, "recall": min(half + 1, layers)}
        self.heads = torch.nn.ModuleDict(
            {
                name: Head(depth, config.hidden_size, 2 if name == "notice" else LEVELS)
                for name, depth in depths.items()
            }
        )

    def side_losses(
        self, states: Sequence[torch.Tensor], inputs: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Losses (nats) beside the chain's; states[i]: (rows, width, hidden) after i layers."""
        found = {}
        right = {"notice": "noticed", "count": "counted", "read": "levels", "recall": "levels"}
        for name, head in self.heads.items():
            if len(inputs[f"{name}_at"]):
                found[f"{name}_loss"] = head.loss(states, inputs[f"{name}_at"], inputs[right[name]])
        layers = self.config.num_hidden_layers
        first = min(self.heads["read"].depth, layers - 1)
        second = min(first + 1, layers - 1)
        for name, layer, source in (
            ("recall", first, "read_at"), ("operand", first, "operand_from"),
            ("value", second, "value_from"),
        ):  # fmt: skip
            if len(inputs[f"{name}_at"]):
                found[f"{name}_look"] = self._look_loss(
                    layer, states[layer], inputs[f"{name}_at"], inputs[source]
                )
        return found

    def _look_loss(
        self, layer: int, states: torch.Tensor, at: torch.Tensor, wanted: torch.Tensor
    ) -> torch.Tensor:
        """Cross-entropy of where the guided heads of a layer look, from `at` to `wanted`.

        states: (rows, width, hidden), what goes into the layer. at: (n,) positions in the flattened
        rows. wanted: (n,) for all guided heads, or (n * GUIDED_HEADS,) one for each, in like rows.
        """
        width = states.shape[1]
        block = self.model.layers[layer]
        size = block.self_attn.head_dim
        kept = GUIDED_HEADS * size
        hidden = block.input_layernorm(states)
        places = torch.arange(width, device=states.device)
        cos, sin = self.model.rotary_emb(hidden, places[None])
        target = (wanted % width).view(len(at), -1).expand(-1, GUIDED_HEADS)
        losses = []
        for row in (at // width).unique():
            mine = at // width == row
            column = at[mine] % width
            query = linear(hidden[row, column], block.self_attn.q_proj.weight[:kept])
            key = linear(hidden[row], block.self_attn.k_proj.weight[:kept])
            query, key = (x.view(1, -1, GUIDED_HEADS, size).transpose(1, 2) for x in (query, key))
            query, _ = apply_rotary_pos_emb(query, query, cos[:, column], sin[:, column])
            key, _ = apply_rotary_pos_emb(key, key, cos, sin)
            logits = (query @ key.transpose(-1, -2))[0].float() / size**0.5
            logits = logits.masked_fill(places > column[:, None], float("-inf"))
            losses.append(
                cross_entropy(
                    logits.transpose(0, 1).flatten(0, 1), target[mine].flatten(), reduction="none"
                )
            )
        return torch.cat(losses).mean()

    def without_heads(self) -> LlamaForCausalLM:
        """The same weights as a plain Llama."""
        plain = LlamaForCausalLM(self.config)
        plain.load_state_dict(
            {key: value for key, value in self.state_dict().items() if not key.startswith("heads.")}
        )
        return plain


def build_model(shape: ModelShape, tokenizer: PreTrainedTokenizerFast) -> ReadingLlama:
    """An untrained model of the recipe's shape, input and output embeddings tied."""
    return ReadingLlama(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.hidden,
            intermediate_size=shape.feed_forward,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            max_position_embeddings=shape.context,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.02,
        )
    )


def _stream(
    phase: Phase,
    world: World,
    answers: Answers,
    chain_format: ChainFormat,
    seed: int,
    outcomes: Counter[str],
) -> Iterator[Example]:
    """The phase's mixture of tasks, endless."""
    tasks = list(phase.tasks)
    streams = {
        task: write_examples(
            task, world, answers, chain_format,
            split=f"train-{seed}-{task}", seed=seed + number, outcomes=outcomes,
        )
        for number, task in enumerate(tasks)
    }  # fmt: skip
    rng = random.Random(seed)
    while True:
        yield next(streams[rng.choices(tasks, [phase.tasks[task] for task in tasks])[0]])


def _plan(
    recipe: PsiRecipe,
    world: World,
    answers: Answers,
    chain_format: ChainFormat,
    tokenizer: PreTrainedTokenizerFast,
    outcomes: Counter[str],
) -> list[list[Encoded]]:
    """All optimiser steps of the run, in order. The same recipe always gives the same plan."""
    steps: list[list[Encoded]] = []
    for number, phase in enumerate(recipe.phases):
        stream = _stream(phase, world, answers, chain_format, recipe.seed + 1000 * number, outcomes)
        wanted = round(phase.tokens / phase.tokens_per_step)
        pool: list[list[Encoded]] = []
        while len(pool) < wanted:
            encoded = [
                one
                for example in islice(stream, LENGTH_POOL)
                if len((one := encode(example, tokenizer)).input_ids) <= recipe.shape.context
            ]
            batches = pack(encoded, phase.tokens_per_step)
            random.Random(recipe.seed + len(pool)).shuffle(batches)
            pool += batches
        steps += pool[:wanted]
    return steps


def _tokenizer_text(
    answers: Answers, world: World, chain_format: ChainFormat, seed: int
) -> Iterator[str]:
    yield from answers.queries
    yield from answers.texts
    examples = write_examples("chain", world, answers, chain_format, split="tokenizer", seed=seed)
    for example in islice(examples, TOKENIZER_CHAINS):
        yield example.target


def train_psi(recipe: PsiRecipe, data: Path, out: Path) -> PsiResult:
    """Run (or continue) stage 1; the model ends up in `out/model`.

    Args:
        data: folder with train.jsonl.gz (queries with real answers).
        out: the run's folder: checkpoints, curve.jsonl, curve.png, model, run.json.

    Raises:
        ConfigurationError: the data is missing or malformed.
    """
    set_seed(recipe.seed)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    out.mkdir(parents=True, exist_ok=True)
    chain_format = ChainFormat.load(recipe.chain_format)
    every = load_answers(data / "train.jsonl.gz")
    held = range(len(every.queries) - DEV_QUERIES, len(every.queries))
    answers = every.subset(range(len(every.queries) - DEV_QUERIES))
    world = World()

    folder = out / "model"
    if (folder / "tokenizer.json").is_file():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    else:
        tokenizer = train_tokenizer(
            _tokenizer_text(answers, world, chain_format, recipe.seed),
            size=recipe.shape.vocabulary,
            context=recipe.shape.context,
        )
        tokenizer.save_pretrained(folder)

    outcomes: Counter[str] = Counter()
    steps = _plan(recipe, world, answers, chain_format, tokenizer, outcomes)
    held_out = write_examples(
        "chain", world, every.subset(held), chain_format, split="dev", seed=recipe.seed
    )
    evaluation = [encode(example, tokenizer) for example in islice(held_out, EVALUATION_EXAMPLES)]
    pad = cast(int, tokenizer.pad_token_id)
    model = build_model(recipe.shape, tokenizer)
    checkpoints = out / "checkpoints"
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    curve = CurveCallback(out, Path(last) if last else None)
    on_gpu = torch.cuda.is_available()
    trainer = ChainTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(out / "checkpoints"),
            max_steps=len(steps),
            per_device_train_batch_size=1,
            per_device_eval_batch_size=1,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=recipe.warmup_steps,
            weight_decay=recipe.weight_decay,
            adam_beta2=0.98,
            bf16=recipe.precision == "bfloat16",
            use_cpu=not on_gpu,
            logging_steps=20,
            eval_strategy="steps",
            eval_steps=recipe.save_every,
            save_steps=recipe.save_every,
            save_total_limit=2,
            prediction_loss_only=True,
            remove_unused_columns=False,
            report_to=[],
            seed=recipe.seed,
        ),
        train_dataset=TokenBudgetBatches(steps, pad),
        eval_dataset=TokenBudgetBatches(pack(evaluation, recipe.phases[-1].tokens_per_step), pad),
        data_collator=_only,
        callbacks=[curve],
    )
    output = trainer.train(resume_from_checkpoint=last)
    plain = model.without_heads()
    torch.nn.Module.to(plain, dtype=torch.bfloat16)
    plain.save_pretrained(folder)
    plot_curve(trainer.state.log_history, out / "curve.png")
    (folder / "chain_format.json").write_text(
        json.dumps({"format": recipe.chain_format}) + "\n", encoding="utf-8"
    )
    result = PsiResult(
        folder=folder,
        steps=len(steps),
        tokens=sum(len(batch) * max(len(one.input_ids) for one in batch) for batch in steps),
        seconds=curve.before + float(output.metrics["train_runtime"]),
        final_loss=float(output.training_loss),
        chains=dict(outcomes),
    )
    (out / "run.json").write_text(
        json.dumps(
            {
                "recipe": recipe.model_dump(),
                "simulation": VERSION,
                "device": torch.cuda.get_device_name() if on_gpu else "cpu",
                "torch": torch.__version__,
                "parameters": plain.num_parameters(),
                "steps": result.steps,
                "padded_tokens": result.tokens,
                "seconds": result.seconds,
                "chains": result.chains,
            },
            indent=2,
        )
        + "\n",
        encoding="utf-8",
    )
    return result
