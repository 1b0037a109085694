"""Whom a tool judges for: told by the application, whatever the calling model says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from pgenrm_agent import as_tool
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.integrations.langchain.memory import memory_tools
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Evaluation

ASKED = {"query": "How?", "candidates": ["So. 3", "Thus. 8"]}


class State(MessagesState):
    user_id: str


def agent(tool: BaseTool, checkpointer: BaseCheckpointSaver[Any] | None = None) -> Any:
    """A graph with a tool node; it has to be checked with a state and config like an agent's."""
    graph = StateGraph(State)
    graph.add_node("tools", ToolNode([tool]))
    graph.add_edge(START, "tools")
    return graph.compile(checkpointer)


def calling(tool: BaseTool, **arguments: object) -> list[AnyMessage]:
    call = ToolCall(name=tool.name, args=arguments, id="1", type="tool_call")
    return [AIMessage(content="", tool_calls=[call])]


def last(state: dict[str, Any]) -> ToolMessage:
    message = state["messages"][-1]
    assert isinstance(message, ToolMessage)
    return message


async def test_the_state_names_the_person_and_the_model_cannot(rm: PGenRM) -> None:
    tool = as_tool(rm, user_from="state")
    assert "user_id" not in tool.tool_call_schema.model_json_schema()["properties"]
    messages = calling(tool, **ASKED, user_id="bob")
    message = last(await agent(tool).ainvoke({"messages": messages, "user_id": "ada"}))
    assert message.artifact["request"]["user_id"] == "ada"
    assert message.artifact["best"] == "answer-2"


def test_the_config_names_the_person_and_the_model_cannot(rm: PGenRM) -> None:
    tool = as_tool(rm, user_from="config")
    assert "user_id" not in tool.tool_call_schema.model_json_schema()["properties"]
    state = {"messages": calling(tool, **ASKED, user_id="bob"), "user_id": "bob"}
    message = last(agent(tool).invoke(state, {"configurable": {"user_id": "ada"}}))
    assert message.artifact["request"]["user_id"] == "ada"


def test_a_bound_person_stays_whatever_the_config_says(rm: PGenRM) -> None:
    tool = as_tool(rm, user_id="ada", user_from="config")
    state = {"messages": calling(tool, **ASKED), "user_id": "bob"}
    message = last(agent(tool).invoke(state, {"configurable": {"user_id": "bob"}}))
    assert message.artifact["request"]["user_id"] == "ada"


def test_the_artifact_is_the_same_after_every_checkpointer(rm: PGenRM, tmp_path: Path) -> None:
    tool = as_tool(rm, user_id="ada")
    config: Any = {"configurable": {"thread_id": "1"}}
    with SqliteSaver.from_conn_string(str(tmp_path / "kept.sqlite")) as sqlite:
        for checkpointer in (InMemorySaver(), sqlite):
            kept = agent(tool, checkpointer)
            before = last(kept.invoke({"messages": calling(tool, **ASKED)}, config)).artifact
            after = last(kept.get_state(config).values).artifact
            assert type(after) is dict
            assert after == before == json.loads(json.dumps(before))
            assert Evaluation.model_validate(after).best == "answer-2"


async def test_the_custom_stream_tells_every_stage_in_order(rm: PGenRM) -> None:
    tool = as_tool(rm, user_id="ada")
    state = {"messages": calling(tool, **ASKED), "user_id": "ada"}
    stages = [
        "recall",
        "derive_persona",
        "match_prototype",
        "generate_rubric",
        "sample_scores",
        "aggregate",
    ]
    told = [part async for part in agent(tool).astream(state, stream_mode="custom")]
    assert [part["pgenrm"]["stage"] for part in told] == stages
    assert told[-1]["pgenrm"]["chains"] == 2
    plain = list(agent(tool).stream(state, stream_mode="custom"))
    assert [part["pgenrm"]["stage"] for part in plain] == stages


async def test_memory_tools_write_about_the_person_in_the_config(rm: PGenRM) -> None:
    remember, state, forget = memory_tools(rm)
    config: Any = {"configurable": {"user_id": "mia"}}
    pair = {"query": "How?", "chosen": "So.", "rejected": "Not so."}
    assert await remember.ainvoke(pair, config) == "Remembered."
    assert state.invoke({"text": "Short answers."}, config) == "Remembered."
    signals = rm.memory.recall("mia")
    assert [pair.chosen for pair in signals.history] == ["So."]
    assert [statement.text for statement in signals.stated] == ["Short answers."]
    for unclear in ("yes", 1, "true"):
        refused = forget.invoke({"confirmed": unclear}, config)
        assert refused.startswith(
            "these arguments cannot be used: confirmed: true or false is needed"
        )
    unconfirmed = forget.invoke({"confirmed": False}, config)
    assert "ask the user first" in unconfirmed
    assert rm.memory.recall("mia").history
    assert await forget.ainvoke({"confirmed": True}, config) == "Forgotten: 2 entries removed."
    assert not rm.memory.recall("mia").history


def test_memory_tools_write_about_the_person_in_the_state(rm: PGenRM) -> None:
    for tool, arguments in zip(
        memory_tools(rm, user_from="state"),
        (
            {"query": "How?", "chosen": "So.", "rejected": "Not so."},
            {"text": "Short answers."},
            {"confirmed": True},
        ),
        strict=True,
    ):
        assert "user_id" not in tool.tool_call_schema.model_json_schema()["properties"]
        state = {"messages": calling(tool, **arguments, user_id="bob"), "user_id": "noa"}
        message = last(agent(tool).invoke(state))
        assert message.status == "success", message.content
    assert rm.memory.recall("bob").history == ()
    assert message.content == "Forgotten: 2 entries removed."


def test_a_contradictory_preference_is_a_tool_error_in_one_line(rm: PGenRM) -> None:
    (remember, _, _) = memory_tools(rm, user_id="ada")
    told = remember.invoke({"query": "How?", "chosen": "So.", "rejected": "So."})
    assert "same text" in told
    assert "\n" not in told


def test_no_memory_tool_lets_the_model_choose_the_person(rm: PGenRM) -> None:
    with pytest.raises(ConfigurationError, match="write about anybody"):
        memory_tools(rm, user_from="argument")


class MemoryTool:
    """What both of LangChain's standard suites are told about a memory tool."""

    place: int
    example: dict[str, Any]

    @pytest.fixture(autouse=True)
    def _make(self, rm: PGenRM) -> None:
        self.made = memory_tools(rm, user_id="ada")[self.place]

    @property
    def tool_constructor(self) -> BaseTool:
        return self.made

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return self.example


class Remember(MemoryTool):
    place = 0
    example: dict[str, Any] = {"query": "How?", "chosen": "So.", "rejected": "Not so."}  # noqa: RUF012


class StateIt(MemoryTool):
    place = 1
    example: dict[str, Any] = {"text": "Short answers.", "kind": "style"}  # noqa: RUF012


class Forget(MemoryTool):
    place = 2
    example: dict[str, Any] = {"confirmed": True}  # noqa: RUF012


class TestRememberUnit(Remember, ToolsUnitTests):
    pass


class TestRememberIntegration(Remember, ToolsIntegrationTests):
    pass


class TestStateUnit(StateIt, ToolsUnitTests):
    pass


class TestStateIntegration(StateIt, ToolsIntegrationTests):
    pass


class TestForgetUnit(Forget, ToolsUnitTests):
    pass


class TestForgetIntegration(Forget, ToolsIntegrationTests):
    pass
