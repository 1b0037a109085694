"""Spans: one tree for each evaluation, with numbers. tests/unit/test_canary.py looks for texts in them."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import pytest
from import_graph import imports, modules
from langgraph.graph import END, START, StateGraph
from opentelemetry import trace

from pgenrm_agent import EvaluationCache, as_node
from pgenrm_agent.engines.counting import CountingEngine
from pgenrm_agent.engines.protocol import Prompt, SamplingParams
from pgenrm_agent.errors import EngineTimeout
from pgenrm_agent.graphs.spans import sample
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Message, PreferencePair, Scaling, UserSignals
from pgenrm_agent.testing import ScriptedEngine, write_chain

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

NODES = [
    "pgenrm.recall",
    "pgenrm.derive_persona",
    "pgenrm.match_prototype",
    "pgenrm.generate_rubric",
    "pgenrm.sample_scores",
    "pgenrm.aggregate",
]
SCALING = Scaling(individual=2, prototype=0, resamples=0, seed=1)
PAIR = PreferencePair(query="Tea?", chosen="Yes.", rejected="No.")
KNOWN: dict[str, Any] = {"signals": UserSignals(user_id="ada", history=(PAIR,)), "scaling": SCALING}
ASKED = ("ada", "How?", ["So.", "Not so."])


class OuterState(TypedDict, total=False):
    user_id: str
    query: str
    candidates: list[str]
    evaluation: dict[str, Any]


def engine(**options: Any) -> ScriptedEngine:
    return ScriptedEngine(write_chain([8, 3]), **options)


def children(
    spans: InMemorySpanExporter, parent: ReadableSpan | trace.Span | None
) -> list[ReadableSpan]:
    """The spans right under one, in the order in which they began; of None, those under nothing."""
    above = None if parent is None else parent.get_span_context()
    own = [
        span
        for span in spans.get_finished_spans()
        if (span.parent and span.parent.span_id) == (above and above.span_id)
    ]
    return sorted(own, key=lambda span: span.start_time or 0)


def names(spans: list[ReadableSpan]) -> list[str]:
    return [span.name for span in spans]


@pytest.mark.parametrize("method", ["score", "ascore", "rerank", "arerank"])
async def test_an_evaluation_is_one_tree_under_the_span_of_whoever_asked(
    method: str, spans: InMemorySpanExporter
) -> None:
    with PGenRM(engine=engine()) as rm, trace.get_tracer("app").start_as_current_span("app") as app:
        outcome = getattr(rm, method)(*ASKED, **KNOWN)
        if inspect.isawaitable(outcome):
            await outcome
    (evaluation,) = children(spans, app)
    assert evaluation.name == "pgenrm.evaluation"
    nodes = children(spans, evaluation)
    assert names(nodes) == NODES
    calls = {node.name: names(children(spans, node)) for node in nodes}
    assert {name for name, called in calls.items() if called} == {"pgenrm.derive_persona"}
    assert calls["pgenrm.derive_persona"] == ["chat scripted"]
    assert len(spans.get_finished_spans()) == 9
    assert all(span.status.is_unset for span in spans.get_finished_spans())


async def test_spans_tell_what_the_result_tells(spans: InMemorySpanExporter) -> None:
    async with PGenRM(engine=engine()) as rm:
        evaluation = await rm.ascore(*ASKED, **KNOWN)
    told = {span.name: dict(span.attributes or {}) for span in spans.get_finished_spans()}
    usage = evaluation.usage
    assert told["pgenrm.evaluation"] == {
        "pgenrm.candidates": 2,
        "pgenrm.turns": 0,
        "pgenrm.scaling.individual": 2,
        "pgenrm.scaling.prototype": 0,
        "pgenrm.scored": 2,
        "pgenrm.chains.individual": 2,
        "pgenrm.chains.prototype": 0,
        "pgenrm.failures": 0,
        "pgenrm.neighbors": 0,
        "pgenrm.choices": 1,
        "pgenrm.statements": 0,
        "pgenrm.cached": False,
        "pgenrm.engine_calls": 1,
        "pgenrm.input_tokens": usage.prompt_tokens,
        "pgenrm.output_tokens": usage.completion_tokens,
    }
    call = told["chat scripted"]
    assert call["gen_ai.operation.name"] == "chat"
    assert call["gen_ai.request.model"] == call["gen_ai.provider.name"] == "scripted"
    assert call["gen_ai.request.temperature"] == SCALING.temperature
    assert call["gen_ai.usage.input_tokens"] == usage.prompt_tokens > 0
    assert call["gen_ai.usage.output_tokens"] == usage.completion_tokens > 0
    assert call["pgenrm.samples.asked"] == call["pgenrm.samples.whole"] == 2
    assert told["pgenrm.recall"]["pgenrm.chains.individual"] == 0
    assert told["pgenrm.derive_persona"]["pgenrm.chains.individual"] == 2


async def test_a_failure_is_told_by_its_type_alone(spans: InMemorySpanExporter) -> None:
    async with PGenRM(engine=engine(fail_times=100)) as rm:
        with pytest.raises(EngineTimeout, match="told to time out"):
            await rm.ascore(*ASKED, **KNOWN)
    failed = [span for span in spans.get_finished_spans() if not span.status.is_unset]
    # A node is tried twice.
    assert names(failed) == ["chat scripted", "pgenrm.derive_persona"] * 2 + ["pgenrm.evaluation"]
    for span in failed:
        assert (span.attributes or {})["error.type"] == "EngineTimeout"
        assert span.status.description is None
        assert "told to time out" not in span.to_json()


async def test_whoever_cancels_an_evaluation_ends_its_spans(spans: InMemorySpanExporter) -> None:
    async with PGenRM(engine=engine(latency_s=60)) as rm:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await rm.ascore(*ASKED, **KNOWN)
    (evaluation,) = [span for span in spans.get_finished_spans() if span.parent is None]
    assert (evaluation.attributes or {})["error.type"] == "CancelledError"


def test_an_evaluation_that_is_known_is_a_span_without_a_call(
    spans: InMemorySpanExporter, tmp_path: Path
) -> None:
    cache = EvaluationCache(tmp_path / "evaluations.sqlite")
    with PGenRM(engine=engine(), cache=cache) as rm:
        rm.score(*ASKED, **KNOWN)
        spans.clear()
        rm.score(*ASKED, **KNOWN)
    cache.close()
    (evaluation,) = spans.get_finished_spans()
    assert (evaluation.attributes or {})["pgenrm.cached"] is True
    assert (evaluation.attributes or {})["pgenrm.engine_calls"] == 0


async def test_a_node_of_ones_own_graph_is_an_evaluation_too(
    spans: InMemorySpanExporter, tmp_path: Path
) -> None:
    state: Any = {"user_id": "ada", "query": "How?", "candidates": ["So.", "Not so."]}
    with PGenRM(engine=engine(), memory=tmp_path / "memory", scaling=SCALING) as rm:
        builder = StateGraph(OuterState)
        builder.add_node("judge", as_node(rm))
        builder.add_edge(START, "judge")
        builder.add_edge("judge", END)
        graph = builder.compile()
        await graph.ainvoke(state)
        await asyncio.to_thread(graph.invoke, state)
    evaluations = children(spans, None)
    assert names(evaluations) == ["pgenrm.evaluation"] * 2
    for evaluation in evaluations:
        assert names(children(spans, evaluation)) == NODES
        assert (evaluation.attributes or {})["pgenrm.scored"] == 2


async def test_an_estimate_is_no_call(spans: InMemorySpanExporter) -> None:
    prompt = Prompt(messages=(Message(role="user", content="How?"),))
    assert len(await sample(CountingEngine(None), [prompt], SamplingParams())) == 1
    assert spans.get_finished_spans() == ()


def test_a_single_module_uses_opentelemetry_and_no_more_than_its_api() -> None:
    used = {
        (module, ".".join(name.split(".")[:2]))
        for module, path in modules().items()
        for name in imports(module, path)
        if name.startswith("opentelemetry")
    }
    assert used == {("pgenrm_agent.tracing", "opentelemetry.trace")}
