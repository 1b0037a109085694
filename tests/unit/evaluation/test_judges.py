"""What each judge shows the model, and what it reads from the answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.errors import ChainError
from pgenrm_agent.evaluation.judges import (
    ChainJudge,
    PromptJudge,
    ShownLess,
    StaticPersonaJudge,
    read_scores,
)
from pgenrm_agent.evaluation.questions import Question
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import PreferencePair, Scaling, StatedPreference
from pgenrm_agent.testing import ScriptedEngine, write_chain


def shown_answers(prompt: Prompt) -> list[str]:
    return re.findall(r"Response \d+\]\n(.*)\n\[The End of R", prompt.messages[1].content)


def prefer_good(prompt: Prompt, sample: int) -> str:
    """Scores of an ideal judge."""
    scores = [8 if "good" in answer else 3 for answer in shown_answers(prompt)]
    return f'{{"response_1": {scores[0]}, "response_2": {scores[1]}}}'


TOTALS_ONLY = re.sub(r'"rationale": "[^"]*"', '"rationale": "As it is."', write_chain([8, 3]))


def chain_that_prefers_good(prompt: Prompt, sample: int) -> str:
    return write_chain([8 if "good" in answer else 3 for answer in shown_answers(prompt)])


async def test_a_judge_scores_candidates_whatever_order_they_are_shown_in(
    questions: list[Question],
) -> None:
    judge = PromptJudge("judge", ScriptedEngine(prefer_good), samples=4)
    for question in questions:
        verdict = await judge.judge(question, seed=5, run_seed=1)
        wanted = tuple(8.0 if grade else 3.0 for grade in question.grades)
        assert verdict.scores == wanted
        assert sorted(verdict.orders) == [(0, 1), (0, 1), (1, 0), (1, 0)]
        assert set(verdict.totals) == {wanted}


async def test_judges_differ_in_what_they_show(questions: list[Question]) -> None:
    known = questions[0].model_copy(update={"stated": (StatedPreference(text="Short, please."),)})
    for judge, history, stated in (
        (PromptJudge("judge", plain := ScriptedEngine(prefer_good)), False, False),
        (
            PromptJudge("history", with_history := ScriptedEngine(prefer_good), history=3),
            True,
            False,
        ),
        (
            PromptJudge("stated", with_stated := ScriptedEngine(prefer_good), stated=True),
            False,
            True,
        ),
    ):
        await judge.judge(known, seed=1, run_seed=1)
        engine = {"judge": plain, "history": with_history, "stated": with_stated}[judge.name]
        system = engine.calls[0][0][0].messages[0].content
        assert ("Earlier question of 0?" in system) is history
        assert ("Short, please." in system) is stated
        assert '{"response_1": 4, "response_2": 8}' in system


async def test_answers_that_cannot_be_read_are_failures_and_no_score(
    questions: list[Question],
) -> None:
    verdict = await PromptJudge("judge", ScriptedEngine("Both are nice."), samples=3).judge(
        questions[0], seed=1, run_seed=1
    )
    assert verdict.scores == (None, None)
    assert verdict.failures == {"no_scores": 3}
    assert verdict.reason is not None


@pytest.mark.parametrize(("reply", "unchecked"), [(TOTALS_ONLY, 4), (write_chain([8, 3]), 0)])
async def test_chains_without_marks_are_counted_as_unchecked(
    questions: list[Question], reply: str, unchecked: int
) -> None:
    async with PGenRM(engine=ScriptedEngine(reply), chain_format="published") as model:
        judge = ChainJudge("p-genrm", model, Scaling(individual=4, prototype=0))
        verdict = await judge.judge(questions[0], seed=1, run_seed=1)
    assert len(verdict.totals) == 4
    assert verdict.unchecked == unchecked


async def test_chains_whose_marks_and_totals_disagree_are_counted_as_contradictory(
    questions: list[Question],
) -> None:
    swapped = {"8.0": "3.0", "3.0": "8.0"}
    reply = re.sub(r"[83]\.0", lambda match: swapped[match[0]], write_chain([8, 3]))
    async with PGenRM(engine=ScriptedEngine(reply), chain_format="published") as model:
        judge = ChainJudge("p-genrm", model, Scaling(individual=2, prototype=0))
        verdict = await judge.judge(questions[0], seed=1, run_seed=1)
    assert verdict.scores == (None, None)
    assert set(verdict.failures) == {"contradictory"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no_scores"),
        ('{"response_1": 4}', "missing_candidates"),
        ('{"response_1": 4, "response_2": 11}', "score_refused"),
        ('{"response_1": 4, "response_2": 0}', "score_refused"),
        ('{"response_1": 4, "response_2": 80%}', "missing_candidates"),
        ('{"response_1": 4, "response_2": "7 to 9"}', "missing_candidates"),
        ('{"response_1": 0.4, "response_2": 0.8}', "score_refused"),
        ('<think>Perhaps {"response_1": 4, "response_2": 8}', "unfinished_reasoning"),
        ('<think>Perhaps {"response_1": 4, "response_2": 8}</think>', "no_scores"),
    ],
)
def test_an_answer_without_a_score_for_everyone_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ChainError) as caught:
        read_scores(text, 2)
    assert caught.value.reason == reason


def test_the_last_object_of_an_answer_counts() -> None:
    text = 'As in {"response_1": 1, "response_2": 1}, so: {"response_1": 7.5, "response_2": "3"}.'
    assert read_scores(text, 2) == (7.5, 3.0)


@pytest.mark.parametrize(
    "text",
    [
        '{"response_1": "7,5", "response_2": "3/10"}',
        '{"response_1": 7,5, "response_2": 3}',
        '{"response_1": "75/100", "response_2": {"score": 3}}',
        '{"scores": {"response_1": 7.5, "response_2": 3}}',
        '{"response_1": 7.5, "response_2": 3} {"why": "{it is plain}"}',
        '{"antwort_1": 7.5, "antwort_2": 3}',
    ],
)
def test_a_judges_numbers_are_read_as_a_chains_are(text: str) -> None:
    assert read_scores(text, 2) == (7.5, 3.0)


def test_scores_tried_out_while_thinking_do_not_count() -> None:
    text = 'First {"response_1": 9, "response_2": 1}.\n</think>\n{"response_1": 2, "response_2": 8}'
    assert read_scores(text, 2) == (2.0, 8.0)


async def test_a_judge_shows_no_thoughts_as_a_persona(questions: list[Question]) -> None:
    def judge_with(persona: str) -> tuple[StaticPersonaJudge, ScriptedEngine]:
        engine = ScriptedEngine(
            lambda prompt, sample: (
                persona
                if "Who is this person" in prompt.messages[1].content
                else prefer_good(prompt, sample)
            )
        )
        return StaticPersonaJudge("static-persona", engine, questions), engine

    judge, engine = judge_with("<think>Somebody rude?</think>\nSomeone who likes good answers.")
    assert (await judge.judge(questions[0], seed=1, run_seed=1)).reason is None
    system = engine.calls[-1][0][0].messages[0].content
    assert "Someone who likes good answers." in system
    assert "rude" not in system
    judge, engine = judge_with("<think>Somebody rude?")
    verdict = await judge.judge(questions[0], seed=1, run_seed=1)
    assert verdict.scores == (None, None)
    assert verdict.failures == {"unfinished_reasoning": 1}
    assert len(engine.calls) == 1


async def test_the_persona_is_written_once_a_user_and_run(questions: list[Question]) -> None:
    def reply(prompt: Prompt, sample: int) -> str:
        if "Who is this person" in prompt.messages[1].content:
            return "Someone who likes good answers."
        return prefer_good(prompt, sample)

    engine = ScriptedEngine(reply)
    judge = StaticPersonaJudge("static-persona", engine, questions)
    verdicts = [
        await judge.judge(question, seed=1, run_seed=run)
        for run in (1, 2)
        for question in questions
    ]
    asked = [prompt.messages for prompts, _ in engine.calls for prompt in prompts]
    personas = [messages for messages in asked if "Who is this person" in messages[1].content]
    assert len(personas) == 4  # two users, two runs
    judging = [messages for messages in asked if messages not in personas]
    assert all("Someone who likes good answers." in messages[0].content for messages in judging)
    # Tokens of the persona are counted with the user's first question, and nowhere else.
    assert verdicts[0].completion_tokens > verdicts[2].completion_tokens


async def test_chains_become_a_verdict(questions: list[Question], tmp_path: Path) -> None:
    engine = ScriptedEngine(chain_that_prefers_good)
    async with PGenRM(engine=engine, memory=tmp_path) as model:
        scaling = Scaling(individual=4, prototype=0)
        judge = ChainJudge("p-genrm", model, scaling)
        verdict = await judge.judge(questions[1], seed=3, run_seed=1)
        blind = ChainJudge("blind", model, scaling, history=False)
        await blind.judge(questions[1], seed=3, run_seed=1)
    assert verdict.scores == (3.0, 8.0)
    assert len(verdict.totals) == 4
    worse, better = verdict.probability_best
    assert worse is not None
    assert better == pytest.approx(1.0 - worse)
    assert better > 0.9
    assert (verdict.slips, verdict.compared) == (0, 8)
    seen = [
        "Earlier question of 1?" in prompts[0].messages[0].content for prompts, _ in engine.calls
    ]
    assert seen == [True, False]


async def test_a_models_arithmetic_slips_are_counted(
    questions: list[Question], tmp_path: Path
) -> None:
    wrong = write_chain([8, 3]).replace('"response_1": 8.0', '"response_1": 7.0')
    async with PGenRM(engine=ScriptedEngine(wrong), memory=tmp_path) as model:
        judge = ChainJudge("p-genrm", model, Scaling(individual=4, prototype=0))
        verdict = await judge.judge(questions[0], seed=3, run_seed=1)
    assert (verdict.slips, verdict.compared) == (4, 8)


async def test_no_readable_chain_is_not_scored(questions: list[Question], tmp_path: Path) -> None:
    async with PGenRM(engine=ScriptedEngine("no chain"), memory=tmp_path) as model:
        judge = ChainJudge("p-genrm", model, Scaling(individual=2, prototype=0))
        verdict = await judge.judge(questions[0], seed=3, run_seed=1)
    assert verdict.scores == (None, None)
    # Two samples, and two more in each of the two rounds that follow.
    assert verdict.failures == {"no_scores": 6}


async def test_a_judge_can_be_shown_fewer_past_choices_and_nothing_stated(
    questions: list[Question],
) -> None:
    engine = ScriptedEngine(prefer_good)
    judge = PromptJudge("judge", engine, history=9, stated=True)
    past = [PreferencePair(query="?", chosen=f"Liked {n}.", rejected=f"Not {n}.") for n in range(4)]
    question = questions[0].model_copy(
        update={"history": tuple(past), "stated": (StatedPreference(text="Be brief."),)}
    )
    for past_shown, stated in ((4, True), (2, True), (0, False)):
        less = ShownLess("less", judge, past=past_shown, stated=stated)
        await less.judge(question, seed=1, run_seed=1)
        prompt = "\n".join(message.content for message in engine.calls[-1][0][0].messages)
        assert [f"Liked {n}." in prompt for n in range(4)] == [n < past_shown for n in range(4)]
        assert ("Be brief." in prompt) == stated
        assert less.settings == {**judge.settings, "past": past_shown, "stated": stated}
