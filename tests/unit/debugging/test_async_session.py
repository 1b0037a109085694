"""A session used from async code: every call has a form that is awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from scripted_person import REQUEST, SCALING, SIGNALS, begin, reply

from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.engines.protocol import Completion, Prompt, SamplingParams
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.testing import ScriptedEngine

# They look at the graph, not at a run.


class SlowEngine(ScriptedEngine):
    """Says when it is asked, and answers when it may."""

    def __init__(self) -> None:
        super().__init__(reply)
        self.may_answer = False
        self.asked = False

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        self.asked = True
        while not self.may_answer:  # noqa: ASYNC110, set from another thread
            await asyncio.sleep(0.005)
        return await super().sample(prompts, params)


async def until_asked(engine: SlowEngine) -> None:
    while not engine.asked:  # noqa: ASYNC110, set from another thread
        await asyncio.sleep(0.005)


async def test_a_run_is_stopped_edited_resumed_forked_and_compared() -> None:
    async with DebugSession(engine=ScriptedEngine(reply)) as session:
        run = await session.astart(REQUEST, scaling=SCALING, signals=SIGNALS, run="one")
        stop = await session.arun_to(run, after="derive_persona")
        assert stop.reason == "after:derive_persona"
        forked = await session.afork(run, name="other")
        await session.aedit_persona(forked, "She loves red.")
        seen = []
        done = await session.aresume(forked, on_step=lambda made: seen.append(made.node))
        assert done.checkpoint.ranking == ("red", "green")
        assert tuple(seen) == session.nodes[2:]
        await session.aresume(run)
        assert (await session.acompare(run, forked)).changes["red"] == 6
        back = await session.arewind(forked, 1)
        assert back.next == (session.nodes[-1],)
        assert (await session.astep(forked)).finished
        text = await session.aexport(forked)
        assert await session.aimport_(text, run="third") == "third"
        assert (await session.areplay("third")).same
        with pytest.raises(ConfigurationError, match="no run 'nowhere'"):
            await session.astep("nowhere")
    with pytest.raises(Exception, match="closed"):
        await session.aruns()


def test_one_session_serves_one_event_loop_after_another(tmp_path: Path) -> None:
    with DebugSession(tmp_path / "runs.sqlite", engine=ScriptedEngine(reply)) as session:
        run = begin(session)
        steps = [asyncio.run(session.astep(run)).node for _ in session.nodes]
        assert tuple(steps) == session.nodes


async def test_the_callers_loop_is_free_while_a_run_proceeds() -> None:
    engine = SlowEngine()
    async with DebugSession(engine=engine) as session:
        run = await session.astart(REQUEST, scaling=SCALING, signals=SIGNALS)
        proceeding = asyncio.create_task(session.aresume(run))
        await until_asked(engine)
        (summary,) = await session.aruns()
        assert summary.next == ("derive_persona",)
        engine.may_answer = True
        assert (await proceeding).reason == "finished"


async def test_canceling_ends_the_node_and_the_run_goes_on_from_before_it() -> None:
    engine = SlowEngine()
    async with DebugSession(engine=engine) as session:
        run = await session.astart(REQUEST, scaling=SCALING, signals=SIGNALS)
        proceeding = asyncio.create_task(session.aresume(run))
        await until_asked(engine)
        proceeding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await proceeding
        assert engine.calls == []
        assert (await session.acheckpoint(run)).next == ("derive_persona",)
        engine.may_answer = True
        assert (await session.aresume(run)).reason == "finished"
