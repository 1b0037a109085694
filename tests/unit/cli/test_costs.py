"""What commands say of their costs, and how a budget ends them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from command_line import Done, pgenrm
from pyarrow import parquet
from scored_datasets import write

from pgenrm_agent.cli.app import STOPPED
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.questions import Question
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Candidate, PreferencePair

SERVER = ("--engine", "openai", "--model", "m")
WORDY = ("--engine", "openai", "--model", "wordy")
"""Counts 2,000 tokens for each answer: more than an estimate expects."""
A_TOKEN_IS_1 = ("--prices", "1000000,1000000")


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Twelve questions with a good answer each."""
    lines = [
        Question(
            id=f"q{number}",
            user_id=f"user-{number % 3}",
            query=f"Question {number}?",
            candidates=(Candidate(id="a", text="A good answer."), Candidate(id="b", text="Bad.")),
            grades=(1.0, 0.0),
            history=(PreferencePair(query="Before?", chosen="A good one.", rejected="No."),),
        ).model_dump_json()
        for number in range(12)
    ]
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def evaluate(questions: Path, out: Path, *options: object) -> Done:
    return pgenrm(
        *("eval", "--data", questions, "--out", out, "--individual", 2, "--concurrency", 2),
        *("--memory", out.with_name("memory"), *options),
    )


def score_dataset(source: Path, target: Path, *options: object) -> Done:
    return pgenrm(
        *("score-dataset", source, target, "--individual", 2, "--concurrency", 2),
        *("--memory", target.with_name("memory"), *options),
    )


# --- scores -------------------------------------------------------------------------------------


def test_a_score_says_what_it_cost(seeded_model: str, tmp_path: Path) -> None:
    request = ("-u", "ada", "-q", "How?", "Good.", "Bad.", "--memory", tmp_path, *SERVER)
    prices = ("--prices", "1000,2000000")
    plain = pgenrm("score", *request, "--individual", 2)
    assert plain.returncode == 0, plain.stderr
    assert "cost" not in plain.stdout
    scored = json.loads(pgenrm("score", *request, *prices, "--json").stdout)
    usage = scored["usage"]
    assert usage["prompt_tokens"] > 100
    assert usage["cost"] == pytest.approx(
        usage["prompt_tokens"] / 1000 + usage["completion_tokens"] * 2
    )
    for command in ("score", "rerank"):
        told = pgenrm(command, *request, "--seed", 1, *prices).stdout
        last = told.strip().splitlines()[-1]
        assert re.fullmatch(r"cost [\d.,]+: [\d,]+ tokens read, [\d,]+ written by openai:m", last)
    ranked = json.loads(pgenrm("rerank", *request, *prices, "--json").stdout)
    assert ranked["evaluation"]["usage"]["cost"] > 0


def test_a_deadline_is_kept(seeded_model: str, tmp_path: Path) -> None:
    request = ("-u", "ada", "-q", "How?", "Good.", "Bad.", "--memory", tmp_path, *SERVER)
    for command in ("score", "rerank"):
        done = pgenrm(command, *request, "--timeout", "0.001")
        assert done.returncode == 1
        assert "time was over" in done.complaint
    assert pgenrm("score", *request, "--timeout", 60).returncode == 0


@pytest.mark.parametrize("prices", ["1", "1,2,3", "a,b", "-1,2", "nan,1", "1,inf", ""])
def test_prices_that_are_none_are_refused(prices: str, tmp_path: Path) -> None:
    request = ("score", "-u", "ada", "-q", "Q", "A", "B", "--memory", tmp_path)
    done = pgenrm(*request, "--prices", prices)
    assert done.returncode == 2
    assert "PROMPT,COMPLETION" in done.complaint
    if prices:
        done = pgenrm(*request, env={"PGENRM_PRICES": prices})
        assert done.returncode == 1
        assert "PGENRM_PRICES" in done.complaint


