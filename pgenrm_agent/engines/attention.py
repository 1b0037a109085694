"""Attention over prompts that many rows share, followed by what each row has written itself.

A step computes any number of new tokens for each row: all tokens of a step are packed into one
sequence, so that only attention knows which row a token belongs to. The n samples of a prompt attend
to one copy of its keys and values, and each row's own stand beside it. Both parts are read on their
own and weighed by their shares of the softmax, so nothing as long as a prompt is copied in a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

from pgenrm_agent.wording import first_line

ATTENTION = "pgenrm_shared_prefix"
GROWTH = 128
"""Tokens by which the rows' own caches grow."""
SHARED_FROM = 64
"""Prompts that begin alike for at least so many tokens share the reading of these."""
CALL = 2000
"""What a block costs on a CPU beside its work: as much as a token reading so many keys."""

Integers = np.ndarray[Any, np.dtype[np.int64]]


def attends_to_everything(config: PreTrainedConfig) -> bool:
    """Whether every layer has full attention, which sharing a prompt's cache takes."""
    return layer_kinds(config) == {"full_attention"}


def layer_kinds(config: PreTrainedConfig) -> set[str]:
    """The kinds of attention in a model, as transformers names them."""
    config = config.get_text_config(decoder=True)
    sliding = getattr(config, "sliding_window", None) is not None
    return set(
        getattr(config, "layer_types", None)
        or ["sliding_attention" if sliding else "full_attention"]
    )


def take_over(model: PreTrainedModel) -> str:
    """Let this module be the model's attention; return why that cannot be, "" if it can."""
    model.set_attn_implementation(ATTENTION)
    if model.config.get_text_config(decoder=True)._attn_implementation != ATTENTION:
        return "its attention cannot be replaced"
    try:
        with torch.inference_mode():
            caches, _ = read_prompts(model, [[0, 0]])
            RowCache(model, caches, [0]).feed([0], [[0]])
    except Exception as error:  # of the model's own code
        return first_line(error)
    return ""


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
    numbers, lengths: of the P prompts that are still continued.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    numbers: list[int]
    lengths: Integers

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
        return cls(
            [
                padded([part.keys for part in parts]).transpose(2, 3).contiguous()
                for parts in layers
            ],
            [padded([part.values for part in parts]) for parts in layers],
            list(range(len(caches))),
            lengths,
        )

    def keep(self, used: list[int]) -> None:
        """Let go of prompts but those with the numbers `used`."""
        if used == self.numbers:
            return
        places = [self.numbers.index(number) for number in used]
        self.numbers, self.lengths = used, self.lengths[places]
        longest = int(self.lengths.max())
        self.keys = [keys[places, :, :, :longest].contiguous() for keys in self.keys]
        self.values = [values[places, :, :longest] for values in self.values]


@dataclass
class _Block:
    """Lines that are read at once: as many tokens of each, padded with any others.

    cells: where its tokens stand, line by line, among those of all blocks. columns: how many keys are
    read of each line. hidden: (lines, 1, width, columns), true for keys that a token does not see;
    None where all see all.
    """

    lines: slice
    cells: slice
    columns: int
    hidden: torch.Tensor | None


@dataclass
class _Grid:
    """Tokens of a step by the line of keys that they attend to, in blocks.

    order: which token stands in which cell. cells: (N,), where each token stands.
    """

    blocks: list[_Block]
    order: torch.Tensor
    cells: torch.Tensor

    @classmethod
    def of(cls, line: Integers, sees: Integers, device: torch.device) -> _Grid:
        """Arrange tokens.

        line, sees: (N,), which line a token attends to, and how many of its keys.
        """
        lines, count = int(line.max()) + 1, len(line)
        counts = np.bincount(line, minlength=lines)
        by_line = line.argsort(kind="stable")
        slot = np.empty(count, dtype=np.int64)
        slot[by_line] = np.arange(count) - np.repeat(counts.cumsum() - counts, counts)
        longest = np.zeros(lines, dtype=np.int64)
        np.maximum.at(longest, line, sees)
        blocks, orders, cells, filled = [], [], np.empty(count, dtype=np.int64), 0
        for first, last, begin, width in _cut(counts, longest, device):
            inside = (line >= first) & (line < last) & (slot >= begin) & (slot < begin + width)
            tokens = inside.nonzero()[0]
            place = (line[tokens] - first) * width + slot[tokens] - begin
            order = np.full((last - first) * width, tokens[0])
            order[place] = tokens
            columns = int(longest[first:last].max())
            seen = np.full(len(order), columns)
            seen[place] = sees[tokens]
            hidden = None
            if seen.min() < columns:
                ends = torch.from_numpy(seen.reshape(-1, 1, width, 1)).to(device)
                hidden = torch.arange(columns, device=device) >= ends
            cells[tokens] = filled + place
            end = filled + len(order)
            blocks.append(_Block(slice(first, last), slice(filled, end), columns, hidden))
            orders.append(order)
            filled = end
        return cls(
            blocks,
            torch.from_numpy(np.concatenate(orders)).to(device),
            torch.from_numpy(cells).to(device),
        )


