"""A Parquet file scored by Ray's workers, on this machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import chdir
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from command_line import pgenrm
from pyarrow import parquet
from scored_datasets import JOB, chain, write

from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.errors import EngineError
from pgenrm_agent.integrations.dataset_scoring import DatasetJob, in_process, score_dataset
from pgenrm_agent.integrations.ray_scoring import on_ray
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Scaling
from pgenrm_agent.testing import ScriptedEngine, write_chain


# First, since Ray is started by what is tested.
@pytest.mark.long
@pytest.mark.parametrize(
    ("address", "options", "complaint"),
    [
        (None, ("--ray", "8", "--gpus", "100"), "the workers need 800 GPUs in all"),
        ("nonsense://here", ("--ray", "1"), "Ray cannot be started or reached on nonsense://here"),
    ],
)
def test_ray_that_cannot_do_what_is_asked_is_one_clear_error(
    address: str | None,
    options: tuple[str, ...],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    source = write(tmp_path / "in.parquet", 1)
    done = pgenrm("score-dataset", source, tmp_path / "out.parquet", *options)
    assert done.returncode == 1
    assert f"error: {complaint}" in done.stderr


@pytest.fixture(scope="module")
def ray_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ray on this machine, for several tests: to start it takes longer than they do."""
    import ray

    # Workers find modules in the folder that the driver was started in, before those installed.
    with chdir(tmp_path_factory.mktemp("ray")):
        ray.init(include_dashboard=False, log_to_driver=False, num_cpus=2)
        yield
        ray.shutdown()


def mortal(deaths: Path, times: int) -> Callable[[], PGenRM]:
    """What makes models whose process is killed while they score, so many times in all."""

    def reply(prompt: Prompt, sample: int) -> str:
        if len(list(deaths.iterdir())) < times:
            (deaths / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        shown = prompt.messages[1].content.split("[The Start of Response ")[1:]
        return write_chain([float(answer.split("\n")[1][1:]) for answer in shown])

    return lambda: PGenRM(engine=ScriptedEngine(reply))


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize(
    "kills",
    [pytest.param(1, marks=pytest.mark.small), pytest.param(3, marks=pytest.mark.long)],
)
def test_a_worker_that_dies_is_replaced_and_no_row_is_lost(tmp_path: Path, kills: int) -> None:
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    source = write(tmp_path / "in.parquet", 12)
    run = on_ray(mortal(deaths, kills), workers=2, batch=2)
    score_dataset(source, tmp_path / "ray.parquet", JOB, run)
    assert len(list(deaths.iterdir())) == kills
    with PGenRM(engine=ScriptedEngine(chain)) as model:
        score_dataset(source, tmp_path / "here.parquet", JOB, in_process(model, concurrency=2))
    assert parquet.read_table(tmp_path / "ray.parquet") == parquet.read_table(
        tmp_path / "here.parquet"
    )


@pytest.mark.long
@pytest.mark.usefixtures("ray_here")
def test_workers_that_always_die_end_the_job(tmp_path: Path) -> None:
    source, deaths = write(tmp_path / "in.parquet", 4), tmp_path / "deaths"
    deaths.mkdir()
    with pytest.raises(EngineError, match="the workers on Ray failed"):
        score_dataset(
            source,
            tmp_path / "never.parquet",
            JOB,
            on_ray(mortal(deaths, 1000), workers=1),
        )


@pytest.mark.long
@pytest.mark.usefixtures("ray_here")
def test_what_is_wrong_with_a_worker_is_told_in_its_words(tmp_path: Path) -> None:
    def surprise() -> PGenRM:
        raise RuntimeError("out of GPU memory")

    missing = tmp_path / "no-model"
    source, target = write(tmp_path / "in.parquet", 2), tmp_path / "out.parquet"
    for make, complaint in (
        (
            partial(PGenRM, str(missing)),
            f"a worker on Ray cannot score: {missing}: there is no such folder",
        ),
        (surprise, "a worker on Ray cannot score: RuntimeError: out of GPU memory"),
    ):
        with pytest.raises(EngineError, match=complaint):
            score_dataset(source, target, JOB, on_ray(make, workers=1))


@pytest.mark.long
@pytest.mark.usefixtures("ray_here")
def test_two_workers_score_with_the_bundled_model_what_one_process_scores(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in.parquet",
        4,
        candidates=[["Use a pan.", f"I love eggs! {n} ways, all of them great."] for n in range(4)],
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
        * 4,
    )
    job = DatasetJob(
        model="bundled", engine="transformers", scaling=Scaling(individual=2, prototype=0), seed=1
    )
    score_dataset(
        source, tmp_path / "ray.parquet", job, on_ray(partial(PGenRM), workers=2, batch=2)
    )
    with PGenRM() as model:
        score_dataset(source, tmp_path / "here.parquet", job, in_process(model))
    assert parquet.read_table(tmp_path / "ray.parquet") == parquet.read_table(
        tmp_path / "here.parquet"
    )
