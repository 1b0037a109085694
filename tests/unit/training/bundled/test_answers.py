"""The answers to train on, collected from a checkout of AlpacaEval."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.training.bundled.answers import MOST, TEST, TRAINING, collect_answers
from pgenrm_agent.training.bundled.simulation import load_answers

MODELS = 100


def checkout(folder: Path, queries: int = 40) -> Path:
    """A hundred models, of which some say the same, some too little, and some nothing of use."""
    for model in range(MODELS):
        rows = [
            {
                "instruction": f"How do I do the thing number {query}?",
                "output": f"Model {min(model, 90)} says: begin with part {query}, and then go on."
                * 2
                if model
                else "Short.",
                "generator": f"model-{model}",
                "dataset": "koala",
            }
            for query in range(queries)
        ]
        outputs = folder / "results" / f"model-{model:03d}" / "model_outputs.json"
        outputs.parent.mkdir(parents=True)
        outputs.write_text(json.dumps(rows), encoding="utf-8")
    for name, text in (("broken", "[{"), ("foreign", '[{"prompt": "x"}]'), ("object", "{}")):
        outputs = folder / "results" / name / "model_outputs.json"
        outputs.parent.mkdir()
        outputs.write_text(text, encoding="utf-8")
    return folder


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_a_checkout_becomes_a_folder_to_train_on(tmp_path: Path) -> None:
    source, out = checkout(tmp_path / "alpaca_eval"), tmp_path / "data"
    collected = collect_answers(source, out)
    training, test = rows_of(out / TRAINING), rows_of(out / TEST)
    assert collected.models == MODELS
    assert collected.unreadable == ("broken", "foreign", "object")
    assert (collected.training_queries, collected.test_queries) == (len(training), len(test))
    assert len(training) + len(test) == 40
    assert 0 < len(test) < len(training)
    assert not {row["query"] for row in training} & {row["query"] for row in test}
    for row in (*training, *test):
        texts = [response["text"] for response in row["responses"]]
        assert row["source"] == "koala"
        assert len(texts) == len(set(texts)) == MOST
        assert min(map(len, texts)) >= 40
    assert len(load_answers(out / TRAINING).queries) == len(training)
    # The folder of results alone does, too, and gives the same files.
    collect_answers(source / "results", tmp_path / "again")
    for name in (TRAINING, TEST):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()
    with pytest.raises(ConfigurationError, match="is there already"):
        collect_answers(source, out)


def test_what_is_no_checkout_is_refused_in_one_line(tmp_path: Path) -> None:
    empty, file = tmp_path / "empty", tmp_path / "file"
    empty.mkdir()
    file.write_text("x")
    few = checkout(tmp_path / "few", queries=0)
    for source, out, complaint in (
        (tmp_path / "nowhere", tmp_path / "out", "no such folder"),
        (file, tmp_path / "out", "no such folder"),
        (empty, tmp_path / "out", "holds no results/MODEL/model_outputs.json"),
        (few, tmp_path / "out", "no query with 8 answers"),
        (checkout(tmp_path / "whole"), file, "cannot be written to"),
    ):
        with pytest.raises(ConfigurationError, match=complaint) as refused:
            collect_answers(source, out)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(b"x" * 999, mtime=0)[:-12]], ids=["no gzip", "cut off"]
)
def test_a_broken_file_of_answers_is_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "train.jsonl.gz"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_answers(file)
