"""What an evaluation would cost, from what its judges would ask about a sample of the questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pgenrm_agent.costs import Estimate, Work, estimate_work, spread
from pgenrm_agent.engines.counting import CountingEngine
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.judges import Judge
from pgenrm_agent.evaluation.questions import Question
from pgenrm_agent.evaluation.records import Record
from pgenrm_agent.evaluation.running import RECORDS
from pgenrm_agent.jsonl import read_records
from pgenrm_agent.schema import Prices, Usage

SAMPLED = 8
"""Questions that each judge is asked."""


async def estimate_evaluation(
    questions: Sequence[Question],
    judges: Sequence[Judge],
    counting: CountingEngine,
    out: Path,
    *,
    runs: int = 1,
    rounds: int = 1,
    prices: Prices | None = None,
) -> Estimate:
    """Return what the records that are not in `out` yet would cost. Nothing is sent, or kept.

    judges: on the engine `counting`, with a scaling that samples nothing again. rounds: how often
    a chain may be sampled.
    """
    records = read_records(out / RECORDS, Record)
    wanted = {question.id for question in questions}
    work: dict[str, Work] = {}
    for judge in judges:
        kept = {
            (record.run, record.question): record.verdict
            for record in records
            if record.judge == judge.name and record.run < runs and record.question in wanted
        }
        missing = [
            question
            for run in range(runs)
            for question in questions
            if (run, question.id) not in kept
        ]
        counting.restart()
        outlined = spread(missing, SAMPLED)
        for question in outlined:
            try:
                await judge.judge(question, seed=0, run_seed=0)
            except ConfigurationError:
                continue  # A question that is refused sends nothing.
        work[judge.name] = Work(
            pieces=len(missing),
            outline=counting.outline,
            outlined=len(outlined),
            rounds=rounds if _samples_again(judge.settings) else 1,
            done=len(kept),
            spent=Usage(
                prompt_tokens=sum(verdict.prompt_tokens for verdict in kept.values()),
                completion_tokens=sum(verdict.completion_tokens for verdict in kept.values()),
            ),
        )
    return estimate_work("verdicts", work, prices)


def _samples_again(settings: Mapping[str, object]) -> bool:
    """Only evaluation chains are sampled again where they cannot be read."""
    return "scaling" in settings
