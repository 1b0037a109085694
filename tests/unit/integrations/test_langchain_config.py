"""A caller's config: who listens, and how a run is called. tests/unit/test_canary.py: what nobody hears."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from pgenrm_agent import Candidate, EvaluationRequest, as_node, as_tool
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.integrations.langchain.best_of_n import BestOfN
from pgenrm_agent.integrations.langchain.reranker import PersonalDocumentReranker, PersonalReranker
from pgenrm_agent.reward_model import PGenRM

ANSWERS = ["Fair. 5", "Good. 9"]
ASKED = ("ada", "How?", ANSWERS)
REQUEST = EvaluationRequest(
    user_id="ada",
    query="How?",
    candidates=tuple(Candidate(id=text, text=text) for text in ANSWERS),
)
METHODS = ("score", "ascore", "rerank", "arerank", "score_many", "ascore_many")


class Run(NamedTuple):
    name: str
    run_id: UUID
    parent: UUID | None
    tags: list[str]
    metadata: dict[str, Any]


class Listener(BaseCallbackHandler):
    """Notes what begins."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: UUID, **told: Any) -> None:
        tags, metadata = told.get("tags") or [], told.get("metadata") or {}
        run = Run(str(told.get("name")), run_id, told.get("parent_run_id"), tags, metadata)
        self.runs.append(run)

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, **told: Any
    ) -> None:
        self.on_chain_start(serialized, messages, run_id=run_id, **{**told, "name": "chat"})

    def named(self, name: str) -> list[Run]:
        return [run for run in self.runs if run.name == name]


@pytest.fixture
def listener() -> Listener:
    return Listener()


async def done(rm: PGenRM, method: str, config: RunnableConfig) -> object:
    asked = ([REQUEST],) if method.endswith("many") else ASKED
    outcome = getattr(rm, method)(*asked, config=config)
    return await outcome if inspect.isawaitable(outcome) else outcome


@pytest.mark.parametrize("method", METHODS)
async def test_a_run_has_the_name_the_tags_and_the_metadata_of_its_config(
    rm: PGenRM, listener: Listener, method: str
) -> None:
    number = uuid4()
    await done(
        rm,
        method,
        {
            "callbacks": [listener],
            "tags": ["nightly"],
            "metadata": {"release": 4},
            "run_name": "judging",
            "run_id": number,
        },
    )
    run, *steps = listener.runs
    assert run.name == "judging"
    assert run.parent is None
    assert (run.run_id == number) is not method.endswith("many")
    assert [step.name for step in steps if step.parent == run.run_id] == [
        "recall",
        "derive_persona",
        "match_prototype",
        "generate_rubric",
        "sample_scores",
        "aggregate",
    ]
    assert all("nightly" in step.tags and step.metadata["release"] == 4 for step in steps)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (7, "config is 7, an int: pass a RunnableConfig"),
        ({"callback": []}, "config has 'callback', which is no part of a RunnableConfig"),
        ({"callbacks": Listener()}, r'config\["callbacks"\] is .*: pass a list of handlers'),
        ({"callbacks": [print]}, r'config\["callbacks"\] is .*: pass a list of handlers'),
        ({"tags": "nightly"}, r'config\["tags"\] is .*: pass a list of texts'),
        ({"metadata": {4: "release"}}, r'config\["metadata"\] is .*: pass a dict'),
        ({"run_name": b"judging"}, r'config\["run_name"\] is .*: pass a text'),
        ({"run_id": "17"}, r'config\["run_id"\] is .*: pass a UUID'),
    ],
)
async def test_a_config_that_is_none_is_refused(
    rm: PGenRM, method: str, config: Any, complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        await done(rm, method, config)


async def test_a_config_of_a_graph_around_is_heard_and_keeps_no_step_of_the_evaluation(
    rm: PGenRM, listener: Listener
) -> None:
    class State(TypedDict, total=False):
        best: str

    async def judge(state: State, config: RunnableConfig) -> State:
        first = await rm.ascore(*ASKED, config=config)
        second = rm.score(*ASKED, config=config)
        assert first.best == second.best
        return {"best": str(first.best)}

    builder = StateGraph(State)
    builder.add_node("judge", judge)
    builder.add_edge(START, "judge")
    builder.add_edge("judge", END)
    saver = InMemorySaver()
    config: RunnableConfig = {
        "callbacks": [listener],
        "configurable": {"thread_id": "outer"},
        "recursion_limit": 2,
    }
    state = await builder.compile(checkpointer=saver).ainvoke({}, config)
    assert state["best"] == "answer-2"
    assert set(saver.storage) == {"outer"}
    assert set(saver.storage["outer"]) == {""}
    (node,) = listener.named("judge")
    assert [run.parent for run in listener.named("evaluation")] == [node.run_id] * 2
    assert len(listener.named("recall")) == 2


@pytest.mark.parametrize("awaited", [False, True])
async def test_a_graph_around_limits_its_own_steps_alone(rm: PGenRM, awaited: bool) -> None:
    class State(TypedDict, total=False):
        user_id: str
        query: str
        candidates: list[str]
        evaluation: dict[str, Any]

    builder = StateGraph(State)
    builder.add_node("judge", as_node(rm))
    builder.add_edge(START, "judge")
    builder.add_edge("judge", END)
    graph = builder.compile()
    given: State = {"user_id": "ada", "query": "How?", "candidates": ANSWERS}
    config: RunnableConfig = {"recursion_limit": 2}
    state = await graph.ainvoke(given, config) if awaited else graph.invoke(given, config)
    assert state["evaluation"]["best"] == "answer-2"


@pytest.mark.parametrize("awaited", [False, True])
async def test_whoever_listens_to_a_step_hears_the_evaluation_in_it(
    rm: PGenRM, listener: Listener, awaited: bool
) -> None:
    """Each door of LangChain, called by itself: no run around it says who listens."""

    class Shelf(BaseRetriever):
        def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
            return [Document(text) for text in ANSWERS]

    given: Any = {"query": "How?", "candidates": ANSWERS, "user_id": "ada"}
    documents = PersonalDocumentReranker(reward_model=rm, user_id="ada")
    retriever = ContextualCompressionRetriever(base_compressor=documents, base_retriever=Shelf())
    best = BestOfN(model=FakeListChatModel(responses=ANSWERS), reward_model=rm, n=2, user_id="ada")
    steps: list[tuple[Any, Any]] = [
        (as_node(rm), given),
        (as_tool(rm), given),
        (PersonalReranker(reward_model=rm), given),
        (PersonalReranker(reward_model=rm) | RunnableLambda(str), given),
        (retriever, "How?"),
        (best, "How?"),
    ]
    for step, asked in steps:
        listener.runs.clear()
        config: RunnableConfig = {"callbacks": [listener], "tags": ["nightly"]}
        await step.ainvoke(asked, config) if awaited else step.invoke(asked, config)
        (evaluation,) = listener.named("evaluation")
        assert "nightly" in evaluation.tags, step
        assert len(listener.named("recall")) == 1, step
    call, *answers = listener.named("chat")
    assert [answer.parent for answer in answers] == [call.run_id] * 2
    assert evaluation.parent == call.run_id


def test_a_callback_manager_is_as_good_as_a_list(rm: PGenRM, listener: Listener) -> None:
    rm.score(*ASKED, config={"callbacks": CallbackManager.configure([listener])})
    assert len(listener.named("evaluation")) == 1
