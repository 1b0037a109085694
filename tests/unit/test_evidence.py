"""What an evaluation rests on, and what it warns of."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.evidence import evidence_line, evidence_of
from pgenrm_agent.fields import MAX_CANDIDATES, MAX_TEXT
from pgenrm_agent.integrations.server.rerank import RerankBody
from pgenrm_agent.integrations.server.schemas import (
    PreferenceBody,
    ScoreBody,
    StatementBody,
)
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import (
    Candidate,
    EvaluationRequest,
    Evidence,
    Message,
    PreferencePair,
    Scaling,
    StatedPreference,
    UserSignals,
)
from pgenrm_agent.testing import ScriptedEngine, write_chain

COMPACT, PUBLISHED = ChainFormat.load("compact-2"), ChainFormat.load("published")
PAIR = PreferencePair(query="Tea or coffee?", chosen="Tea, plainly.", rejected="It depends a lot.")
NOTED = """## Notes
### Persona
They want short answers.
### Criteria
1. Brevity (3): You can see it in choice 1: the chosen answer was shorter.
### Marks
""" + "\n".join(f"Response {number}: Brevity {number}." for number in range(1, 5))
QUERY = "How do I cook the rice?"
ANSWERS = ("Simmer it for twelve minutes.", "It is such a joy to cook it!")


def evidence(
    *,
    query: str = QUERY,
    answers: tuple[str, ...] = ANSWERS,
    history: tuple[PreferencePair, ...] = (PAIR,),
    stated: tuple[StatedPreference, ...] = (),
    known: int | None = None,
    conversation: tuple[Message, ...] = (),
    chain_format: ChainFormat = COMPACT,
    asked_for: int = 3,
    neighbors: int = 0,
    copies: int = 0,
) -> Evidence:
    candidates = tuple(Candidate(id=f"a{i}", text=text) for i, text in enumerate(answers, start=1))
    return evidence_of(
        EvaluationRequest(
            user_id="ada", query=query, candidates=candidates, conversation=conversation
        ),
        UserSignals(user_id="ada", history=history, stated=stated, choices_known=known),
        chain_format,
        neighbors=neighbors,
        asked_for=asked_for,
        copies=copies,
    )


def test_what_is_as_it_should_be_has_no_warning() -> None:
    told = evidence(known=14, stated=(StatedPreference(text="Be brief."),), neighbors=4)
    assert (told.choices, told.choices_known, told.statements, told.neighbors) == (1, 14, 1, 4)
    assert told.query_writing.language == "English"
    assert told.clipped == told.warnings == ()
    assert evidence_line("ada", told) == (
        "judged by 1 of 14 past choices and 1 statement of 'ada', and by 4 similar users"
    )


def test_a_user_of_whom_nothing_is_known_may_be_mistyped() -> None:
    warning = "nothing is known of user 'ada': is the name right?"
    for known in (0, None):
        told = evidence(history=(), known=known)
        assert told.warnings == (warning,)
        assert evidence_line("ada", told) == (
            f"judged by 0 past choices and 0 statements of 'ada'; {warning}"
        )


@pytest.mark.parametrize(("copies", "told"), [(1, "1 chain repeats"), (6, "6 chains repeat")])
def test_chains_that_repeat_each_other_are_told(copies: int, told: str) -> None:
    (warning,) = evidence(copies=copies).warnings
    assert warning.startswith(f"at temperature 0, {told} what others say")


@pytest.mark.parametrize(
    ("temperature", "chains", "answers", "copies"),
    [(0, 8, 2, 6), (0, 3, 2, 1), (0, 2, 2, 0), (0, 4, 5, 0), (0, 5, 5, 1), (0.1, 8, 2, 0)],
)
def test_copies_are_chains_of_one_order_at_temperature_0(
    tmp_path: Path, temperature: float, chains: int, answers: int, copies: int
) -> None:
    scaling = Scaling(individual=chains, prototype=0, temperature=temperature, seed=1)
    engine = ScriptedEngine(lambda prompt, _: write_chain(range(1, answers + 1)))
    with PGenRM(engine=engine, memory=tmp_path, scaling=scaling) as rm:
        rm.remember("ada", PAIR)
        evaluation = rm.score("ada", QUERY, [f"Answer {number}." for number in range(answers)])
    told = [warning for warning in evaluation.evidence.warnings if "temperature 0" in warning]
    assert [int(warning.split()[3]) for warning in told] == [copies] * bool(copies)


def test_nobody_is_called_unknown_whose_choices_were_not_asked_for() -> None:
    assert evidence(history=(), asked_for=0).warnings == ()
    assert evidence(history=(), known=5).warnings == ()
    assert evidence(history=(), stated=(StatedPreference(text="Be brief."),)).warnings == ()


def test_texts_that_prompts_cut_are_told_with_their_lengths() -> None:
    long = "the rice " * 100
    pair = PreferencePair(query="Tea?", chosen=long, rejected="No.")
    told = evidence(
        query=long,
        answers=(long, "Short."),
        history=(PAIR, pair),
        stated=(StatedPreference(text=long),),
    )
    assert [(text.place, text.characters) for text in told.clipped] == [
        ("query", 899),
        ("a1", 899),
        ("choice 2, chosen", 899),
        ("statement 1", 899),
    ]
    limits = (240, 600, 600, 200)
    assert all(text.shown <= limit for text, limit in zip(told.clipped, limits, strict=True))
    (prompt,) = [
        message.content
        for message in COMPACT.messages(query=long, candidates=["x"])
        if message.role == "user"
    ]
    assert f"{long[: told.clipped[0].shown]} ..." in prompt
    (warning,) = told.warnings
    assert warning.startswith("too long for format compact-2")
    assert "query (" in warning
    assert warning.endswith(" and 1 more")
    assert evidence(query=long, chain_format=PUBLISHED).clipped == ()


def test_choices_that_a_prompt_has_no_room_for_are_told() -> None:
    long = "火车九点开，沿着海岸大约需要两个小时才能到达那里。" * 20
    pairs = tuple(
        PreferencePair(query="几点?", chosen=f"{number} {long}", rejected=f"- {number} {long}")
        for number in range(5)
    )
    told = evidence(history=pairs)
    assert 0 < told.choices < 5
    left_out = f"no room for more: {5 - told.choices} past choices"
    assert any(warning.endswith(left_out) for warning in told.warnings)
    assert all(f"choice {told.choices + 1}," not in text.place for text in told.clipped)


def test_more_candidates_than_a_prompt_holds_are_told_to_be_judged_in_groups() -> None:
    (warning,) = evidence(answers=ANSWERS * 3).warnings
    assert warning.startswith("6 candidates are more than a prompt of format compact-2 holds (4)")
    assert evidence(answers=ANSWERS * 3, chain_format=PUBLISHED).warnings == ()


def test_a_conversation_that_the_format_does_not_show_is_told() -> None:
    turns = (Message(role="user", content="Hello."),)
    (warning,) = evidence(conversation=turns).warnings
    assert "no place for a conversation" in warning
    assert evidence(conversation=turns, chain_format=PUBLISHED).warnings == ()


def test_another_language_is_told_where_the_model_knows_english_only() -> None:
    german = "Koche den Reis zwölf Minuten und lass ihn ruhen."
    (warning,) = evidence(answers=(german, ANSWERS[0])).warnings
    assert warning.startswith("not in English")
    assert warning.endswith(": a1")
    assert evidence(answers=(german,), chain_format=PUBLISHED).warnings == ()


def test_choices_that_a_format_has_no_room_for_are_not_counted() -> None:
    many = tuple(PAIR.model_copy(update={"id": str(number)}) for number in range(9))
    told = evidence(history=many, known=9)
    assert (told.choices, told.choices_known) == (6, 9)


@pytest.mark.parametrize("limit", [2, 64])
def test_the_memory_says_how_many_choices_there_are(tmp_path: Path, limit: int) -> None:
    scaling = Scaling(individual=2, prototype=0, history=limit, seed=1)
    engine = ScriptedEngine(write_chain([5, 4]))
    with PGenRM(engine=engine, memory=tmp_path, scaling=scaling) as rm:
        for number in range(5):
            rm.remember("ada", PAIR.model_copy(update={"id": str(number)}))
        told = rm.score("ada", QUERY, list(ANSWERS)).evidence
        assert (told.choices, told.choices_known) == (min(5, limit), 5)
        passed = UserSignals(user_id="ada", history=(PAIR,))
        told = rm.score("ada", QUERY, list(ANSWERS), signals=passed).evidence
        assert (told.choices, told.choices_known) == (1, 1)
        selected = passed.model_copy(update={"choices_known": 40})
        told = rm.score("ada", QUERY, list(ANSWERS), signals=selected).evidence
        assert (told.choices, told.choices_known) == (1, 40)
        assert rm.score("adda", QUERY, list(ANSWERS)).evidence.warnings


def test_the_command_line_prints_a_line_and_no_probability_of_a_single_chain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pgenrm_agent.cli.tables import print_ranking

    engine = ScriptedEngine(write_chain([5, 4]))
    with PGenRM(engine=engine, memory=tmp_path) as rm:
        scaling = Scaling(individual=1, prototype=0, seed=1)
        print_ranking(rm.score("adda", QUERY, list(ANSWERS), scaling=scaling))
    printed = " ".join(capsys.readouterr().out.split())
    assert "judged by 0 past choices and 0 statements of 'adda'; nothing is known" in printed
    assert "100%" not in printed


LIMITED: list[Callable[[str], object]] = [
    lambda text: PreferencePair(query=text, chosen="a", rejected="b"),
    lambda text: PreferencePair(query="q", chosen=text, rejected="b"),
    lambda text: StatedPreference(text=text),
    lambda text: evidence(query=text),
    lambda text: evidence(conversation=(Message(role="user", content=text),)),
    lambda text: PreferenceBody(query="q", chosen=text, rejected="b"),
    lambda text: StatementBody(text=text),
    lambda text: ScoreBody(user_id="ada", query=text, candidates=["a"]),
]


@pytest.mark.parametrize("make", LIMITED)
def test_a_text_has_one_limit_however_it_comes_in(make: Callable[[str], object]) -> None:
    make("x" * MAX_TEXT)
    with pytest.raises(ValueError, match=r"50,00[01] characters"):
        make("x" * (MAX_TEXT + 1))


def test_a_request_has_one_limit_of_candidates() -> None:
    evidence(answers=("a",) * MAX_CANDIDATES)
    for make in (
        lambda answers: evidence(answers=answers),
        lambda answers: ScoreBody(user_id="ada", query="q", candidates=list(answers)),
        lambda answers: RerankBody(query="q", documents=list(answers)),
    ):
        with pytest.raises(ValueError, match=r"more than 1,024 entries|at most 1024 items"):
            make(("a",) * (MAX_CANDIDATES + 1))


def test_a_choice_has_one_number_in_all_groups_of_candidates() -> None:
    """What fits beside the longest answers is shown with the short ones, too."""
    day = datetime(2026, 1, 1, tzinfo=UTC)
    history = tuple(
        PreferencePair(
            id=f"p{age}",
            query=f"number {age}, " + "word " * 40,
            chosen="word " * 100,
            rejected="look " * 115,
            created_at=day - age * timedelta(days=1),
        )
        for age in range(6)
    )
    answers = [f"{'word ' * 115}{number}" for number in range(4)] + ["a", "b", "c", "d"]
    scaling = Scaling(individual=4, prototype=0, seed=1, history=6)
    engine = ScriptedEngine([NOTED])
    with PGenRM(engine=engine, chain_format=COMPACT, scaling=scaling) as rm:
        known = UserSignals(user_id="ada", history=history)
        result = rm.score("ada", QUERY, answers, signals=known)
    shown = {
        tuple(
            re.findall(
                r"User: number (\d)", prompt.messages[-1].content + prompt.messages[0].content
            )
        )
        for call in engine.calls
        for prompt in call[0]
    }
    assert 1 < result.evidence.choices < 6
    assert shown == {tuple(name[1:] for name in result.evidence.choice_ids)}
