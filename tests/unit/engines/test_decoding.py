"""Drawing a token from logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pgenrm_agent.engines.decoding import Row, SamplingRules, _choose
from pgenrm_agent.engines.grammar import TokenMask


class Noise:
    """Draws 0 for one token, as a generator of single precision does once in eight million."""

    def __init__(self, zero_at: int) -> None:
        self.zero_at = zero_at

    def standard_exponential(self, dtype: type, out: np.ndarray) -> None:
        out[:] = 1
        out[self.zero_at] = 0


@pytest.mark.parametrize("logit", [-30.0, float("-inf")])
def test_a_draw_of_zero_does_not_make_an_unlikely_token_win(logit: float) -> None:
    logits = torch.tensor([[5.0, 4.0, logit]])
    rows = [Row(0, Noise(2), 1)]  # type: ignore[arg-type]
    rules = SamplingRules(1.0, 1.0, frozenset())
    assert _choose(logits, rows, rules, TokenMask()) == [0]


def test_tokens_are_drawn_as_often_as_their_logits_say() -> None:
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1]])).repeat(20_000, 1)
    rows = [Row(0, np.random.Generator(np.random.Philox(key=[1, k])), 1) for k in range(20_000)]
    rules = SamplingRules(1.0, 1.0, frozenset())
    shares = torch.bincount(torch.tensor(_choose(logits, rows, rules, TokenMask()))) / len(rows)
    assert shares.tolist() == pytest.approx([0.7, 0.2, 0.1], abs=0.012)
