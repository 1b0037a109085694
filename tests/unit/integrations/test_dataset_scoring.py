"""A Parquet file scored: one result a row, in order, whatever is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import pgenrm
from pyarrow import Table, parquet
from scored_datasets import JOB, chain, write

from pgenrm_agent.errors import ConfigurationError, EngineTimeout
from pgenrm_agent.integrations.dataset_scoring import DatasetJob, Summary, in_process, score_dataset
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import PreferencePair
from pgenrm_agent.testing import ScriptedEngine


def score(source: Path, target: Path, engine: ScriptedEngine, job: DatasetJob = JOB) -> Summary:
    with PGenRM(engine=engine) as model:
        return score_dataset(source, target, job, in_process(model, concurrency=2))


def test_every_row_gets_its_result_in_order(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.parquet", rows=600), tmp_path / "out.parquet"
    score(source, target, ScriptedEngine(chain))
    rows = parquet.read_table(target).to_pylist()
    assert [row["note"] for row in rows] == [f"kept {n}" for n in range(600)]
    assert [row["row"] for row in rows] == list(range(600))
    assert [row["scores"] for row in rows] == [[2.0, float(n % 8 + 2), 1.0] for n in range(600)]
    assert rows[3]["ranking"] == [1, 0, 2]
    assert all(row["reason"] is None for row in rows)
    assert not target.with_name("out.parquet.progress").exists()


def test_a_row_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in.parquet",
        4,
        query=["", "Question?", "Question?", "Question?"],
        candidates=[["a1"], ["a1", "a2"], ["a3", " "], ["a3", None]],
    )
    score(source, tmp_path / "out.parquet", ScriptedEngine(chain))
    first, second, third, fourth = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert (first["scores"], first["ranking"]) == ([None], [])
    assert "query is empty" in first["reason"]
    assert second["scores"] == [1.0, 2.0]
    assert (third["scores"], third["ranking"]) == ([3.0, None], [0])
    assert third["reason"] == "its text is blank"
    assert (fourth["scores"], fourth["reason"]) == ([3.0, None], "its text is blank")


def test_a_row_that_tells_nothing_of_its_user_is_looked_up(tmp_path: Path) -> None:
    told = [{"query": "Told?", "chosen": "Yes.", "rejected": "No."}]
    source = write(tmp_path / "in.parquet", 3, user_id=["ada"] * 3, history=[told, None, []])
    engine = ScriptedEngine(chain)
    with PGenRM(engine=engine, memory=tmp_path / "memory") as model:
        model.remember("ada", PreferencePair(query="Kept?", chosen="Yes.", rejected="No."))
        score_dataset(source, tmp_path / "out.parquet", JOB, in_process(model, concurrency=1))
    shown = [str(prompts[0].messages) for prompts, _ in engine.calls]
    assert [("Told?" in text, "Kept?" in text) for text in shown] == [
        (True, False),
        (False, True),
        (False, False),
    ]


def test_a_fault_ends_the_job_and_a_new_start_goes_on(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.parquet"), tmp_path / "out.parquet"
    with pytest.raises(EngineTimeout):
        score(source, target, ScriptedEngine(chain, fail_times=3))
    assert not target.exists()
    engine = ScriptedEngine(chain)
    score(source, target, engine)
    assert parquet.read_table(target).num_rows == 6
    with pytest.raises(ConfigurationError, match="exists already"):
        score(source, target, engine)


def test_results_of_another_job_are_not_mixed_in(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.parquet"), tmp_path / "out.parquet"
    with pytest.raises(EngineTimeout):
        score(source, target, ScriptedEngine(chain, fail_times=99))
    with pytest.raises(ConfigurationError, match="with seed = "):
        score(source, target, ScriptedEngine(chain), JOB.model_copy(update={"seed": 5}))
    write(source, rows=7)
    with pytest.raises(ConfigurationError, match="with digest = "):
        score(source, target, ScriptedEngine(chain))


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"user_id": ["a"], "query": ["?"]}, "lacks the column candidates"),
        ({"user_id": ["a"], "query": ["?"], "candidates": [["x"]], "scores": [1]}, "scores"),
        ({"user_id": [], "query": [], "candidates": []}, "no rows"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    columns: dict[str, list[object]], complaint: str, tmp_path: Path
) -> None:
    parquet.write_table(Table.from_pydict(columns), tmp_path / "in.parquet")
    with pytest.raises(ConfigurationError, match=complaint):
        score(tmp_path / "in.parquet", tmp_path / "out.parquet", ScriptedEngine(chain))


SCRIPT = Path(__file__).parents[2] / "support" / "scored_datasets.py"


@pytest.mark.parametrize(
    "kills",
    [pytest.param(1, marks=pytest.mark.small), pytest.param(3, marks=pytest.mark.long)],
)
def test_a_job_that_is_killed_has_one_result_a_row(tmp_path: Path, kills: int) -> None:
    source, target = write(tmp_path / "in.parquet", rows=100), tmp_path / "out.parquet"
    results = tmp_path / "out.parquet.progress" / "results.jsonl"
    command = [sys.executable, "-P", str(SCRIPT), str(source), str(target)]
    for _ in range(kills):
        before = results.stat().st_size if results.exists() else 0
        child = subprocess.Popen(command)
        while child.poll() is None and (
            not results.exists() or results.stat().st_size < before + 2000
        ):
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, "the job ended before it could be killed"
    subprocess.run(command, check=True, timeout=120)
    score(source, tmp_path / "whole.parquet", ScriptedEngine(chain))
    assert parquet.read_table(target) == parquet.read_table(tmp_path / "whole.parquet")


def test_a_job_killed_before_it_tidied_up_is_complete(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.parquet"), tmp_path / "out.parquet"
    folder = target.with_name("out.parquet.progress")
    kept = tmp_path / "kept"

    def keep(done: int, total: int) -> None:
        if done == total:
            shutil.copytree(folder, kept)

    with PGenRM(engine=ScriptedEngine(chain)) as model:
        score_dataset(source, target, JOB, in_process(model), progress=keep)
    written = parquet.read_table(target)
    kept.rename(folder)  # as it is after a kill between the last two steps
    engine = ScriptedEngine(chain)
    summary = score(source, target, engine)
    assert summary.resumed == summary.rows == 6
    assert engine.calls == []
    assert parquet.read_table(target) == written
    assert not folder.exists()


def test_a_file_put_where_the_output_goes_is_not_overwritten(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.parquet"), tmp_path / "out.parquet"
    with pytest.raises(EngineTimeout):
        score(source, target, ScriptedEngine(chain, fail_times=3))
    target.write_text("somebody's", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="exists already"):
        score(source, target, ScriptedEngine(chain))
    assert target.read_text(encoding="utf-8") == "somebody's"


def test_the_command_tells_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGENRM_HOME", str(tmp_path / "home"))
    source, target = write(tmp_path / "in.parquet", 1), tmp_path / "out.parquet"
    done = pgenrm("score-dataset", source, target, "--individual", 2, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 1
