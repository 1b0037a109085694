"""A LangGraph graph of one's own with the evaluation graph inside.

Run: python examples/own_graph.py
"""

import asyncio

from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from pgenrm_agent import Evaluation, PGenRM, Scaling, as_node


class State(TypedDict, total=False):
    user_id: str
    query: str
    candidates: list[str]
    evaluation: dict[str, object]
    answer: str


def draft(state: State) -> State:
    """Your models go here; these drafts are ready, so that the example runs anywhere."""
    return {"candidates": ["Baking soda and a sponge.", "Oh, the joys of a well-loved mug!"]}


def answer(state: State) -> State:
    evaluation = Evaluation.model_validate(state["evaluation"])
    texts = {candidate.id: candidate.text for candidate in evaluation.request.candidates}
    return {"answer": texts[evaluation.ranking[0]]}


async def main() -> None:
    async with PGenRM(scaling=Scaling(individual=8, prototype=0, seed=7)) as rm:
        graph = StateGraph(State)
        graph.add_node("draft", draft)
        graph.add_node("evaluate", as_node(rm))
        graph.add_node("answer", answer)
        graph.add_edge(START, "draft")
        graph.add_edge("draft", "evaluate")
        graph.add_edge("evaluate", "answer")
        graph.add_edge("answer", END)
        asked: State = {"user_id": "ada", "query": "How do I get tea stains out of a mug?"}
        async for path, update in graph.compile().astream(asked, subgraphs=True):
            print("  " * len(path) + ", ".join(update))
        print("answer:", update["answer"]["answer"])


asyncio.run(main())
