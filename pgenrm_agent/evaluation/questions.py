"""What an evaluation asks: candidates for one user, and how good each really was."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.jsonl import read_models
from pgenrm_agent.fields import Identifier, Model, NonBlank, UserId
from pgenrm_agent.schema import Candidate, Message, PreferencePair, StatedPreference

FEWEST_USERS = 6
"""With fewer users nothing is said of chance: even if a judge were right about all of five, a coin is
that good with one in 16 sets of five, and 5 % is what is allowed for (a sign test, both sides)."""


class Question(Model):
    """One request whose outcome is known.

    id: unique in a set of questions.
    grades: how good each candidate was for this user, higher is better, at least 0, aligned with
        `candidates`; a choice between two answers has grades 1 and 0. Not all are equal.
    history, stated: what a judge may know of the user.
    group: for a mean over groups, such as the user's prototype or the topic.
    """

    id: Identifier
    user_id: UserId
    query: NonBlank
    conversation: tuple[Message, ...] = ()
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=2)]
    grades: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...]
    history: tuple[PreferencePair, ...] = ()
    stated: tuple[StatedPreference, ...] = ()
    group: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.grades) != len(self.candidates):
            raise ValueError(f"{len(self.grades)} grades for {len(self.candidates)} candidates")
        if len(set(self.grades)) < 2:
            raise ValueError("all grades are equal, so nothing can be predicted")
        if len({candidate.id for candidate in self.candidates}) < len(self.candidates):
            raise ValueError("candidate ids must be unique")
        return self


def read_questions(path: Path) -> list[Question]:
    """Read questions from a JSONL file, a `Question` in each line.

    Raises ConfigurationError that names the file, the line and the field.
    """
    questions = read_models(path, Question)
    check_questions(questions, source=str(path))
    return questions


def check_questions(questions: Sequence[Question], *, source: str) -> None:
    """Refuse a set without questions, or with an id twice: records are kept by id."""
    if not questions:
        raise ConfigurationError(f"{source} holds no questions: nothing can be evaluated")
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise ConfigurationError(f"{source}: the question id {question.id!r} appears twice")
        seen.add(question.id)


def fingerprint(questions: Sequence[Question]) -> str:
    """Return a hash of what is asked; ids and times of past choices do not count."""
    digest = hashlib.blake2b(digest_size=16)
    for question in questions:
        content = question.model_dump_json(exclude={"history": {"__all__": {"id", "created_at"}}})
        digest.update(content.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
