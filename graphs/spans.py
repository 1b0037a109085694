"""Spans of the graphs: each node, and each call of an engine, with counts."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

from pgenrm_agent.engines.counting import CountingEngine
from pgenrm_agent.engines.protocol import Completion, Engine, Prompt, SamplingParams
from pgenrm_agent.tracing import Counts, model_span, span

if TYPE_CHECKING:
    from pgenrm_agent.graphs.learning_jobs import Job
    from pgenrm_agent.graphs.state import Draft

Node: TypeAlias = Callable[..., Awaitable[object]]
N = TypeVar("N", bound=Node)


def in_span(node: N, count: Callable[[Mapping[str, object]], Counts]) -> N:
    """Return the node, shown as a span; `count` says how much the state holds after it."""

    @functools.wraps(node)
    async def spanned(state: Mapping[str, object], runtime: object) -> object:
        with span(f"pgenrm.{node.__name__}") as opened:
            update = await node(state, runtime)
            if opened.is_recording():
                after = {**state, **cast("Mapping[str, object]", update)}
                opened.set_attributes(count(after))
            return update

    return cast(N, spanned)


def run_counts(state: Mapping[str, object]) -> Counts:
    """Return how much the state of an evaluation holds."""
    drafts = cast("Sequence[Draft]", state.get("chains") or ())
    levels = Counter(draft["level"] for draft in drafts)
    return {
        "pgenrm.chains.individual": levels["individual"],
        "pgenrm.chains.prototype": levels["prototype"],
        "pgenrm.failures": _size(state, "failures"),
        "pgenrm.neighbors": _size(state, "neighbors"),
    }


def build_counts(state: Mapping[str, object]) -> Counts:
    """Return how much the state of a build of prototypes holds."""
    jobs = cast("Sequence[Job]", state.get("jobs") or ())
    return {
        "pgenrm.users": len({job["user"] for job in jobs}),
        "pgenrm.personas.asked": len(jobs),
        "pgenrm.personas.done": cast(int, state.get("done", 0)),
        "pgenrm.personas.unreadable": cast(int, state.get("unreadable", 0)),
        "pgenrm.personas.failed": cast(int, state.get("failed", 0)),
    }


async def sample(
    engine: Engine, prompts: Sequence[Prompt], params: SamplingParams
) -> list[list[Completion]]:
    """Sample every prompt, shown as a span; see `Engine.sample`. An estimate asks no model."""
    if isinstance(engine, CountingEngine):
        return await engine.sample(prompts, params)
    asked = {
        "gen_ai.request.temperature": params.temperature,
        "gen_ai.request.top_p": params.top_p,
        "gen_ai.request.max_tokens": params.max_tokens,
        "pgenrm.prompts": len(prompts),
        "pgenrm.samples.asked": sum(prompt.n for prompt in prompts),
        "pgenrm.samples.of_similar_users": sum(p.n for p in prompts if p.confidential),
    }
    with model_span(engine.name, asked) as opened:
        answers = await engine.sample(prompts, params)
        everything = [completion for answer in answers for completion in answer]
        whole = [completion for completion in everything if completion.finish_reason == "stop"]
        opened.set_attributes(
            {
                "gen_ai.usage.input_tokens": sum(item.prompt_tokens for item in everything),
                "gen_ai.usage.output_tokens": sum(item.tokens for item in everything),
                "pgenrm.samples.whole": len(whole),
            }
        )
        return answers


def _size(state: Mapping[str, object], name: str) -> int:
    return len(cast("Sequence[object]", state.get(name) or ()))
