"""GRPO whose chains share their prompt: read once for sampling, once for the log-probabilities.

The chains of a choice continue one prompt, which is longer than they are. TRL repeats it for each of
them, in the key-value cache while it samples and in the forward and backward pass after that, and on a
CPU sends the prompt's positions through the output layer as well. Here a prompt is read once for all of
its chains, with the same numbers up to float rounding. Two methods of TRL's trainer are replaced; where
a recipe, a model or a launcher does not allow it (`can_share`), TRL's own serve.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import DistributedType
from transformers import DynamicCache, PreTrainedModel
from trl import GRPOTrainer

from pgenrm_agent.engines.attention import attends_to_everything
from pgenrm_agent.engines.decoding import Row, SamplingRules, decode
from pgenrm_agent.sampling import derive_seed
from pgenrm_agent.training.recipe import GrpoRecipe
from pgenrm_agent.training.run import process_number

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

WHOLE = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
"""Launchers that leave every process a whole model, not a part of its weights."""


def can_share(recipe: GrpoRecipe, config: PreTrainedConfig, distributed: DistributedType) -> bool:
    """Whether prompts can be shared: full attention in every layer, and whole weights in each process.

    Not where activations are computed again on the way back: layers then take no key-value cache, and
    chains would be read without their prompt.
    """
    # That weights are sharded by FSDP is told by the launcher's variable alone until a trainer is made.
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")
    own = recipe.generation == "transformers" and not recipe.recompute
    whole = not recipe.shard and distributed in WHOLE and not sharded
    return own and whole and attends_to_everything(config)


class SharedPromptTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer with shared prompts; the model needs the attention `engines.attention.ATTENTION`."""

    def _generate_single_turn(
        self, prompt_ids: Sequence[Sequence[int]], *_: object, **__: object
    ) -> tuple[list[list[int]], None]:
        """One chain for every prompt given, equal prompts being samples of one.

        Drawn from the recipe's seed, the step and the chain's place among those of all processes, whatever
        was drawn before: a run that was cut off writes the chains that it would have written, and two
        processes write those of one.
        """
        place_of: dict[tuple[int, ...], int] = {}
        before = process_number() * len(prompt_ids)
        rows = [
            Row(
                place_of.setdefault(tuple(ids), len(place_of)),
                np.random.default_rng(
                    derive_seed(self.args.seed, "chain", self.state.global_step, before + number)
                ),
                self.max_completion_length,
            )
            for number, ids in enumerate(prompt_ids)
        ]
        model = self.accelerator.unwrap_model(self.model_wrapped)
        rules = SamplingRules(self.temperature, self.top_p, frozenset(self.eos_token_ids))
        model.eval()
        try:
            with self.accelerator.autocast():  # as the log-probabilities are read
                decode(_without_adapter_shell(model), list(place_of), rows, rules)
        finally:
            model.train()
        # With the end token that was drawn: it is learned from, and a model may have several.
        return [row.tokens if row.end is None else [*row.tokens, row.end] for row in rows], None

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **_: object,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        """Of every token of the chains, (rows, logits_to_keep) each; 0 where a shorter chain is padded.

        input_ids, attention_mask: (rows, tokens), prompts padded on the left, chains on the right.
        """
        log_probs = input_ids.new_zeros((len(input_ids), logits_to_keep), dtype=torch.float32)
        entropies = torch.zeros_like(log_probs)
        is_prompt = attention_mask[:, :-logits_to_keep].bool()
        lengths = attention_mask[:, -logits_to_keep:].sum(1)
        prompts = input_ids[:, :-logits_to_keep].masked_fill(~is_prompt, -1)
        different, prompt_of = torch.unique(prompts, dim=0, return_inverse=True)
        for number, prompt in enumerate(different):
            rows = (prompt_of == number).nonzero()[:, 0]
            longest = int(lengths[rows].max())
            chains = input_ids[rows, -logits_to_keep:][:, :longest]
            with self.accelerator.autocast():
                logits = _logits(model, prompt[prompt >= 0], chains)
            distribution = (logits.float() / self.temperature).log_softmax(-1)
            chosen = distribution.gather(-1, chains[..., None])[..., 0]
            real = torch.arange(longest, device=chains.device) < lengths[rows, None]
            at = (rows[:, None], torch.arange(longest, device=chains.device)[None])
            log_probs = log_probs.index_put(at, chosen.masked_fill(~real, 0.0))
            if compute_entropy:
                with torch.no_grad():  # it is logged, and no part of the loss
                    entropies[at] = -(distribution.exp() * distribution).sum(-1).mul(real)
        return log_probs, entropies if compute_entropy else None, None


def _logits(model: torch.nn.Module, prompt: torch.Tensor, chains: torch.Tensor) -> torch.Tensor:
    """Of every token of the chains, (chains, tokens, vocabulary); gradients reach the prompt too."""
    cache = DynamicCache()
    read = model(
        input_ids=prompt[None], past_key_values=cache, use_cache=True, logits_to_keep=1
    ).logits
    for layer in cache.layers:
        layer.keys = layer.keys.expand(len(chains), -1, -1, -1)  # type: ignore[union-attr]
        layer.values = layer.values.expand(len(chains), -1, -1, -1)  # type: ignore[union-attr]
    first: torch.Tensor = read.expand(len(chains), -1, -1)
    if chains.shape[1] == 1:
        return first
    # Padding stands behind all that is real, where causal attention never looks.
    places = torch.arange(len(prompt), len(prompt) + chains.shape[1] - 1, device=chains.device)
    rest = model(
        input_ids=chains[:, :-1],
        position_ids=places.expand(len(chains), -1),
        past_key_values=cache,
        use_cache=True,
    ).logits
    return torch.cat([first, rest], dim=1)


def _without_adapter_shell(model: Any) -> PreTrainedModel:
    """The model that an adapter was put into; its layers hold the adapter."""
    inner: PreTrainedModel = model.get_base_model() if hasattr(model, "peft_config") else model
    return inner
