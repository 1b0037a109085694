"""Parquet files to score, and a job to be killed: `python scored_datasets.py IN OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

from pyarrow import Table, parquet

from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.integrations.dataset_scoring import DatasetJob, in_process, score_dataset
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Scaling
from pgenrm_agent.testing import ScriptedEngine, write_chain

JOB = DatasetJob(
    model="scripted", engine="scripted", scaling=Scaling(individual=2, prototype=0), seed=4
)


def chain(prompt: Prompt, sample: int) -> str:
    """Marks that depend on the answers shown: "a3" gets a 3."""
    shown = prompt.messages[1].content.split("[The Start of Response ")[1:]
    return write_chain([float(answer.split("\n")[1][1:]) for answer in shown])


def write(path: Path, rows: int = 6, **changed: list[object]) -> Path:
    """Write a file of so many rows; `changed` replaces columns."""
    columns: dict[str, list[object]] = {
        "user_id": [f"user-{n % 2}" for n in range(rows)],
        "query": [f"Question {n}?" for n in range(rows)],
        "candidates": [["a2", f"a{n % 8 + 2}", "a1"] for n in range(rows)],
        "history": [
            [{"query": "Before?", "chosen": "Yes.", "rejected": "No."}] if n % 2 else []
            for n in range(rows)
        ],
        "note": [f"kept {n}" for n in range(rows)],
    }
    parquet.write_table(Table.from_pydict(columns | changed), path)
    return path


if __name__ == "__main__":
    with PGenRM(engine=ScriptedEngine(chain, latency_s=0.02)) as model:
        score_dataset(Path(sys.argv[1]), Path(sys.argv[2]), JOB, in_process(model, concurrency=2))
