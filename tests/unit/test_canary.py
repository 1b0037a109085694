"""What similar users wrote is in prompts, and nowhere else: in no stream, callback, trace, log or error."""

from __future__ import annotations

import inspect
import logging
import re
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import canary
import langsmith
import pytest
from canary import CANARY, OWN, Gossip
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.globals import set_debug, set_llm_cache
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

from pgenrm_agent import PGenRM, as_node, as_tool
from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.engines.chat import ChatModelEngine
from pgenrm_agent.engines.confidential import SPAN
from pgenrm_agent.engines.protocol import Prompt, SamplingParams
from pgenrm_agent.errors import EngineError
from pgenrm_agent.graphs import sampler, sealing
from pgenrm_agent.graphs.prototype_learning import (
    LearnedPrototypes,
    LearningContext,
    learn_prototypes,
)
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.schema import Evaluation, Message

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

ASKED = {"query": "A question", "candidates": ["short", "chatty"]}


class Recorder(BaseCallbackHandler):
    """Keeps all that a callback is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def said(self) -> str:
        return "\n".join(text for _, text in self.told)


def _listen(event: str) -> Any:
    def heard(self: Recorder, *given: object, **further: object) -> None:
        self.told.append((event, repr((given, further))))

    return heard


for _event in [name for name in dir(BaseCallbackHandler) if name.startswith("on_")]:
    setattr(Recorder, _event, _listen(_event))


class OuterState(TypedDict, total=False):
    user_id: str
    query: str
    candidates: list[str]
    evaluation: dict[str, Any]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[UserMemory]:
    with UserMemory(tmp_path / "memory") as opened:
        canary.fill(opened)
        yield opened


@pytest.fixture
def on_model() -> Recorder:
    return Recorder()


@pytest.fixture
def model(on_model: Recorder) -> Gossip:
    return Gossip(callbacks=[on_model], seen=[])


@pytest.fixture
def rm(memory: UserMemory, model: Gossip) -> Iterator[PGenRM]:
    with canary.judging_by(model, memory) as reward_model:
        yield reward_model


@pytest.fixture
def traces() -> Iterator[list[str]]:
    """What a tracing server is sent, with tracing on for the whole process."""
    bodies: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            bodies.append(self.rfile.read(length).decode("utf-8", "replace"))
            self.send_response(202)
            self.end_headers()

        do_PATCH = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = langsmith.Client(
        api_url=f"http://127.0.0.1:{server.server_port}", api_key="k", auto_batch_tracing=False
    )
    langsmith.configure(client=client, enabled=True)
    yield bodies
    langsmith.configure(client=None, enabled=None)
    server.shutdown()
    server.server_close()


def read_by(model: Gossip) -> str:
    """Everything the model was asked: with words of similar users, or the test would prove nothing."""
    asked = "\n".join(model.seen)
    assert CANARY in asked
    assert OWN in asked
    return asked


async def told_by_an_outer_graph(rm: PGenRM) -> tuple[dict[str, str], Recorder]:
    """All that an outer graph shows of an evaluation, by where it shows it, and what callbacks heard."""
    builder = StateGraph(OuterState)
    builder.add_node("judge", as_node(rm))
    builder.add_edge(START, "judge")
    builder.add_edge("judge", END)
    saver, recorder = InMemorySaver(), Recorder()
    outer = builder.compile(checkpointer=saver)
    seen: dict[str, str] = {}
    async for part in outer.astream(
        {"user_id": "ann", **ASKED},
        {"configurable": {"thread_id": "t"}, "callbacks": [recorder]},
        stream_mode=["values", "updates", "messages", "custom", "checkpoints", "tasks", "debug"],
        subgraphs=True,
    ):
        _, mode, content = part
        seen[str(mode)] = f"{seen.get(str(mode), '')}\n{content!r}"
    kept = repr((dict(saver.storage), dict(saver.blobs), dict(saver.writes)))
    return {**seen, "checkpoints of the outer graph": kept, "callbacks": recorder.said()}, recorder


async def test_an_outer_graph_sees_nothing_in_any_stream_callback_or_checkpoint(
    rm: PGenRM, model: Gossip, on_model: Recorder
) -> None:
    told, recorder = await told_by_an_outer_graph(rm)
    read_by(model)
    for place, content in {**told, "callbacks of the model": on_model.said()}.items():
        assert CANARY not in content, place
    for place in ("values", "updates", "callbacks", "checkpoints of the outer graph"):
        assert OWN in told[place]
    assert OWN in on_model.said()
    assert any(SPAN in text for event, text in recorder.told if event == "on_chain_start")
    first, *_ = [text for _, text in recorder.told if "'whole':" in text]
    assert re.search(r"'whole': 3, 'prompt_tokens': 0, 'completion_tokens': \d+\}", first)


@pytest.mark.parametrize(
    "method", ["score", "ascore", "rerank", "arerank", "score_many", "ascore_many"]
)
async def test_callbacks_of_a_call_hear_the_users_own_calls_and_of_others_counts(
    rm: PGenRM, model: Gossip, method: str
) -> None:
    recorder = Recorder()
    config = {
        "callbacks": [recorder],
        "tags": ["tag-17"],
        "metadata": {"release": "release-4"},
        "run_name": "judging",
    }
    asked = ("ann", *ASKED.values())
    outcome = getattr(rm, method)(
        *([[canary.REQUEST]] if method.endswith("many") else asked), config=config
    )
    if inspect.isawaitable(outcome):
        outcome = await outcome
    read_by(model)
    calls = [text for event, text in recorder.told if event == "on_chat_model_start"]
    assert len(calls) == canary.SCALING.individual
    assert all(OWN in call and "tag-17" in call and "release-4" in call for call in calls)
    begun = [text for event, text in recorder.told if event == "on_chain_start"]
    assert "'judging'" in begun[0]
    assert sum(SPAN in text for text in begun) >= 1
    assert CANARY not in recorder.said()


def texts_in(spans: InMemorySpanExporter) -> dict[str, set[str]]:
    """Every text among the attributes of spans, by their names."""
    texts: dict[str, set[str]] = {}
    for span in spans.get_finished_spans():
        assert not span.events
        assert span.status.description is None
        for name, value in (span.attributes or {}).items():
            if not isinstance(value, int | float):
                texts.setdefault(name, set()).add(str(value))
    return texts


NAMES_OF_THE_MODEL = {
    "gen_ai.operation.name": {"chat"},
    "gen_ai.provider.name": {"chat"},
    "gen_ai.request.model": {"Gossip"},
}


async def test_spans_have_counts_and_no_text(
    rm: PGenRM, model: Gossip, spans: InMemorySpanExporter
) -> None:
    await rm.ascore("ann", ASKED["query"], ASKED["candidates"])
    read_by(model)
    assert texts_in(spans) == NAMES_OF_THE_MODEL
    calls = [span for span in spans.get_finished_spans() if span.name == "chat Gossip"]
    shared = [(span.attributes or {})["pgenrm.samples.of_similar_users"] for span in calls]
    assert shared == [0, 3, 3]  # her own; theirs; and theirs again, which could not be read
    told = "\n".join(span.to_json() for span in spans.get_finished_spans())
    for word in (CANARY, OWN, "ann", ASKED["query"], *ASKED["candidates"]):
        assert not re.search(rf"\b{re.escape(word)}\b", told), word


async def test_spans_of_failures_have_no_text_either(
    rm: PGenRM, model: Gossip, spans: InMemorySpanExporter
) -> None:
    model.fails = True
    for user in ("ann", "somebody unknown"):
        with pytest.raises(EngineError):
            await rm.ascore(user, ASKED["query"], ASKED["candidates"])
    texts = texts_in(spans)
    assert all(re.fullmatch(r"Engine\w+", kind) for kind in texts.pop("error.type"))
    assert texts == NAMES_OF_THE_MODEL
    assert CANARY not in "\n".join(span.to_json() for span in spans.get_finished_spans())


async def test_without_the_seal_the_canary_is_seen_everywhere(
    rm: PGenRM, model: Gossip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above looks at would show similar users' words, were they not sealed."""
    monkeypatch.setattr(sealing, "seal_update", lambda update, opened, source: update)
    told, _ = await told_by_an_outer_graph(rm)
    read_by(model)
    sees = {place for place, content in told.items() if CANARY in content}
    assert sees >= {
        "values",
        "updates",
        "tasks",
        "checkpoints",
        "debug",
        "callbacks",
        "checkpoints of the outer graph",
    }


