"""The public test helpers behave like the real parts they stand for."""

from __future__ import annotations

import pytest

from pgenrm_agent.chain import parse_chain
from pgenrm_agent.engines import Prompt, SamplingParams
from pgenrm_agent.engines.protocol import Engine
from pgenrm_agent.errors import EngineTimeout
from pgenrm_agent.schema import Message
from pgenrm_agent.testing import ScriptedEngine, write_chain

ASK = Prompt(messages=(Message(role="user", content="one two"),), n=2)


async def test_a_scripted_engine_is_an_engine_and_records_its_calls() -> None:
    engine = ScriptedEngine(["a", "b"])
    assert isinstance(engine, Engine)
    ((first, second),) = await engine.sample([ASK], SamplingParams())
    assert (first.text, second.text) == ("a", "b")
    assert first.prompt_tokens == 2
    assert engine.calls == [((ASK,), SamplingParams())]


async def test_stop_strings_limits_and_begun_answers_act_as_on_a_model() -> None:
    engine = ScriptedEngine("one two three END four")
    ((stopped, _),) = await engine.sample([ASK], SamplingParams(stop=("END",)))
    assert stopped.text == "one two three "
    ((cut, _),) = await engine.sample([ASK], SamplingParams(max_tokens=2))
    assert (cut.text, cut.finish_reason) == ("one two", "length")
    begun = ASK.model_copy(update={"partial": "one two"})
    ((rest, _),) = await engine.sample([begun], SamplingParams())
    assert rest.text == " three END four"


async def test_told_failures_come_first() -> None:
    engine = ScriptedEngine("x", fail_times=1)
    with pytest.raises(EngineTimeout):
        await engine.sample([ASK], SamplingParams())
    assert await engine.sample([ASK], SamplingParams())


def test_written_chains_are_read_back() -> None:
    text = write_chain([[8, 2], [3, 9]], criteria=(("Depth", 75), ("Tone", 25)))
    chain = parse_chain(text, ["a", "b"])
    assert chain.totals == pytest.approx({"a": 6.5, "b": 4.5})
    assert chain.reported == {"a": 6.5, "b": 4.5}
    with pytest.raises(ValueError, match="response 1"):
        write_chain([[8]], criteria=(("Depth", 75), ("Tone", 25)))
