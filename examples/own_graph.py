"""A LangGraph graph of one's own with the evaluation graph inside.

Run: python examples/own_graph.py
"""

import asyncio
import tempfile
from pathlib import Path

from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from pgenrm_agent import Evaluation, PGenRM, Scaling, as_node

CHOICES = Path(__file__).with_name("choices.jsonl")
# Your models go here; these drafts are ready, so that the example runs anywhere.
DRAFTS = [
    "Oh, the joys of a well-loved mug! Don't you worry, my friend, I have been there too. A little"
    " patience works wonders. What is your favorite tea, by the way? I hope you enjoy your next"
    " cup!",
    "Rub the stains with wet baking soda, leave it on for five minutes, and rinse the mug.",
]


class State(TypedDict, total=False):
    user_id: str
    query: str
    candidates: list[str]
    evaluation: dict[str, object]
    answer: str


def draft(state: State) -> State:
    return {"candidates": DRAFTS}


def answer(state: State) -> State:
    evaluation = Evaluation.model_validate(state["evaluation"])
    texts = {candidate.id: candidate.text for candidate in evaluation.request.candidates}
    return {"answer": texts[evaluation.ranking[0]]}


async def main(memory: str) -> None:
    async with PGenRM(memory=memory, scaling=Scaling(individual=8, prototype=0, seed=7)) as rm:
        rm.memory.import_jsonl(CHOICES)
        graph = StateGraph(State).add_sequence([draft, ("evaluate", as_node(rm)), answer])
        graph.add_edge(START, "draft").add_edge("answer", END)
        asked: State = {"user_id": "ada", "query": "How do I get tea stains out of a mug?"}
        async for path, update in graph.compile().astream(asked, subgraphs=True):
            print("  " * len(path) + ", ".join(update))
        print("answer:", update["answer"]["answer"])


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(folder))
