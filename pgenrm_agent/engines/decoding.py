"""Sampling many continuations of few prompts, the prompts' keys and values held once.

The n samples of a prompt attend to one copy of its key-value cache: scores over the shared part are
one matrix product per prompt, and only what a sample adds itself is kept per sample. On a CPU this
is what makes eight samples cost little more than one; memory is the prompts' plus the answers'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

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

from pgenrm_agent.engines.grammar import TokenMask

if TYPE_CHECKING:
    from xgrammar import GrammarMatcher

__all__ = ["ATTENTION", "Row", "SamplingRules", "attends_to_everything", "decode", "layer_kinds"]

ATTENTION = "pgenrm_shared_prefix"
COMPACT_AT = 0.75
"""Finished rows leave the batch once fewer than this share of the rows is still being written."""
GROWTH = 128
"""Tokens by which a row's own cache grows."""
LEAST_NOISE = np.float32(2.0**-21)
"""Below numpy's smallest draw but 0."""


@dataclass(eq=False)
class Row:
    """One sample: the prompt it continues and what has been written so far.

    noise: the row's own random stream, so that a sample does not depend on what else is in the
        batch.
    matcher: follows the grammar that the row is held to from its next token on; None leaves it free.
    may_think: whether the first token may be one of `SamplingRules.opening` in spite of the grammar,
        if that is what the model would write; it then becomes free, and `thinking`.
    ended: "stop" or "length"; empty as long as it is being written.
    end: the end token that it was ended by, if one did; it is not among its tokens.
    """

    prompt: int
    noise: np.random.Generator
    limit: int
    tokens: list[int] = field(default_factory=list)
    matcher: GrammarMatcher | None = None
    may_think: bool = False
    thinking: bool = False
    ended: Literal["", "stop", "length"] = ""
    end: int | None = None


@dataclass(frozen=True)
class SamplingRules:
    """temperature 0 takes the likeliest token.

    suspects: true for tokens after which a row is looked at, as they may end a stop string.
    opening: tokens that begin a model's thinking.
    """

    temperature: float
    top_p: float
    end_tokens: frozenset[int]
    suspects: torch.Tensor | None
    opening: frozenset[int] = frozenset()


