"""`pgenrm eval` as a user meets it, on the bundled model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pgenrm_agent.demo import demo_data
from pgenrm_agent.evaluation.questions import Question
from pgenrm_agent.schema import Candidate


def pgenrm(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "pgenrm_agent.cli", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Three answers for each of the demonstration's people, who like one style best."""
    data = demo_data()
    written = {"short": "plain", "thorough": "plan", "friendly": "chat"}
    lines = []
    for person in data.people:
        liked = written[person.choices[0][1]]
        question = Question(
            id=person.id,
            user_id=person.id,
            query=data.query,
            candidates=tuple(Candidate(id=one, text=text) for one, text in data.candidates.items()),
            grades=tuple(1.0 if one == liked else 0.0 for one in data.candidates),
            history=tuple(data.pairs(person)),
        )
        lines.append(question.model_dump_json() + "\n")
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(lines), encoding="utf-8")
    return file


@pytest.mark.slow
def test_lists_are_evaluated_resumed_and_compared(questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = (
        "eval", "--data", questions, "--out", out, "--individual", 2, "--seed", 3, "--judge",
        "p-genrm", "--judge", "blind", "--json",
    )  # fmt: skip
    done = pgenrm(*command)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert {row["judge"] for row in summary["judges"]} == {"p-genrm", "blind"}
    for row in summary["judges"]:
        assert (row["questions"], row["users"]) == (3, 3)
        assert row["comparisons"] == 6
        assert row["completion_tokens"] > 0
    assert summary["run"]["bundled_model"] is True
    records = (out / "records.jsonl").read_bytes()
    assert (out / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")

    again = pgenrm(*command)
    assert json.loads(again.stdout)["judges"] == summary["judges"]
    assert (out / "records.jsonl").read_bytes() == records  # nothing was judged twice

    compared = pgenrm("eval", "compare", out, out, "--other-judge", "blind", "--json")
    assert compared.returncode == 0, compared.stderr
    found = json.loads(compared.stdout)
    accuracy = {row["judge"]: row["accuracy"]["mean"] for row in summary["judges"]}
    assert found["difference"] == pytest.approx(accuracy["p-genrm"] - accuracy["blind"])
    assert 0 < found["p_value"] <= 1


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("eval",), 2, "--data and --out are needed"),
        (("eval", "--data", "x.jsonl", "--out", "o", "--judge", "abacus"), 1, "abacus"),
        (("eval", "--data", "x.jsonl", "--out", "o", "--prototype", "4"), 1, "--memory"),
        (("eval", "compare", "nowhere.parquet", "nowhere.parquet"), 1, "cannot be read"),
        (("score-dataset", "nowhere.parquet", "out.parquet"), 1, "cannot be read"),
    ],
)
def test_a_wrong_call_gets_one_clear_error(
    arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    done = pgenrm(*arguments)
    assert done.returncode == code
    assert complaint in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_bradley_terry_needs_a_training_split(questions: Path, tmp_path: Path) -> None:
    done = pgenrm(
        "eval", "--data", questions, "--out", tmp_path / "out", "--judge", "bradley-terry"
    )
    assert done.returncode == 1
    assert "no training choices" in done.stderr
