"""The evaluation graph as a node of somebody else's LangGraph graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from pgenrm_agent.arguments import refuse_other, text_of
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation_input import evaluation_input, evaluation_request
from pgenrm_agent.evaluation_run import MOST_STEPS, evaluation_counts, evaluation_span
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Candidate, Evaluation


class EvaluationNode(Runnable[Mapping[str, Any], dict[str, Any]]):
    """Scores the candidates in the surrounding graph's state for the user named there.

    Made by `as_node`. In async runs (`ainvoke`, `astream`) the evaluation graph is a
    subgraph: its steps are kept by the surrounding graph's checkpointer, and shown by
    `stream(..., subgraphs=True)`. In plain runs it is one opaque step, because its nodes are async.

    Raises ConfigurationError when it is made with arguments of no use or the state lacks a field, and
    what `PGenRM.score` raises.
    """

    def __init__(
        self, reward_model: PGenRM, *, query: str, candidates: str, user: str, to: str
    ) -> None:
        refuse_other(reward_model, PGenRM, "reward_model", "a PGenRM")
        fields = {"query": query, "candidates": candidates, "user": user, "to": to}
        for name, field in fields.items():
            text_of(field, name)
        self._reward_model = reward_model
        self._query, self._candidates, self._user = query, candidates, user
        self._to = to
        self.name = "evaluation"

    def invoke(
        self, input: Mapping[str, Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the update of the surrounding graph's state: the evaluation as JSON data."""
        user, query, candidates = self._read(input)
        evaluation = self._reward_model.score(user, query, candidates, config=config)
        return {self._to: evaluation.model_dump(mode="json")}

    async def ainvoke(
        self, input: Mapping[str, Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the update of the surrounding graph's state: the evaluation as JSON data."""
        request = evaluation_request(*self._read(input))
        given = evaluation_input(request, self._reward_model.scaling, None)
        graph, context = await self._reward_model.aprepare()
        limited: RunnableConfig = {**(config or {}), "recursion_limit": MOST_STEPS}
        with evaluation_span(given) as opened:
            state = await graph.ainvoke(given, limited, context=context)
            if opened.is_recording():
                evaluation = Evaluation.model_validate(state["evaluation"])
                opened.set_attributes(evaluation_counts(evaluation))
        return {self._to: state["evaluation"]}

    def _read(self, state: Mapping[str, Any]) -> tuple[str, str, Sequence[str | Candidate]]:
        refuse_other(state, Mapping, "the graph's state", "a dict, as TypedDict states are")
        missing = [
            field for field in (self._user, self._query, self._candidates) if field not in state
        ]
        if missing:
            raise ConfigurationError(
                f"the graph's state has no {', '.join(missing)}: put it there before this node, or "
                "name other fields in as_node(query=..., candidates=..., user=...)"
            )
        return state[self._user], state[self._query], state[self._candidates]


def as_node(
    reward_model: PGenRM,
    *,
    query: str = "query",
    candidates: str = "candidates",
    user: str = "user_id",
    to: str = "evaluation",
) -> EvaluationNode:
    """Make a node for a LangGraph graph of your own, with the evaluation graph inside.

    Args:
        reward_model: What judges.
        query: The field of your state that holds what the user asked, a text.
        candidates: The field that holds the answers, a list of texts.
        user: The field that holds the user's id.
        to: The field that gets the evaluation, as JSON data (`Evaluation.model_validate` reads it). It
            has to be one of your state's: LangGraph drops what is written to any other.

    Raises:
        ConfigurationError: `reward_model` is no PGenRM, or the name of a field is no text.
    """
    return EvaluationNode(reward_model, query=query, candidates=candidates, user=user, to=to)
