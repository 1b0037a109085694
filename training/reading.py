"""A Llama that is shown, while it trains, what to find in its prompt and where to look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch.nn.functional import cross_entropy, linear
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from pgenrm_agent.training.bundled.signs import LEVELS, SIGNS
from pgenrm_agent.training.recipe import ModelShape

__all__ = ["Head", "ReadingLlama", "build_model"]

GUIDED_HEADS = 2
"""Attention heads of a layer that are shown where to look."""


class Head(torch.nn.Module):
    """`classes` classes for each sign, out of the states after `depth` layers."""

    def __init__(self, depth: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.depth = depth
        self.classes = classes
        self.norm = torch.nn.RMSNorm(hidden)
        self.out = torch.nn.Linear(hidden, len(SIGNS) * classes)

    def loss(
        self, states: Sequence[torch.Tensor], at: torch.Tensor, right: torch.Tensor
    ) -> torch.Tensor:
        """Mean cross-entropy (nats) at positions (n,) of flattened rows; right: (n, 16) classes."""
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
        super().__init__(config)  # type: ignore[no-untyped-call]
        layers = config.num_hidden_layers
        half = (layers + 1) // 2
        self.lookup_layer = min(half, layers - 1)
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
        losses: dict[str, torch.Tensor] = {}
        right = {"notice": "noticed", "count": "counted", "read": "levels", "recall": "levels"}
        for name, head in self.heads.items():
            if len(inputs[f"{name}_at"]):
                head = cast(Head, head)
                losses[f"{name}_loss"] = head.loss(
                    states, inputs[f"{name}_at"], inputs[right[name]]
                )
        first = self.lookup_layer
        second = min(first + 1, self.config.num_hidden_layers - 1)
        for name, layer, source in (
            ("recall", first, "read_at"),
            ("operand", first, "operand_from"),
            ("value", second, "value_from"),
        ):
            if len(inputs[f"{name}_at"]):
                losses[f"{name}_look"] = self._look_loss(
                    layer, states[layer], inputs[f"{name}_at"], inputs[source]
                )
        return losses

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
        for row in range(len(states)):
            mine = at // width == row
            if not mine.any():
                continue
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
