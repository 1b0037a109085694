"""Questions for the evaluation, from the datasets of choices and of ranked answers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.questions import read_source
from pgenrm_agent.evaluation.questions import fingerprint
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.schema import PreferencePair, StatedPreference
from pgenrm_agent.wording import counted


@pytest.fixture
def choices(tmp_path: Path) -> str:
    """Forty users with six choices each, without splits."""
    rows = [
        {
            "user_id": f"user-{user}",
            "query": f"Question {number}?",
            "topic": f"topic {number % 2}",
            "chosen": f"Good {user} {number}.",
            "rejected": f"Bad {user} {number}.",
        }
        for user in range(40)
        for number in range(6)
    ]
    file = tmp_path / "people.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"people:{file}"


def test_every_question_has_its_users_past_and_not_itself(choices: str) -> None:
    source = read_source(choices, split="test", history=2, seed=1)
    assert source.questions
    for question in source.questions:
        user = question.user_id.removeprefix("user-")
        answers = [candidate.text for candidate in question.candidates]
        assert answers[0].startswith(f"Good {user} ")
        assert question.grades == (1.0, 0.0)
        assert question.group in ("topic 0", "topic 1")
        assert len(question.history) == 2
        assert all(pair.chosen.startswith(f"Good {user} ") for pair in question.history)
        assert answers[0] not in [pair.chosen for pair in question.history]


def test_what_a_judge_is_fitted_on_is_never_asked(choices: str) -> None:
    source = read_source(choices, split="test", history=2, seed=1)
    asked = {question.user_id for question in source.questions}
    fitted = {row.user_id for row in source.training}
    assert fitted == {row.user_id for row in source.crowd}
    assert fitted
    assert not asked & fitted


def test_few_questions_are_many_users(choices: str) -> None:
    everything = read_source(choices, split="test", history=2, seed=1).questions
    users = {question.user_id for question in everything}
    few = read_source(choices, split="test", history=2, seed=1, limit=len(users)).questions
    assert {question.user_id for question in few} == users


def test_few_questions_of_a_file_of_questions_are_many_users(choices: str, tmp_path: Path) -> None:
    everything = read_source(choices, split="test", history=2, seed=1).questions
    by_user = sorted(everything, key=lambda question: question.user_id)
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(question.model_dump_json() + "\n" for question in by_user))
    users = {question.user_id for question in everything}
    few = read_source(str(file), split="test", history=2, seed=1, limit=len(users)).questions
    assert {question.user_id for question in few} == users
    # The same order without a limit: a run with more goes on where one with fewer was.
    assert read_source(str(file), split="test", history=2, seed=1).questions[: len(users)] == few


def test_the_same_data_and_seed_are_the_same_questions(choices: str) -> None:
    first = read_source(choices, split="test", history=2, seed=1).questions
    again = read_source(choices, split="test", history=2, seed=1).questions
    drawn_anew = read_source(choices, split="test", history=2, seed=2).questions
    assert fingerprint(first) == fingerprint(again)
    assert fingerprint(first) != fingerprint(drawn_anew)


def test_a_split_that_is_unknown_or_empty_is_named(choices: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'tests' is unknown"):
        read_source(choices, split="tests", history=2, seed=1)
    row = {"user_id": "u", "query": "?", "chosen": "a", "rejected": "b", "split": "train"}
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="no questions in the split 'test'"):
        read_source(str(file), split="test", history=2, seed=1)


def lamp_files(folder: Path, *answers: dict[str, object]) -> str:
    asked = [
        {
            "id": number,
            "question": f"Question {number}?",
            "profile": [{"text": f"Post {n}"} for n in range(5)],
        }
        for number in ("1", "2", "3")
    ]
    (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    lines = "".join(json.dumps(answer) + "\n" for answer in answers)
    (folder / "answers.jsonl").write_text(lines, encoding="utf-8")
    return f"lamp-qa:{folder / 'asked.json'}:{folder / 'answers.jsonl'}"


def test_lamp_qa_ranks_systems(tmp_path: Path) -> None:
    answers = [
        {"id": question, "system": system, "text": f"{system} on {question}", "grade": grade}
        for question in ("1", "2")
        for system, grade in (("b", 0.2), ("a", 0.9), ("c", 0.5))
    ]
    equal = [{"id": "3", "system": system, "text": system, "grade": 1} for system in "ab"]
    source = lamp_files(tmp_path, *answers, *equal)
    first, second = read_source(source, split="test", history=3, seed=1).questions
    assert (first.id, second.id) == ("1", "2")
    assert [candidate.id for candidate in first.candidates] == ["a", "b", "c"]
    assert first.grades == (0.9, 0.2, 0.5)
    assert len(first.stated) == 3
    assert first.stated != second.stated


def test_a_bad_answer_of_lamp_qa_is_named(tmp_path: Path) -> None:
    source = lamp_files(tmp_path, {"id": "1", "system": "a", "text": "x", "grade": -1})
    with pytest.raises(ConfigurationError, match=r"answers.jsonl, line 1, field grade"):
        read_source(source, split="test", history=3, seed=1)
    with pytest.raises(ConfigurationError, match="no questions"):
        read_source(lamp_files(tmp_path), split="test", history=3, seed=1)


def choices_of(users: int, each: int = 4) -> list[dict[str, str]]:
    return [
        {"user_id": f"u{user}", "query": f"q{n}", "chosen": f"good {user} {n}", "rejected": "bad"}
        for user in range(users)
        for n in range(each)
    ]


@pytest.mark.parametrize("users", [1, 2, 12, 60])
def test_a_file_without_splits_is_divided_and_that_is_said(tmp_path: Path, users: int) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in choices_of(users)))
    source = read_source(str(file), split="test", history=2, seed=1)
    asked = {question.user_id for question in source.questions}
    assert source.told.startswith(
        f"{4 * users} choices of {counted(users, 'user')}; it names no splits"
    )
    if users < 60:
        assert len(asked) == users
        assert "all of them are asked about: do not train on it" in source.told
    else:
        assert 6 <= len(asked) < users
        assert "divided by a hash of their ids" in source.told
    assert f"Asked about: {2 * len(asked)} choices of {counted(len(asked), 'user')}" in source.told
    # The past is the first half, and never what is asked.
    for question in source.questions:
        assert question.candidates[0].text.endswith(("2", "3"))
        assert all(pair.chosen.endswith(("0", "1")) for pair in question.history)


def test_a_file_that_names_its_splits_decides(tmp_path: Path) -> None:
    rows = [{**row, "split": "test" if row["query"] == "q3" else "train"} for row in choices_of(3)]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = read_source(str(file), split="test", history=9, seed=1)
    assert len(source.questions) == 3
    assert source.told == (
        "12 choices of 3 users. Asked about: 3 choices of 3 users, in the split test; their past:"
        " 9 choices."
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_byte_order_mark_is_taken(tmp_path: Path, encoding: str) -> None:
    text = "".join(json.dumps(row) + "\n" for row in choices_of(2))
    mark = "\ufeff" if encoding == "utf-16-be" else ""  # the others write their own
    plain, zipped = tmp_path / "mine.jsonl", tmp_path / "mine.jsonl.gz"
    plain.write_text(mark + text, encoding=encoding)
    zipped.write_bytes(gzip.compress((mark + text).encode(encoding)))
    questions = tmp_path / "questions.jsonl"
    asked = {
        "id": "1",
        "user_id": "ada",
        "query": "q",
        "candidates": [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}],
        "grades": [1, 0],
    }
    questions.write_text(mark + json.dumps(asked), encoding=encoding)
    for source, count in ((plain, 4), (zipped, 4), (questions, 1)):
        assert len(read_source(str(source), split="test", history=1, seed=1).questions) == count


def test_the_sample_is_twenty_queries_of_invented_users() -> None:
    source = read_source("sample", split="test", history=3, seed=1)
    queries = {question.query for question in source.questions}
    queries |= {row.pair.query for row in source.training}
    assert len({question.user_id for question in source.questions}) == 8
    assert len(queries) == 20
    assert len(source.questions) == 56


def test_a_folder_is_no_file_of_choices(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"is a folder: .*prb:PATH"):
        read_source(str(tmp_path), split="test", history=1, seed=1)


def test_an_export_of_the_memory_is_a_file_of_choices(tmp_path: Path) -> None:
    file = tmp_path / "export.jsonl"
    with UserMemory(tmp_path / "memory") as memory:
        for number in range(4):
            pair = PreferencePair(query=f"q{number}", chosen="a", rejected="b")
            memory.remember("ada", pair)
        memory.state("ada", StatedPreference(text="short answers"))
        memory.export_jsonl(file)
    source = read_source(str(file), split="test", history=2, seed=1)
    assert source.told.startswith("4 choices of 1 user;")
    assert {question.user_id for question in source.questions} == {"ada"}


def test_a_mistyped_source_and_an_empty_file_are_told(tmp_path: Path) -> None:
    file = tmp_path / "empty.jsonl"
    file.write_text("")
    with pytest.raises(ConfigurationError, match=r"empty\.jsonl is empty"):
        read_source(str(file), split="test", history=2, seed=1)
    with pytest.raises(
        ConfigurationError, match=r"'pepole:mine\.jsonl' is unknown; did you mean people:FILE"
    ):
        read_source("pepole:mine.jsonl", split="test", history=2, seed=1)