def test_a_missing_extra_is_told_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "memory"
    write(tmp_path / "in.parquet")
    commands = [
        ("score", "-u", "ada", "-q", "Q", "A", "B", "--embedder", "no-such-embedder"),
        ("score-dataset", tmp_path / "in.parquet", tmp_path / "out.parquet"),
        ("prototypes", "build"),
    ]
    for engine in ("openai", "vllm"):
        monkeypatch.setitem(sys.modules, engine, None)
        for command in commands:
            done = pgenrm(*command, "--memory", memory, "--engine", engine, "--model", "m")
            assert done.returncode == 1
            assert f"pip install 'pgenrm-agent[{engine}]'" in done.complaint
        with pytest.raises(ConfigurationError, match="is not installed"):
            PGenRM("m", engine=engine)
    assert not memory.exists()
    report = pgenrm("doctor", "--json", env={"PGENRM_ENGINE": "openai"})
    assert report.returncode == 1
    told = json.loads(report.stdout)
    assert told["works"] is False
    assert told["threads"].startswith("not measured")


# --- estimates ----------------------------------------------------------------------------------


def test_a_dry_run_asks_and_keeps_nothing(
    questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")  # where nobody answers
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    out = tmp_path / "out"
    judges = ("--judge", "p-genrm", "--judge", "judge", "--judge", "longest")
    done = evaluate(questions, out, *SERVER, *judges, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    estimate = json.loads(done.stdout)["estimate"]
    assert (estimate["what"], estimate["pieces"]) == ("verdicts", 36)
    assert estimate["about"]["chains_sampled"] == 12 * 2 + 12
    assert estimate["about"]["cost"] is None
    assert not out.exists()
    source = write(tmp_path / "in.parquet", rows=30)
    done = score_dataset(source, out, *SERVER, "--dry-run", "--prices", "1,2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("30 rows to do\nabout    30 engine calls, ")
    assert re.search(r"written, cost [\d.]+ \(4 bytes", done.stdout)
    assert [path.name for path in tmp_path.glob("out*")] == []


def test_an_estimate_is_near_what_a_server_counts(
    questions: Path, seeded_model: str, tmp_path: Path
) -> None:
    judges = ("--judge", "p-genrm", "--judge", "judge-history", "--judge", "judge-thinking")
    options = (*judges, *A_TOKEN_IS_1, "--individual", 6, "--json")  # several chains of an order
    done = evaluate(questions, tmp_path / "out", *SERVER, *options)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert "36 verdicts to do" in done.stderr
    about, at_most, usage = (
        result["estimate"]["about"],
        result["estimate"]["at_most"],
        result["usage"],
    )
    assert about["prompt_tokens"] == pytest.approx(usage["prompt_tokens"], rel=0.1)
    assert usage["completion_tokens"] < at_most["completion_tokens"]
    assert usage["cost"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_what_is_done_already_is_not_estimated_again(
    questions: Path, seeded_model: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = json.loads(evaluate(questions, out, *SERVER, "--json").stdout)
    again = evaluate(questions, out, *SERVER, "--runs", 2, "--dry-run", "--json")
    estimate = json.loads(again.stdout)["estimate"]
    assert estimate["pieces"] == 12
    for kind in ("prompt_tokens", "completion_tokens"):
        assert estimate["about"][kind] == estimate["spent"][kind] == first["usage"][kind]
    assert "12 that are done" in estimate["assumptions"]


# --- budgets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("eval", "--data", "q.jsonl", "--out", "out"),
        ("score-dataset", "in.parquet", "out.parquet"),
        ("prototypes", "build"),
    ],
)
def test_a_budget_without_prices_is_refused(command: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path / "in.parquet")
    (tmp_path / "q.jsonl").write_text("", encoding="utf-8")
    named = [str(tmp_path / part) if "." in part else part for part in command]
    done = pgenrm(*named, "--memory", tmp_path / "memory", "--budget", 3)
    assert done.returncode != 0
    if command[0] != "eval":  # which reads its questions first
        assert "--budget 3 needs --prices" in done.complaint


def test_an_evaluation_above_its_budget_does_not_begin(questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = evaluate(questions, out, *SERVER, *A_TOKEN_IS_1, "--budget", 100)
    assert done.returncode == 1
    assert re.search(r"12 verdicts cost about [\d,.]+, and the budget is 100", done.complaint)
    assert not out.exists()


def test_an_evaluation_stops_at_its_budget_and_goes_on(
    questions: Path, seeded_model: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = (*WORDY, *A_TOKEN_IS_1, "--judge", "p-genrm", "--json")
    expected = json.loads(evaluate(questions, out, *options, "--dry-run").stdout)["estimate"]
    budget = expected["about"]["cost"] + 1
    stopped = evaluate(questions, out, *options, "--budget", budget)
    assert stopped.returncode == STOPPED
    assert re.search(r"\d+ of 12 verdicts are done and kept.*higher budget", stopped.complaint)
    kept = (out / "records.jsonl").read_text().splitlines()
    assert 0 < len(kept) < 12
    finished = evaluate(questions, out, *options, "--budget", 1_000_000)
    assert finished.returncode == 0, finished.stderr
    assert (out / "records.jsonl").read_text().splitlines()[: len(kept)] == kept
    whole = evaluate(questions, tmp_path / "whole", *options)
    usages = [json.loads(done.stdout)["usage"] for done in (finished, whole)]
    assert usages[0] == usages[1]


def test_a_data_set_stops_at_its_budget_and_goes_on(seeded_model: str, tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.parquet", rows=20), tmp_path / "out.parquet"
    options = (*WORDY, *A_TOKEN_IS_1)
    dry = score_dataset(source, target, *options, "--dry-run", "--json")
    budget = json.loads(dry.stdout)["estimate"]["about"]["cost"] + 1
    stopped = score_dataset(source, target, *options, "--budget", budget)
    assert stopped.returncode == STOPPED, stopped.stderr
    assert "of 20 rows are done and kept" in stopped.complaint
    assert not target.exists()
    finished = score_dataset(source, target, *options, "--budget", 1_000_000, "--json")
    assert finished.returncode == 0, finished.stderr
    summary = json.loads(finished.stdout)
    assert 0 < summary["resumed"] < 20
    assert summary["usage"]["completion_tokens"] == 20 * 2 * 2000
    rows = parquet.read_table(target).to_pylist()
    assert {row["tokens"] for row in rows} == {4000}
    assert summary["usage"]["prompt_tokens"] == sum(row["prompt_tokens"] for row in rows)


def test_a_build_tells_what_it_costs(tmp_path: Path) -> None:
    with UserMemory(tmp_path / "memory") as memory:
        for user in ("ann", "bob", "cid"):
            pair = PreferencePair(query="How?", chosen="Eight minutes.", rejected="It depends!")
            memory.remember(user, pair)
            memory.set_consent(user, True)
    build = ("prototypes", "build", "-k", 1, "--queries", 1, *A_TOKEN_IS_1)
    home = {"PGENRM_HOME": str(tmp_path)}
    refused = pgenrm(*build, "--budget", 5, env=home)
    assert refused.returncode == 1
    assert "3 personas cost about" in refused.complaint
    built = pgenrm(*build, "--budget", 100_000, "--json", env=home)
    assert built.returncode == 0, built.stderr
    result = json.loads(built.stdout)
    assert result["estimate"]["pieces"] == 3
    read, estimated = (
        part["prompt_tokens"] for part in (result["usage"], result["estimate"]["about"])
    )
    assert read / 3 < estimated < 3 * read  # the bundled model has tokens of its own for marks
    assert result["usage"]["cost"] == read + result["usage"]["completion_tokens"]
