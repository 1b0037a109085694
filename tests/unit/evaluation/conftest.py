"""Questions whose right answers a scripted judge can see in the text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pgenrm_agent.evaluation.questions import Question
from pgenrm_agent.schema import Candidate, PreferencePair

MakeQuestions = Callable[..., list[Question]]


def make_questions(count: int = 4, *, users: int = 2, group: bool = False) -> list[Question]:
    """The better answer of each contains "good"; it stands first in every other question."""
    questions = []
    for number in range(count):
        better = Candidate(id="chosen", text=f"A good answer to question {number}.")
        worse = Candidate(id="rejected", text=f"A bad answer to question {number}.")
        pair, grades = ((better, worse), (1.0, 0.0))
        if number % 2:
            pair, grades = ((worse, better), (0.0, 1.0))
        user = number % users
        questions.append(
            Question(
                id=f"q{number}",
                user_id=f"user-{user}",
                query=f"Question {number}?",
                candidates=pair,
                grades=grades,
                history=(
                    PreferencePair(
                        query=f"Earlier question of {user}?", chosen="Good.", rejected="Bad."
                    ),
                ),
                group=f"group-{user}" if group else None,
            )
        )
    return questions


@pytest.fixture
def questions() -> list[Question]:
    return make_questions()