def _cut(
    counts: Integers, longest: Integers, device: torch.device
) -> Iterator[tuple[int, int, int, int]]:
    """Yield blocks of tokens: first line and the line behind the last, first slot and width.

    Read together, all lines are as long as the longest; read by itself, a line costs a call. On a CPU
    the first tokens of every line are one block, and what some lines have beyond these are blocks of
    their own, with the width of the first for which that is the least work.

    counts, longest: of each line, how many tokens attend to it, and to how many of its keys.
    """
    first = int(counts.max())
    if device.type == "cpu":
        widths = np.unique(np.append(counts, 0))
        beyond = np.maximum(counts - widths[:, None], 0)
        alone = (beyond * longest + CALL * (beyond > 0)).sum(1)
        first = int(widths[(widths * len(counts) * longest.max() + alone).argmin()])
    if first:
        yield 0, len(counts), 0, first
    for line in (counts > first).nonzero()[0].tolist():
        yield line, line + 1, first, int(counts[line]) - first


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
        column = self.filled[row] + np.arange(ends[-1]) - np.repeat(ends - counts, counts)
        line = self._line[row]
        device = self._device
        self.row, self.column = torch.from_numpy(np.stack([row, column])).to(device)
        self.width = int(column.max()) + 1
        self.by_row = _Grid.of(row, column + 1, device)
        self.by_prompt = _Grid.of(line, self.prefix.lengths[line], device)
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
    keys, values = prefix.keys[layer], prefix.values[layer]
    ahead, ahead_size = _read(states, step.by_prompt, keys, values, scale)
    own, own_size = _read(states, step.by_row, key, value, scale)
    share = torch.sigmoid(ahead_size - own_size).to(own.dtype)
    return torch.lerp(own, ahead, share)[None], None


def _read(
    states: torch.Tensor, grid: _Grid, keys: torch.Tensor, values: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """What tokens read from keys and values, and the logarithm of the sum of their weights.

    states: (N, heads, d). keys: (lines, key-value heads, d, columns) or wider; values accordingly.
    """
    _, heads, size = states.shape
    groups = keys.shape[1]
    placed = states[grid.order]
    reads: list[torch.Tensor] = []
    sizes: list[torch.Tensor] = []
    for block in grid.blocks:
        part_keys = keys[block.lines, ..., : block.columns]
        part_values = values[block.lines, :, : block.columns]
        lines = len(part_keys)
        # Query heads that share a key-value head stand side by side, as if they were more tokens.
        part = placed[block.cells].view(lines, -1, heads, size).transpose(1, 2)
        scores = (part.reshape(lines, groups, -1, size) @ part_keys).float().mul_(scale)
        if block.hidden is not None:
            by_head = scores.view(lines, heads, -1, block.columns)
            by_head.masked_fill_(block.hidden, float("-inf"))
        top = scores.amax(-1, keepdim=True)
        weights = scores.sub_(top).exp_()
        total = weights.sum(-1, keepdim=True)
        read = (weights.to(states.dtype) @ part_values).float() / total
        for piece, pieces in ((read, reads), (top + total.log(), sizes)):
            by_token = piece.view(lines, heads, -1, piece.shape[-1]).transpose(1, 2)
            pieces.append(by_token.reshape(-1, heads, piece.shape[-1]))
    return torch.cat(reads)[grid.cells].to(states.dtype), torch.cat(sizes)[grid.cells]


AttentionInterface.register(ATTENTION, _attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