async def test_without_confidence_the_canary_is_seen_by_whatever_watches_the_model(
    rm: PGenRM,
    model: Gossip,
    on_model: Recorder,
    traces: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor would callbacks, traces, logs and errors be silent, were prompts not marked as confidential."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(
        sampler, "Prompt", lambda **given: Prompt(**{**given, "confidential": False})
    )
    await rm.ascore("ann", ASKED["query"], ASKED["candidates"])
    read_by(model)
    for content in (on_model.said(), "\n".join(traces), caplog.text):
        assert CANARY in content
    model.fails = True
    with pytest.raises(EngineError) as raised:
        await rm.ascore("somebody unknown", ASKED["query"], ASKED["candidates"])
    assert CANARY in "".join(traceback.format_exception(raised.value))


async def test_events_of_a_tool_show_nothing(rm: PGenRM, model: Gossip) -> None:
    tool = as_tool(rm, user_id="ann")
    events = [repr(event) async for event in tool.astream_events(ASKED, version="v2")]
    read_by(model)
    assert OWN in "\n".join(events)
    assert CANARY not in "\n".join(events)


async def test_a_tracer_a_console_a_cache_and_the_log_get_nothing(
    rm: PGenRM,
    model: Gossip,
    traces: list[str],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = InMemoryCache()
    set_llm_cache(cache)
    set_debug(True)
    caplog.set_level(logging.DEBUG)
    try:
        await rm.ascore("ann", ASKED["query"], ASKED["candidates"])
    finally:
        set_debug(False)
        set_llm_cache(None)
    read_by(model)
    printed = capsys.readouterr().out
    for place in ("\n".join(traces), printed, repr(cache._cache), caplog.text):
        assert OWN in place
        assert CANARY not in place
    assert SPAN in "\n".join(traces)
    withheld = [record for record in caplog.records if "withheld" in record.getMessage()]
    assert {record.levelname for record in withheld} == {"DEBUG", "WARNING"}


async def test_a_result_and_what_is_asked_of_it_later_hold_nothing(
    rm: PGenRM, model: Gossip
) -> None:
    evaluation = await rm.ascore("ann", ASKED["query"], ASKED["candidates"])
    read_by(model)
    assert {failure.level for failure in evaluation.failures} == {"prototype"}
    assert CANARY not in evaluation.model_dump_json()


@pytest.mark.parametrize("user", ["ann", "somebody unknown"])
async def test_an_error_quotes_no_similar_user(
    rm: PGenRM,
    model: Gossip,
    on_model: Recorder,
    traces: list[str],
    caplog: pytest.LogCaptureFixture,
    user: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    model.fails = True
    recorder = Recorder()
    tool = as_tool(rm, user_id=user)
    with pytest.raises(EngineError) as raised:
        await rm.ascore(user, ASKED["query"], ASKED["candidates"])
    told = await tool.ainvoke(
        {"type": "tool_call", "id": "1", "name": tool.name, "args": ASKED},
        {"callbacks": [recorder]},
    )
    shown = "".join(traceback.format_exception(raised.value))
    everything = (shown, str(told), recorder.said(), on_model.said(), caplog.text, *traces)
    assert CANARY not in "\n".join(everything)
    if user != "ann":  # all chains are of similar users
        assert "withheld" in shown
        assert SPAN in recorder.said()


async def test_an_answer_held_to_a_schema_is_not_seen_either(on_model: Recorder) -> None:
    class Tooled(Gossip):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self

        def _generate(self, messages: Any, *given: Any, **kwargs: Any) -> Any:
            result = super()._generate(messages)
            call = {"name": "answer", "args": {"text": str(messages)}, "id": "1"}
            result.generations[0].message = AIMessage("", tool_calls=[call])
            return result

    engine = ChatModelEngine(Tooled(callbacks=[on_model], seen=[]))
    prompts = [
        Prompt(
            messages=(Message(role="user", content=f"Say {word}"),),
            json_schema={"type": "object", "properties": {"text": {"type": "string"}}},
            confidential=word == CANARY,
        )
        for word in (OWN, CANARY)
    ]
    answers = await engine.sample(prompts, SamplingParams())
    assert CANARY in answers[1][0].text
    assert OWN in on_model.said()
    assert CANARY not in on_model.said()


async def test_a_build_of_prototypes_shows_no_persona(
    memory: UserMemory,
    model: Gossip,
    on_model: Recorder,
    traces: list[str],
    spans: InMemorySpanExporter,
) -> None:
    recorder = Recorder()
    context = LearningContext(
        engine=ChatModelEngine(model),
        chain_format=ChainFormat.load("published"),
        memory=memory,
        embedder=canary.EMBEDDER,
        k=1,
    )

    async def build(_: str) -> LearnedPrototypes:
        return await learn_prototypes(context)

    learned = await RunnableLambda(build).ainvoke("a build", {"callbacks": [recorder]})
    assert learned.users == 4
    assert "a build" in recorder.said()
    assert CANARY in read_by(model)
    assert CANARY not in "\n".join([recorder.said(), on_model.said(), *traces])
    assert texts_in(spans) == NAMES_OF_THE_MODEL
    told = {span.name: dict(span.attributes or {}) for span in spans.get_finished_spans()}
    assert set(told) == {"pgenrm.survey", "pgenrm.derive_personas", "chat Gossip", "pgenrm.learn"}
    assert told["pgenrm.survey"]["pgenrm.users"] == learned.users
    assert told["pgenrm.learn"]["pgenrm.personas.done"] == learned.personas + learned.unreadable


# --- resuming ---


def killed_after(calls: int, folder: Path) -> subprocess.CompletedProcess[str]:
    arguments = [folder / "memory", folder / "runs.sqlite", folder / "log", calls]
    return subprocess.run(
        [sys.executable, canary.__file__, *map(str, arguments)], capture_output=True, text=True
    )


def test_a_run_resumed_after_kills_repeats_no_sample_and_its_file_holds_no_word(
    tmp_path: Path,
) -> None:
    with UserMemory(tmp_path / "memory") as memory:
        canary.fill(memory)
    results = [killed_after(1, tmp_path) for _ in range(3)]
    assert [result.returncode for result in results[:-1]] == [-9, -9]
    kept = b"".join(file.read_bytes() for file in tmp_path.glob("runs.sqlite*"))
    assert OWN.encode() in kept
    assert CANARY.encode() not in kept
    last = results[-1] if results[-1].returncode == 0 else killed_after(9, tmp_path)
    assert last.returncode == 0, last.stderr
    samples = (tmp_path / "log").read_text().splitlines()
    sealed = [sample for sample in samples if sample.endswith("True")]
    assert len(sealed) == len(set(sealed))
    assert len(samples) == len(set(samples))
    assert CANARY not in last.stdout
    chains = Evaluation.model_validate_json(last.stdout).chains
    assert [chain.level for chain in chains] == ["individual"] * 2 + ["prototype"] * 3
