"""`pgenrm eval` as a user meets it: on the bundled model, and on a server whose seeds are exact."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command_line import pgenrm
from pyarrow import parquet
from scipy import stats

from pgenrm_agent.demo import demo_data
from pgenrm_agent.evaluation.questions import Question
from pgenrm_agent.schema import Candidate

PROSE = "P-GenRM-seeded"
"""A name by which the model is asked for chains in prose, as the seeded one writes them."""


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Three answers for each of the demonstration's users, who like one style best."""
    data = demo_data()
    written = {"short": "plain", "thorough": "plan", "friendly": "chat"}
    lines = []
    for user in data.users:
        liked = written[user.choices[0][1]]
        question = Question(
            id=user.id,
            user_id=user.id,
            query=data.query,
            candidates=tuple(
                Candidate(id=name, text=text) for name, text in data.candidates.items()
            ),
            grades=tuple(1.0 if name == liked else 0.0 for name in data.candidates),
            history=tuple(data.pairs(user)),
        )
        lines.append(question.model_dump_json() + "\n")
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(lines), encoding="utf-8")
    return file


def test_lists_are_evaluated_resumed_and_compared(questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = (
        "eval",
        "--data",
        questions,
        "--out",
        out,
        "--individual",
        1,
        "--seed",
        3,
        "--judge",
        "p-genrm",
        "--judge",
        "blind",
        "--json",
    )
    done = pgenrm(*command)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert {row["judge"] for row in summary["judges"]} == {"p-genrm", "blind"}
    for row in summary["judges"]:
        assert (row["questions"], row["users"]) == (3, 3)
        assert row["comparisons"] == 6
        assert row["completion_tokens"] > 0
    assert summary["run"]["bundled_model"] is True
    assert summary["failures"] == {
        reason: sum(row["failed_samples"].get(reason, 0) for row in summary["judges"])
        for reason in summary["failures"]
    }
    records = (out / "records.jsonl").read_bytes()
    assert (out / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")

    again = pgenrm(*command)
    assert json.loads(again.stdout)["judges"] == summary["judges"]
    assert (out / "records.jsonl").read_bytes() == records  # nothing was judged twice

    compared = pgenrm("eval", "compare", out, out, "--other-judge", "blind", "--json")
    assert compared.returncode == 0, compared.stderr
    comparison = json.loads(compared.stdout)
    strict = {row["judge"]: row["strict"]["mean"] for row in summary["judges"]}
    assert comparison["difference"] == pytest.approx(strict["p-genrm"] - strict["blind"])
    assert 0 < comparison["p_value"] <= 1


@pytest.fixture
def people(tmp_path: Path) -> str:
    """Forty people with six choices each; they like what is good."""
    lines = [
        json.dumps(
            {
                "user_id": f"user-{user}",
                "query": f"Question {number}?",
                "topic": f"topic {number % 2}",
                "chosen": f"A good answer {user} {number}.",
                "rejected": f"Another answer {user} {number}.",
            }
        )
        for user in range(40)
        for number in range(6)
    ]
    file = tmp_path / "people.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"people:{file}"


def rows_of(folder: Path) -> list[dict[str, object]]:
    return parquet.read_table(folder / "results.parquet").drop_columns(["seconds"]).to_pylist()


def test_all_judges_are_in_one_table_on_the_same_rows_and_engine(
    people: str, seeded_model: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = pgenrm(
        "eval",
        "--data",
        people,
        "--out",
        out,
        "--engine",
        "openai",
        "--model",
        PROSE,
        "--judge",
        "all",
        "--individual",
        2,
        "--history",
        2,
        "--runs",
        2,
        "--limit",
        12,
        "--seed",
        1,
        "--json",
    )
    assert done.returncode == 0, done.stderr
    judges = {row["judge"]: row for row in json.loads(done.stdout)["judges"]}
    assert set(judges) == {
        "p-genrm",
        "psi-prompt",
        "blind",
        "judge",
        "judge-thinking",
        "judge-history",
        "judge-stated",
        "static-persona",
        "longest",
        "shortest",
        "bradley-terry",
        "bradley-terry-personal",
        "crowd",
    }
    rows = rows_of(out)
    asked = {name: {row["question"] for row in rows if row["judge"] == name} for name in judges}
    assert len(rows) == 13 * 2 * 12
    assert all(asked[name] == asked["p-genrm"] for name in judges)
    crowd = judges.pop("crowd")
    assert crowd["not_scored"] == crowd["comparisons"] == 24  # everybody met texts of their own
    for name, row in judges.items():
        assert (row["questions"], row["runs"], row["not_scored"]) == (12, 2, 0), name
        assert row["failed_samples"] == {}, name
        assert (row["accuracy"]["mean"] < 0.5) == (name == "longest"), name
    assert judges["bradley-terry"]["against_chance"] == "better"
    report = (out / "report.html").read_text(encoding="utf-8")
    assert all(f'<th scope="col">{name}</th>' in report for name in judges)


def test_lamp_qa_ranks_systems_from_its_files_to_the_report(
    seeded_model: str, tmp_path: Path
) -> None:
    asked = [
        {
            "id": f"{n}",
            "question": f"Question {n}?",
            "profile": [{"text": f"My post {n} {k}."} for k in range(5)],
        }
        for n in range(4)
    ]
    (tmp_path / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    graded = {"plain": 0.2, "retrieved": 0.5, "personal": 0.9}
    lines = [
        {
            "id": f"{n}",
            "system": name,
            "grade": grade,
            "text": f"{'A good' if grade > 0.4 else 'An'} answer of {name} to {n}.",
        }
        for n in range(4)
        for name, grade in graded.items()
    ]
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    out = tmp_path / "out"
    done = pgenrm(
        "eval",
        "--data",
        f"lamp-qa:{tmp_path / 'asked.json'}:{answers}",
        "--out",
        out,
        "--engine",
        "openai",
        "--model",
        PROSE,
        "--individual",
        4,
        "--seed",
        1,
        "--json",
    )
    assert done.returncode == 0, done.stderr
    (judged,) = json.loads(done.stdout)["judges"]
    assert (judged["questions"], judged["users"], judged["comparisons"]) == (4, 4, 12)
    # By hand, from the table of results.
    rows = rows_of(out)
    each = [stats.spearmanr(row["scores"], row["grades"]).statistic for row in rows]
    assert judged["spearman"]["mean"] == pytest.approx(sum(each) / 4)
    means = [sum(column) / 4 for column in zip(*(row["scores"] for row in rows), strict=True)]
    assert rows[0]["candidates"] == sorted(graded)
    wanted = stats.spearmanr(means, [graded[name] for name in sorted(graded)]).statistic
    assert judged["system_spearman"]["mean"] == pytest.approx(wanted)
    assert judged["system_spearman"]["mean"] > 0
    assert judged["kendall"]["mean"] > 0
    assert 0.5 < judged["ndcg"]["mean"] <= 1
    report = (out / "report.html").read_text(encoding="utf-8")
    assert '<th scope="row">Spearman of systems</th>' in report


def test_the_obvious_cases_tell_whether_a_judge_is_fit_and_go_on_without_a_folder(
    seeded_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGENRM_HOME", str(tmp_path))
    command = (
        *("eval", "--data", "obvious", "--engine", "openai", "--model", PROSE),
        *("--individual", 1, "--limit", 6, "--prices", "1,1"),
    )
    done = pgenrm(*command, "--runs", 1, "--json")
    assert done.returncode == 0, done.stderr
    (fitness,) = json.loads(done.stdout)["fitness"]
    assert (fitness["runs"], fitness["every"]["cases"]) == (1, 6)
    assert fitness["verdict"] in ("not fit", "unsure")  # it likes what is "good", and nothing is
    (records,) = tmp_path.glob("evaluations/obvious-*/records.jsonl")
    kept = records.read_text(encoding="utf-8")

    done = pgenrm(*command)
    assert done.returncode == 0, done.stderr
    assert records.read_text(encoding="utf-8").startswith(kept)
    (summary,) = json.loads((records.parent / "summary.json").read_text())["fitness"]
    assert summary["runs"] == 5
    printed = " ".join(done.stdout.split())
    for shown in ("of 6 obvious cases", "3-70 characters", "taste: brief", "tokens read", "cost"):
        assert shown in printed
    assert "obvious cases" in (records.parent / "report.html").read_text(encoding="utf-8")

    assert pgenrm(*command, "--seed", 8, "--runs", 1).returncode == 0
    assert len(list(tmp_path.glob("evaluations/*"))) == 2, "other settings, another folder"


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("eval", "--data", "obvious:medium"), 1, "obvious:long"),
        (("eval",), 2, "--data is needed"),
        (("eval", "--data", "x.jsonl", "--out", "o", "--judge", "abacus"), 1, "abacus"),
        (("eval", "--data", "x.jsonl", "--out", "o", "--prototype", "4"), 1, "--memory"),
        (("eval", "--data", "nowhere.jsonl", "--out", "o"), 1, "nowhere.jsonl"),
        (("eval", "--data", "people:nowhere.jsonl.gz", "--out", "o"), 1, "nowhere.jsonl.gz"),
        (("eval", "--data", "lamp-qa:nowhere.json:x.jsonl", "--out", "o"), 1, "x.jsonl"),
        (("eval", "--data", "x.jsonl", "--out", "o", "--runs", "0"), 2, "--runs"),
        (("eval", "compare", "nowhere.parquet", "nowhere.parquet"), 1, "there is no"),
        (("bench", "--part", "abacus"), 1, "abacus"),
        (("bench", "--engine", "abacus"), 2, "abacus"),
        (("score-dataset", "nowhere.parquet", "out.parquet", "--ray", "0"), 2, "--ray"),
        (("score-dataset", "nowhere.parquet", "out.parquet"), 1, "cannot be read"),
    ],
)
def test_a_wrong_call_gets_one_clear_error(
    arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    done = pgenrm(*arguments)
    assert done.returncode == code
    assert complaint in done.complaint


def test_bradley_terry_needs_a_training_split(questions: Path, tmp_path: Path) -> None:
    # It is told before a model is loaded: there is none.
    command = ("eval", "--data", questions, "--out", tmp_path / "out", "--model", tmp_path / "none")
    for name in ("bradley-terry", "bradley-terry-personal", "crowd"):
        done = pgenrm(*command, "--judge", "p-genrm", "--judge", name)
        assert done.returncode == 1
        assert "use data with a training split" in done.complaint
    assert not (tmp_path / "out").exists()


def test_what_finds_similar_users_belongs_to_a_run(
    people: str, seeded_model: str, tmp_path: Path
) -> None:
    command = (
        *("eval", "--data", people, "--out", tmp_path / "out", "--engine", "openai"),
        *("--model", PROSE, "--individual", 1, "--limit", 2, "--memory", tmp_path / "memory"),
        *("--prototype", 1, "--json", "--embedder"),
    )
    done = pgenrm(*command, "first")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"]["judges"]["p-genrm"]["embedder"] == "first"
    refused = pgenrm(*command, "second")
    assert refused.returncode == 1
    assert "p-genrm with other settings" in refused.stderr


@pytest.mark.long
def test_the_line_of_the_readme_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = Path(__file__).parents[3].joinpath("README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^pgenrm (eval .*)$", readme, re.MULTILINE)
    monkeypatch.setenv("PGENRM_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    done = pgenrm(*line.split())
    assert done.returncode == 0, done.stderr
    assert "120 choices of 8 users; it names no splits and has few users" in done.stderr
    printed = " ".join(done.stdout.split())
    for judge in ("p-genrm", "longest"):
        assert f"{judge} is right in" in printed
    (folder,) = tmp_path.glob("evaluations/sample-*")
    assert "56 choices of 8 users" in json.loads((folder / "summary.json").read_text())["data"]


def test_two_users_are_too_few_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGENRM_HOME", str(tmp_path))
    rows = [
        {"user_id": user, "query": f"q{n}", "chosen": f"a long answer {n}", "rejected": "short"}
        for user in ("ada", "ben")
        for n in range(6)
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8-sig")
    done = pgenrm("eval", "--data", file, "--judge", "longest")
    assert done.returncode == 0, done.stderr
    assert "longest is right in 100.0 % of comparisons: too few users to say" in " ".join(
        done.stdout.split()
    )
    assert "better than chance" not in done.stdout
    assert "has few users, so all of them are asked about" in done.stderr
