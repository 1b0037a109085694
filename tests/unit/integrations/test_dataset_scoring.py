"""A Parquet file scored: one result a row, in order, whatever is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from pyarrow import Table, parquet

from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.errors import ConfigurationError, EngineError, EngineTimeout
from pgenrm_agent.integrations.dataset_scoring import DatasetJob, Summary, in_process, score_dataset
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Scaling
from pgenrm_agent.testing import ScriptedEngine, write_chain

JOB = DatasetJob(
    model="scripted", engine="scripted", scaling=Scaling(individual=2, prototype=0), seed=4
)


def chain(prompt: Prompt, sample: int) -> str:
    """Marks that depend on the answers shown: "a3" gets a 3."""
    shown = prompt.messages[1].content.split("[The Start of Response ")[1:]
    return write_chain([float(response.split("\n")[1][1:]) for response in shown])


def write(path: Path, rows: int = 6, **changed: list[object]) -> Path:
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
        3,
        query=["", "Question?", "Question?"],
        candidates=[["a1"], ["a1", "a2"], ["a3", " "]],
    )
    score(source, tmp_path / "out.parquet", ScriptedEngine(chain))
    first, second, third = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert (first["scores"], first["ranking"]) == ([None], [])
    assert "query is empty" in first["reason"]
    assert second["scores"] == [1.0, 2.0]
    assert "cannot be used: text" in third["reason"]


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
    with pytest.raises(ConfigurationError, match="its seed"):
        score(source, target, ScriptedEngine(chain), JOB.model_copy(update={"seed": 5}))
    write(source, rows=7)
    with pytest.raises(ConfigurationError, match="its digest"):
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


SCRIPT = Path(__file__).parents[2] / "support" / "killed_scoring.py"


def test_a_job_killed_ten_times_has_one_result_a_row(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.parquet", rows=300), tmp_path / "out.parquet"
    results = tmp_path / "out.parquet.progress" / "results.jsonl"
    command = [sys.executable, "-P", str(SCRIPT), str(source), str(target)]
    for _ in range(10):
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


@pytest.mark.slow
def test_two_ray_workers_score_what_one_process_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    # Workers find modules in the folder that the driver was started in, before those installed.
    monkeypatch.chdir(tmp_path)
    from pgenrm_agent.integrations.ray_scoring import on_ray

    source = write(
        tmp_path / "in.parquet",
        6,
        candidates=[["Use a pan.", f"I love eggs! {n} ways, all of them great."] for n in range(6)],
        history=[
            [
                {
                    "query": "Before?",
                    "chosen": "Yes.",
                    "rejected": "No.",
                    "created_at": datetime.now(UTC),
                }
            ]
        ]
        * 6,
    )
    job = DatasetJob(
        model="bundled", engine="transformers", scaling=Scaling(individual=2, prototype=0), seed=1
    )
    run = on_ray(partial(PGenRM), workers=2, batch=2)
    score_dataset(source, tmp_path / "ray.parquet", job, run)
    with PGenRM() as model:
        score_dataset(source, tmp_path / "one.parquet", job, in_process(model))
    assert parquet.read_table(tmp_path / "ray.parquet") == parquet.read_table(
        tmp_path / "one.parquet"
    )


@pytest.fixture(scope="module")
def ray_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ray on this machine, for several tests: to start it takes longer than they do."""
    ray = pytest.importorskip("ray")
    # Workers find modules in the folder that the driver was started in, before those installed.
    with chdir(tmp_path_factory.mktemp("ray")):
        ray.init(include_dashboard=False, log_to_driver=False, num_cpus=2)
        yield
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_what_is_wrong_with_a_ray_worker_is_told_in_its_words(tmp_path: Path) -> None:
    from pgenrm_agent.integrations.ray_scoring import on_ray

    def surprise() -> PGenRM:
        raise RuntimeError("out of GPU memory")

    missing = tmp_path / "no-model"
    source, target = write(tmp_path / "in.parquet", 2), tmp_path / "out.parquet"
    for make, complaint in (
        (partial(PGenRM, str(missing)), f"a worker on Ray cannot score: model '{missing}'"),
        (surprise, "a worker on Ray cannot score: RuntimeError: out of GPU memory"),
    ):
        with pytest.raises(EngineError, match=complaint):
            score_dataset(source, target, JOB, on_ray(make, workers=1))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_ray_worker_that_dies_is_replaced_and_no_row_is_lost(tmp_path: Path) -> None:
    from pgenrm_agent.integrations.ray_scoring import on_ray

    deaths = tmp_path / "deaths"
    deaths.mkdir()

    def dies(times: int) -> PGenRM:
        """In the worker: a process that is killed while it scores, so many times in all."""

        def reply(prompt: Prompt, sample: int) -> str:
            if len(list(deaths.iterdir())) < times:
                (deaths / str(os.getpid())).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            shown = prompt.messages[1].content.split("[The Start of Response ")[1:]
            return write_chain([float(response.split("\n")[1][1:]) for response in shown])

        return PGenRM(engine=ScriptedEngine(reply))

    source = write(tmp_path / "in.parquet", 12)
    run = on_ray(partial(dies, 2), workers=2, batch=2)
    score_dataset(source, tmp_path / "ray.parquet", JOB, run)
    assert len(list(deaths.iterdir())) == 2
    score(source, tmp_path / "one.parquet", ScriptedEngine(chain))
    assert parquet.read_table(tmp_path / "ray.parquet") == parquet.read_table(
        tmp_path / "one.parquet"
    )
    with pytest.raises(EngineError, match="the workers on Ray failed"):
        score_dataset(
            source, tmp_path / "never.parquet", JOB, on_ray(partial(dies, 1000), workers=1)
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "options", "complaint"),
    [
        (None, ("--ray", "8", "--gpus", "100"), "the workers need 800 GPUs in all"),
        ("nonsense://here", ("--ray", "1"), "Ray cannot be started or reached on nonsense://here"),
    ],
)
def test_ray_that_cannot_do_what_is_asked_is_one_clear_error(
    address: str | None, options: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "pgenrm_agent.cli",
            "score-dataset",
            str(write(tmp_path / "in.parquet", 1)),
            str(tmp_path / "out.parquet"),
            *options,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=tmp_path,
        env=environment | ({"RAY_ADDRESS": address} if address else {}),
    )
    assert done.returncode == 1
    assert f"error: {complaint}" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_tells_what_it_did(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "pgenrm_agent.cli",
            "score-dataset",
            str(write(tmp_path / "in.parquet", 1)),
            str(tmp_path / "out.parquet"),
            "--individual",
            "2",
            "--json",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 1
