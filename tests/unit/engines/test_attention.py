"""Tokens read from shared and own keys in blocks, against one token at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgenrm_agent.engines import attention
from pgenrm_agent.engines.attention import _Grid, _read

HEADS, GROUPS, SIZE = 4, 2, 8


def one_by_one(
    states: torch.Tensor,
    line: np.ndarray,
    sees: np.ndarray,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    reads, sizes = [], []
    for state, of, seen in zip(states, line, sees, strict=True):
        for head in range(HEADS):
            group = head * GROUPS // HEADS
            scores = state[head] @ keys[of, group, :, :seen]
            reads.append(scores.softmax(-1) @ values[of, group, :seen])
            sizes.append(scores.logsumexp(-1))
    return torch.stack(reads).view(-1, HEADS, SIZE), torch.stack(sizes).view(-1, HEADS, 1)


@pytest.mark.parametrize("call", [0, 30, 10**9])
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    jumps=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=1, max_size=6),
    causal=st.booleans(),
    seed=st.integers(0, 9),
)
def test_blocks_read_what_each_token_reads_by_itself(
    call: int, lengths: list[int], jumps: list[tuple[int, int]], causal: bool, seed: int
) -> None:
    """However the cost of a block cuts them: line by line, mixed, or all in one as on a GPU."""
    rng = np.random.default_rng(seed)
    line = np.concatenate([np.full(count, of % len(lengths)) for of, count in jumps])
    line = rng.permutation(line)
    longest = np.array(lengths)[line]
    sees = rng.integers(1, longest + 1) if causal else longest
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(len(line), HEADS, SIZE, generator=generator)
    keys = torch.randn(len(lengths), GROUPS, SIZE, max(lengths) + 3, generator=generator)
    values = torch.randn(len(lengths), GROUPS, max(lengths) + 3, SIZE, generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "CALL", call)
        grid = _Grid.of(line, sees, torch.device("cpu"))
    if call > 30:
        assert len(grid.blocks) == 1
    blocked = _read(states, grid, keys, values, 1.0)
    for own, right in zip(blocked, one_by_one(states, line, sees, keys, values), strict=True):
        torch.testing.assert_close(own, right, rtol=1e-4, atol=1e-5)
