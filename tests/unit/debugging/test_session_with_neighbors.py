"""Debugging a run in which similar people take part."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_person import PAIR, REQUEST

from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.debugging.views import chain_views
from pgenrm_agent.embedding import HashingEmbedder
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.prototypes import Member, Neighbors
from pgenrm_agent.schema import Evaluation, Scaling
from pgenrm_agent.testing import ScriptedEngine

EMBEDDER = HashingEmbedder()
PERSONAS = ("Wants short answers.", "She loves red.")
TASTES = {"ben": 0, "cid": 0, "dee": 1, "eve": 1}
SCALING = Scaling(individual=4, prototype=2, seed=5)


@pytest.fixture
def neighbors(tmp_path: Path) -> Iterator[Neighbors]:
    """Four users in two prototypes; ada, who is asked for, agreed and is in none."""
    with UserMemory(tmp_path / "memory") as memory:
        for user in ("ada", *TASTES):
            memory.remember(user, PAIR.model_copy(update={"id": user}))
            memory.set_consent(user, True)
        source = Neighbors(memory, EMBEDDER, joining=False)
        centroids = EMBEDDER.embed(PERSONAS)
        members = [Member(user, taste, centroids[taste]) for user, taste in TASTES.items()]
        source.store.replace(centroids, members, embedder=EMBEDDER.name)
        yield source


@pytest.fixture
def session(neighbors: Neighbors, engine: ScriptedEngine) -> Iterator[DebugSession]:
    with DebugSession(engine=engine, memory=neighbors.memory, neighbors=neighbors) as opened:
        yield opened


def test_a_run_goes_step_by_step_and_ends_with_both_levels(session: DebugSession) -> None:
    run = session.start(REQUEST, scaling=SCALING)
    ran = []
    while session.checkpoint(run).next:
        ran.append(session.step(run).node)
    assert tuple(ran) == session.nodes
    state = session.state(run)
    assert [draft["level"] for draft in state["chains"]] == ["individual"] * 4 + ["prototype"] * 2
    assert state["prototype"] == "0"
    assert session.replay(run).same


def test_an_edited_persona_finds_other_people(session: DebugSession, neighbors: Neighbors) -> None:
    run = session.start(REQUEST, scaling=SCALING)
    session.run_to(run, after="match_prototype")
    before = set(session.state(run)["neighbors"])
    session.edit_persona(run, PERSONAS[1])
    session.run_to(run, after="match_prototype")
    state = session.state(run)
    assert state["prototype"] == "1"
    assert len(state["neighbors"]) == 2
    assert before.isdisjoint(state["neighbors"])
    # An invented persona leads nobody into a prototype.
    version = neighbors.store.current()
    assert version is not None
    assert "ada" not in version.homes


def test_a_neighbors_persona_is_edited_like_any_other(
    session: DebugSession, engine: ScriptedEngine
) -> None:
    run = session.start(REQUEST, scaling=SCALING)
    first = session.resume(run).checkpoint
    session.edit_persona(run, PERSONAS[1], chain=4)
    last = session.resume(run).checkpoint
    texts = [draft["text"] for draft in session.state(run)["chains"]]
    assert PERSONAS[1] in texts[4]
    assert "1. Warmth" in texts[4]
    assert all(PERSONAS[0] in text for text in (*texts[:4], texts[5]))
    assert last.means["red"] > first.means["red"]


def test_a_neighbor_can_be_left_out(session: DebugSession) -> None:
    run = session.start(REQUEST, scaling=SCALING)
    session.resume(run)
    kept, dropped = session.state(run)["neighbors"]
    edited = session.edit_neighbors(run, [kept])
    assert edited.edit == "neighbors"
    assert edited.next == ("generate_rubric",)
    session.resume(run)
    state = session.state(run)
    assert state["neighbors"] == [kept]
    assert [draft["signals_of"] for draft in state["chains"]] == ["ada"] * 4 + [kept]
    with pytest.raises(ConfigurationError, match=f"{dropped}x.*choose from"):
        session.edit_neighbors(run, [f"{dropped}x"])
    session.edit_neighbors(run, [])
    session.resume(run)
    assert {draft["level"] for draft in session.state(run)["chains"]} == {"individual"}


def test_who_withdraws_while_a_run_stands_takes_no_part_when_it_goes_on(
    session: DebugSession, neighbors: Neighbors
) -> None:
    run = session.start(REQUEST, scaling=SCALING)
    session.run_to(run, after="generate_rubric")
    assert "Tea, plainly." in session.prompt(run, 4)[0].content
    neighbors.memory.set_consent("ben", False)
    neighbors.memory.forget("cid")
    with pytest.raises(ConfigurationError, match="sealed"):
        session.prompt(run, 4)
    session.resume(run)
    evaluation = Evaluation.model_validate(session.state(run)["evaluation"])
    assert [chain.level for chain in evaluation.chains] == ["individual"] * 4
    assert [(failure.level, failure.reason) for failure in evaluation.failures] == [
        ("prototype", "failed")
    ] * 2
    assert session.replay(run).same


def test_without_the_memory_a_store_shows_that_their_chains_are_sealed(
    neighbors: Neighbors, engine: ScriptedEngine, tmp_path: Path
) -> None:
    store = tmp_path / "runs.sqlite"
    with DebugSession(
        store, engine=engine, memory=neighbors.memory, neighbors=neighbors
    ) as session:
        run = session.start(REQUEST, scaling=SCALING)
        session.run_to(run, after="generate_rubric")
        texts = [draft["text"] for draft in session.state(run)["chains"]]
        exported = session.export(run)
    assert all("Wants short answers." in text for text in texts)
    assert exported.count("Tea, plainly.") == exported.count('"history": [{')
    with DebugSession(store, engine=engine) as session:
        views = chain_views(session.state(run))
        assert [view.text for view in views] == [*texts[:4], "", ""]
        assert all("sealed" in (view.problem or "") for view in views[4:])
        with pytest.raises(ConfigurationError, match="nothing to edit"):
            session.edit_persona(run, "She loves red.", chain=4)
        session.edit_persona(run, "She loves red.")
        session.resume(run)
        chains = session.state(run)["chains"]
        assert [draft["status"] for draft in chains] == ["written"] * 4
    with DebugSession(
        store, engine=engine, memory=neighbors.memory, neighbors=neighbors
    ) as session:
        session.rewind(run, 1)
        assert len(session.state(run)["chains"]) == 4


def test_an_edit_while_similar_users_are_sealed_keeps_what_was_paid_for(
    neighbors: Neighbors, engine: ScriptedEngine, tmp_path: Path
) -> None:
    store = tmp_path / "runs.sqlite"
    with DebugSession(
        store, engine=engine, memory=neighbors.memory, neighbors=neighbors
    ) as session:
        run = session.start(REQUEST, scaling=SCALING)
        session.run_to(run, after="generate_rubric")
        texts = [draft["text"] for draft in session.state(run)["chains"]]
    with DebugSession(store, engine=engine) as session:
        session.edit_rubric(run, [("Warmth", 100.0, "They asked.")], chain=0)
    with DebugSession(
        store, engine=engine, memory=neighbors.memory, neighbors=neighbors
    ) as session:
        drafts = session.state(run)["chains"]
        assert [draft["text"] for draft in drafts[4:]] == texts[4:]
        assert {draft["status"] for draft in drafts[4:]} == {"open"}
        session.resume(run)
        evaluation = Evaluation.model_validate(session.state(run)["evaluation"])
        assert [chain.level for chain in evaluation.chains].count("prototype") == 2
        assert evaluation.failures == ()
        assert session.replay(run).same
    # Without the memory nobody can tell whether a replay gives the same.
    with DebugSession(store, engine=engine) as session:
        replayed = session.replay(run)
        assert replayed.evaluation is not None
        assert replayed.same is None


def test_the_command_line_brings_similar_users_along(
    neighbors: Neighbors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from pgenrm_agent.cli.debug import app
    from pgenrm_agent.embedding import ModelTokensEmbedder
    from pgenrm_agent.model_files import bundled_model

    monkeypatch.setenv("PGENRM_HOME", str(tmp_path))
    states = ModelTokensEmbedder(bundled_model())
    centroids = states.embed(PERSONAS)
    members = [Member(user, taste, centroids[taste]) for user, taste in TASTES.items()]
    neighbors.store.replace(centroids, members, embedder=states.name)
    options = ["--store", str(tmp_path / "runs.sqlite"), "--json"]
    asked = [
        "-u",
        "ada",
        "-q",
        "Which color?",
        "--memory",
        str(tmp_path / "memory"),
        "--seed",
        "5",
    ]
    levels = ["--individual", "1", "--prototype", "2"]
    begun = CliRunner().invoke(
        app, ["start", *asked, *levels, "--run", "r", *options, "Red.", "Green."]
    )
    assert begun.exit_code == 0, begun.output
    done = CliRunner().invoke(app, ["resume", "r", "-b", "after:match_prototype", *options])
    assert done.exit_code == 0, done.output
    with DebugSession(tmp_path / "runs.sqlite") as session:
        state = session.state("r")
    assert [draft["level"] for draft in state["chains"]] == ["individual", *["prototype"] * 2]
    kept, dropped = state["neighbors"]
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import sys, pathlib\n"
        "file = pathlib.Path(sys.argv[1])\n"
        f"file.write_text(file.read_text().replace({dropped!r}, ''))\n"
    )
    edited = CliRunner().invoke(
        app, ["edit", "r", "neighbors", *options], env={"EDITOR": f"{sys.executable} {editor}"}
    )
    assert edited.exit_code == 0, edited.output
    with DebugSession(tmp_path / "runs.sqlite") as session:
        assert session.state("r")["neighbors"] == [kept]
