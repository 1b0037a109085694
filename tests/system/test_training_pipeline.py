"""The whole way from an empty folder to a measured model, by the documented commands, with real parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer import Typer
from typer.testing import CliRunner

from pgenrm_agent.cli.train import app as train
from pgenrm_agent.model_files import bundled_model
from studies.bundled.__main__ import app as bundled

SFT = {
    "name": "sft",
    "seed": 1,
    "rows_per_step": 2,
    "rows_at_once": 2,
    "max_tokens": 3072,
    "learning_rate": 1e-4,
    "save_every": 1,
    "adapter": {"rank": 4, "alpha": 8},
}
REINFORCE = {
    "name": "reinforce",
    "seed": 1,
    "choices": 4,
    "steps": 1,
    "choices_per_step": 1,
    "samples": 12,
    "rows_at_once": 12,
    "learning_rate": 1e-4,
    "max_tokens": 600,
    "save_every": 1,
    "curriculum": {"chains": 2},
}


QUERIES = (
    "How do I cook rice?",
    "How do I boil an egg?",
    "How do I descale a kettle?",
    "How do I clean a pan?",
)


def run(*command: object, app: Typer = train) -> dict[str, Any]:
    done = CliRunner().invoke(app, [str(part) for part in (*command, "--json")])
    assert done.exit_code == 0, (command, done.output, done.exception)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.long
def test_chains_sft_merge_cre_curriculum_and_evaluation_follow_each_other(
    few_answers: Path, tmp_path: Path
) -> None:
    sft, reinforce, choices = (tmp_path / name for name in ("s.yaml", "r.yaml", "choices.jsonl"))
    sft.write_text(yaml.safe_dump(SFT))
    reinforce.write_text(yaml.safe_dump(REINFORCE))
    rows = [
        {
            "user_id": f"u{number % 2}",
            "query": query,
            "split": "train",
            "chosen": "Two parts water, one part of it, twelve minutes, then let it stand.",
            "stated": ["Please keep it short."],
            "rejected": "What a lovely question! I really enjoy this one, and there are so many ways to "
            "go about it. You might perhaps begin by thinking about what you like best.",
        }
        for number, query in enumerate(QUERIES)
    ]
    choices.write_text("".join(json.dumps(row) + "\n" for row in rows))

    chains = run(
        *("chains", "--data", choices, "--teacher", bundled_model(), "--chains", 4),
        *("--out", tmp_path / "chains"),
    )
    assert chains["kept"] >= 2
    first = run(
        *("sft", "--data", tmp_path / "chains", "--model", bundled_model(), "--recipe", sft),
        *("--out", tmp_path / "sft"),
    )
    merged = run("merge", "--adapter", first["folder"], "--out", tmp_path / "merged")
    second = run(
        *("cre", "--data", choices, "--model", merged["model"], "--recipe", reinforce),
        *("--out", tmp_path / "cre"),
    )
    third = run(
        *("curriculum", "--data", choices, "--model", second["model"], "--recipe", reinforce),
        *("--out", tmp_path / "curriculum"),
    )
    for stage in ("cre", "curriculum"):
        (row,) = (tmp_path / stage / "curve.jsonl").read_text().splitlines()
        # What the stage before left behind still writes chains.
        assert json.loads(row)["chain/format_errors"] < 1
    report = run(
        *("measure", "--part", "test", "--data", few_answers, "--model", third["model"]),
        *("--users", 4, "--chains", 1, "--out", tmp_path / "measured"),
        app=bundled,
    )
    assert report["obvious"] is None
    model = report["test"]["accuracy"]["model, 1 samples"]
    assert model["comparisons"] == 4
    assert model["coverage"] > 0
    assert model["strict"]["mean"] <= model["accuracy"]["mean"]
    # The records of one model are no measurement of another.
    refused = CliRunner().invoke(
        bundled,
        [
            *("measure", "--data", str(few_answers), "--model", merged["model"]),
            *("--users", "4", "--chains", "1", "--out", str(tmp_path / "measured")),
        ],
    )
    assert "holds an evaluation with model = 'model " in str(refused.exception)
