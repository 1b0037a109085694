"""The real answers used for training (PGENRM_RESPONSES), a minute model, and chains to learn from."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pgenrm_agent.training.chain_dataset import DATASET, ChainRow
from pgenrm_agent.training.simulation import Answers, load_answers

from pgenrm_agent.model_files import FORMAT_FILE, bundled_model, format_of
from pgenrm_agent.schema import Message
from pgenrm_agent.testing import write_chain


@pytest.fixture(scope="session")
def responses() -> Path:
    """Folder with train.jsonl.gz and val.jsonl.gz; absent means skip, but failure in CI."""
    named = os.environ.get("PGENRM_RESPONSES")
    folder = Path(named) if named else None
    if folder is not None and (folder / "train.jsonl.gz").is_file():
        return folder
    message = "real answers are needed: set PGENRM_RESPONSES to their folder (see docs/training.md)"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def few_answers(responses: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first queries of the real answers: all are read and measured at every start."""
    folder = tmp_path_factory.mktemp("answers")
    for name in ("train.jsonl.gz", "val.jsonl.gz"):
        with gzip.open(responses / name, "rt", encoding="utf-8") as lines:
            some = [line for line, _ in zip(lines, range(30), strict=False)]
        with gzip.open(folder / name, "wt", encoding="utf-8") as out:
            out.writelines(some)
    return folder


@pytest.fixture(scope="session")
def training_answers(responses: Path) -> Answers:
    return load_answers(responses / "train.jsonl.gz")


@pytest.fixture(scope="session")
def test_answers(responses: Path) -> Answers:
    return load_answers(responses / "val.jsonl.gz")


@pytest.fixture(scope="session")
def minute_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights, small enough that a step takes milliseconds."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "minute"
    tokenizer = AutoTokenizer.from_pretrained(bundled_model())
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            vocab_size=len(tokenizer), max_position_embeddings=2048, tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    ).save_pretrained(folder)  # fmt: skip
    tokenizer.save_pretrained(folder)
    shutil.copyfile(bundled_model() / FORMAT_FILE, folder / FORMAT_FILE)
    return folder


@pytest.fixture(scope="session")
def chain_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sixteen chains of four people, as `pgenrm train chains` writes one."""
    folder = tmp_path_factory.mktemp("chains")
    chain_format = format_of(bundled_model())
    rows = []
    for number in range(16):
        messages = chain_format.messages(
            query=f"What is {number} plus one?",
            candidates=[f"{number + 1}.", f"Well, I believe that it is {number + 1}!"],
            history=(),
            stated=(),
            conversation=(),
        )
        answer = Message(role="assistant", content=write_chain([9, 2 + number % 5]))
        rows.append(ChainRow(user_id=f"u{number % 4}", prompt=messages, completion=(answer,)))
    text = "".join(row.model_dump_json() + "\n" for row in rows)
    (folder / DATASET).write_text(text, encoding="utf-8")
    return folder


Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def launch_two() -> Launch:
    """Runs a command in two processes on this machine that talk by gloo, as torchrun starts them."""

    def launch(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-P", "-m", "torch.distributed.run", "--standalone"),
                *("--nproc_per_node", "2", *command),
            ],
            env={**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, check=False, timeout=400,
        )  # fmt: skip

    return launch
