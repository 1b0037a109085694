"""A run stopped, read, edited, gone back in and tried another way."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from moments import every_moment
from scripted_person import PAIR, REQUEST, begin, counted_session, going_on, reply, shown_in

from pgenrm_agent.debugging import Breakpoint, DebugSession
from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.errors import ConfigurationError, EngineTimeout
from pgenrm_agent.graphs.evaluation import build_graph
from pgenrm_agent.schema import Candidate, PreferencePair, Scaling, UserSignals
from pgenrm_agent.testing import ScriptedEngine, write_chain


def tokens(session: DebugSession, run: str) -> int:
    return session.checkpoint(run).tokens


def test_a_run_goes_one_node_at_a_time_through_the_graph(session: DebugSession) -> None:
    run = begin(session)
    ran = []
    while session.checkpoint(run).next:
        ran.append(session.step(run).node)
    assert tuple(ran) == session.nodes
    assert session.checkpoint(run).ranking == ("green", "red")
    with pytest.raises(ConfigurationError, match="at its end"):
        session.step(run)


def test_stepping_gives_what_an_unstopped_run_gives(session: DebugSession) -> None:
    session.resume(begin(session, "whole"))
    run = begin(session, "stepped")
    while session.checkpoint(run).next:
        session.step(run)
    assert session.diff(run, session.checkpoint(run).id) == ()
    assert session.compare("whole", "stepped").differences == ()


def test_breakpoints_stop_before_and_after_any_node(session: DebugSession) -> None:
    for place, node in enumerate(session.nodes):
        run = begin(session, f"before-{node}")
        if place:
            stop = session.run_to(run, before=node)
            assert stop.reason == f"before:{node}"
            assert stop.checkpoint.next == (node,)
        run = begin(session, f"after-{node}")
        stop = session.run_to(run, after=node)
        assert stop.reason == f"after:{node}"
        assert stop.checkpoint.node == node


def test_every_checkpoint_keeps_its_state_and_two_tell_where_they_differ(
    session: DebugSession,
) -> None:
    run = begin(session)
    session.resume(run)
    at = {checkpoint.node: checkpoint.id for checkpoint in session.timeline(run) if checkpoint.node}
    assert session.state(run, at["recall"])["chains"] == []
    persona = session.state(run, at["derive_persona"])["chains"][0]["text"]
    rubric = session.state(run, at["generate_rubric"])["chains"][0]["text"]
    assert persona.endswith("### Criteria\n")
    assert rubric.startswith(persona)
    assert "JSON_START" not in rubric
    assert session.state(run)["chains"][0]["text"].startswith(rubric)
    changed = {
        difference.path: difference
        for difference in session.diff(run, at["derive_persona"], at["generate_rubric"])
    }
    assert (changed["chains[0].text"].before, changed["chains[0].text"].after) == (persona, rubric)
    assert "usage.completion_tokens" in changed
    assert not any(path.startswith(("request", "timings")) for path in changed)


def test_an_edited_persona_changes_rubric_marks_and_ranking(
    session: DebugSession, engine: ScriptedEngine
) -> None:
    run = begin(session)
    session.run_to(run, after="derive_persona")
    session.edit_persona(run, "She loves red.")
    done = session.resume(run)
    assert done.reason == "finished"
    assert done.checkpoint.ranking == ("red", "green")
    assert done.checkpoint.means["red"] == 9
    state = session.state(run)
    assert all(
        "She loves red.\n### Criteria\n1. Warmth" in draft["text"] for draft in state["chains"]
    )
    assert all("She loves red." in prompt.partial for prompt in engine.calls[-1][0])


def test_a_persona_edited_at_the_end_is_taken_from_where_it_was_written(
    session: DebugSession, engine: ScriptedEngine
) -> None:
    run = begin(session)
    first = session.resume(run).checkpoint
    edited = session.edit_persona(run, "She loves red.", chain=0)
    assert edited.edit == "persona"
    assert (
        edited.next == session.run_to(begin(session, "two"), after="derive_persona").checkpoint.next
    )
    assert edited.tokens < first.tokens
    session.edit_persona(run, "He loves red.", chain=1)
    calls = len(engine.calls)
    last = session.resume(run).checkpoint
    assert len(engine.calls) == calls + 2
    personas = [draft["text"] for draft in session.state(run)["chains"]]
    assert "She loves red." in personas[0]
    assert "He loves red." in personas[1]
    assert "Wants short answers." in personas[2]
    assert first.means["red"] < last.means["red"] < 9


def test_an_edited_rubric_is_normalized_and_scored_anew(session: DebugSession) -> None:
    run = begin(session)
    session.resume(run)
    session.edit_rubric(run, [("Warmth", 30, "she said so"), ("Length", 30, "")])
    view = session.state(run)["chains"][0]["text"]
    assert "1. Warmth (50%): she said so\n2. Length (50%)\n## Part 2: Scoring" in view
    assert session.resume(run).checkpoint.means["red"] == 9


def test_edited_history_reaches_the_prompts(session: DebugSession, engine: ScriptedEngine) -> None:
    run = begin(session)
    session.resume(run)
    pair = PreferencePair(query="Cats or dogs?", chosen="Cats.", rejected="Dogs.")
    session.edit_history(run, [pair])
    session.resume(run)
    prompt = engine.calls[-1][0][0].messages
    assert any("Cats or dogs?" in message.content for message in prompt)
    assert not any("Tea or coffee?" in message.content for message in prompt)


def test_edited_candidates_are_scored(session: DebugSession) -> None:
    run = begin(session)
    session.resume(run)
    session.edit_candidates(run, [*REQUEST.candidates, Candidate(id="blue", text="Blue.")])
    assert session.resume(run).checkpoint.ranking == ("blue", "green", "red")


def test_rewinding_keeps_what_came_after_and_forking_leaves_the_run_alone(
    session: DebugSession,
) -> None:
    run = begin(session)
    end = session.resume(run).checkpoint
    back = session.rewind(run, 2)
    assert back.source == "fork"
    assert not back.finished
    assert end.id in {checkpoint.id for checkpoint in session.timeline(run)}
    assert session.resume(run).checkpoint.means == end.means

    persona = next(
        checkpoint for checkpoint in session.timeline(run) if checkpoint.node == "derive_persona"
    )
    forked = session.fork(run, persona.id, name="other")
    session.edit_persona(forked, "She loves red.")
    session.resume(forked)
    compared = session.compare(run, forked)
    assert compared.left.ranking == ("green", "red")
    assert compared.right.ranking == ("red", "green")
    assert compared.changes["red"] == 6
    assert any(difference.path.startswith("chains[0].text") for difference in compared.differences)
    assert session.checkpoint(run).means == end.means
    assert session.labels("other") == {"forked_from": "one"}


def test_a_change_of_rank_between_rounds_stops_the_run() -> None:
    def by_round(prompt: Prompt, sample: int) -> str:
        red, green = (5, 6) if len(engine.calls) <= 3 else (10, 1)
        marks = [{"Red": red, "Green": green}[text] for text in shown_in(prompt)]
        return going_on(prompt, write_chain(marks, criteria=[("Fit", 100)]))

    engine = ScriptedEngine(by_round)
    scaling = Scaling(individual=16, prototype=0, stop_when_sure=0.9999)
    known = UserSignals(user_id=REQUEST.user_id, history=(PAIR,))
    with DebugSession(engine=engine) as session:
        run = session.start(REQUEST, scaling=scaling, signals=known)
        assert session.resume(run, ["rank-change"]).reason == "rank-change"
        assert session.state(run)["round"] >= 1


def test_a_comparison_tells_personas_without_their_working_notes() -> None:
    text = write_chain([3, 8], persona="Strength: 3\nWants short answers.")
    with DebugSession(engine=ScriptedEngine(text)) as session:
        run = begin(session)
        session.run_to(run, after="derive_persona")
        assert session.compare(run, run).left.personas == ("Wants short answers.",)


def test_a_change_of_rank_a_failure_and_disagreement_stop_the_run(
    session: DebugSession,
) -> None:
    run = begin(session)
    assert session.resume(run, ["rank-change"]).reason == "finished"
    session.edit_persona(run, "She loves red.")
    stop = session.resume(run, ["rank-change"])
    assert stop.reason == "rank-change"
    assert stop.checkpoint.node == "sample_scores"
    assert session.resume(run, ["rank-change"]).reason == "finished"

    split = begin(session, "split")
    assert session.resume(split, ["disagreement>4"]).reason == "finished"
    session.edit_persona(split, "She loves red.", chain=0)
    assert session.resume(split, ["disagreement>2"]).reason == "disagreement>2"


def test_a_parse_failure_stops_the_run_once() -> None:
    def broken(prompt: object, sample: int) -> str:
        return "No." if len(engine.calls) == 3 else reply(prompt, sample)

    engine = ScriptedEngine(broken)
    with DebugSession(engine=engine) as session:
        run = begin(session)
        stop = session.resume(run, ["parse-failure"])
        assert stop.reason == "parse-failure"
        assert len(session.state(run)["failures"]) == 4
        assert session.resume(run, ["parse-failure"]).reason == "finished"


def test_a_node_that_fails_leaves_the_run_where_it_was(engine: ScriptedEngine) -> None:
    faulty = ScriptedEngine(reply, fail_times=2)
    with DebugSession(engine=faulty) as session:
        run = begin(session)
        session.step(run)
        with pytest.raises(EngineTimeout):
            session.step(run)
        here = session.checkpoint(run)
        assert here.next == ("derive_persona",)
        assert "time out" in (here.error or "")
        assert session.resume(run).reason == "finished"


def test_a_run_is_exported_imported_and_replayed_without_a_model(
    session: DebugSession, tmp_path: Path
) -> None:
    run = begin(session)
    session.resume(run)
    session.edit_persona(run, "She loves red.")
    session.resume(run)
    text = session.export(run)
    silent = ScriptedEngine("never asked")
    with DebugSession(tmp_path / "runs.sqlite", engine=silent) as silent_session:
        assert silent_session.import_(text) == run
        assert silent_session.timeline(run) == session.timeline(run)
        assert silent_session.state(run) == session.state(run)
        replayed = silent_session.replay(run)
        assert replayed.same
        assert [step.node for step in replayed.steps if step.node][-1] == "aggregate"
        with pytest.raises(ConfigurationError, match="already"):
            silent_session.import_(text)
        assert silent_session.import_(text, run="again") == "again"
    assert silent.calls == []


def test_a_session_survives_its_process_ending(tmp_path: Path) -> None:
    store = tmp_path / "runs.sqlite"
    with DebugSession(store, engine=ScriptedEngine(reply)) as session:
        run = begin(session)
        session.run_to(run, after="derive_persona")
        before = tokens(session, run)
    engine = ScriptedEngine(reply)
    with DebugSession(store, engine=engine) as session:
        (summary,) = session.runs()
        assert (summary.run, summary.user_id, summary.finished) == (run, "ada", False)
        assert session.resume(run).reason == "finished"
        sampled = sum(
            len(reply(prompt, n).removeprefix(prompt.partial).split())
            for prompts, _ in engine.calls
            for prompt in prompts
            for n in range(prompt.n)
        )
        assert tokens(session, run) > before
        assert tokens(session, run) - before <= sampled
        assert len(engine.calls) == 2
    assert store.stat().st_mode & 0o077 == 0


def test_a_run_killed_at_whatever_moment_goes_on_from_there(tmp_path: Path) -> None:
    store, engine = tmp_path / "runs.sqlite", ScriptedEngine(reply)
    with (
        every_moment(store, tmp_path / "moments", lambda: len(engine.calls)) as copies,
        DebugSession(store, engine=engine) as session,
    ):
        whole = session.resume(begin(session)).checkpoint
        texts = [draft["text"] for draft in session.state("one")["chains"]]
    assert {calls for _, calls in copies} == {0, 1, 2, 3}
    for copy, calls in copies:
        resumed = ScriptedEngine(reply)
        with DebugSession(copy, engine=resumed) as session:
            before = session.checkpoint("one")
            (summary,) = session.runs()
            assert summary.finished == before.finished == (not before.next)
            if not before.finished:
                assert session.resume("one").reason == "finished"
            after = session.checkpoint("one")
            assert (after.ranking, after.means) == (whole.ranking, whole.means)
            assert [draft["text"] for draft in session.state("one")["chains"]] == texts
            assert len(resumed.calls) == 3 - calls, copy.name


KILLED = """
import sys
sys.path.insert(0, {here!r})
from scripted_person import begin, counted_session

