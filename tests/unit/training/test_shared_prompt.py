"""Chains that share their prompt: the numbers and gradients are those of TRL's own trainer."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, MistralConfig
from trl import GRPOConfig, GRPOTrainer

from pgenrm_agent.engines.attention import ATTENTION
from pgenrm_agent.training.recipe import GrpoRecipe
from pgenrm_agent.training.shared_prompt import SharedPromptTrainer, can_share


@pytest.fixture
def trainer(minute_model: Path, tmp_path: Path) -> SharedPromptTrainer:
    model = AutoModelForCausalLM.from_pretrained(
        minute_model, dtype=torch.float32, attn_implementation=ATTENTION
    )
    return SharedPromptTrainer(
        model=model,
        processing_class=AutoTokenizer.from_pretrained(minute_model, padding_side="left"),
        reward_funcs=lambda completions, **columns: [0.0] * len(completions),
        train_dataset=Dataset.from_list([{"prompt": "x"}] * 4),
        args=GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=4,
            num_generations=2,
            max_completion_length=12,
            temperature=0.8,
            use_cpu=True,
            bf16=False,
            report_to=[],
        ),
    )


def test_log_probabilities_entropies_and_gradients_are_those_of_trl(
    trainer: SharedPromptTrainer,
) -> None:
    rng = random.Random(1)
    prompts = [[rng.randrange(10, 400) for _ in range(length)] for length in (9, 5)]
    ids = torch.zeros(5, 9 + 6, dtype=torch.long)
    mask = torch.zeros_like(ids)
    # Shuffled, as TRL hands them over: two prompts, chains of different lengths, one of one token.
    for row, (prompt, length) in enumerate([(0, 6), (1, 3), (0, 1), (1, 5), (0, 4)]):
        known = prompts[prompt]
        ids[row, 9 - len(known) : 9] = torch.tensor(known)
        mask[row, 9 - len(known) : 9 + length] = 1
        ids[row, 9 : 9 + length] = torch.tensor([rng.randrange(10, 400) for _ in range(length)])
    real = mask[:, 9:].bool()
    weights = torch.linspace(-1, 1, real.sum().item())
    results = []
    for kind in (SharedPromptTrainer, GRPOTrainer):
        trainer.model.zero_grad()
        log_probs, entropies, _ = kind._get_per_token_logps_and_entropies(
            trainer, trainer.model, ids, mask, 6, compute_entropy=True
        )
        (log_probs[real] * weights).sum().backward()
        gradient = torch.cat([parameter.grad.flatten() for parameter in trainer.model.parameters()])
        results.append((log_probs[real].detach(), entropies[real], gradient))
    for shared, own in zip(*results, strict=True):
        assert shared.abs().max() > 1e-3
        torch.testing.assert_close(shared, own, rtol=1e-4, atol=1e-5)


def test_chains_are_drawn_from_seed_step_and_place(trainer: SharedPromptTrainer) -> None:
    asked = [[11, 12, 13, 14], [11, 12, 13, 14], [21, 22]]
    first, _ = trainer._generate_single_turn(asked, None, {}, 2)
    random.seed(7)
    torch.manual_seed(7)
    again, _ = trainer._generate_single_turn(asked, None, {}, 2)
    assert first == again
    assert first[0] != first[1]
    assert all(0 < len(chain) <= 12 for chain in first)
    trainer.state.global_step = 1
    assert trainer._generate_single_turn(asked, None, {}, 2)[0] != first


def test_a_chain_ends_with_the_end_token_that_was_drawn(
    trainer: SharedPromptTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instruct models have several; learning from another than was drawn would be learning nothing."""
    vocabulary = trainer.model.config.vocab_size
    monkeypatch.setattr(trainer, "eos_token_ids", list(range(vocabulary)))
    chains, _ = trainer._generate_single_turn([[11, 12, 13]] * 40, None, {}, 2)
    assert all(len(chain) == 1 for chain in chains)
    assert len({chain[0] for chain in chains}) > 1


def test_the_second_process_goes_on_where_the_first_one_ends(
    trainer: SharedPromptTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [[11, 12, 13, 14]] * 4
    whole, _ = trainer._generate_single_turn(asked, None, {}, 2)
    monkeypatch.setenv("RANK", "1")
    part, _ = trainer._generate_single_turn(asked[:2], None, {}, 2)
    assert part == whole[2:]


def test_recipes_models_and_launchers_that_cannot_share_are_left_to_trl(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = GrpoRecipe.load("tiny-cpu")
    assert can_share(recipe, LlamaConfig(), DistributedType.MULTI_CPU)
    assert not can_share(recipe, LlamaConfig(), DistributedType.FSDP)
    assert not can_share(recipe, MistralConfig(sliding_window=512), DistributedType.NO)
    # Layers that are computed again take no cache: chains would be read without their prompt.
    for change in ({"recompute": True}, {"shard": True}, {"generation": "vllm-colocated"}):
        changed = recipe.model_copy(update=change)
        assert not can_share(changed, LlamaConfig(), DistributedType.NO)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert not can_share(recipe, LlamaConfig(), DistributedType.MULTI_GPU)
