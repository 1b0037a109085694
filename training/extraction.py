"""From two sets of weights to a LoRA adapter: what training changed, as products of thin matrices.

The change of each linear layer is a matrix; its singular values say how many directions it really has.
The adapter holds as many of them as make up a given share of the change (the sum of squares), so that
no layer gets a rank that it does not need.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

WEIGHT = ".weight"


@dataclass(frozen=True)
class Extracted:
    """The factors of each layer: change = up @ down.

    down: (rank, in) and up: (out, rank), by the layer's name. kept: the share of the change that they
    hold, over all layers.
    """

    down: dict[str, torch.Tensor]
    up: dict[str, torch.Tensor]
    kept: float

    @property
    def ranks(self) -> dict[str, int]:
        """The rank of each layer."""
        return {name: len(factor) for name, factor in self.down.items()}


def extract(
    base: LlamaForCausalLM,
    trained: LlamaForCausalLM,
    *,
    share: float,
    largest: int,
    device: torch.device,
) -> Extracted:
    """Return what training changed in the linear layers, rounded to bfloat16.

    share: of the sum of squares of a layer's change that its factors are to hold. largest: the highest
    rank; a layer with more directions than that loses the weakest. device: where it is worked out.
    """
    down, up = {}, {}
    kept = total = 0.0
    before = dict(base.named_parameters())
    for name, after in trained.named_parameters():
        if "_proj." not in name:
            continue
        change = (after.detach() - before[name].detach().to(after.device)).to(device)
        left, sizes, right = _singular(change.double())
        squares = sizes**2
        enough = int((squares.cumsum(0) < share * squares.sum()).sum()) + 1
        rank = min(enough, largest, len(sizes))
        total += float(squares.sum())
        kept += float(squares[:rank].sum())
        root = sizes[:rank].sqrt()
        layer = name.removesuffix(WEIGHT)
        up[layer] = (left[:, :rank] * root).to(torch.bfloat16).contiguous().cpu()
        down[layer] = (root[:, None] * right[:rank]).to(torch.bfloat16).contiguous().cpu()
    return Extracted(down, up, kept / total if total else 1.0)


def _singular(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The singular value decomposition, from the eigenvectors of the smaller side: fast on a GPU, too.

    Vectors of values that are next to 0 are 0: they have no direction.
    """
    if matrix.shape[0] > matrix.shape[1]:
        left, sizes, right = _singular(matrix.T)
        return right.T, sizes, left.T
    squares, vectors = torch.linalg.eigh(matrix @ matrix.T)
    sizes, left = squares.clamp(min=0).flip(0).sqrt(), vectors.flip(1)
    known = sizes > 1e-7 * sizes[0].clamp(min=1e-30)
    scaled = torch.where(known, sizes, 1.0)[:, None]
    return left * known, sizes * known, (left.T @ matrix) / scaled * known[:, None]


@torch.no_grad()
def with_update(base: LlamaForCausalLM, extracted: Extracted) -> LlamaForCausalLM:
    """Add the factors to a base's weights in place, and return it."""
    weights = dict(base.named_parameters())
    for layer, factor in extracted.down.items():
        weight = weights[layer + WEIGHT]
        change = extracted.up[layer].float() @ factor.float()
        weight.add_(change.to(weight.device, weight.dtype))
    return base


def save_adapter(extracted: Extracted, base: str, folder: Path) -> None:
    """Write the factors as a LoRA adapter of PEFT.

    base: the folder or hub name of the base model.
    """
    from peft import LoraConfig

    folder.mkdir(parents=True, exist_ok=True)
    ranks = extracted.ranks
    most = max(ranks.values())
    LoraConfig(
        r=most,
        lora_alpha=most,  # alpha / rank is 1 everywhere
        rank_pattern=ranks,
        alpha_pattern=ranks,
        target_modules=sorted({layer.rpartition(".")[2] for layer in ranks}),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        inference_mode=True,
    ).save_pretrained(str(folder))
    factors = {
        f"base_model.model.{layer}.lora_{letter}{WEIGHT}": factor
        for letter, of in (("A", extracted.down), ("B", extracted.up))
        for layer, factor in of.items()
    }
    save_file(factors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