with counted_session({engine!r}, {store!r}, lambda said: print(said, flush=True), 2) as session:
    session.resume(begin(session))
"""


@pytest.mark.parametrize("engine", ["scripted", pytest.param("bundled", marks=pytest.mark.long)])
def test_a_killed_run_goes_on_without_sampling_a_finished_stage_again(
    tmp_path: Path, engine: str
) -> None:
    store = tmp_path / "runs.sqlite"
    code = KILLED.format(
        here=str(Path(__file__).parents[2] / "support"), store=str(store), engine=engine
    )
    child = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    before: list[int] = []
    for line in child.stdout:
        if line.startswith("hanging"):
            os.kill(child.pid, signal.SIGKILL)
            break
        before.append(int(line))
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    assert len(before) == 2  # personas and rubrics, in full

    after: list[int] = []
    with counted_session(engine, str(store), lambda said: after.append(int(said))) as session:
        begun = session.state("one")["chains"]
        assert session.checkpoint("one").next == ("sample_scores",)
        assert session.checkpoint("one").tokens == sum(before)
        assert session.resume("one").reason == "finished"
        # What the model was paid for in both processes is what the run has.
        print({"sampled_before": before, "sampled_after": after})
        assert session.checkpoint("one").tokens == sum(before) + sum(after)
        for first, last in zip(begun, session.state("one")["chains"], strict=True):
            assert last["text"].startswith(first["text"]) or last["attempt"] > 0


def test_what_cannot_be_done_is_said_with_what_and_where(session: DebugSession) -> None:
    run = begin(session)
    with pytest.raises(ConfigurationError, match="no run 'nowhere'"):
        session.step("nowhere")
    with pytest.raises(ConfigurationError, match="no run 'nowhere'"):
        session.timeline("nowhere")
    with pytest.raises(ConfigurationError, match="no run 'nowhere'"):
        session.labels("nowhere")
    with pytest.raises(ConfigurationError, match="'one' already"):
        begin(session)
    with pytest.raises(ConfigurationError, match="nothing to edit as persona"):
        session.edit_persona(run, "A nurse.")
    with pytest.raises(ConfigurationError, match="derive_persona"):
        session.resume(run, ["before:lunch"])
    with pytest.raises(ConfigurationError, match="no exported run"):
        session.import_("{}")
    session.resume(run)
    with pytest.raises(ConfigurationError, match="heading"):
        session.edit_persona(run, "A nurse.\n## Part 2: Scoring\n<JSON_START>")
    with pytest.raises(ConfigurationError, match="blank"):
        session.edit_persona(run, "  ")
    with pytest.raises(ConfigurationError, match="rubric"):
        session.edit_rubric(run, [])
    with pytest.raises(ConfigurationError, match="read back"):
        session.edit_rubric(run, [("Fit", 50, ""), ("fit", 50, "")])
    with pytest.raises(ConfigurationError, match="candidates"):
        session.edit_candidates(run, [])
    with pytest.raises(ConfigurationError, match="go back"):
        session.rewind(run, 99)
    with pytest.raises(ConfigurationError, match="checkpoints 'zzzz'"):
        session.state(run, "zzzz")


@pytest.mark.parametrize("text", ["before", "after:", "disagreement", "disagreement>x", "lunch"])
def test_a_breakpoint_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="before:NODE"):
        Breakpoint.parse(text)


@pytest.mark.parametrize("text", ["before:recall", "disagreement>1.5", "rank-change"])
def test_a_breakpoint_is_written_as_it_is_read(text: str) -> None:
    assert str(Breakpoint.parse(text)) == text


def test_an_engine_that_cannot_continue_refuses_edits_of_texts() -> None:
    with DebugSession(engine=ScriptedEngine(reply, continues=False)) as session:
        run = begin(session)
        session.resume(run)
        with pytest.raises(ConfigurationError, match="cannot continue"):
            session.edit_persona(run, "A nurse.")
        session.edit_history(run, [PAIR])
        assert session.resume(run).reason == "finished"


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("These are notes, and no database. " * 50)
    with pytest.raises(ConfigurationError, match=r"notes\.txt"):
        DebugSession(file, engine=ScriptedEngine(reply))


def test_two_hundred_checkpoints_open_in_a_second_and_a_step_costs_ten_milliseconds(
    tmp_path: Path,
) -> None:
    """In CPU seconds of this process, so that a busy machine changes nothing."""
    store = tmp_path / "runs.sqlite"
    with DebugSession(store, engine=ScriptedEngine(reply)) as session:
        run = begin(session)
        given = {name: session.state(run)[name] for name in ("request", "scaling", "history")}
        unsaved, whole, stepped = [], [], []
        session.resume(run)
        while len(session.timeline(run)) < 200:
            session.rewind(run, len(session.nodes))
            session.resume(run)
        for number in range(5):
            bare, watched = begin(session, f"a{number}"), begin(session, f"b{number}")
            started = time.process_time()
            session._loop.run_blocking(
                lambda: build_graph().ainvoke(given, context=session._context)
            )
            unsaved.append(time.process_time() - started)
            started = time.process_time()
            session._loop.run_blocking(
                lambda run=bare: session._graph.ainvoke(
                    None, {"configurable": {"thread_id": run}}, context=session._context
                )
            )
            whole.append(time.process_time() - started)
            started = time.process_time()
            session.resume(watched)
            stepped.append(time.process_time() - started)
    added, added_to_unsaved = (
        (statistics.median(stepped) - statistics.median(runs)) / len(session.nodes)
        for runs in (whole, unsaved)
    )
    started = time.process_time()
    with DebugSession(store, engine=ScriptedEngine(reply)) as session:
        assert len(session.runs()) == 11
        assert len(session.timeline(run)) >= 200
    opened = time.process_time() - started
    figures = {"over checkpointed": added * 1000, "over unsaved": added_to_unsaved * 1000}
    print(json.dumps({"ms added a node": figures, "s to open": opened}))
    assert opened < 1.0
    assert added < 0.010
