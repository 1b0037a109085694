"""`signals`: what is known of a user passed with the call, instead of read from the memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgenrm_agent.embedding import HashingEmbedder
from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.errors import ConfigurationError, EngineError, MemoryStoreError
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.prototypes import Member, PrototypeStore
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import PreferencePair, Scaling, StatedPreference, UserSignals
from pgenrm_agent.testing import ScriptedEngine, write_chain

EMBEDDER = HashingEmbedder()
PERSONAS = {"plain": "Wants plain short answers.", "warm": "Wants warm friendly chatter."}
USERS = {"ann": "plain", "cid": "plain", "dee": "warm", "eve": "warm"}
SCALING = Scaling(individual=2, prototype=1, resamples=0, seed=3)
ASKED = ("A question", ["short", "chatty"])


def choice(taste: str, owner: str) -> PreferencePair:
    return PreferencePair(query="Before", chosen=f"secret {taste} of {owner}", rejected="no")


def judge(prompt: Prompt, _: int) -> str:
    """Likes the first answer when the signals shown are plain, the second when they are warm."""
    taste = re.search(r"secret (plain|warm)", prompt.messages[0].content)
    name = taste[1] if taste else "none"
    liked = {"plain": "short", "warm": "chatty"}.get(name)
    shown = re.findall(r"Start of Response \d+\]\s*(\S+)", prompt.messages[-1].content)
    marks = [9.0 if text == liked else 4.0 for text in shown]
    return write_chain(marks, persona=PERSONAS.get(name, "Somebody."))


def everything_shown(engine: ScriptedEngine) -> str:
    return "\n".join(
        message.content
        for prompts, _ in engine.calls
        for prompt in prompts
        for message in prompt.messages
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A memory of four users who agreed to take part, with prototypes of them."""
    folder = tmp_path / "memory"
    with UserMemory(folder) as memory:
        for user, taste in USERS.items():
            memory.remember(user, choice(taste, user))
            memory.set_consent(user, True)
        tastes = list(PERSONAS)
        centroids = EMBEDDER.embed(list(PERSONAS.values()))
        members = [
            Member(user, tastes.index(taste), centroids[tastes.index(taste)])
            for user, taste in USERS.items()
            if user != "ann"
        ]
        PrototypeStore(memory).replace(centroids, members, embedder=EMBEDDER.name)
    return folder


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(judge)


@pytest.fixture
def rm(folder: Path, engine: ScriptedEngine) -> Iterator[PGenRM]:
    with PGenRM(
        engine=engine, memory=folder, scaling=SCALING, persona_embedder=EMBEDDER
    ) as reward_model:
        yield reward_model


WARM = UserSignals(user_id="ann", history=(choice("warm", "the call"),))


def test_given_signals_replace_what_the_memory_knows_of_the_user(
    rm: PGenRM, engine: ScriptedEngine
) -> None:
    assert rm.score("ann", *ASKED).score_of("answer-1").individual_mean == 9.0
    engine.calls.clear()
    evaluation = rm.score("ann", *ASKED, signals=WARM)
    assert evaluation.score_of("answer-2").individual_mean == 9.0
    assert "of ann" not in everything_shown(engine)


def test_similar_users_of_the_memory_take_part_beside_given_signals(
    rm: PGenRM, engine: ScriptedEngine
) -> None:
    evaluation = rm.score("ann", *ASKED, signals=WARM)
    assert [chain.level for chain in evaluation.chains] == ["individual"] * 2 + ["prototype"]
    assert evaluation.prototype == "1"  # that of the given signals, not that of ann's choices
    assert evaluation.score_of("answer-2").prototype_mean == 9.0
    assert re.search("secret warm of (dee|eve)", everything_shown(engine))


def test_of_a_user_said_to_be_unknown_the_prototypes_decide(rm: PGenRM) -> None:
    evaluation = rm.score("ann", *ASKED, signals=UserSignals(user_id="ann"))
    assert {chain.level for chain in evaluation.chains} == {"prototype"}


def test_given_choices_are_ordered_by_likeness_as_remembered_ones_are(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    topics = ("bread", "tax", "football", "baking bread", "the tax return", "a bread knife")
    choices = tuple(
        PreferencePair(id=topic, query=f"How about {topic}?", chosen="yes", rejected="no")
        for topic in topics
    )
    scaling = Scaling(
        individual=1, prototype=0, history=3, history_selection="similar", resamples=0, seed=1
    )
    shown = []
    # Few dimensions: another embedder than this one finds others alike.
    with UserMemory(tmp_path / "memory", embedder=HashingEmbedder(dimension=16)) as memory:
        memory.remember_many("ann", choices)
        with PGenRM(engine=engine, memory=memory, scaling=scaling) as rm:
            for signals in (None, UserSignals(user_id="ann", history=choices)):
                engine.calls.clear()
                rm.score("ann", "How do I bake bread?", ["short", "chatty"], signals=signals)
                shown.append(everything_shown(engine))
    assert shown[0] == shown[1]


def test_closing_inside_a_run_is_an_error_and_no_wait_for_ever(rm: PGenRM) -> None:
    with pytest.raises(EngineError, match="would wait for itself"):
        rm.score("ann", *ASKED, on_progress=lambda progress: rm.close())
    assert rm.score("ann", *ASKED).best == "answer-1"  # nothing was closed


def test_given_signals_write_nothing_into_the_memory(rm: PGenRM) -> None:
    before = rm.prototypes.status()
    rm.score("ann", *ASKED, signals=WARM)
    assert rm.prototypes.status() == before
    rm.score("ann", *ASKED)  # from the memory: ann agreed, and joins a prototype
    assert rm.prototypes.status().joined == before.joined + 1


def test_without_prototype_chains_a_memory_that_cannot_be_opened_is_left_alone(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    file = tmp_path / "no-folder"
    file.write_text("not a memory")
    scaling = SCALING.model_copy(update={"prototype": 0})
    with PGenRM(engine=engine, memory=file, scaling=scaling) as rm:
        assert rm.score("ann", *ASKED, signals=WARM).best == "answer-2"
        with pytest.raises(MemoryStoreError):
            rm.score("ann", *ASKED)


def test_a_memory_that_does_not_exist_is_not_made(engine: ScriptedEngine, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    stated = UserSignals(user_id="ann", stated=(StatedPreference(text="Be brief."),))
    with PGenRM(engine=engine, memory=folder, scaling=SCALING) as rm:
        evaluation = rm.score("ann", *ASKED, signals=stated)
    assert not folder.exists()
    assert {chain.level for chain in evaluation.chains} == {"individual"}
    assert "Be brief." in everything_shown(engine)


def test_a_memory_that_cannot_be_opened_is_an_error_and_not_left_out(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    file = tmp_path / "no-folder"
    file.write_text("not a memory")
    with (
        PGenRM(engine=engine, memory=file, scaling=SCALING) as rm,
        pytest.raises(MemoryStoreError, match=r"Scaling\(prototype=0\) does without them"),
    ):
        rm.score("ann", *ASKED, signals=WARM)


def test_signals_of_another_user_are_refused(rm: PGenRM) -> None:
    for call in (rm.score, rm.rerank):
        with pytest.raises(ConfigurationError, match=r"signals are those of user 'ann'.*'bob'"):
            call("bob", *ASKED, signals=WARM)