@dataclass
class _Prefix:
    """The prompts' keys and values, (P, key-value heads, T, d) a layer, right-padded to the longest.

    numbers, lengths: of the P prompts that are still continued. hidden: (P, T), true for padding.
    prompt, slot: for every row of the batch, its prompt (0 to P - 1) and its place among that prompt's rows.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    numbers: list[int]
    lengths: torch.Tensor
    hidden: torch.Tensor
    prompt: torch.Tensor
    slot: torch.Tensor
    width: int

    def arrange(self, rows: Sequence[Row]) -> None:
        """Give every row its slot among the rows of its prompt, and let go of prompts without rows."""
        used = sorted({row.prompt for row in rows})
        if used != self.numbers:
            self._keep([self.numbers.index(number) for number in used])
        place = {number: place for place, number in enumerate(self.numbers)}
        counts = [0] * len(place)
        slots = []
        for row in rows:
            slots.append(counts[place[row.prompt]])
            counts[place[row.prompt]] += 1
        device = self.hidden.device
        self.prompt = torch.tensor([place[row.prompt] for row in rows], device=device)
        self.slot = torch.tensor(slots, device=device)
        self.width = max(counts)

    def _keep(self, places: list[int]) -> None:
        self.numbers = [self.numbers[place] for place in places]
        self.lengths = self.lengths[places]
        longest = int(self.lengths.max())
        self.hidden = self.hidden[places, :longest]
        # Every step reads all that is kept, so the last rows of a batch should not pay for the first.
        self.keys = [keys[places, :, :longest] for keys in self.keys]
        self.values = [values[places, :, :longest] for values in self.values]


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

    query: (B, heads, 1, d); key, value: (B, key-value heads, S, d). Without a prefix this is the
    library's ordinary attention.
    """
    if shared_prefix is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    layer: int = module.layer_idx  # type: ignore[assignment]
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    prefix = shared_prefix
    rows, heads, _, width = query.shape
    shared, prompts, slots = key.shape[1], len(prefix.numbers), prefix.width

    # Query heads that share a key-value head stand side by side, as if they were more rows.
    def by_key_head(states: torch.Tensor) -> torch.Tensor:
        return states.reshape(len(states), shared, -1, states.shape[-1])

    # Rows of one prompt side by side: (P, heads, slots, d).
    grouped = query.new_zeros(prompts, slots, heads, width)
    grouped[prefix.prompt, prefix.slot] = query[:, :, 0]
    ahead = by_key_head(grouped.transpose(1, 2)) @ prefix.keys[layer].transpose(2, 3)
    ahead = ahead.masked_fill(prefix.hidden[:, None, None, :], float("-inf"))
    length = ahead.shape[-1]
    ahead = ahead.view(prompts, heads, slots, length).transpose(1, 2)
    own = (by_key_head(query) @ key.transpose(2, 3)).view(rows, heads, -1)
    joint = torch.cat([ahead[prefix.prompt, prefix.slot], own], dim=-1)  # (B, heads, T + S)
    weights = torch.softmax(joint.float() * scale, dim=-1).to(query.dtype)
    spread = weights.new_zeros(ahead.shape)  # under autocast it is wider than `ahead`
    spread[prefix.prompt, prefix.slot] = weights[..., :length]
    read = by_key_head(spread.transpose(1, 2)) @ prefix.values[layer]
    read = read.view(prompts, heads, slots, -1).transpose(1, 2)
    result = read[prefix.prompt, prefix.slot]  # (B, heads, d)
    own = by_key_head(weights[:, :, None, length:]) @ value
    result = result + own.view(rows, heads, -1)
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
    """Caches and last logits (P, vocabulary).

    One prompt at a time: no padding, so that a prompt's numbers do not depend on its neighbors.
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
    known = torch.tensor(lengths, device=device)
    prefix = _Prefix(
        [padded("keys", layer) for layer in layers],
        [padded("values", layer) for layer in layers],
        list(range(len(caches))),
        known,
        torch.arange(longest, device=device)[None] >= known[:, None],
        torch.empty(0),
        torch.empty(0),
        0,
    )
    prefix.arrange(rows)
    return prefix


def _choose(
    logits: torch.Tensor, rows: Sequence[Row], rules: SamplingRules, mask: TokenMask
) -> torch.Tensor:
    """One token a row; logits (B, vocabulary) -> (B,). Logits that a grammar bans become -inf."""
    noise = None
    if rules.temperature > 0:
        size = logits.shape[-1]
        drawn = np.stack([row.noise.standard_exponential(size, dtype=np.float32) for row in rows])
        # Of 2 ** 23 draws in float32, one is 0. Its token would win, however unlikely it is.
        noise = torch.from_numpy(np.maximum(drawn, LEAST_NOISE)).to(logits.device).log()
    free = _likeliest(logits, noise, rules) if any(row.may_think for row in rows) else None
    mask.apply(logits, [None if row.ended else row.matcher for row in rows])
    chosen = _likeliest(logits, noise, rules)
    if free is not None:
        for place, row in enumerate(rows):
            if row.may_think and int(free[place]) in rules.opening:
                chosen[place] = free[place]
                row.matcher, row.thinking = None, True
            row.may_think = False
    return chosen


def _likeliest(
    logits: torch.Tensor, noise: torch.Tensor | None, rules: SamplingRules
) -> torch.Tensor:
    """The token of highest logit, or the one that noise (its logarithm) lets win.

    Gumbel-max: exponential noise a token, the highest chance-to-noise ratio wins. A change in the
    last bits of a logit then matters only where two ratios are equal to those bits, while in
    inverse transform sampling it would shift every later boundary.
    """
    if noise is None:
        return logits.argmax(-1)
    scaled = logits.float() / rules.temperature
    if rules.top_p < 1:
        ordered, order = torch.softmax(scaled, dim=-1).sort(dim=-1, descending=True)
        beyond = ordered.cumsum(-1) - ordered >= rules.top_p
        scaled = scaled.masked_fill(
            torch.zeros_like(beyond).scatter(-1, order, beyond), float("-inf")
        )
    return (scaled - noise).argmax(-1)


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[Row],
    rules: SamplingRules,
    stops_here: Callable[[Row], bool],
) -> None:
    """Write every row's tokens in place, all rows one token a step.

    prompts: token ids; no prompt twice. stops_here: called with a row whose newest token is a
    suspect; True ends the row. It may also set the row's matcher.
    """
    device = model.device
    caches, first = _read_prompts(model, prompts)
    active = list(rows)
    logits = first[[row.prompt for row in active]]
    prefix = _stack(caches, active, device)
    del caches
    layers = [_OwnLayer() for _ in prefix.keys]
    cache = DynamicCache()
    cache.layers = list(layers)
    if hasattr(cache, "layer_class_to_replicate"):
        cache.layer_class_to_replicate = None
    mask = TokenMask()
    alive = np.ones(len(active), dtype=bool)
    for step in range(max(row.limit for row in rows)):
        chosen = _choose(logits, active, rules, mask)
        suspect = rules.suspects[chosen].tolist() if rules.suspects is not None else None
        for place, token in enumerate(chosen.tolist()):
            if not alive[place]:
                continue
            row = active[place]
            if token in rules.end_tokens:
                row.ended, row.end, alive[place] = "stop", token, False
                continue
            row.tokens.append(token)
            complete = False
            if row.matcher is not None:
                if not row.matcher.accept_token(token):
                    raise RuntimeError(f"token {token} left its grammar")
                complete = row.matcher.is_terminated()
            if complete or (suspect is not None and suspect[place] and stops_here(row)):
                row.ended, alive[place] = "stop", False
            elif len(row.tokens) >= row.limit:
                row.ended, alive[place] = "length", False
        if not alive.any():
            return
        if alive.mean() < COMPACT_AT:
            keep = np.flatnonzero(alive)
            active = [active[place] for place in keep]
            index = torch.tensor(keep, device=device)
            chosen = chosen[index]
            for layer in layers:
                layer.keep(index)
            prefix.arrange(active)
            alive = np.ones(len(active), dtype=bool)
        logits = model(
            input_ids=chosen[:, None],
            position_ids=(prefix.lengths[prefix.prompt] + step)[:, None],
            past_key_values=cache,
            use_cache=True,
            shared_prefix=prefix,
        ).logits[:, -1]
