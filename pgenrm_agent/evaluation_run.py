"""One run of the evaluation graph, how far it is, and whether its result is known already."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypedDict, cast, get_args

from pgenrm_agent.arguments import (
    items_of,
    model_of,
    refuse_other,
    seconds_of,
    text_of,
    whole_number,
    yes_or_no,
)
from pgenrm_agent.background_loop import all_or_cancel
from pgenrm_agent.errors import ConfigurationError, EngineError, PGenRMError
from pgenrm_agent.evaluation_cache import EvaluationCache, cache_key
from pgenrm_agent.fields import Model
from pgenrm_agent.ranking import Fallback, RerankResult, given_order, ranking_of
from pgenrm_agent.schema import Evaluation, EvaluationRequest, Prices, Scaling
from pgenrm_agent.tracing import Counts, span

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from opentelemetry.trace import Span

    from pgenrm_agent.engines.protocol import Engine
    from pgenrm_agent.graphs.evaluation import EvaluationGraph
    from pgenrm_agent.graphs.state import EvaluationContext, EvaluationInput, JSONObject


MOST_STEPS = 1000
"""More than a run can take: it ends by itself, and a limit of a graph around it is not meant for it."""


class RunOptions(TypedDict):
    """What is the same in all evaluations of a reward model: see `EvaluationContext`."""

    show_neighbors: bool
    staged: bool
    max_tokens: int | None
    prices: Prices | None


def run_options(
    show_neighbors: bool, staged: bool, max_tokens: int | None, prices: Prices | None
) -> RunOptions:
    """Return the options; raises ConfigurationError for one of another type."""
    return {
        "show_neighbors": yes_or_no(show_neighbors, "show_neighbors"),
        "staged": yes_or_no(staged, "staged"),
        "max_tokens": None
        if max_tokens is None
        else whole_number(max_tokens, "max_tokens", least=1),
        "prices": None if prices is None else model_of(Prices, prices, "prices"),
    }


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


async def evaluate(
    graph: EvaluationGraph,
    given: EvaluationInput,
    context: EvaluationContext,
    cache: EvaluationCache | None,
    *,
    started: float,
    timeout: float | None = None,
    thread_id: str | None = None,
    on_progress: OnProgress | None = None,
    config: RunnableConfig | None = None,
) -> Evaluation:
    """Return the evaluation from the cache, or run the graph to its end and keep the result.

    A run whose steps are kept under a `thread_id` is always run, and so is one on a model that was
    handed over loaded, and one in which similar users may take part. One that was cut short by its
    `timeout`, of which a call failed, or that lacks a score, is not kept.
    """
    timeout = seconds_of(timeout, "timeout")
    if timeout is not None and timeout <= 0:
        raise ConfigurationError(f"timeout is {timeout}: pass more than 0 seconds, or None")
    if thread_id is not None:
        text_of(thread_id, "thread_id")
    if on_progress is not None and not callable(on_progress):
        refuse_other(on_progress, (), "on_progress", "a function that takes a Progress")

    run = partial(
        run_evaluation,
        graph,
        given,
        context,
        started=started,
        timeout=timeout,
        thread_id=thread_id,
        on_progress=on_progress,
        config=config,
    )
    # Nothing tells one loaded model from another.
    nameless = getattr(context.engine, "source", None) == ""
    with evaluation_span(given) as opened:
        if cache is None or thread_id is not None or nameless:
            evaluation = await run()
        else:
            evaluation = await _known_or(run, given, context, cache, started)
        opened.set_attributes(evaluation_counts(evaluation))
    return evaluation


async def _known_or(
    run: Callable[[], Awaitable[Evaluation]],
    given: EvaluationInput,
    context: EvaluationContext,
    cache: EvaluationCache,
    started: float,
) -> Evaluation:
    """Return the evaluation from the cache; else run it, and keep it there if it is whole."""
    key = await asyncio.to_thread(_key, given, context)
    if key is None:
        return await run()
    known = await asyncio.to_thread(cache.get, key)
    if known is not None:
        usage = known.usage.model_copy(update={"cost": None if context.prices is None else 0.0})
        timings = {"total": time.perf_counter() - started}
        return known.model_copy(update={"usage": usage, "timings": timings})
    forgets = await asyncio.to_thread(cache.forgets)
    evaluation = await run()
    cut = any(failure.reason in ("timeout", "failed") for failure in evaluation.failures)
    if cut or len(evaluation.ranking) < len(evaluation.scores):
        return evaluation
    # Somebody may have been forgotten, have chosen anew, or have built prototypes, while it was written.
    if await asyncio.to_thread(_key, given, context) == key:
        await asyncio.to_thread(cache.put, key, evaluation, forgets=forgets)
    return evaluation


def evaluation_span(given: EvaluationInput) -> AbstractContextManager[Span]:
    """Show an evaluation as a span, with how much was asked."""
    request = cast("dict[str, list[JSONObject]]", given["request"])
    scaling = Scaling.model_validate(given.get("scaling") or {})
    return span(
        "pgenrm.evaluation",
        {
            "pgenrm.candidates": len(request["candidates"]),
            "pgenrm.turns": len(request["conversation"]),
            "pgenrm.scaling.individual": scaling.individual,
            "pgenrm.scaling.prototype": scaling.prototype,
        },
    )


def evaluation_counts(evaluation: Evaluation) -> Counts:
    """Return what came of an evaluation, in numbers.

    Tokens are not under the names of the conventions for GenAI here: the calls' spans have them under
    those, and who adds up would count them twice.
    """
    levels = Counter(chain.level for chain in evaluation.chains)
    return {
        "pgenrm.scored": len(evaluation.ranking),
        "pgenrm.chains.individual": levels["individual"],
        "pgenrm.chains.prototype": levels["prototype"],
        "pgenrm.failures": len(evaluation.failures),
        "pgenrm.neighbors": len(evaluation.neighbors),
        "pgenrm.choices": evaluation.evidence.choices,
        "pgenrm.statements": evaluation.evidence.statements,
        "pgenrm.cached": evaluation.cached,
        "pgenrm.engine_calls": evaluation.usage.engine_calls,
        "pgenrm.input_tokens": evaluation.usage.prompt_tokens,
        "pgenrm.output_tokens": evaluation.usage.completion_tokens,
    }


def _key(given: EvaluationInput, context: EvaluationContext) -> str | None:
    """Return the key of what would be evaluated. It may read the memory, or ask a server.

    None where there are prototypes: what comes of similar users would outlive their wish to go, and
    who of them takes part changes every day.
    """
    from pgenrm_agent import __version__
    from pgenrm_agent.graphs.state import default_format, scaling_of

    if scaling_of(given).prototype and context.neighbors and context.neighbors.version():
        return None
    request = EvaluationRequest.model_validate(given["request"])
    signals: JSONObject = {"history": given.get("history"), "stated": given.get("stated")}
    if context.memory is not None and signals == {"history": None, "stated": None}:
        known = context.memory.recall(request.user_id, selection="recent")
        signals = known.model_dump(mode="json", include={"history", "stated"})
    chain_format = context.chain_format or default_format(context.engine)
    return cache_key(
        {
            "library": __version__,
            "request": given["request"],
            "signals": {name: _contents(rows) for name, rows in signals.items()},
            "choices_known": given.get("choices_known"),
            "scaling": given.get("scaling"),
            "model": model_identity(context.engine),
            "format": [chain_format.name, chain_format.digest],
            "memory": str(getattr(context.memory, "where", "")),  # a tenant's own
            "options": [context.staged, context.max_tokens, context.show_neighbors],
        }
    )


def model_identity(engine: Engine | None) -> list[str]:
    """Return what tells one model from another, which its name alone does not.

    An engine may tell in `models` and `source` what it asks; a folder also has a date and a size.
    """
    if engine is None:
        return []
    models = [str(model) for model in getattr(engine, "models", ())]
    folders = [Path(model) for model in models if Path(model).is_dir()]
    states = [(file, file.stat()) for folder in folders for file in sorted(folder.iterdir())]
    return [
        engine.name,
        str(getattr(engine, "source", "")),
        *models,
        *(f"{file} {state.st_size} {state.st_mtime_ns}" for file, state in states),
    ]


def _contents(rows: object) -> list[str]:
    """Return choices or statements in the order in which prompts show them, without the time."""
    dated = [dict(row) for row in cast("list[JSONObject] | None", rows) or []]
    dated.sort(
        key=lambda row: datetime.fromisoformat(str(row.get("created_at", "1970-01-01T00:00Z")))
    )
    contents = ({name: row[name] for name in row if name != "created_at"} for row in dated)
    return [json.dumps(content, sort_keys=True) for content in contents]


async def run_evaluation(
    graph: EvaluationGraph,
    given: EvaluationInput,
    context: EvaluationContext,
    *,
    started: float,
    timeout: float | None = None,
    thread_id: str | None = None,
    on_progress: OnProgress | None = None,
    config: RunnableConfig | None = None,
) -> Evaluation:
    """Run the graph to its end; the result's timings have the "total" since `started`.

    timeout: seconds from now after which chains that are not whole are given up.
    config: as `run_config` gives it.
    """
    if timeout is not None:
        context = replace(context, deadline=time.monotonic() + timeout)
    # A thread of its own also keeps the run out of the checkpoints of a graph around it.
    own: RunnableConfig = {
        **(config or {}),
        "configurable": {"thread_id": thread_id or uuid.uuid4().hex},
        "recursion_limit": MOST_STEPS,
    }
    state: dict[str, object] = {}
    chains = 0
    async for mode, part in graph.astream(
        given, own, context=context, stream_mode=["updates", "values"]
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


async def ranked(
    scoring: Awaitable[Evaluation],
    fallback: Fallback | None,
    request: EvaluationRequest,
) -> RerankResult:
    """Return the ranking of an evaluation; with the fallback, the given order where no model answers."""
    if fallback not in (None, *get_args(Fallback)):
        if asyncio.iscoroutine(scoring):
            scoring.close()
        raise ConfigurationError(
            f'fallback is {fallback!r:.80}: pass "order", or None for an error'
        )
    try:
        return ranking_of(await scoring)
    except EngineError as error:
        if fallback is None:
            raise
        return given_order(request, error)


async def evaluate_each(
    score: Callable[[EvaluationRequest], Awaitable[Evaluation]],
    requests: Sequence[EvaluationRequest],
    concurrency: int,
) -> list[Evaluation | PGenRMError]:
    """Score requests, `concurrency` at a time; each has its result, or its error, in its place."""
    asked = cast("tuple[EvaluationRequest, ...]", items_of(requests, "requests", "requests"))
    places = asyncio.Semaphore(whole_number(concurrency, "concurrency", least=1))

    async def score_request(request: EvaluationRequest) -> Evaluation | PGenRMError:
        async with places:
            try:
                return await score(model_of(EvaluationRequest, request, "request"))
            except PGenRMError as error:
                return error

    return await all_or_cancel([score_request(request) for request in asked])
