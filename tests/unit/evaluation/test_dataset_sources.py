"""Dataset sources: every dataset becomes the same rows, and a malformed one is one clear error."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from needs import needs

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets import sources
from pgenrm_agent.evaluation.datasets.lamp_qa import read_lamp_qa
from pgenrm_agent.evaluation.datasets.people import PEOPLE_SETS
from pgenrm_agent.evaluation.datasets.questions import read_source
from pgenrm_agent.evaluation.datasets.rows import PreferenceRow, examples
from pgenrm_agent.evaluation.datasets.sources import load_rows, register_source
from pgenrm_agent.schema import PreferencePair


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def bench_row(number: int, user: str = "u1", split: str = "train", **more: Any) -> dict[str, Any]:
    return {
        "user_id": user,
        "context": [turn("user", "Hi"), turn("assistant", "Hello"), turn("user", f"Ask {number}")],
        "chosen": turn("assistant", f"good {number}"),
        "rejected": turn("assistant", f"bad {number}"),
        "split": split,
        **more,
    }


def plain_row(user: str, number: int) -> dict[str, Any]:
    return {"user_id": user, "query": f"q{number}", "chosen": f"c{number}", "rejected": "r"}


def write(path: Path, records: list[Any]) -> Path:
    text = "".join(json.dumps(record) + "\n" for record in records)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "json", "parquet"])
def test_personal_reward_bench_is_read_from_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    records = [
        bench_row(1, chosen_score=None),
        bench_row(2, split="val"),
        bench_row(3, split="test", chosen_score=80),
    ]
    path = tmp_path / f"rows.{suffix}"
    if suffix == "json":
        path.write_text(json.dumps(records))
    elif suffix == "parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(records), path)
    else:
        write(path, records)
    rows = load_rows(f"prb:{path}")
    assert [row.split for row in rows] == ["train", "validation", "test"]
    pair = rows[2].pair
    assert (pair.query, pair.chosen, pair.rejected) == ("Ask 3", "good 3", "bad 3")
    assert [message.content for message in pair.conversation] == ["Hi", "Hello"]
    assert pair.chosen_score == 80


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("test-00000-of-2.jsonl", "test"),
        ("prism_test.jsonl", "test"),
        ("default/test/0000.jsonl", "test"),
        ("test/train-1.jsonl", "train"),
        ("validation/rows.jsonl", "validation"),
        ("chat_history.jsonl", "train"),
        ("rows.jsonl", "train"),
    ],
)
def test_a_file_tells_its_split_by_its_name_or_its_folder(
    tmp_path: Path, file: str, split: str
) -> None:
    folder = tmp_path / "test set"  # what is above the named folder tells nothing
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    write(folder / file, [{k: v for k, v in bench_row(1).items() if k != "split"}])
    assert [row.split for row in load_rows(f"prb:{folder}")] == [split]


def test_prism_rows_are_joined_with_survey_and_choice_attributes(tmp_path: Path) -> None:
    row = bench_row(1, conversation_id="c1")
    write(tmp_path / "test-00000.jsonl", [{k: v for k, v in row.items() if k != "split"}])
    write(
        tmp_path / "survey.jsonl",
        [
            {
                "user_id": "u1",
                "system_string": "Be brief.",
                "self_description": "A nurse.",
                "age": "25-34 years old",
                "gender": "Prefer not to say",
                "stated_prefs": {"factuality": 90, "creativity": 5, "other_text": None},
            }
        ],
    )
    conversation = {"conversation_id": "c1", "choice_attributes": {"fluency": 70, "other": None}}
    write(tmp_path / "conversations.jsonl", [conversation])
    (joined,) = load_rows(f"prb:{tmp_path}")
    assert joined.split == "test"
    assert joined.pair.attributes == {"fluency": 70.0}
    assert [(wish.kind, wish.text) for wish in joined.stated] == [
        ("style", "Be brief."),
        ("self_description", "A nurse."),
        ("demographics", "age: 25-34 years old"),
        ("attributes", "factuality 90, creativity 5"),
        ("attributes", "in this conversation: fluency 70"),
    ]


def test_history_comes_from_the_same_users_past_and_never_holds_the_row_itself(
    tmp_path: Path,
) -> None:
    same = plain_row("a", 0)
    records = [
        *({**plain_row("a", n), "split": "train"} for n in range(5)),
        *({**plain_row("b", n), "split": "train"} for n in range(5)),
        {**same, "split": "test"},
        {**same, "chosen": same["rejected"], "rejected": same["chosen"], "split": "test"},
    ]
    rows = load_rows(str(write(tmp_path / "rows.jsonl", records)))
    asked = list(examples(rows, split="test", history=9, seed=0))
    assert len(asked) == 2
    for example in asked:
        assert sorted(pair.query for pair in example.history) == ["q1", "q2", "q3", "q4"]
    trained = list(examples(rows, split="train", history=2, seed=0))
    assert len(trained) == 10
    for example in trained:
        assert len(example.history) == 2
        assert example.asked.query not in {pair.query for pair in example.history}
    again = list(examples(rows, split="train", history=2, seed=0))
    assert [example.history for example in again] == [example.history for example in trained]
    drawn_anew = list(examples(rows, split="train", history=2, seed=1))
    assert [example.history for example in drawn_anew] != [example.history for example in trained]


def test_history_holds_nothing_that_tells_how_the_asked_choice_ended(tmp_path: Path) -> None:
    asked = {"user_id": "a", "query": "q", "chosen": "good", "rejected": "bad", "split": "test"}
    same_answer = {**asked, "rejected": "worse", "split": "train"}
    later = {
        **plain_row("a", 1),
        "split": "train",
        "conversation": [turn("user", "q"), turn("assistant", "good")],
    }
    elsewhere = {
        **plain_row("a", 2),
        "split": "train",
        "conversation": [turn("user", "another"), turn("assistant", "good")],
    }
    earlier = {**plain_row("a", 3), "query": "q", "rejected": "none", "split": "train"}
    rows = load_rows(
        str(write(tmp_path / "rows.jsonl", [asked, same_answer, later, elsewhere, earlier]))
    )
    (example,) = examples(rows, split="test", history=9, seed=0)
    assert sorted(pair.chosen for pair in example.history) == ["c2", "c3"]


def test_choices_without_splits_are_split_by_user_and_then_by_order(tmp_path: Path) -> None:
    records = [plain_row(f"u{user}", number) for number in range(6) for user in range(300)]
    rows = load_rows(str(write(tmp_path / "rows.jsonl", records)))
    by_user: dict[str, list[str]] = {}
    for row in rows:
        by_user.setdefault(row.user_id, []).append(row.split)
    for splits in by_user.values():
        assert splits in (
            ["train"] * 6,
            ["history"] * 3 + ["test"] * 3,
            ["history"] * 3 + ["validation"] * 3,
        )
    tested = sum("test" in splits for splits in by_user.values())
    assert 30 < tested < 90
    assert load_rows(f"people:{tmp_path / 'rows.jsonl'}")[0].split == rows[0].split


def test_held_out_users_can_be_asked_about_held_out_topics_only(tmp_path: Path) -> None:
    records = [
        {
            **plain_row(f"u{user}", number),
            "topic": f"debate-{number // 2}_{'yes' if number % 2 else 'no'}",
        }
        for user in range(100)
        for number in range(40)
    ]
    rows = load_rows(f"people-topics:{write(tmp_path / 'rows.jsonl', records)}")
    topics: dict[str, set[str]] = {"train": set(), "test": set(), "history": set()}
    for row in rows:
        assert row.topic is not None
        topics.setdefault(row.split, set()).add(row.topic.partition("_")[0])
    assert topics["train"]
    assert topics["test"]
    assert not topics["test"] & topics["train"]
    assert not topics["test"] & topics["history"]
    assert not {row.user_id for row in rows if row.split == "train"} & {
        row.user_id for row in rows if row.split == "test"
    }
    # Both sides of a debate are on the same side of the split.
    held = [row for row in rows if row.split == "test"]
    assert {(row.topic or "").partition("_")[2] for row in held} == {"yes", "no"}
    with pytest.raises(ConfigurationError, match="line 1, field topic"):
        load_rows(f"people-topics:{write(tmp_path / 'bare.jsonl', [plain_row('a', 1)])}")


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        ({"query": "q", "chosen": "a", "rejected": "b"}, "field user_id: missing"),
        ({**plain_row("a", 1), "chosen": None}, "field chosen: missing"),
        ({**plain_row("a", 1), "chosen": 3}, "field chosen: a text"),
        ({**plain_row("a", 1), "chosen": "r"}, "same text"),
        ({**plain_row("a", 1), "query": None}, "field query: a text is needed"),
        ({**plain_row("a", 1), "split": "exam"}, "field split: 'exam'"),
        (
            {**plain_row("a", 1), "split": "test", "conversation": [{"role": "user"}]},
            "conversation.0",
        ),
        (
            {**plain_row("a", 1), "split": "test", "conversation": [turn("wizard", "x")]},
            "field conversation.0",
        ),
        ({**plain_row("a", 1), "split": "test", "chosen_score": "high"}, "field chosen_score"),
        ({**plain_row("a", 1), "split": "test", "stated": "brief"}, "field stated: a list"),
        ({**plain_row("a", 1), "split": "test", "stated": [None]}, "field stated.0: a text"),
        (
            {**plain_row("a", 1), "split": "test", "stated": [{"kind": "x", "text": "y"}]},
            "stated.0",
        ),
        ([1, 2], "an object is needed"),
    ],
)
def test_a_malformed_row_is_named_by_file_line_and_field(
    tmp_path: Path, record: Any, complaint: str
) -> None:
    path = write(tmp_path / "rows.jsonl", [{**plain_row("a", 0), "split": "train"}, record])
    with pytest.raises(ConfigurationError) as refused:
        load_rows(str(path))
    assert f"{path}, line 2" in str(refused.value)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_cannot_be_a_source_is_told(tmp_path: Path) -> None:
    for source, complaint in (
        ("rows.csv", "people-topics:FILE, prb:PATH"),
        ("polis.csv", r"NAME:FILE or NAME-prompts:FILE .*llmfao, mtbench"),
        ("llmfao:", "NAME-prompts:FILE"),
        ("people:", "people:FILE"),
        ("votes:rows.csv", "prb:PATH"),
        (f"people:{tmp_path}/none.jsonl", "no such file"),
        (f"people:{tmp_path}", "it is a folder"),
        ("prb:/nowhere/rows", "rows: no such file or folder$"),
        ("prb:./nowhere", "nowhere: no such file or folder$"),
        ("prb:owner/rows.jsonl", "rows.jsonl: no such file or folder$"),
        (f"prb:{tmp_path}", "holds no parquet"),
    ):
        with pytest.raises(ConfigurationError, match=complaint):
            load_rows(source)
    (tmp_path / "broken.jsonl").write_text("{\n")
    with pytest.raises(ConfigurationError, match=r"broken.jsonl, line 1: not JSON"):
        load_rows(str(tmp_path / "broken.jsonl"))
    whole = gzip.compress(json.dumps(plain_row("a", 1)).encode() * 100)
    for name, content, complaint in (
        ("half.jsonl.gz", whole[:40], "after line 0: cannot be read"),
        ("no.jsonl.gz", b"plain text", "after line 0: cannot be read"),
        ("no-text.jsonl", b"\xff\xfe\n", "after line 0: cannot be read"),
        ("no.parquet", b"plain text", "cannot be read as parquet"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigurationError, match=complaint):
            load_rows(f"prb:{tmp_path / name}")


@pytest.mark.parametrize(
    ("source", "meant"),
    [
        ("pbr:rows", "prb:PATH"),
        ("prb:", "prb:PATH"),
        ("People:rows.jsonl", "people:FILE"),
        ("people-topic:rows.jsonl", "people-topics:FILE"),
        ("polis-prompt:rows.jsonl", "polis-prompts:FILE"),
        ("sampel", "sample"),
        ("obvius", "obvious"),
        ("lampqa:a.jsonl:b.jsonl", "lamp-qa:QUESTIONS:ANSWERS"),
    ],
)
def test_of_a_mistyped_source_the_nearest_is_named(source: str, meant: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_source(source, split="test", history=1, seed=0)
    said = str(refused.value)
    assert said.startswith(f"data source {source!r} is unknown; did you mean {meant}? Use a JSONL")
    assert "sample, lamp-qa:QUESTIONS:ANSWERS, obvious, one of people:FILE" in said


def test_nothing_is_guessed_of_a_name_far_from_all_or_a_file_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "sample.csv").touch()
    for source in ("zzz:rows.jsonl", str(tmp_path / "sample.csv")):
        with pytest.raises(
            ConfigurationError, match="is unknown: use a JSONL file, sample, one of"
        ):
            load_rows(source)


def test_a_source_of_its_own_is_suggested_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_SOURCES", dict(sources._SOURCES))
    register_source("ballots", lambda rest: [], usage="CSV")
    with pytest.raises(ConfigurationError, match=r"did you mean ballots:CSV\?"):
        load_rows("balots:2026.csv")


def test_half_of_what_lamp_qa_needs_is_told() -> None:
    for source in ("lamp-qa:", "lamp-qa:a.jsonl", "lamp-qa:a.jsonl:"):
        with pytest.raises(ConfigurationError, match="two files: use lamp-qa:QUESTIONS:ANSWERS"):
            read_source(source, split="test", history=1, seed=0)


def test_lamp_qa_is_read(tmp_path: Path) -> None:
    record = {
        "id": 7,
        "question": "How?",
        "profile": [{"id": "1", "text": "I asked once."}],
        "rubric_aspects": [{"aspect": "Cost", "reason": "said so", "evidence": "x"}],
    }
    (question,) = read_lamp_qa(write(tmp_path / "lamp.jsonl", [record]))
    assert (question.id, question.query, question.posts, question.aspects) == (
        "7",
        "How?",
        ("I asked once.",),
        ("Cost",),
    )
    with pytest.raises(ConfigurationError, match="field question: missing"):
        read_lamp_qa(write(tmp_path / "bad.jsonl", [{"id": 1}]))


def test_a_source_of_ones_own_is_read_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_SOURCES", dict(sources._SOURCES))

    def read_votes(rest: str) -> list[PreferenceRow]:
        user, chosen, rejected = rest.split(">")
        pair = PreferencePair(query="?", chosen=chosen, rejected=rejected)
        return [PreferenceRow(user_id=user, pair=pair, split="test")]

    register_source("votes", read_votes, usage="USER>CHOSEN>REJECTED")
    (row,) = load_rows("votes:ada>a>b")
    assert (row.user_id, row.pair.chosen, row.split) == ("ada", "a", "test")
    (question,) = read_source("votes:ada>a>b", split="test", history=1, seed=0).questions
    assert question.user_id == "ada"
    with pytest.raises(ConfigurationError, match="votes:USER>CHOSEN>REJECTED"):
        load_rows("ballots:2026")


def votes(prompts: int, *, users: int = 60, per_prompt: int = 2) -> list[dict[str, Any]]:
    """Choices of users on all prompts, between texts that all of them meet."""
    return [
        {
            "user_id": f"u{user}",
            "query": f"Prompt {prompt}",
            "chosen": f"a {prompt} {number}",
            "rejected": f"b {prompt} {number}",
            "topic": "votes",
        }
        for user in range(users)
        for prompt in range(prompts)
        for number in range(per_prompt)
    ]


def queries(rows: list[PreferenceRow], split: str) -> set[str]:
    return {row.pair.query for row in rows if row.split == split}


def test_prompts_are_held_out_together_with_people(tmp_path: Path) -> None:
    file = write(tmp_path / "llmfao.jsonl", votes(20))
    rows = load_rows(f"llmfao-prompts:{file}")
    held, met = queries(rows, "test"), queries(rows, "train")
    assert held
    assert met
    assert not held & met
    assert queries(rows, "history") == met
    # What training users chose on held-out prompts is there for the crowd alone.
    assert queries(rows, "crowd") == held
    learners = {row.user_id for row in rows if row.split in ("train", "crowd")}
    assert not learners & {row.user_id for row in rows if row.split in ("test", "history")}
    asked = read_source(f"llmfao-prompts:{file}", split="test", history=3, seed=0)
    assert {row.pair.query for row in asked.training} == met
    assert {row.pair.query for row in asked.crowd} == met | held
    assert {question.query for question in asked.questions} == held
    assert all(pair.query in met for question in asked.questions for pair in question.history)
    with pytest.raises(ConfigurationError, match="'crowd' is unknown"):
        read_source(f"llmfao-prompts:{file}", split="crowd", history=3, seed=0)


@pytest.mark.parametrize("name", ["mtbench", "lamp", "squality"])
def test_few_people_are_all_asked_about_and_learned_from_in_turn(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / f"{name}.jsonl", votes(20, users=4))
    by_user = read_source(f"{name}:{file}", split="test", history=3, seed=0)
    assert {question.user_id for question in by_user.questions} == {"u0", "u1", "u2", "u3"}
    assert len(by_user.questions) == 4 * 20
    # A user's own choices are among them: each judge leaves those of the asked user out.
    assert {row.user_id for row in by_user.crowd} == {"u0", "u1", "u2", "u3"}
    assert len(by_user.crowd) == 4 * 40
    by_prompt = read_source(f"{name}-prompts:{file}", split="test", history=3, seed=0)
    held = {question.query for question in by_prompt.questions}
    assert held
    assert not held & {row.pair.query for row in by_prompt.training}
    assert held < {row.pair.query for row in by_prompt.crowd}
    # Nothing of such a set is there to train a model on.
    assert not [row for row in load_rows(f"{name}:{file}") if row.split == "train"]


def test_what_follows_a_first_message_is_held_out_with_it(tmp_path: Path) -> None:
    records = [
        {"user_id": f"u{user}", "query": query, "chosen": f"a {query}", "rejected": f"b {query}"}
        for user in range(4)
        for number in range(40)
        for query in (
            f"Question {number}?",
            f"First message: Question {number}?\n\nSecond message, after a first answer: Why?",
        )
    ]
    rows = load_rows(f"mtbench-prompts:{write(tmp_path / 'mtbench.jsonl', records)}")

    def first(split: str) -> set[str]:
        return {q.removeprefix("First message: ").partition("?")[0] for q in queries(rows, split)}

    assert first("test")
    assert first("history")
    assert not first("test") & first("history")


def test_both_sides_of_a_debate_are_held_out_together(tmp_path: Path) -> None:
    records = [
        {**row, "query": f"{row['query']} {side}", "topic": f"{row['query']}_{side}"}
        for row in votes(30)
        for side in ("yes", "no")
    ]
    file = write(tmp_path / "arguments.jsonl", records)
    rows = load_rows(f"arguments-prompts:{file}")

    def split(source: str) -> list[tuple[str, str, str, str]]:
        read = load_rows(source)
        return [(row.split, row.user_id, row.pair.query, row.pair.chosen) for row in read]

    assert split(f"arguments-prompts:{file}") == split(f"people-topics:{file}")
    assert not {q.rpartition(" ")[0] for q in queries(rows, "test")} & {
        q.rpartition(" ")[0] for q in queries(rows, "train")
    }


def test_demographics_are_told_from_what_people_wrote(tmp_path: Path) -> None:
    said = ["Age: 30-39.", 'Asked "Why?", this person wrote: "Age: it matters"', "Gender: Female."]
    records = [{**row, "stated": said} for row in votes(2, users=1)]
    row = load_rows(f"polarized:{write(tmp_path / 'polarized.jsonl', records)}")[0]
    assert [wish.kind for wish in row.stated] == [
        "demographics",
        "self_description",
        "demographics",
    ]
    assert [wish.text for wish in row.stated] == said


@pytest.mark.long
def test_every_set_of_real_people_is_read(responses: Path) -> None:
    folder = responses.parent / "people"
    needs(folder.is_dir(), f"needs {folder}, beside the real answers")
    for name in PEOPLE_SETS:
        for source in (name, f"{name}-prompts"):
            asked = read_source(
                f"{source}:{folder}/{name}.jsonl.gz", split="test", history=3, seed=0
            )
            assert len(asked.questions) > 60, source
            assert asked.training, source
            assert asked.crowd, source


def test_real_people_are_read(responses: Path) -> None:
    people = responses.parent / "people" / "arguments.jsonl.gz"
    needs(people.is_file(), f"needs {people}, beside the real answers")
    rows = load_rows(f"people:{people}")
    assert len(rows) == 11_353
    assert len({row.user_id for row in rows}) == 344
    assert any(row.reason for row in rows)
    asked = list(examples(rows, split="test", history=3, seed=0))
    assert asked
    assert all(example.history for example in asked)
    topics = load_rows(f"people-topics:{people}")
    assert list(examples(topics, split="test", history=3, seed=0))
    assert list(examples(topics, split="train", history=3, seed=0))
