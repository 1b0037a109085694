"""A run that is killed, resumed, extended or mixed up."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import killed_run
import pytest

from pgenrm_agent.errors import ConfigurationError, EngineTimeout
from pgenrm_agent.evaluation.judges import PromptJudge
from pgenrm_agent.evaluation.questions import Question, read_questions
from pgenrm_agent.evaluation.records import Record, Verdict, read_parquet, write_parquet
from pgenrm_agent.evaluation.running import RECORDS, RunDescription, evaluate
from pgenrm_agent.evaluation.summary import JudgeSummary, summarize
from pgenrm_agent.jsonl import RecordLog
from pgenrm_agent.testing import ScriptedEngine

SCRIPT = Path(killed_run.__file__)
GOOD = '{"response_1": 8, "response_2": 3}'


def describe(**changed: object) -> RunDescription:
    fields = {
        "source": "test",
        "questions": 0,
        "fingerprint": "",
        "engine": "scripted",
        "model": "scripted",
        "seed": 1,
        "machine": "test",
    } | changed
    return RunDescription.model_validate(fields)


def without_time(rows: list[JudgeSummary]) -> list[JudgeSummary]:
    return [row.model_copy(update={"seconds": 0.0}) for row in rows]


def table(folder: Path) -> list[JudgeSummary]:
    with RecordLog(folder / RECORDS, Record) as log:
        keys = [record.key for record in log.records]
        assert len(keys) == len(set(keys)), "a question was judged and kept twice"
        return without_time(summarize(log.records))


@pytest.mark.parametrize(
    "kills",
    [pytest.param(1, marks=pytest.mark.small), pytest.param(3, marks=pytest.mark.long)],
)
def test_a_run_that_is_killed_ends_with_the_same_table(tmp_path: Path, kills: int) -> None:
    killed_run.run(tmp_path / "whole", latency_s=0.0)

    out, draw = tmp_path / "killed", random.Random(5)
    records = out / RECORDS
    for _ in range(kills):
        before = records.stat().st_size if records.exists() else 0
        child = subprocess.Popen([sys.executable, "-P", str(SCRIPT), str(out)])
        # Some records later, and at any moment of the next ones.
        while child.poll() is None and (
            not records.exists() or records.stat().st_size < before + 1000
        ):
            time.sleep(0.005)
        time.sleep(draw.random() * 0.03)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    subprocess.run([sys.executable, "-P", str(SCRIPT), str(out)], check=True, timeout=120)
    assert table(out) == table(tmp_path / "whole")


async def test_only_what_is_missing_is_judged_again(
    questions: list[Question], tmp_path: Path
) -> None:
    await evaluate(
        questions[:3], [PromptJudge("a", ScriptedEngine(GOOD))], tmp_path / "three", describe()
    )
    engine = ScriptedEngine(GOOD)
    log = tmp_path / "four" / RECORDS
    await evaluate(questions, [PromptJudge("a", engine)], log.parent, describe())
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2]) + lines[2][:40])  # killed while the third was written
    again = ScriptedEngine(GOOD)
    records = await evaluate(questions, [PromptJudge("a", again)], log.parent, describe(), runs=2)
    assert len(again.calls) == 2 + 4
    assert [record.question for record in records] == ["q0", "q1", "q2", "q3"] * 2


async def test_more_judges_can_join_a_run(questions: list[Question], tmp_path: Path) -> None:
    await evaluate(questions, [PromptJudge("a", ScriptedEngine(GOOD))], tmp_path, describe())
    first, second = ScriptedEngine(GOOD), ScriptedEngine(GOOD)
    records = await evaluate(
        questions, [PromptJudge("a", first), PromptJudge("b", second)], tmp_path, describe()
    )
    assert (len(first.calls), len(second.calls)) == (0, 4)
    # Judges see the same orders, so that what differs is the judge.
    seeds = {record.judge: [] for record in records}
    for record in records:
        seeds[record.judge].append(record.seed)
    assert seeds["a"] == seeds["b"]


async def test_more_questions_can_join_a_run_after_the_same_ones(
    questions: list[Question], tmp_path: Path
) -> None:
    judge = PromptJudge("a", ScriptedEngine(GOOD))
    await evaluate(questions[:3], [judge], tmp_path, describe())
    engine = ScriptedEngine(GOOD)
    records = await evaluate(questions, [PromptJudge("a", engine)], tmp_path, describe())
    assert len(engine.calls) == 1
    assert [record.question for record in records] == ["q0", "q1", "q2", "q3"]
    # From now on it is a run of four: fewer, or others at their place, are another run.
    for others in (questions[:3], questions[::-1]):
        with pytest.raises(ConfigurationError, match="fingerprint"):
            await evaluate(others, [judge], tmp_path, describe())


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 2},
        {"model": "other"},
        {"engine": "other"},
        {"asked_with": {"prototypes": "another build", "base_url": None}},
        {"asked_with": {"chain_format": "mine 2"}},
    ],
)
async def test_other_settings_are_not_mixed_in(
    changed: dict[str, object], questions: list[Question], tmp_path: Path
) -> None:
    judge = PromptJudge("a", ScriptedEngine(GOOD))
    await evaluate(questions, [judge], tmp_path, describe())
    asked_with = changed.get("asked_with") or changed
    assert isinstance(asked_with, dict)
    with pytest.raises(ConfigurationError, match=f"its {next(iter(asked_with))} is"):
        await evaluate(questions, [judge], tmp_path, describe(**changed))
    with pytest.raises(ConfigurationError, match="fingerprint"):
        await evaluate(questions[1:], [judge], tmp_path, describe())
    with pytest.raises(ConfigurationError, match="other settings"):
        await evaluate(
            questions, [PromptJudge("a", ScriptedEngine(GOOD), samples=2)], tmp_path, describe()
        )


class Stubborn:
    """A judge that somebody wrote, which gives every question the same scores."""

    name, settings = "own", {}

    def __init__(self, *scores: float) -> None:
        self.scores = scores

    async def judge(self, question: Question, *, seed: int, run_seed: int) -> Verdict:
        return Verdict(scores=self.scores)


@pytest.mark.parametrize(
    ("scores", "told"),
    [((1.0,), "judge own gives 1 scores for 2 candidates"), ((math.nan, math.nan), "finite")],
)
async def test_scores_of_no_use_are_no_scores(
    scores: tuple[float, ...], told: str, questions: list[Question], tmp_path: Path
) -> None:
    records = await evaluate(questions, [Stubborn(*scores)], tmp_path, describe())
    assert all(told in (record.verdict.reason or "") for record in records)
    (row,) = summarize(records)
    assert row.coverage == 0.0


async def test_a_fault_of_the_engine_ends_the_run_and_keeps_what_is_done(
    questions: list[Question], tmp_path: Path
) -> None:
    failing = PromptJudge("a", ScriptedEngine(GOOD, fail_times=1))
    with pytest.raises(EngineTimeout):
        await evaluate(questions, [failing], tmp_path, describe())
    records = await evaluate(questions, [failing], tmp_path, describe())
    assert len(records) == 4


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with (
        RecordLog(tmp_path / RECORDS, Record),
        pytest.raises(ConfigurationError, match="another process"),
        RecordLog(tmp_path / RECORDS, Record),
    ):
        pass


def test_a_changed_line_is_named(tmp_path: Path) -> None:
    (tmp_path / RECORDS).write_text('{"judge": 3}\n', encoding="utf-8")
    with pytest.raises(ConfigurationError, match="line 1"), RecordLog(tmp_path / RECORDS, Record):
        pass


async def test_results_survive_parquet(questions: list[Question], tmp_path: Path) -> None:
    judges = [
        PromptJudge("a", ScriptedEngine([GOOD, "nothing"]), samples=2),
        PromptJudge("b", ScriptedEngine("nothing")),
    ]
    records = await evaluate(questions, judges, tmp_path, describe(), runs=2)
    write_parquet(records, tmp_path / "results.parquet")
    back = read_parquet(tmp_path / "results.parquet")
    assert back == sorted(records, key=lambda record: record.key)
    assert summarize(back) == summarize(records)


def test_a_file_that_is_no_result_is_refused(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"judge": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(ConfigurationError, match="lacks candidates"):
        read_parquet(tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("text", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_parquet(tmp_path / "text.parquet")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 2"),
        ('{"id": "b"}', "line 2, field user_id"),
        (
            '{"id":"q0","user_id":"u","query":"?","candidates":[{"id":"a","text":"a"},'
            '{"id":"b","text":"b"}],"grades":[1,1]}',
            "all grades are equal",
        ),
    ],
)
def test_a_bad_question_is_named(
    line: str, complaint: str, questions: list[Question], tmp_path: Path
) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(f"{questions[0].model_dump_json()}\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=complaint):
        read_questions(file)


def test_questions_survive_a_file(questions: list[Question], tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    odd = questions[0].model_copy(update={"id": "odd", "query": "two\u2028parts?"})
    rows = [*questions, odd]
    file.write_text("".join(row.model_dump_json() + "\n" for row in rows), encoding="utf-8")
    assert read_questions(file) == rows
    file.write_text(odd.model_dump_json() * 1 + "\n" + odd.model_dump_json(), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="twice"):
        read_questions(file)
