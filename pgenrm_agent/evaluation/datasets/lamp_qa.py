"""LaMP-QA: what users wrote before, their questions, and several systems' graded answers."""

from __future__ import annotations

import random
from pathlib import Path

from pydantic import Field

from pgenrm_agent.evaluation.datasets.jsonl import read_models, read_records
from pgenrm_agent.evaluation.datasets.parsing import naming, required, required_text, texts
from pgenrm_agent.evaluation.questions import Question, check_questions
from pgenrm_agent.fields import Identifier, Model, NonBlank
from pgenrm_agent.sampling import derive_seed
from pgenrm_agent.schema import Candidate, StatedPreference


class RankedQuestion(Model):
    """A LaMP-QA question: what the user wrote before, and the aspects an answer should cover."""

    id: Identifier
    query: str
    posts: tuple[str, ...]
    aspects: tuple[str, ...] = ()


class _Graded(Model):
    """A system's answer to a question."""

    id: str
    system: str
    text: NonBlank
    grade: float = Field(ge=0, allow_inf_nan=False)


def read_lamp_qa(path: Path) -> list[RankedQuestion]:
    """Read a JSON, JSONL or parquet file of `id`, `question`, `profile` and `rubric_aspects`.

    Raises ConfigurationError, as `load_rows`.
    """
    questions = []
    for where, record in read_records(path):
        with naming(where):
            questions.append(
                RankedQuestion(
                    id=str(required(record, "id", where)),
                    query=required_text(record, "question", where),
                    posts=tuple(texts(record, "profile", "text", where)),
                    aspects=tuple(texts(record, "rubric_aspects", "aspect", where)),
                )
            )
    return questions


def lamp_questions(questions: Path, answers: Path, *, posts: int, seed: int) -> list[Question]:
    """Read LaMP-QA's protocol: several systems' answers to each question, graded by its aspect rubric.

    questions: a file that `read_lamp_qa` reads. answers: JSONL of {"id": the question's, "system",
        "text", "grade"}; a higher grade is better. Questions without answers are left out.
    posts: how many of the user's own posts, drawn by `seed`, are shown. They are no choices
        between answers, so they are shown as what the user said.

    Raises ConfigurationError that names file, line and field.
    """
    given = _answers_by_question(answers)
    asked = []
    for question in read_lamp_qa(questions):
        graded = given.get(question.id, {})
        if len({answer.grade for answer in graded.values()}) < 2:
            continue  # nothing to predict
        rng = random.Random(derive_seed(seed, "posts", question.id))
        shown = rng.sample(question.posts, min(posts, len(question.posts)))
        asked.append(
            Question(
                id=question.id,
                user_id=question.id,  # every question of LaMP-QA is another user's
                query=question.query,
                candidates=tuple(
                    Candidate(id=name, text=answer.text) for name, answer in graded.items()
                ),
                grades=tuple(answer.grade for answer in graded.values()),
                stated=tuple(
                    StatedPreference(kind="self_description", text=post)
                    for post in shown
                    if post.strip()
                ),
            )
        )
    check_questions(asked, source=f"{questions} with {answers}")
    return asked


def _answers_by_question(path: Path) -> dict[str, dict[str, _Graded]]:
    """Read answers by question and system, systems in the order of their names."""
    answers: dict[str, dict[str, _Graded]] = {}
    for answer in read_models(path, _Graded):
        answers.setdefault(answer.id, {})[answer.system] = answer
    return {question: dict(sorted(systems.items())) for question, systems in answers.items()}
