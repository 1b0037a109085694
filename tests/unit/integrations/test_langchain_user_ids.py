"""Whom the application names, in LangChain and LangGraph: in what form, and what if it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict
from uuid import UUID

import pytest
from awkward_ids import TYPED_ANOTHER_WAY, UNUSABLE, USABLE
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, AnyMessage, ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from pydantic import BaseModel

from pgenrm_agent import as_node, as_tool
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.integrations.langchain.best_of_n import BestOfN
from pgenrm_agent.integrations.langchain.memory import memory_tools
from pgenrm_agent.integrations.langchain.reranker import (
    PersonalDocumentReranker,
    PersonalReranker,
)
from pgenrm_agent.integrations.langchain.user import UserFrom
from pgenrm_agent.reward_model import PGenRM

ASKED: dict[str, Any] = {"query": "How?", "candidates": ["So. 3", "Thus. 8"]}
CHOICE = {"query": "How?", "chosen": "So.", "rejected": "Not so."}
NUMBER = UUID("3f8a6c1e-52c4-4d8e-9a3b-0d1f5f4f7e21")


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    user_id: Any
    user: str


@dataclass
class ContextObject:
    user_id: Any = None


class ContextModel(BaseModel):
    user_id: Any = None


class ContextDict(TypedDict, total=False):
    user_id: Any


def every_tool(rm: PGenRM, user_from: UserFrom) -> list[tuple[BaseTool, dict[str, Any]]]:
    """The tools with which the application names the user, each with arguments of a model."""
    given = (ASKED, CHOICE, {"text": "Be brief."}, {"confirmed": True})
    tools = (as_tool(rm, user_from=user_from), *memory_tools(rm, user_from=user_from))
    return list(zip(tools, given, strict=True))


def agent(tool: BaseTool, context: type | None = None) -> Any:
    graph = StateGraph(State, context_schema=context)
    graph.add_node("tools", ToolNode([tool]))
    graph.add_edge(START, "tools")
    return graph.compile()


def calling(tool: BaseTool, arguments: dict[str, Any]) -> list[AnyMessage]:
    call = ToolCall(name=tool.name, args=arguments, id="1", type="tool_call")
    return [AIMessage(content="", tool_calls=[call])]


def last(state: dict[str, Any]) -> ToolMessage:
    message = state["messages"][-1]
    assert isinstance(message, ToolMessage)
    assert message.status == "success", message.content
    return message


@pytest.mark.parametrize("user", USABLE, ids=ascii)
def test_every_usable_id_is_remembered_scored_and_forgotten(rm: PGenRM, user: str) -> None:
    config: Any = {"configurable": {"user_id": user}}
    remember, state, forget = memory_tools(rm)
    assert remember.invoke(CHOICE, config) == "Remembered."
    assert state.invoke({"text": "Be brief."}, config) == "Remembered."
    tool = as_tool(rm, user_from="state")
    ranked = last(agent(tool).invoke({"messages": calling(tool, ASKED), "user_id": user}))
    assert ranked.artifact["request"]["user_id"] == user
    assert as_tool(rm).invoke({**ASKED, "user_id": user}).startswith("Answers as")
    assert (
        PersonalReranker(reward_model=rm).invoke(ASKED, config).evaluation.request.user_id == user
    )
    scored = as_node(rm).invoke({**ASKED, "user_id": user})
    assert scored["evaluation"]["request"]["user_id"] == user
    assert forget.invoke({"confirmed": True}, config) == "Forgotten: 2 entries removed."


@pytest.mark.parametrize(
    ("named", "user"),
    [
        (17, "17"),
        (NUMBER, str(NUMBER)),
        (TYPED_ANOTHER_WAY, "jos\u00e9"),
        ("auth0|123", "auth0|123"),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("context", [ContextObject, ContextModel, ContextDict, None])
async def test_config_and_context_name_the_user_alike(
    rm: PGenRM, context: type | None, named: object, user: str
) -> None:
    tool = as_tool(rm, user_from="config")
    given: Any = {"messages": calling(tool, ASKED)}
    how: dict[str, Any] = (
        {"config": {"configurable": {"user_id": named}}}
        if context is None
        else {"context": context(user_id=named)}
    )
    compiled = agent(tool, context)
    assert last(compiled.invoke(given, **how)).artifact["request"]["user_id"] == user
    assert last(await compiled.ainvoke(given, **how)).artifact["request"]["user_id"] == user


def test_the_context_names_the_user_for_memory_tools_and_rerankers_in_a_graph(rm: PGenRM) -> None:
    for tool, arguments in every_tool(rm, "config")[1:]:
        given = {"messages": calling(tool, arguments)}
        message = last(agent(tool, ContextObject).invoke(given, context=ContextObject("kai")))
    assert message.content == "Forgotten: 2 entries removed."

    def rank(state: State) -> State:
        documents = [Document(page_content=text) for text in ASKED["candidates"]]
        PersonalDocumentReranker(reward_model=rm).compress_documents(documents, "How?")
        result = PersonalReranker(reward_model=rm).invoke({**ASKED})  # type: ignore[arg-type]
        return {"user": result.evaluation.request.user_id}

    graph = StateGraph(State, context_schema=ContextObject)
    graph.add_node("rank", rank)
    graph.add_edge(START, "rank")
    assert graph.compile().invoke({}, context=ContextObject("kai"))["user"] == "kai"


def test_config_and_context_that_disagree_are_refused(rm: PGenRM) -> None:
    tool = as_tool(rm, user_from="config")
    config = {"configurable": {"user_id": "ada"}}
    given = {"messages": calling(tool, ASKED)}
    with pytest.raises(ConfigurationError, match="two users, 'ada' in configurable and 'ben'"):
        agent(tool, ContextObject).invoke(given, config, context=ContextObject("ben"))
    assert last(agent(tool, ContextObject).invoke(given, config, context=ContextObject("ada")))


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize(
    "named", [None, "", " ", ["ada"], {"id": "ada"}, 1.5, True, *UNUSABLE[2:5]]
)
def test_a_user_that_the_application_does_not_name_is_its_error_and_no_message_to_the_model(
    rm: PGenRM, place: int, named: object
) -> None:
    tool, arguments = every_tool(rm, "config")[place]
    given = {"messages": calling(tool, {**arguments, "user_id": "ada"})}
    with pytest.raises(ConfigurationError, match="user"):
        agent(tool).invoke(given, {"configurable": {"user_id": named}})
    with pytest.raises(ConfigurationError, match="user"):
        agent(tool, ContextObject).invoke(given, context=ContextObject(named))
    with pytest.raises(ConfigurationError, match="user"):
        tool.invoke(arguments, {"configurable": {"user_id": named}})

    tool, arguments = every_tool(rm, "state")[place]
    for state in ({"user_id": named}, *([{}, {"user_id": 17}] if named is None else [])):
        with pytest.raises(ConfigurationError, match="user_id"):
            agent(tool).invoke({"messages": given["messages"], **state})
    with pytest.raises(ConfigurationError, match="user_id"):
        tool.invoke(arguments)


def test_nobody_named_at_all_is_an_error_of_the_application(rm: PGenRM) -> None:
    documents = [Document(page_content="So. 3"), Document(page_content="Thus. 8")]
    best = BestOfN(model=FakeListChatModel(responses=["So. 3", "Thus. 8"]), reward_model=rm, n=2)
    calls: list[Callable[[], object]] = [
        *(
            lambda tool=tool, given=given: tool.invoke(given)
            for tool, given in every_tool(rm, "config")
        ),
        lambda: PersonalReranker(reward_model=rm).invoke(ASKED),  # type: ignore[arg-type]
        lambda: PersonalReranker(reward_model=rm).invoke({**ASKED, "user_id": 5}),  # type: ignore[arg-type]
        lambda: PersonalDocumentReranker(reward_model=rm).compress_documents(documents, "How?"),
        lambda: best.invoke("How?"),
        lambda: best.invoke("How?", user_id=" "),
        lambda: as_node(rm).invoke(ASKED),
        lambda: as_node(rm).invoke({**ASKED, "user_id": None}),
        lambda: as_tool(rm, user_id="a\nb"),
        lambda: memory_tools(rm, user_id=""),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match="user"):
            call()


def test_a_model_that_was_to_name_the_user_reads_that_it_has_not(rm: PGenRM) -> None:
    tool = as_tool(rm)
    assert "user_id is missing" in tool.invoke(ASKED)
    assert "no usable id" in tool.invoke({**ASKED, "user_id": "a\nb"})
