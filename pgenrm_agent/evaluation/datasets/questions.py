"""Questions for the evaluation, from every dataset that `sources` and `lamp_qa` know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar, cast, get_args

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.jsonl import read_jsonl
from pgenrm_agent.evaluation.datasets.lamp_qa import lamp_questions
from pgenrm_agent.evaluation.datasets.obvious import ObviousCase, read_obvious
from pgenrm_agent.evaluation.datasets.people import ask_everyone
from pgenrm_agent.evaluation.datasets.rows import Example, PreferenceRow, Split, examples
from pgenrm_agent.evaluation.datasets.sources import load_rows, plain_file, says_splits
from pgenrm_agent.evaluation.questions import FEWEST_USERS, Question, read_questions
from pgenrm_agent.schema import Candidate
from pgenrm_agent.wording import counted

Asked = TypeVar("Asked", Example, Question)

LAMP_QA = "lamp-qa:QUESTIONS:ANSWERS"
ONLY_QUESTIONS = (LAMP_QA, "obvious")
"""Sources of questions that hold no choices, and that `load_rows` does not know."""


@dataclass(frozen=True)
class QuestionSet:
    """What is asked, and other people's choices; a judge leaves out what the asked user chose.

    training: choices that judges may be fitted on. crowd: what others chose on the texts that are
        asked about; where prompts are held out it has choices on them that `training` lacks.
    obvious: the cases behind the questions, where the source is `obvious`.
    told: who is asked about, and what is shown of them, in a sentence; where that was guessed, how.
    """

    questions: list[Question]
    training: list[PreferenceRow] = field(default_factory=list)
    crowd: list[PreferenceRow] = field(default_factory=list)
    obvious: tuple[ObviousCase, ...] = ()
    told: str = ""


def read_source(
    source: str, *, split: str, history: int, seed: int, limit: int | None = None
) -> QuestionSet:
    """Read the questions of one split of a dataset.

    source: anything `load_rows` reads; or a JSONL file of `Question`s (lists of any length with
        grades), which brings its own histories. A file of choices without splits is divided by user;
        where that leaves too few to ask about, all of its users are asked about; or
        `lamp-qa:QUESTIONS:ANSWERS`, see `lamp_questions`; or `obvious`, `obvious:PART`, see `read_obvious`.
    history: past choices shown with each question, from the same user's past.
    limit: at most this many, users in turn, so that few questions are still many users'.

    Raises ConfigurationError for data that cannot be read, and for a split without questions.
    """
    if source.startswith("lamp-qa:"):
        asked_of, _, answers = source.removeprefix("lamp-qa:").rpartition(":")
        if not (asked_of and answers):
            raise ConfigurationError(f"data source {source!r} needs two files: use {LAMP_QA}")
        ranked = lamp_questions(Path(asked_of), Path(answers), posts=history, seed=seed)
        return QuestionSet(questions=ranked[:limit])
    kind, _, part = source.partition(":")
    if kind == "obvious":
        cases = tuple(read_obvious(part)[:limit])
        return QuestionSet(questions=[case.question for case in cases], obvious=cases)
    if _holds_questions(Path(source)):
        return QuestionSet(questions=_users_in_turn(read_questions(Path(source)))[:limit])
    plain_file(source, also=ONLY_QUESTIONS)
    splits = [name for name in get_args(Split) if name != "crowd"]
    if split not in splits:
        raise ConfigurationError(f"split {split!r} is unknown: use {', '.join(splits)}")
    rows, guess = _rows(source)
    asked = list(examples(rows, split=cast(Split, split), history=history, seed=seed))
    if not asked:
        known = sorted({row.split for row in rows})
        if not known:
            raise ConfigurationError(f"{source} is empty: a choice a line is needed")
        raise ConfigurationError(
            f"{source} has no questions in the split {split!r}; its rows are in: {', '.join(known)}"
        )
    return QuestionSet(
        questions=[
            question_of(example, number)
            for number, example in enumerate(_users_in_turn(asked)[:limit])
        ],
        training=_training_choices(rows),
        crowd=_crowd(rows),
        told=_told(rows, asked, split, guess),
    )


def _rows(source: str) -> tuple[list[PreferenceRow], str]:
    """Return the rows of a source, and how it was guessed who is asked about; "" where it says so."""
    rows = load_rows(source)
    path = plain_file(source)
    if path is None or says_splits(record for _, record in read_jsonl(path)):
        return rows, ""
    asked = {row.user_id for row in rows if row.split == "test"}
    if len(asked) >= FEWEST_USERS:
        return rows, "it names no splits, so users are divided by a hash of their ids"
    return ask_everyone(rows), (
        "it names no splits and has few users, so all of them are asked about: do not train on it"
    )


def _told(rows: Sequence[PreferenceRow], asked: Sequence[Example], split: str, guess: str) -> str:
    every, users = {row.user_id for row in rows}, {example.user_id for example in asked}
    past = sum(row.split in ("train", "history") and row.user_id in users for row in rows)
    return (
        f"{counted(len(rows), 'choice')} of {counted(len(every), 'user')}"
        f"{f'; {guess}' if guess else ''}. Asked about: {counted(len(asked), 'choice')} of"
        f" {counted(len(users), 'user')}, in the split {split}; their past: {counted(past, 'choice')}."
    )


def question_of(example: Example, number: int) -> Question:
    """Return an example as a question; `number` makes its id unique and keeps it the same every time.

    The answer that was chosen is listed first. Judges draw the order in which they show answers.
    """
    asked = example.asked
    return Question(
        id=f"{number:06d}",
        user_id=example.user_id,
        query=asked.query,
        conversation=asked.conversation,
        candidates=(
            Candidate(id="chosen", text=asked.chosen),
            Candidate(id="rejected", text=asked.rejected),
        ),
        grades=(1.0, 0.0),
        history=tuple(example.history),
        stated=tuple(example.stated),
        group=example.topic,
    )


def _training_choices(rows: Sequence[PreferenceRow]) -> list[PreferenceRow]:
    """Return what a judge may be fitted on: choices of training users.

    Without any, as where few people are held out in turn, everybody's choices on queries on which
    somebody's past is known: a prompt that is held out is nobody's past.
    """
    trained = [row for row in rows if row.split == "train"]
    met = {row.pair.query for row in rows if row.split == "history"}
    return trained or [row for row in rows if row.pair.query in met]


def _crowd(rows: Sequence[PreferenceRow]) -> list[PreferenceRow]:
    """Return what training users chose on any prompt; without any training user, what everybody did."""
    of_training_users = [row for row in rows if row.split in ("train", "crowd")]
    return of_training_users or list(rows)


def _users_in_turn(asked: Sequence[Asked]) -> list[Asked]:
    """Return everybody's first one, then everybody's second one, and so on."""
    turn: dict[str, int] = {}
    places = []
    for place, example in enumerate(asked):
        turn[example.user_id] = turn.get(example.user_id, -1) + 1
        places.append((turn[example.user_id], place))
    return [asked[place] for _, place in sorted(places)]


def _holds_questions(path: Path) -> bool:
    """Return whether a file's first line is a `Question` rather than a choice."""
    if not path.name.endswith((".jsonl", ".jsonl.gz")) or not path.is_file():
        return False
    return any("candidates" in record for _, record in islice(read_jsonl(path), 1))
