"""A run gone through again from its record, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from langgraph.checkpoint.base import BaseCheckpointSaver

from pgenrm_agent.debugging.export import copy_run
from pgenrm_agent.debugging.records import Records, config_of, id_of
from pgenrm_agent.debugging.views import Replay
from pgenrm_agent.engines.protocol import Capabilities, Completion, Prompt, SamplingParams
from pgenrm_agent.errors import EngineError
from pgenrm_agent.graphs.checkpoints import in_memory
from pgenrm_agent.graphs.evaluation import build_graph
from pgenrm_agent.graphs.sealing import NO_LONGER_OPEN
from pgenrm_agent.graphs.state import EvaluationContext
from pgenrm_agent.schema import Evaluation


async def replay(
    records: Records, saver: BaseCheckpointSaver[str], context: EvaluationContext, run: str
) -> Replay:
    """Score the recorded texts of a run anew, and tell whether they give the recorded result."""
    lineage = await records.lineage(run)
    ids = {id_of(snapshot) for snapshot in lineage}
    steps = tuple(step for step in await records.timeline(run) if step.id in ids)
    scored = [
        i
        for i, snapshot in enumerate(lineage)
        if i and snapshot.values.get("evaluation") and lineage[i - 1].next == ("aggregate",)
    ]
    if not scored:
        return Replay(steps=steps, evaluation=None, same=None)
    scratch = in_memory()
    before = [id_of(snapshot) for snapshot in lineage[: scored[-1]]]
    await copy_run(saver, scratch, run, run, before, {})
    state = await build_graph(scratch).ainvoke(
        None, config_of(run), context=replace(context, engine=_Silent()), interrupt_after="*"
    )
    evaluation = Evaluation.model_validate(state["evaluation"])
    recorded = Evaluation.model_validate(lineage[scored[-1]].values["evaluation"])
    # What prompts showed depends on the engine's format, and there is no engine.
    evaluation = evaluation.model_copy(update={"evidence": recorded.evidence})
    same: bool | None = _content(evaluation) == _content(recorded)
    drafts = lineage[scored[-1] - 1].values["chains"]
    if not same and any(draft["problem"] == NO_LONGER_OPEN for draft in drafts):
        same = None
    return Replay(steps=steps, evaluation=evaluation, same=same)


def _content(evaluation: Evaluation) -> Evaluation:
    """Return the evaluation without what the machine and the model's owner add to it."""
    usage = evaluation.usage.model_copy(update={"model": "", "cost": None})
    return evaluation.model_copy(update={"timings": {}, "usage": usage})


class _Silent:
    """The engine of a replay: there is nothing to sample, and it says so if asked to."""

    name = "replay"
    capabilities = Capabilities(continues=True, seeds="exact")

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        raise EngineError("the record lacks texts that this step needs, and a replay samples none")

    async def aclose(self) -> None:
        return None
