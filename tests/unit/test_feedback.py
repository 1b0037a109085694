"""A thumb up or down, as choices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Message, Scaling
from pgenrm_agent.testing import ScriptedEngine, write_chain

MARKS = [5, 9, 2, 7, 4]
ANSWERS = ["fair", "good", "poor", "fine", "so-so"]


@pytest.fixture
def rm(tmp_path: Path) -> Iterator[PGenRM]:
    scaling = Scaling(individual=1, prototype=0, resamples=0, seed=1)

    def judge(prompt: Prompt, _: int = 0) -> str:
        lines = [line.strip() for line in prompt.messages[-1].content.splitlines()]
        return write_chain([MARKS[ANSWERS.index(line)] for line in lines if line in ANSWERS])

    engine = ScriptedEngine(judge)
    with PGenRM(engine=engine, memory=tmp_path, scaling=scaling) as reward_model:
        yield reward_model


def told(rm: PGenRM) -> set[tuple[str, str]]:
    return {(pair.chosen, pair.rejected) for pair in rm.memory.history("ada")}


def test_a_thumb_is_choices_between_the_answer_and_the_best_others(rm: PGenRM) -> None:
    turn = Message(role="user", content="Hello.")
    evaluation = rm.score("ada", "How?", ANSWERS, conversation=(turn,))
    assert evaluation.ranking[:2] == ("answer-2", "answer-4")
    ids = rm.remember_feedback(evaluation, "answer-5", True)
    assert told(rm) == {("so-so", "good"), ("so-so", "fine"), ("so-so", "fair")}
    for pair in rm.memory.history("ada"):
        assert (pair.query, pair.conversation) == ("How?", (turn,))
    # Again changes nothing; the other thumb takes its place; and back.
    assert rm.remember_feedback(evaluation, "answer-5", True) == ids
    assert len(told(rm)) == 3
    assert rm.remember_feedback(evaluation, "answer-5", False) == ids
    assert told(rm) == {("good", "so-so"), ("fine", "so-so"), ("fair", "so-so")}
    rm.remember_feedback(evaluation, "answer-5", True)
    assert ("so-so", "good") in told(rm)
    assert len(rm.memory.recall("ada").history) == 3


async def test_a_thumb_that_says_nothing_is_refused(rm: PGenRM) -> None:
    alone = await rm.ascore("ada", "How?", ["good"])
    same = await rm.ascore("ada", "How?", ["good", " good"])
    for evaluation in (alone, same):
        with pytest.raises(ConfigurationError, match="another answer to compare with"):
            await rm.aremember_feedback(evaluation, "answer-1", True)
    evaluation = await rm.ascore("ada", "How?", ["good", "poor"])
    with pytest.raises(ConfigurationError, match="no candidate has the id"):
        await rm.aremember_feedback(evaluation, "answer-9", True)
    with pytest.raises(ConfigurationError, match="liked is"):
        await rm.aremember_feedback(evaluation, "answer-1", "yes")  # type: ignore[arg-type]
    assert rm.memory.history("ada") == ()
