"""CRE and the hard-negative curriculum: GRPO on TRL (paper 4.1.2, 4.1.3).

The policy writes evaluation chains from the prompt that inference sends: past choices shown, stated
criteria withheld. A chain earns R = alpha PR + beta OR, or -0.1 where it is none (`rewards`). The
curriculum rewards the outcome alone, on choices whose hardness was measured with the model that it
starts from, and lets the share of hard ones grow.

Running the same call again continues from the last checkpoint.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pgenrm_agent.training.data import Example
from pgenrm_agent.training.grpo_recipe import GrpoRecipe
from pgenrm_agent.training.rewards import (
    Judge,
    Judged,
    outcome_reward,
    read_chain,
    total_reward,
)
from pgenrm_agent.training.run_files import (
    RUN,
    digest,
    record_of,
    refuse_other_settings,
    write_json,
)
from pgenrm_agent.training.stage_run import (
    Curves,
    StopAfter,
    is_main_process,
    last_checkpoint,
    lora_config,
    passes_per_step,
    save_trained,
    show_only_a_bar,
)

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.engines.protocol import Engine, Prompt, SamplingParams
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.model_files import format_of
from pgenrm_agent.scaling import derive_seed
from pgenrm_agent.schema import Message, StatedPreference

__all__ = ["ChainReward", "GrpoResult", "Stage", "measure_hardness", "scheduled", "train_grpo"]

Stage = Literal["cre", "curriculum"]
SETTINGS = "settings.json"
PANELS = (
    ("reward", "reward"),
    ("chain/outcome", "outcome: share of chains that prefer the chosen answer"),
    ("chain/process", "process: coverage of what was stated"),
    ("chain/format_errors", "share of texts that are no chain"),
    ("completions/mean_length", "tokens of a chain"),
    ("kl", "KL divergence from the start (nats a token)"),
)


@dataclass(frozen=True)
class GrpoResult:
    """folder: the model's (or adapter's). reward: mean of the last tenth of the steps."""

    folder: Path
    steps: int
    seconds: float
    reward: float


class ChainReward:
    """TRL's reward function: R of each completion. Logs outcome, process and format errors."""

    def __init__(self, judge: Judge | None, *, alpha: float, beta: float) -> None:
        self._judge = judge
        self._alpha = alpha
        self._beta = beta
        self.__name__ = "chain_reward"

    def __call__(
        self,
        completions: Sequence[object],
        chosen_first: Sequence[bool],
        stated: Sequence[str],
        log_metric: Callable[[str, float], None] | None = None,
        **columns: object,
    ) -> list[float]:
        """One reward a completion. stated: JSON lists of what the person of each row stated."""
        texts = [_text(one) for one in completions]
        chains = [read_chain(t, chosen_first=f) for t, f in zip(texts, chosen_first, strict=True)]
        process: list[float | None] = [None] * len(texts)
        if self._judge is not None:
            known = [i for i, chain in enumerate(chains) if chain is not None]
            rated = self._judge.rate(
                [
                    Judged(chain, _statements(stated[i]))
                    for i in known
                    if (chain := chains[i]) is not None
                ]
            )
            for i, rating in zip(known, rated, strict=True):
                process[i] = rating
        outcomes = [outcome_reward(chain) for chain in chains]
        if log_metric is not None:
            log_metric("chain/outcome", _mean(outcomes))
            log_metric("chain/format_errors", _mean([float(chain is None) for chain in chains]))
            rated_ones = [one for one in process if one is not None]
            if rated_ones:
                log_metric("chain/process", _mean(rated_ones))
        return [
            total_reward(p, o, readable=chain is not None, alpha=self._alpha, beta=self._beta)
            for p, o, chain in zip(process, outcomes, chains, strict=True)
        ]


