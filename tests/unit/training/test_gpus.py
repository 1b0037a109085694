"""A single process that sees several GPUs trains otherwise than its recipe says."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.training.pretrained import train_pretrained
from pgenrm_agent.training.psi import train_psi
from pgenrm_agent.training.recipe import PsiRecipe, SftRecipe
from pgenrm_agent.training.sft import train_sft


def test_every_stage_refuses_several_gpus_in_a_single_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    out = tmp_path / "out"
    with pytest.raises(ConfigurationError, match="sees 2 GPUs: start with accelerate launch"):
        train_sft(SftRecipe.load("tiny-cpu"), tmp_path, tmp_path, out)
    with pytest.raises(ConfigurationError, match="sees 2 GPUs: set CUDA_VISIBLE_DEVICES"):
        train_psi(PsiRecipe.load("tiny-cpu"), tmp_path, out)
    with pytest.raises(ConfigurationError, match="sees 2 GPUs: set CUDA_VISIBLE_DEVICES"):
        train_pretrained(PsiRecipe.load("smollm2-gpu"), tmp_path, out)
    assert not out.exists()
