"""Questions for the evaluation harness, from every dataset that the readers know."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from pydantic import Field, ValidationError

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.questions import Question, check_questions, read_questions
from pgenrm_agent.sampling import derive_seed
from pgenrm_agent.schema import Candidate, Model, NonBlank, PreferencePair, StatedPreference

if TYPE_CHECKING:
    from pgenrm_agent.evaluation.datasets.readers import Example, PreferenceRow, Split

__all__ = ["QuestionSet", "lamp_questions", "question_of", "read_source"]


@dataclass(frozen=True)
class QuestionSet:
    """What is asked, and choices that judges may be fitted on; none of them is asked about."""

    questions: list[Question]
    training: list[PreferencePair]


def read_source(
    source: str, *, split: str, history: int, seed: int, limit: int | None = None
) -> QuestionSet:
    """Questions of one split of a dataset.

    source: anything `load_rows` reads; or a JSONL file of `Question`s (lists of any length with
        grades), which brings its own histories; or `lamp-qa:QUESTIONS:ANSWERS`, see `lamp_questions`.
    history: past choices shown with each question, from the same person's past.
    limit: at most this many, people in turn, so that few questions are still many people's.

    Raises ConfigurationError for data that cannot be read, and for a split without questions.
    """
    if source.startswith("lamp-qa:"):
        asked_of, _, answers = source.removeprefix("lamp-qa:").rpartition(":")
        found = lamp_questions(Path(asked_of), Path(answers), posts=history, seed=seed)
        return QuestionSet(questions=found[:limit], training=[])
    if _holds_questions(Path(source)):
        found = read_questions(Path(source))
        return QuestionSet(questions=found[:limit], training=[])
    from pgenrm_agent.evaluation.datasets.readers import Split as Splits
    from pgenrm_agent.evaluation.datasets.readers import examples, load_rows

    splits = get_args(Splits)
    if split not in splits:
        raise ConfigurationError(f"split {split!r} is unknown: use {', '.join(splits)}")
    rows = load_rows(source)
    asked = list(examples(rows, split=cast("Split", split), history=history, seed=seed))
    if not asked:
        known = sorted({row.split for row in rows})
        raise ConfigurationError(
            f"{source} has no questions in the split {split!r}; its rows are in: {', '.join(known)}"
        )
    return QuestionSet(
        questions=[
            question_of(example, number)
            for number, example in enumerate(_people_in_turn(asked)[:limit])
        ],
        training=_training_choices(rows),
    )


def question_of(example: Example, number: int) -> Question:
    """One example as a question; `number` makes its id unique and keeps it the same every time.

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


def lamp_questions(questions: Path, answers: Path, *, posts: int, seed: int) -> list[Question]:
    """LaMP-QA's protocol: several systems' answers to each question, graded by its aspect rubric.

    questions: a file that `read_lamp_qa` reads. answers: JSONL of {"id": the question's, "system",
        "text", "grade"}; a higher grade is better. Questions without answers are left out.
    posts: how many of the person's own posts, drawn by `seed`, are shown. They are no choices
        between answers, so they are shown as what the person said.

    Raises ConfigurationError that names file, line and field.
    """
    from pgenrm_agent.evaluation.datasets.readers import read_lamp_qa

    given = _answers_by_question(answers)
    found = []
    for asked in read_lamp_qa(questions):
        graded = given.get(asked.id, {})
        if len({one.grade for one in graded.values()}) < 2:
            continue  # nothing to predict
        rng = random.Random(derive_seed(seed, "posts", asked.id))
        shown = rng.sample(asked.posts, min(posts, len(asked.posts)))
        found.append(
            Question(
                id=asked.id,
                user_id=asked.id,  # every question of LaMP-QA is another person's
                query=asked.query,
                candidates=tuple(Candidate(id=name, text=one.text) for name, one in graded.items()),
                grades=tuple(one.grade for one in graded.values()),
                stated=tuple(
                    StatedPreference(kind="self_description", text=post)
                    for post in shown
                    if post.strip()
                ),
            )
        )
    check_questions(found, source=f"{questions} with {answers}")
    return found


class _Graded(Model):
    """One system's answer to one question."""

    id: str
    system: str
    text: NonBlank
    grade: float = Field(ge=0, allow_inf_nan=False)


def _answers_by_question(path: Path) -> dict[str, dict[str, _Graded]]:
    """By question and system, systems in the order of their names."""
    found: dict[str, dict[str, _Graded]] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read as text: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _Graded.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "the line"
            raise ConfigurationError(f"{path}, line {number}: {field}: {first['msg']}") from None
        found.setdefault(row.id, {})[row.system] = row
    return {one: dict(sorted(systems.items())) for one, systems in found.items()}


def _training_choices(rows: Iterable[PreferenceRow]) -> list[PreferencePair]:
    """The choices that a judge may be fitted on: of the training people; else everybody's past."""
    every = list(rows)
    found = [row.pair for row in every if row.split == "train"]
    return found or [row.pair for row in every if row.split == "history"]


def _people_in_turn(asked: Sequence[Example]) -> list[Example]:
    """Everybody's first example, then everybody's second one, and so on."""
    turn: dict[str, int] = {}
    places = []
    for place, example in enumerate(asked):
        turn[example.user_id] = turn.get(example.user_id, -1) + 1
        places.append((turn[example.user_id], place))
    return [asked[place] for _, place in sorted(places)]


def _holds_questions(path: Path) -> bool:
    """Whether a file's first line is a `Question` rather than a choice."""
    if path.suffix != ".jsonl" or not path.is_file():
        return False
    with path.open(encoding="utf-8") as lines:
        first = next((line for line in lines if line.strip()), "")
    try:
        row = json.loads(first)
    except ValueError:
        return False
    return isinstance(row, dict) and "candidates" in row
