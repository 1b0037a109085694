"""Attention over packed rows: each example of a row looks at itself alone.

On a GPU in half precision PyTorch's kernel for sequences of any length does it in one call
(`torch.nn.attention.varlen`); elsewhere ordinary attention, one example after another.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

PACKED = "pgenrm_packed"
HALF = (torch.bfloat16, torch.float16)

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor]


def kernel_for(device: torch.device, dtype: torch.dtype) -> str:
    """Return what attends: "varlen", or "one by one" where there is no such kernel."""
    fit = device.type == "cuda" and dtype in HALF and KERNEL is not None
    return "varlen" if fit else "one by one"


def attend_one_by_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    documents: torch.Tensor,
    longest: int,
) -> torch.Tensor:
    """Return what each token reads from itself and those before it in its example.

    query, key, value: (tokens, heads, d), fewer heads for keys and values where several queries share
    them. documents: where each example begins, then the number of tokens, as often as one likes.
    """
    bounds = sorted(set(documents.tolist()))
    parts = []
    for start, end in pairwise(bounds):
        asking, asked, told = (
            states[start:end].transpose(0, 1)[None] for states in (query, key, value)
        )
        read = scaled_dot_product_attention(asking, asked, told, is_causal=True, enable_gqa=True)
        parts.append(read[0].transpose(0, 1))
    return torch.cat(parts)


def variable_length(kernel: Callable[..., Any]) -> Attention:
    """Return `attend_one_by_one` by a kernel such as `varlen_attn`, as this torch has it.

    Torch 2.10 calls it causal, later ones name a window; not all let queries share keys.
    """
    known = inspect.signature(kernel).parameters
    options: dict[str, Any] = (
        {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    )
    shares = "enable_gqa" in known
    if shares:
        options["enable_gqa"] = True

    def attend(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        documents: torch.Tensor,
        longest: int,
    ) -> torch.Tensor:
        if not shares:
            copies = query.shape[1] // key.shape[1]
            key, value = (states.repeat_interleave(copies, dim=1) for states in (key, value))
        bounds = documents.to(torch.int32)
        read: torch.Tensor = kernel(query, key, value, bounds, bounds, longest, longest, **options)
        return read

    return attend


def _varlen() -> Attention | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # before torch 2.10
        return None
    return variable_length(varlen_attn)


KERNEL = _varlen()


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    documents: torch.Tensor | None = None,
    longest: int = 0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it. query: (1, heads, tokens, d)."""
    if documents is None:
        raise ValueError("packed attention takes packed rows: it is not told where examples begin")
    kernel: Attention = attend_one_by_one
    if kernel_for(value.device, value.dtype) == "varlen":
        assert KERNEL is not None
        kernel = KERNEL
    # Positions are turned in float32, whatever the precision of the pass.
    query, key, value = (
        states[0].transpose(0, 1).to(value.dtype) for states in (query, key, value)
    )
    return kernel(query, key, value, documents, longest)[None], None


AttentionInterface.register(PACKED, _attend)
AttentionMaskInterface.register(PACKED, lambda *args, **kwargs: None)
