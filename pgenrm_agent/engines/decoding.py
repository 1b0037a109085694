"""Sampling many continuations of few prompts, the prompts' keys and values held once.

The n samples of a prompt attend to one copy of its key-value cache: scores over the shared part are
one matrix product per prompt, and only what a sample adds itself is kept per sample. On a CPU this
is what makes eight samples cost little more than one; memory is the prompts' plus the answers'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

__all__ = ["ATTENTION", "Row", "SamplingRules", "attends_to_everything", "decode", "layer_kinds"]

ATTENTION = "pgenrm_shared_prefix"
COMPACT_AT = 0.75
"""Finished rows leave the batch once fewer than this share of the rows is still being written."""
GROWTH = 128
"""Tokens by which a row's own cache grows."""


@dataclass(eq=False)
class Row:
    """One sample: the prompt it continues and what has been written so far.

    noise: the row's own random stream, so that a sample does not depend on what else is in the
        batch.
    """

    prompt: int
    noise: np.random.Generator
    limit: int
    tokens: list[int] = field(default_factory=list)
    ended: str = "length"


@dataclass(frozen=True)
class SamplingRules:
    """temperature 0 takes the likeliest token. `suspects` marks tokens that may end a stop string."""

    temperature: float
    top_p: float
    end_tokens: frozenset[int]
    suspects: torch.Tensor | None


@dataclass
class _Prefix:
    """The prompts' keys and values, (P, heads, T, d) a layer, right-padded; `hidden` masks padding.

    prompt, slot: for every row of the batch, its prompt and its place among that prompt's rows.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    hidden: torch.Tensor
    prompt: torch.Tensor
    slot: torch.Tensor
    width: int


class _OwnLayer(DynamicLayer):
    """A layer's cache of the rows' own tokens, written in place and grown in strides."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.used = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            rows, heads, _, width = key_states.shape
            self.keys = key_states.new_empty(rows, heads, GROWTH, width)
            self.values = value_states.new_empty(rows, heads, GROWTH, value_states.shape[-1])
        assert self.keys is not None
        assert self.values is not None
        if self.used == self.keys.shape[2]:
            self.keys = torch.cat([self.keys, torch.empty_like(self.keys)], dim=2)
            self.values = torch.cat([self.values, torch.empty_like(self.values)], dim=2)
        self.keys[:, :, self.used] = key_states[:, :, 0]
        self.values[:, :, self.used] = value_states[:, :, 0]
        self.used += 1
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]

    def get_seq_length(self) -> int:
        return self.used

    def keep(self, rows: torch.Tensor) -> None:
        if self.keys is not None and self.values is not None:
            self.keys = self.keys[rows]
            self.values = self.values[rows]


def _repeated(states: torch.Tensor, groups: int) -> torch.Tensor:
    return states if groups == 1 else states.repeat_interleave(groups, dim=1)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    shared_prefix: _Prefix | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Softmax attention over a prompt shared by several rows, followed by each row's own tokens.

    query: (B, heads, 1, d). Without a prefix this is the library's ordinary attention.
    """
    if shared_prefix is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    layer: int = module.layer_idx  # type: ignore[assignment]
    groups: int = getattr(module, "num_key_value_groups", 1)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    prefix = shared_prefix
    heads, width = query.shape[1], query.shape[-1]
    # Rows of one prompt side by side: (P, heads, slots, d).
    grouped = query.new_zeros(len(prefix.hidden), prefix.width, heads, width)
    grouped[prefix.prompt, prefix.slot] = query[:, :, 0]
    grouped = grouped.transpose(1, 2)
    ahead = grouped @ _repeated(prefix.keys[layer], groups).transpose(2, 3)
    ahead = ahead.masked_fill(prefix.hidden[:, None, None, :], float("-inf"))
    ahead_rows = ahead.transpose(1, 2)[prefix.prompt, prefix.slot]  # (B, heads, T)
    own = (query @ _repeated(key, groups).transpose(2, 3))[:, :, 0]  # (B, heads, S)
    length = ahead_rows.shape[-1]
    weights = torch.softmax(torch.cat([ahead_rows, own], dim=-1).float() * scale, dim=-1).to(
        query.dtype
    )
    spread = torch.zeros_like(ahead).transpose(1, 2)
    spread[prefix.prompt, prefix.slot] = weights[..., :length]
    read = (spread.transpose(1, 2) @ _repeated(prefix.values[layer], groups)).transpose(1, 2)
    result = read[prefix.prompt, prefix.slot]  # (B, heads, d)
    result = result + (weights[..., None, length:] @ _repeated(value, groups))[:, :, 0]
    return result[:, None], None


AttentionInterface.register(ATTENTION, _attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def attends_to_everything(config: PreTrainedConfig) -> bool:
    """Whether every layer has full attention, which sharing a prompt's cache takes."""
    return layer_kinds(config) == {"full_attention"}


def layer_kinds(config: PreTrainedConfig) -> set[str]:
    """The kinds of attention in a model, as transformers names them."""
    sliding = getattr(config, "sliding_window", None) is not None
    return set(
        getattr(config, "layer_types", None)
        or ["sliding_attention" if sliding else "full_attention"]
    )


