"""vLLM scores: the one test of it that `make test` runs, too."""

from __future__ import annotations

import asyncio
from typing import Any

from pgenrm_agent import PGenRM, PreferencePair, Scaling
from pgenrm_agent.model_files import bundled_model, format_of

PAST = PreferencePair(
    query="How do I boil an egg?",
    chosen="- Boil water.\n- Add the egg.\n- Wait 8 minutes.",
    rejected="You boil it until it is done.",
)


def test_the_reward_model_scores_with_vllm(start_vllm: Any) -> None:
    scaling = Scaling(individual=4, prototype=0, seed=1)
    engine = start_vllm()
    with PGenRM(engine=engine, chain_format=format_of(bundled_model()), scaling=scaling) as rm:
        evaluation = rm.score(
            "ada",
            "How do I cook rice?",
            ["Just cook it.", "- Rinse it.\n- Boil it."],
            history=[PAST],
        )
    assert len(evaluation.chains) + len(evaluation.failures) >= 4
    assert {score.outcome for score in evaluation.scores} == {"scored"}
    assert evaluation.usage.completion_tokens > 4 * 50
    asyncio.run(engine.aclose())