def train_grpo(
    stage: Stage,
    recipe: GrpoRecipe,
    model: Path,
    choices: Sequence[Example],
    out: Path,
    *,
    judge: Judge | None = None,
    source: str = "",
    stop_after: int | None = None,
) -> GrpoResult:
    """Run (or continue) a stage; the model ends up in `out/model`, or `out/adapter` with LoRA.

    A run that has ended is not repeated.

    Args:
        model: a folder with a causal language model, its tokenizer and perhaps `chain_format.json`.
        choices: what to train on; their stated criteria go to the judge, never into a prompt.
        judge: of the process; the curriculum takes none.
        source: where the choices come from, for the run's record.
        stop_after: end after this step, as if the run had been cut off there.

    Raises:
        ConfigurationError: no choices, a batch that does not divide, `out` holds a run with other
            settings, or extra "training" is missing.
    """
    try:
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer
    except ImportError as error:
        raise ConfigurationError(
            "reinforcement stages need pip install 'pgenrm-agent[training]'"
        ) from error
    import torch
    from accelerate import PartialState
    from pgenrm_agent.training.shared_prompt import SharedPromptTrainer, can_share
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from pgenrm_agent.engines.decoding import ATTENTION

    if not choices:
        raise ConfigurationError("there are no choices to train on")
    passes = passes_per_step(
        recipe.name, recipe.choices_per_step * recipe.samples, recipe.rows_at_once
    )
    settings = {
        "stage": stage, "recipe": recipe.model_dump(mode="json"), "model": str(model),
        "choices": _digest(choices, format_of(model)), "judge": type(judge).__name__ if judge else None,
    }  # fmt: skip
    refuse_other_settings(out / SETTINGS, settings, what="a run")
    ended = _ended(recipe, out)
    if ended is not None:
        return ended
    chain_format = format_of(model)
    wanted = recipe.steps * recipe.choices_per_step
    processes = PartialState(cpu=not torch.cuda.is_available())
    if stage == "curriculum":
        # One process measures, the others then read what it kept.
        with processes.main_process_first():
            hardness = _hardness(recipe, model, choices, chain_format, out / "hardness.jsonl")
        order = scheduled(hardness, recipe)
    else:
        rng = random.Random(recipe.seed)
        order = [i for _ in range(-(-wanted // len(choices))) for i in _shuffled(len(choices), rng)]
    records = [
        _record(choices[i], chain_format, derive_seed(recipe.seed, "order", i, place))
        for place, i in enumerate(order[:wanted])
    ]
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    dtype = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
    shares = recipe.generation == "transformers" and can_share(
        AutoConfig.from_pretrained(model), processes.distributed_type
    )
    policy = AutoModelForCausalLM.from_pretrained(
        model, dtype=dtype, **({"attn_implementation": ATTENTION} if shares else {})
    )
    checkpoints = out / "checkpoints"
    trainer = (SharedPromptTrainer if shares else GRPOTrainer)(
        model=policy,
        processing_class=tokenizer,
        reward_funcs=ChainReward(
            judge if stage == "cre" else None,
            alpha=recipe.alpha if stage == "cre" else 0.0,
            beta=recipe.beta,
        ),
        train_dataset=Dataset.from_list(records),
        peft_config=lora_config(recipe.adapter),
        callbacks=[
            Curves(out, PANELS, of=("reward",)),
            *([StopAfter(stop_after)] if stop_after else []),
        ],
        args=GRPOConfig(
            output_dir=str(checkpoints),
            max_steps=recipe.steps,
            per_device_train_batch_size=recipe.rows_at_once,
            gradient_accumulation_steps=passes,
            num_generations=recipe.samples,
            max_completion_length=recipe.max_tokens,
            shuffle_dataset=False,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=recipe.warmup_steps,
            temperature=recipe.temperature,
            beta=recipe.kl,
            mask_truncated_completions=False,
            use_vllm=recipe.generation != "transformers",
            vllm_mode="colocate" if recipe.generation == "vllm-colocated" else "server",
            bf16=recipe.precision == "bfloat16",
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=False,
            logging_steps=1,
            save_steps=recipe.save_every,
            save_total_limit=2,
            report_to=[],
            seed=recipe.seed,
        ),
    )
    show_only_a_bar(trainer)
    output = trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
    folder = _folder(recipe, out)
    save_trained(trainer, model, folder)
    rewards = [row["reward"] for row in trainer.state.log_history if "reward" in row]
    result = GrpoResult(
        folder,
        trainer.state.global_step,
        float(output.metrics["train_runtime"]),
        _mean(rewards[-max(1, len(rewards) // 10) :]),
    )
    if is_main_process():
        write_json(
            out / RUN,
            settings
            | {
                "source": source, "start_from": record_of(model.parent), "steps": result.steps,
                "seconds": result.seconds, "reward": result.reward,
            },
        )  # fmt: skip
    return result


def _ended(recipe: GrpoRecipe, out: Path) -> GrpoResult | None:
    """The run's result, if it came to its end."""
    if not (out / RUN).is_file():
        return None
    ended = json.loads((out / RUN).read_text(encoding="utf-8"))
    if ended["steps"] < recipe.steps:
        return None
    return GrpoResult(_folder(recipe, out), ended["steps"], ended["seconds"], ended["reward"])


def _folder(recipe: GrpoRecipe, out: Path) -> Path:
    return out / ("adapter" if recipe.adapter else "model")


# --- hardness ---


async def measure_hardness(
    engine: Engine,
    choices: Sequence[Example],
    chain_format: ChainFormat,
    recipe: GrpoRecipe,
) -> list[float | None]:
    """Mean margin of the chosen answer over a few chains of the present model, by choice.

    None where no chain could be read. Both answer orders are sampled equally often.
    """
    prompts = [
        Prompt(
            messages=_messages(one, chain_format, chosen_first=first),
            n=-(-recipe.curriculum.chains // 2),
            seed=derive_seed(recipe.seed, "hardness", number, int(first)),
        )
        for number, one in enumerate(choices)
        for first in (True, False)
    ]
    params = SamplingParams(
        temperature=recipe.temperature,
        max_tokens=recipe.max_tokens,
        stop=chain_format.stop("scores"),
    )
    answers = await engine.sample(prompts, params)
    found: list[float | None] = []
    for number in range(len(choices)):
        margins = []
        for first, completions in zip((True, False), answers[2 * number :], strict=False):
            for one in completions:
                text = chain_format.finish("scores", one.text)
                chain = read_chain(text, chosen_first=first)
                if chain is not None:
                    margins.append(chain.totals["chosen"] - chain.totals["rejected"])
        found.append(_mean(margins) if margins else None)
    return found


def scheduled(margins: Sequence[float | None], recipe: GrpoRecipe) -> list[int]:
    """Which choice comes when, for the whole run: hard ones more and more often.

    Hard: a mean margin of at most `curriculum.margin`, a mistake included, or nothing readable.
    Within each kind every choice comes once before any comes again. With one kind alone, all are it.
    """
    plan = recipe.curriculum
    hard = [i for i, margin in enumerate(margins) if margin is None or margin <= plan.margin]
    easy = [i for i in range(len(margins)) if i not in set(hard)]
    rng = random.Random(recipe.seed)
    queues = {True: _endless(hard or easy, rng), False: _endless(easy or hard, rng)}
    order = []
    for step in range(recipe.steps):
        share = plan.start + (plan.end - plan.start) * step / max(1, recipe.steps - 1)
        count = round(share * recipe.choices_per_step)
        kinds = [True] * count + [False] * (recipe.choices_per_step - count)
        rng.shuffle(kinds)
        order += [next(queues[kind]) for kind in kinds]
    return order


def _hardness(
    recipe: GrpoRecipe,
    model: Path,
    choices: Sequence[Example],
    chain_format: ChainFormat,
    kept: Path,
) -> list[float | None]:
    """Measured once a run, and kept: a resumed run follows the same schedule."""
    if kept.is_file():
        found = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
        if len(found) == len(choices):
            return cast("list[float | None]", found)
    from pgenrm_agent.engines import load_engine

    async def measure() -> list[float | None]:
        engine = load_engine("transformers", model)
        try:
            return await measure_hardness(engine, choices, chain_format, recipe)
        finally:
            await engine.aclose()

    margins = asyncio.run(measure())
    beside = kept.with_suffix(".new")
    beside.write_text("".join(json.dumps(one) + "\n" for one in margins), encoding="utf-8")
    beside.replace(kept)
    return margins


# --- what the trainer is given ---


def _record(one: Example, chain_format: ChainFormat, seed: int) -> dict[str, object]:
    chosen_first = random.Random(seed).random() < 0.5
    # Of whom no wishes are known, why she chose so says what she wanted.
    why = (StatedPreference(text=one.reason),) if one.reason and one.reason.strip() else ()
    return {
        "prompt": [m.model_dump() for m in _messages(one, chain_format, chosen_first=chosen_first)],
        "chosen_first": chosen_first,
        "stated": json.dumps([wish.model_dump() for wish in one.stated or why]),
    }


def _digest(choices: Sequence[Example], chain_format: ChainFormat) -> str:
    """Of what is learned from; the pairs' own ids and times are new whenever a dataset is read."""
    return digest(json.dumps(_record(one, chain_format, seed=0)) for one in choices)


def _messages(
    one: Example, chain_format: ChainFormat, *, chosen_first: bool
) -> tuple[Message, ...]:
    asked = one.asked
    return chain_format.messages(
        query=asked.query,
        candidates=[asked.chosen, asked.rejected]
        if chosen_first
        else [asked.rejected, asked.chosen],
        history=one.history,
        stated=(),
        conversation=asked.conversation,
    )


def _statements(text: str) -> tuple[StatedPreference, ...]:
    return tuple(StatedPreference.model_validate(one) for one in json.loads(text))


def _text(completion: object) -> str:
    """TRL's two shapes of a completion: a text, or a conversation."""
    if isinstance(completion, str):
        return completion
    turns = cast("Sequence[Mapping[str, str]]", completion)
    return turns[-1]["content"] if turns else ""


def _shuffled(count: int, rng: random.Random) -> list[int]:
    return rng.sample(range(count), count)


def _endless(items: Sequence[int], rng: random.Random) -> Any:
    while True:
        yield from rng.sample(items, len(items))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