def _read_prompts(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]]
) -> tuple[list[Any], torch.Tensor]:
    """Caches and last logits (P, vocabulary). One prompt at a time: no padding, so that a prompt's
    numbers do not depend on its neighbours.
    """
    caches, logits = [], []
    for prompt in prompts:
        cache = DynamicCache()
        output = model(
            input_ids=torch.tensor([list(prompt)], device=model.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        caches.append(cache)
        logits.append(output.logits[0, -1])
    return caches, torch.stack(logits)


def _stack(caches: Sequence[Any], rows: Sequence[Row], device: torch.device) -> _Prefix:
    lengths = [cache.get_seq_length() for cache in caches]
    longest = max(lengths)

    def padded(which: str, layer: int) -> torch.Tensor:
        parts = [getattr(cache.layers[layer], which) for cache in caches]
        return torch.cat(
            [torch.nn.functional.pad(part, (0, 0, 0, longest - part.shape[2])) for part in parts]
        )

    layers = range(len(caches[0].layers))
    hidden = (
        torch.arange(longest, device=device)[None] >= torch.tensor(lengths, device=device)[:, None]
    )
    prefix = _Prefix(
        [padded("keys", layer) for layer in layers],
        [padded("values", layer) for layer in layers],
        hidden,
        torch.empty(0),
        torch.empty(0),
        0,
    )
    _arrange(prefix, rows)
    return prefix


def _arrange(prefix: _Prefix, rows: Sequence[Row]) -> None:
    """Give every row its slot among the rows of its prompt."""
    counts: dict[int, int] = {}
    slots = []
    for row in rows:
        slots.append(counts.get(row.prompt, 0))
        counts[row.prompt] = slots[-1] + 1
    device = prefix.hidden.device
    prefix.prompt = torch.tensor([row.prompt for row in rows], device=device)
    prefix.slot = torch.tensor(slots, device=device)
    prefix.width = max(counts.values())


def _choose(logits: torch.Tensor, rows: Sequence[Row], rules: SamplingRules) -> torch.Tensor:
    """One token a row; logits (B, vocabulary) -> (B,).

    Gumbel-max: exponential noise a token, the highest chance-to-noise ratio wins. A change in the
    last bits of a logit then matters only where two ratios are equal to those bits, while in
    inverse transform sampling it would shift every later boundary.
    """
    if rules.temperature == 0:
        return logits.argmax(-1)
    scaled = logits.float() / rules.temperature
    if rules.top_p < 1:
        ordered, order = torch.softmax(scaled, dim=-1).sort(dim=-1, descending=True)
        beyond = ordered.cumsum(-1) - ordered >= rules.top_p
        scaled = scaled.masked_fill(
            torch.zeros_like(beyond).scatter(-1, order, beyond), float("-inf")
        )
    size = logits.shape[-1]
    noise = np.stack([row.noise.standard_exponential(size, dtype=np.float32) for row in rows])
    return (scaled - torch.from_numpy(noise).to(scaled.device).log()).argmax(-1)


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[Row],
    rules: SamplingRules,
    stops_here: Any,
) -> None:
    """Write every row's tokens in place, all rows one token a step.

    prompts: token ids; no prompt twice. stops_here: called with a row whose newest token may end a
    stop string; True ends the row.
    """
    device = model.device
    caches, first = _read_prompts(model, prompts)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    active = list(rows)
    logits = first[[row.prompt for row in active]]
    prefix = _stack(caches, active, device)
    del caches
    layers = [_OwnLayer() for _ in prefix.keys]
    cache = DynamicCache()
    cache.layers = list(layers)
    if hasattr(cache, "layer_class_to_replicate"):
        cache.layer_class_to_replicate = None
    alive = np.ones(len(active), dtype=bool)
    for step in range(max(row.limit for row in rows)):
        chosen = _choose(logits, active, rules)
        suspect = rules.suspects[chosen].tolist() if rules.suspects is not None else None
        for place, token in enumerate(chosen.tolist()):
            if not alive[place]:
                continue
            row = active[place]
            if token in rules.end_tokens:
                row.ended, alive[place] = "stop", False
                continue
            row.tokens.append(token)
            if suspect is not None and suspect[place] and stops_here(row):
                row.ended, alive[place] = "stop", False
            elif len(row.tokens) >= row.limit:
                alive[place] = False
        if not alive.any():
            return
        if alive.mean() < COMPACT_AT:
            keep = np.flatnonzero(alive)
            active = [active[place] for place in keep]
            index = torch.tensor(keep, device=device)
            chosen = chosen[index]
            for layer in layers:
                layer.keep(index)
            _arrange(prefix, active)
            alive = np.ones(len(active), dtype=bool)
        logits = model(
            input_ids=chosen[:, None],
            position_ids=(lengths[prefix.prompt] + step)[:, None],
            past_key_values=cache,
            use_cache=True,
            shared_prefix=prefix,
        ).logits[:, -1]
