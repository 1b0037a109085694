"""A Llama that is shown, while it trains, what to find in its prompt and where to look."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import cast

import torch
from torch.nn.functional import cross_entropy, linear
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from pgenrm_agent.chain.signs import LEVELS, SIGNS
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.training.packed_attention import PACKED
from pgenrm_agent.training.recipe import ModelShape

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
        self.longest = config.max_position_embeddings  # of an example in a packed row
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
                    layer,
                    states[layer].flatten(0, 1),
                    inputs["documents"],
                    inputs[f"{name}_at"],
                    inputs[source],
                )
        return losses

    def _look_loss(
        self,
        layer: int,
        states: torch.Tensor,
        documents: torch.Tensor,
        at: torch.Tensor,
        wanted: torch.Tensor,
    ) -> torch.Tensor:
        """Cross-entropy of where the guided heads of a layer look, from `at` to `wanted`.

        states: (tokens, hidden), what goes into the layer, of flattened rows. documents: where what
        looks at itself alone begins there, and where the last one ends. at: (n,) positions, in order.
        wanted: (n,) for all guided heads, or (n * GUIDED_HEADS,) one for each, in like documents.
        """
        block = self.model.layers[layer]
        size = block.self_attn.head_dim
        shared = block.self_attn.num_key_value_groups  # query heads to a key head
        key_heads = (GUIDED_HEADS - 1) // shared + 1
        hidden = block.input_layernorm(states)
        tokens = torch.arange(len(states), device=states.device)
        document = torch.bucketize(tokens, documents, right=True) - 1
        place = tokens - documents[document]
        cos, sin = self.model.rotary_emb(hidden, place[None])
        query = linear(hidden[at], block.self_attn.q_proj.weight[: GUIDED_HEADS * size])
        key = linear(hidden, block.self_attn.k_proj.weight[: key_heads * size])
        query = query.view(1, len(at), GUIDED_HEADS, size).transpose(1, 2)
        key = key.view(1, len(states), key_heads, size).transpose(1, 2)
        query, _ = apply_rotary_pos_emb(query, query, cos[:, at], sin[:, at])
        key, _ = apply_rotary_pos_emb(key, key, cos, sin)
        key = key[0].repeat_interleave(shared, dim=0)[:GUIDED_HEADS]
        # Documents side by side, each with its own tokens, padded to the longest.
        used, line = torch.unique(document[at], return_inverse=True)
        starts = documents[used]
        longest = int((documents[used + 1] - starts).max())
        counts = line.bincount()
        slot = torch.arange(len(at), device=at.device) - (counts.cumsum(0) - counts)[line]
        asking = query.new_zeros(GUIDED_HEADS, len(used), int(counts.max()), size)
        asking[:, line, slot] = query[0]
        columns = torch.arange(longest, device=at.device)
        keys = key[:, (starts[:, None] + columns).clamp(max=len(states) - 1)]
        logits = (asking @ keys.transpose(-1, -2))[:, line, slot].float() / size**0.5
        logits = logits.masked_fill(columns > place[at][:, None], float("-inf"))
        target = place[wanted].view(len(at), -1).expand(-1, GUIDED_HEADS).T
        return cross_entropy(logits.flatten(0, 1), target.flatten())

    def read(self, inputs: dict[str, torch.Tensor]) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        """Return the states after each layer, those before the first in front, and the final ones.

        Rows are padded on the right, so causal attention alone keeps padding out: no mask, and the
        fast kernel. In a packed row (`PackedRows`) each example looks at itself alone.
        """
        core = self.model
        if "positions" not in inputs:
            outputs = core(
                input_ids=inputs["input_ids"], use_cache=False, output_hidden_states=True
            )
            return outputs.hidden_states, outputs.last_hidden_state
        hidden = core.embed_tokens(inputs["input_ids"])
        angles = core.rotary_emb(hidden, position_ids=inputs["positions"])
        states = [hidden]
        for layer in core.layers:
            hidden = layer(
                hidden,
                position_embeddings=angles,
                documents=inputs["documents"],
                longest=self.longest,
            )
            states.append(hidden)
        final = core.norm(hidden)
        return [*states[:-1], final], final

    def without_heads(self) -> LlamaForCausalLM:
        """The same weights as a plain Llama."""
        plain = LlamaForCausalLM(deepcopy(self.config))  # engines choose another attention
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


def load_plain(folder: str | Path) -> LlamaForCausalLM:
    """Return the pretrained checkpoint at a folder or of a hub name, weights in float32.

    Raises ConfigurationError when it cannot be loaded, or is no Llama.
    """
    try:
        config = AutoConfig.from_pretrained(folder)
        if config.model_type != "llama":
            raise ConfigurationError(
                f"{folder} is of architecture {config.model_type!r}: start from a Llama"
            )
        return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{folder} cannot be loaded: {str(error).splitlines()[0]}; name the folder of a pretrained"
            " checkpoint"
        ) from error


def load_model(folder: str | Path, context: int) -> ReadingLlama:
    """Return a pretrained checkpoint with reading heads, for packed rows of examples up to `context`.

    Embeddings and norms stay as they are: a LoRA adapter is to hold all that is learned.

    Raises ConfigurationError as `load_plain` does, and for a checkpoint of shorter texts.
    """
    plain = load_plain(folder)
    if plain.config.max_position_embeddings < context:
        raise ConfigurationError(
            f"{folder} reads at most {plain.config.max_position_embeddings} tokens, and the recipe's"
            f" examples have up to {context}: lower start.context"
        )
    model = ReadingLlama(plain.config)
    missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("heads.") for name in missing), missing
    model.longest = context
    model.set_attn_implementation(PACKED)
    for name, weight in model.named_parameters():
        weight.requires_grad = name.startswith("heads.") or "_proj." in name
    return model
