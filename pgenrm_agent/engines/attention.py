"""Attention over prompts that many rows share, followed by what each row has written itself.

A step computes any number of new tokens for each row: all tokens of a step are packed into one
sequence, so that only attention knows which row a token belongs to. The n samples of a prompt attend
to one copy of its keys and values, and each row's own stand beside it. Both parts are read on their
own and weighed by their shares of the softmax, so nothing as long as a prompt is copied in a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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

ATTENTION = "pgenrm_shared_prefix"
GROWTH = 128
"""Tokens by which the rows' own caches grow."""
SHARED_FROM = 64
"""Prompts that begin alike for at least so many tokens share the reading of these."""


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


def read_prompts(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]]
) -> tuple[list[DynamicCache], torch.Tensor]:
    """Return the prompts' caches and last logits (P, vocabulary).

    One prompt at a time, without padding. What a prompt has in common with the one before it, in
    alphabetical order, is not read again.
    """
    caches: dict[int, DynamicCache] = {}
    logits: dict[int, torch.Tensor] = {}
    before: Sequence[int] = ()
    cache = DynamicCache()
    for place in sorted(range(len(prompts)), key=lambda place: list(prompts[place])):
        prompt = prompts[place]
        shared = _common(before, prompt)
        cache = _beginning(cache, shared if shared >= SHARED_FROM else 0)
        output = model(
            input_ids=torch.tensor([list(prompt[cache.get_seq_length() :])], device=model.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        caches[place], logits[place], before = cache, output.logits[0, -1], prompt
    places = range(len(prompts))
    return [caches[place] for place in places], torch.stack([logits[place] for place in places])


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two prompts begin with alike, the last token of the second left out."""
    most = min(len(first), len(second) - 1)
    return next((place for place in range(most) if first[place] != second[place]), most)


def _beginning(cache: DynamicCache, length: int) -> DynamicCache:
    """A cache of the first tokens of another. Reading on copies them."""
    begun = DynamicCache()
    if length:
        for number, layer in enumerate(cache.layers):
            assert isinstance(layer, DynamicLayer)
            assert layer.keys is not None
            assert layer.values is not None
            begun.update(layer.keys[:, :, :length], layer.values[:, :, :length], number)
    return begun


@dataclass
class _Prefix:
    """The keys and values of prompts, right-padded to the longest of P.

    keys: (P, key-value heads, d, T) a layer. values: (P, key-value heads, T, d) a layer.
    numbers, lengths: of the P prompts that are still continued. hidden: (P, 1, 1, T), true for
    padding; None where there is none.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    numbers: list[int]
    lengths: np.ndarray[Any, np.dtype[np.int64]]
    hidden: torch.Tensor | None = None

    @classmethod
    def of(cls, caches: Sequence[DynamicCache]) -> _Prefix:
        lengths = np.array([cache.get_seq_length() for cache in caches])

        def padded(states: Sequence[torch.Tensor]) -> torch.Tensor:
            longest = int(lengths.max())
            return torch.cat(
                [
                    torch.nn.functional.pad(part, (0, 0, 0, longest - part.shape[2]))
                    for part in states
                ]
            )

        layers = list(zip(*(cache.layers for cache in caches), strict=True))
        prefix = cls(
            [
                padded([part.keys for part in parts]).transpose(2, 3).contiguous()
                for parts in layers
            ],
            [padded([part.values for part in parts]) for parts in layers],
            list(range(len(caches))),
            lengths,
        )
        prefix._hide()
        return prefix

    def keep(self, used: list[int]) -> None:
        """Let go of prompts but those with the numbers `used`."""
        if used == self.numbers:
            return
        places = [self.numbers.index(number) for number in used]
        self.numbers, self.lengths = used, self.lengths[places]
        # Every step reads all that is kept, so the last rows of a batch should not pay for the first.
        longest = int(self.lengths.max())
        self.keys = [keys[places, :, :, :longest].contiguous() for keys in self.keys]
        self.values = [values[places, :, :longest] for values in self.values]
        self._hide()

    def _hide(self) -> None:
        self.hidden = None
        if self.lengths.min() < self.lengths.max():
            columns = np.arange(self.lengths.max())
            hidden = torch.from_numpy(columns >= self.lengths[:, None, None, None])
            self.hidden = hidden.to(self.keys[0].device)


@dataclass
class _Grid:
    """Tokens of a step by what they attend to, one line each, padded to the longest line.

    tokens: (lines, width), which token stands where; padding repeats some token. cells: by token,
    its place in the grid read line by line. None where the tokens stand in that order already.
    """

    lines: int
    tokens: torch.Tensor | None
    cells: torch.Tensor | None

    @classmethod
    def of(cls, line: np.ndarray, slot: np.ndarray, lines: int, device: torch.device) -> _Grid:
        width = int(slot.max()) + 1
        cells = line * width + slot
        if lines * width == len(cells) and (cells == np.arange(len(cells))).all():
            return cls(lines, None, None)
        tokens = np.zeros(lines * width, dtype=np.int64)
        tokens[cells] = np.arange(len(cells))
        return cls(
            lines,
            torch.from_numpy(tokens).to(device),
            torch.from_numpy(cells).to(device),
        )

    def spread(self, states: torch.Tensor, groups: int) -> torch.Tensor:
        """(N, heads, d) -> (lines, groups, heads / groups * width, d)."""
        if self.tokens is not None:
            states = states[self.tokens]
        _, heads, size = states.shape
        states = states.view(self.lines, -1, heads, size).transpose(1, 2)
        return states.reshape(self.lines, groups, -1, size)

    def gather(self, states: torch.Tensor, heads: int) -> torch.Tensor:
        """The inverse of `spread`: -> (N, heads, d)."""
        size = states.shape[-1]
        states = states.reshape(self.lines, heads, -1, size).transpose(1, 2)
        states = states.reshape(-1, heads, size)
        return states if self.cells is None else states[self.cells]


class _OwnLayer(DynamicLayer):
    """A layer's cache of the rows' own tokens, written in place and grown in strides.

    keys: (B, key-value heads, d, S). values: (B, key-value heads, S, d).
    """

    def __init__(self, rows: RowCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rows = rows

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self._rows
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            count, heads = len(rows.filled), key_states.shape[1]
            self.keys = key_states.new_zeros(count, heads, key_states.shape[-1], 0)
            self.values = value_states.new_zeros(count, heads, 0, value_states.shape[-1])
        assert self.keys is not None
        assert self.values is not None
        missing = rows.width - self.keys.shape[3]
        if missing > 0:
            # Zeros, not whatever is there: what is hidden has no weight, but nought times NaN is NaN.
            more = -missing % GROWTH + missing
            self.keys = torch.nn.functional.pad(self.keys, (0, more))
            self.values = torch.nn.functional.pad(self.values, (0, 0, 0, more))
        self.keys[rows.row, :, :, rows.column] = key_states[0].transpose(0, 1)
        self.values[rows.row, :, rows.column] = value_states[0].transpose(0, 1)
        return self.keys[..., : rows.width], self.values[:, :, : rows.width]

    def get_seq_length(self) -> int:
        return self._rows.width

    def keep(self, places: torch.Tensor) -> None:
        if self.keys is not None and self.values is not None:
            self.keys = self.keys[places]
            self.values = self.values[places]


class RowCache:
    """What the rows of a batch have read: their prompts, shared, and their own tokens.

    prompts: the prompt of each row.
    """

    def __init__(
        self, model: PreTrainedModel, caches: Sequence[DynamicCache], prompts: Sequence[int]
    ) -> None:
        self._model = model
        self._device = model.device
        self.prefix = _Prefix.of(caches)
        self._prompts = np.array(prompts)
        self._layers = [_OwnLayer(self) for _ in self.prefix.keys]
        self._cache = DynamicCache()
        self._cache.layers = list(self._layers)
        if hasattr(self._cache, "layer_class_to_replicate"):
            self._cache.layer_class_to_replicate = None
        # Any mask of four dimensions is handed through: `_attend` has its own.
        self._no_mask = torch.zeros(1, 1, 1, 1, device=self._device)
        self.filled = np.zeros(len(prompts), dtype=np.int64)
        self.width = 0
        self._arrange()

    def keep(self, places: Sequence[int]) -> None:
        """Let go of the rows but those at `places`."""
        index = torch.tensor(list(places), device=self._device)
        for layer in self._layers:
            layer.keep(index)
        self._prompts, self.filled = self._prompts[places], self.filled[places]
        self._arrange()

    def _arrange(self) -> None:
        used, self._line = np.unique(self._prompts, return_inverse=True)
        self.prefix.keep(used.tolist())

    def feed(self, places: Sequence[int], tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        """Let the rows at `places` read new tokens; return the logits after them, (rows, vocabulary)."""
        counts = np.array([len(new) for new in tokens])
        row = np.repeat(places, counts)
        ends = counts.cumsum()
        slot = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
        column = self.filled[row] + slot
        line = self._line[row]
        device = self._device
        self.row, self.column = torch.from_numpy(np.stack([row, column])).to(device)
        self.width = int(column.max()) + 1
        self.by_row = _Grid.of(row, slot, len(self.filled), device)
        # Where a token stands among those of its prompt.
        by_line = line.argsort(kind="stable")
        among = np.empty_like(line)
        per_line = np.bincount(line, minlength=len(self.prefix.numbers))
        among[by_line] = np.arange(len(line)) - np.repeat(per_line.cumsum() - per_line, per_line)
        self.by_prompt = _Grid.of(line, among, len(self.prefix.numbers), device)
        self.unseen = self._unseen(int(counts.max()))
        logits: torch.Tensor = self._model(
            input_ids=torch.tensor([[token for new in tokens for token in new]], device=device),
            attention_mask=self._no_mask,
            position_ids=torch.from_numpy(self.prefix.lengths[line] + column)[None].to(device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=torch.from_numpy(ends - 1).to(device),
            shared_prefix=self,
        ).logits[0]
        self.filled[places] += counts
        return logits

    def _unseen(self, most: int) -> torch.Tensor | None:
        """Which own tokens the new ones do not see: (B, 1, most, S); None where they see all.

        New tokens stand behind what a row has. What stands behind them is padding, or left over.
        """
        last = self.filled[:, None] + np.arange(most)
        if (last >= self.width - 1).all():
            return None
        hidden = np.arange(self.width) > last[:, None, :, None]
        return torch.from_numpy(hidden).to(self._device)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    shared_prefix: RowCache | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Softmax attention over the prompts that rows share, and each row's own tokens.

    query: (1, heads, N, d); key, value: as `_OwnLayer` holds them. Without shared prompts this is
    the library's ordinary attention.
    """
    if shared_prefix is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    layer: int = module.layer_idx  # type: ignore[assignment]
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    step, prefix = shared_prefix, shared_prefix.prefix
    states = query[0].transpose(0, 1)  # (N, heads, d)
    ahead, ahead_size = _read(
        states, step.by_prompt, prefix.keys[layer], prefix.values[layer], scale, prefix.hidden
    )
    own, own_size = _read(states, step.by_row, key, value, scale, step.unseen)
    share = torch.sigmoid(ahead_size - own_size).to(own.dtype)
    return torch.lerp(own, ahead, share)[None], None


def _read(
    states: torch.Tensor,
    grid: _Grid,
    keys: torch.Tensor,
    values: torch.Tensor,
    scale: float,
    hidden: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What tokens read from keys and values, and the logarithm of the sum of their weights.

    states: (N, heads, d). hidden: true for what is not read, of the grid's lines.
    """
    heads, groups = states.shape[1], keys.shape[1]
    # Query heads that share a key-value head stand side by side, as if they were more tokens.
    scores = (grid.spread(states, groups) @ keys).float().mul_(scale)
    if hidden is not None:
        shape = scores.shape
        scores = scores.view(shape[0], heads, -1, shape[-1]).masked_fill_(hidden, float("-inf"))
        scores = scores.view(shape)
    top = scores.amax(-1, keepdim=True)
    weights = scores.sub_(top).exp_()
    total = weights.sum(-1, keepdim=True)
    read = (weights.to(states.dtype) @ values).float() / total
    size = top + total.log()
    return grid.gather(read, heads).to(states.dtype), grid.gather(size, heads)


AttentionInterface.register(ATTENTION, _attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
