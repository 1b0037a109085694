"""CRE and the hard-negative curriculum: GRPO on TRL (paper 4.1.2, 4.1.3).

The policy writes evaluation chains from the prompt that inference sends: past choices shown, stated
criteria withheld. A chain earns R = alpha PR + beta OR, or -0.1 where it is none (`rewards`). The
curriculum rewards the outcome alone, on choices whose hardness was measured with the model that it
starts from, and lets the share of hard ones grow.

Running the same call again continues from the last checkpoint.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.engines.prompting import fold_system, takes_system
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.rows import Example
from pgenrm_agent.files import write_json
from pgenrm_agent.model_files import format_of
from pgenrm_agent.run_folder import RUN, digest, record_of, refuse_other_settings, weights_of
from pgenrm_agent.sampling import derive_seed
from pgenrm_agent.schema import StatedPreference
from pgenrm_agent.training.chain_dataset import choice_turn
from pgenrm_agent.training.curriculum import measure_missing, read_hardness, scheduled
from pgenrm_agent.training.format_files import place_told
from pgenrm_agent.training.recipe import GrpoRecipe
from pgenrm_agent.training.rewards import (
    Rater,
    RatingTask,
    outcome_reward,
    read_chain,
    total_reward,
)
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

Stage = Literal["cre", "curriculum"]
PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others, as TRL's trainers do."""
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
    """What a run came to.

    folder: the model's (or adapter's). reward: mean of the last tenth of the steps.
    """

    folder: Path
    steps: int
    seconds: float
    reward: float


class ChainReward:
    """TRL's reward function: R of each completion. Logs outcome, process and format errors.

    A chain that the rater gave no number earns the mean of the others of its prompt: no number is not
    a bad one. asks_totals: as in `read_chain`.
    """

    def __init__(
        self, rater: Rater | None, *, alpha: float, beta: float, asks_totals: bool = True
    ) -> None:
        self._rater = rater
        self._alpha = alpha
        self._beta = beta
        self._asks_totals = asks_totals
        self.__name__ = "chain_reward"

    def __call__(
        self,
        completions: Sequence[object],
        chosen_first: Sequence[bool],
        stated: Sequence[str],
        prompts: Sequence[object],
        log_metric: Callable[[str, float], None] | None = None,
        **columns: object,
    ) -> list[float]:
        """One reward a completion. stated: JSON lists of what the user of each row stated."""
        texts = [_text(completion) for completion in completions]
        chains = [
            read_chain(text, chosen_first=first, asks_totals=self._asks_totals)
            for text, first in zip(texts, chosen_first, strict=True)
        ]
        process: list[float | None] = [None] * len(texts)
        rated: list[float | None] = []
        if self._rater is not None:
            known = [i for i, chain in enumerate(chains) if chain is not None]
            rated = self._rater.rate(
                [
                    RatingTask(chain, _statements(stated[i]))
                    for i in known
                    if (chain := chains[i]) is not None
                ]
            )
            for i, rating in zip(known, rated, strict=True):
                process[i] = rating
            _fill_unrated(process, known, [json.dumps(prompt) for prompt in prompts])
        outcomes = [outcome_reward(chain) for chain in chains]
        if log_metric is not None:
            log_metric("chain/outcome", _mean(outcomes))
            log_metric("chain/format_errors", _mean([float(chain is None) for chain in chains]))
            rated_ones = [share for share in rated if share is not None]
            if rated_ones:
                log_metric("chain/process", _mean(rated_ones))
        return [
            total_reward(p, o, readable=chain is not None, alpha=self._alpha, beta=self._beta)
            for p, o, chain in zip(process, outcomes, chains, strict=True)
        ]


def _fill_unrated(
    process: list[float | None], known: Sequence[int], prompts: Sequence[str]
) -> None:
    by_prompt: dict[str, list[float]] = {}
    for i in known:
        if (rating := process[i]) is not None:
            by_prompt.setdefault(prompts[i], []).append(rating)
    for i in known:
        if process[i] is None and prompts[i] in by_prompt:
            process[i] = _mean(by_prompt[prompts[i]])


