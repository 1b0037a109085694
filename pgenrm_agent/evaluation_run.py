"""One run of the evaluation graph, and how far it is."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias, TypedDict, cast

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.schema import Evaluation, Model, Prices

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

    from pgenrm_agent.graphs.evaluation import EvaluationGraph
    from pgenrm_agent.graphs.state import EvaluationContext, EvaluationInput

__all__ = ["OnProgress", "Progress", "RunOptions", "run_evaluation"]


class RunOptions(TypedDict):
    """What is the same in all evaluations of a reward model: see `EvaluationContext`."""

    show_neighbors: bool
    staged: bool
    max_tokens: int | None
    prices: Prices | None


class Progress(Model):
    """How far an evaluation is.

    Attributes:
        stage: The node of the evaluation graph that has just ended.
        seconds: Since the evaluation began.
        chains: Texts sampled so far, resampled ones included.
    """

    stage: str
    seconds: float
    chains: int


OnProgress: TypeAlias = Callable[[Progress], None]


async def run_evaluation(
    graph: EvaluationGraph,
    given: EvaluationInput,
    context: EvaluationContext,
    *,
    started: float,
    timeout: float | None = None,
    thread_id: str | None = None,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Run the graph to its end; the result's timings have the "total" since `started`.

    timeout: seconds from now after which chains that are not whole are given up.
    """
    if timeout is not None:
        if not timeout > 0:
            raise ConfigurationError(f"timeout is {timeout}: pass more than 0 seconds, or None")
        context = replace(context, deadline=time.monotonic() + timeout)
    config: RunnableConfig = {"configurable": {"thread_id": thread_id or uuid.uuid4().hex}}
    state: dict[str, object] = {}
    chains = 0
    async for mode, part in graph.astream(
        given, config, context=context, stream_mode=["updates", "values"]
    ):
        if mode == "values":
            state = cast(dict[str, object], part)
        elif on_progress is not None:
            for stage, update in cast(dict[str, dict[str, object]], part).items():
                usage = cast(dict[str, int], update.get("usage", {}))
                chains = usage.get("chains_sampled", chains)
                seconds = time.perf_counter() - started
                on_progress(Progress(stage=stage, seconds=seconds, chains=chains))
    evaluation = Evaluation.model_validate(state["evaluation"])
    total = {"total": time.perf_counter() - started}
    return evaluation.model_copy(update={"timings": evaluation.timings | total})