def train_grpo(
    stage: Stage,
    recipe: GrpoRecipe,
    model: Path,
    choices: Sequence[Example],
    out: Path,
    *,
    rater: Rater | None = None,
    source: str = "",
) -> GrpoResult:
    """Run (or continue) a stage; the model ends up in `out/model`, or `out/adapter` with LoRA.

    A run that has ended is not repeated.

    Args:
        stage: "cre", or "curriculum" for the outcome alone and a growing share of hard choices.
        recipe: how long, how large, and how the two rewards are weighed.
        model: a folder with a causal language model, its tokenizer and perhaps `chain_format.json`.
        choices: what to train on; their stated criteria go to the rater, never into a prompt.
        out: the run's folder: settings, checkpoints, curves, the model, run.json.
        rater: of the process; the curriculum takes none.
        source: where the choices come from, for the run's record.

    Raises:
        ConfigurationError: no choices, or none that the rater can rate; a batch that does not divide;
            `out` holds a run with other settings; a model without a chat template; sharding without a
            GPU, or several GPUs without a launcher; or extra "training" is missing.
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
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from pgenrm_agent.engines.attention import ATTENTION
    from pgenrm_agent.training.shared_prompt import SharedPromptTrainer, can_share

    if not choices:
        raise ConfigurationError("there are no choices to train on")
    if rater is not None and not any(rater.can_rate(_wishes(choice)) for choice in choices):
        raise ConfigurationError(
            f"rater {rater.name} can rate none of the choices: nobody states anything that it knows."
            " Use another rater, or none for the outcome alone"
        )
    refuse_several_gpus()
    options = trainer_options(recipe, out, rows=recipe.choices_per_step * recipe.samples)
    settings = {
        "stage": stage,
        "recipe": recipe.model_dump(mode="json"),
        "model": weights_of(model),
        "choices": _digest(choices, format_of(model)),
        "rater": rater.name if rater else None,
    }
    refuse_other_settings(out, settings, what="a run")
    ended = _ended(recipe, out)
    if ended is not None:
        return ended
    chain_format = format_of(model)
    wanted = recipe.steps * recipe.choices_per_step
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    if stage == "curriculum":
        measure_missing(recipe, model, choices, chain_format, out)
        state.wait_for_everyone()
        order = scheduled(read_hardness(out, len(choices)), recipe)
    else:
        rng = random.Random(recipe.seed)
        rounds = -(-wanted // len(choices))
        order = [i for _ in range(rounds) for i in rng.sample(range(len(choices)), len(choices))]
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    refuse_without_chat_template(tokenizer)
    records = [
        _record(choices[i], chain_format, derive_seed(recipe.seed, "order", i, place), tokenizer)
        for place, i in enumerate(order[:wanted])
    ]
    shares = can_share(recipe, AutoConfig.from_pretrained(model), state.distributed_type)
    policy = AutoModelForCausalLM.from_pretrained(
        model,
        dtype=start_width(recipe),
        use_safetensors=True,
        **({"attn_implementation": ATTENTION} if shares else {}),
    )
    last = last_checkpoint(out)
    curves = Curves(out, PANELS, of=("reward",), resumed=last)
    trainer = (SharedPromptTrainer if shares else GRPOTrainer)(
        model=policy,
        processing_class=tokenizer,
        reward_funcs=ChainReward(
            rater if stage == "cre" else None,
            alpha=recipe.alpha if stage == "cre" else 0.0,
            beta=recipe.beta,
            asks_totals=chain_format.asks_totals,
        ),
        train_dataset=Dataset.from_list(records),
        peft_config=lora_config(recipe.adapter),
        callbacks=[curves],
        args=GRPOConfig(
            **options,
            max_steps=recipe.steps,
            num_generations=recipe.samples,
            max_completion_length=recipe.max_tokens,
            shuffle_dataset=False,
            lr_scheduler_type="constant_with_warmup",
            temperature=recipe.temperature,
            beta=recipe.kl,
            mask_truncated_completions=False,
            # The trainer turns the cache off, without which TRL samples four times as slowly.
            generation_kwargs={"use_cache": True} if recipe.generation == "transformers" else None,
            use_vllm=recipe.generation != "transformers",
            vllm_mode="colocate" if recipe.generation == "vllm-colocated" else "server",
        ),
    )
    folder = trained_folder(recipe, out)
    train(trainer, place_told(model), folder, resumed=last)
    result = GrpoResult(
        folder, trainer.state.global_step, curves.seconds, mean_of_last_tenth(trainer, "reward")
    )
    if is_main_process():
        write_json(
            out / RUN,
            settings
            | {
                "source": source,
                "start_from": record_of(model.parent),
                "processes": processes(),
                "steps": result.steps,
                "seconds": result.seconds,
                "reward": result.reward,
            },
        )
    return result


def _ended(recipe: GrpoRecipe, out: Path) -> GrpoResult | None:
    """The run's result, if it came to its end."""
    if not (out / RUN).is_file():
        return None
    ended = json.loads((out / RUN).read_text(encoding="utf-8"))
    if ended["steps"] < recipe.steps:
        return None
    folder = trained_folder(recipe, out)
    return GrpoResult(folder, ended["steps"], ended["seconds"], ended["reward"])


# --- what the trainer is given ---


def _record(
    example: Example,
    chain_format: ChainFormat,
    seed: int,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> dict[str, object]:
    """A row of the trainer's, for the chat template of `tokenizer`.

    TRL renders the messages as they are: for a template without a system role they are folded here, as
    the engines fold them.
    """
    chosen_first = random.Random(seed).random() < 0.5
    turn = choice_turn(example, chain_format, chosen_first=chosen_first, stated=False)
    messages = turn.messages
    if tokenizer is not None and not takes_system(tokenizer):
        messages = fold_system(messages)
    return {
        "prompt": [message.model_dump() for message in messages],
        "chosen_first": chosen_first,
        "stated": json.dumps([wish.model_dump() for wish in _wishes(example)]),
    }


def _wishes(example: Example) -> tuple[StatedPreference, ...]:
    """What the rater is told. Of whom no wishes are known, why they chose so says what they wanted."""
    why = (
        (StatedPreference(text=example.reason),)
        if example.reason and example.reason.strip()
        else ()
    )
    return example.stated or why


def _digest(choices: Sequence[Example], chain_format: ChainFormat) -> str:
    """Of what is learned from; the pairs' own ids and times are new whenever a dataset is read."""
    return digest(json.dumps(_record(choice, chain_format, seed=0)) for choice in choices)


def _statements(text: str) -> tuple[StatedPreference, ...]:
    return tuple(StatedPreference.model_validate(statement) for statement in json.loads(text))


def _text(completion: object) -> str:
    """TRL's two shapes of a completion: a text, or a conversation."""
    if isinstance(completion, str):
        return completion
    turns = cast("Sequence[Mapping[str, str]]", completion)
    return turns[-1]["content"] if turns else ""


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
