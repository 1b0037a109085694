"""Servers as they are: every behavior of the corpus, over a socket, against the engines it concerns."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from behaviors import GOOD, SCHEMA, STOP, Behavior
from chat_openai import chat_openai
from scripted_server import ScriptedServer
from server_behaviors import BEHAVIORS

from pgenrm_agent.background_loop import BackgroundLoop
from pgenrm_agent.engines.chat import ChatModelEngine
from pgenrm_agent.engines.openai import OpenAIEngine
from pgenrm_agent.engines.protocol import Completion, Engine, Prompt, SamplingParams
from pgenrm_agent.errors import PGenRMError
from pgenrm_agent.schema import Message

KEY = "sk-do-not-show-this"
SHARED = Path(__file__).parents[4] / "shared" / "cases" / "servers.jsonl"
MESSAGES = (
    Message(role="system", content="You judge."),
    Message(role="user", content="How is this?"),
)
PARAMS = SamplingParams(temperature=0.5, top_p=0.9, max_tokens=64, stop=(STOP,))
PLAYED = [
    pytest.param(engine, behavior, id=f"{engine}-{behavior.name}")
    for behavior in BEHAVIORS
    for engine in behavior.engines
]

Open = Callable[[str], Engine]


@pytest.fixture
def open_engine(server: ScriptedServer) -> Iterator[Open]:
    closing = BackgroundLoop("test")
    engines: list[Engine] = []

    def opened(name: str) -> Engine:
        engine: Engine
        if name == "openai":
            engine = OpenAIEngine("m", base_url=server.url, api_key=KEY, retries=1, concurrency=1)
        else:
            engine = ChatModelEngine(chat_openai(server.url, KEY), retries=1, concurrency=1)
        engines.append(engine)
        return engine

    yield opened
    for engine in engines:
        closing.run_blocking(engine.aclose)
    closing.close()


def prompt_for(behavior: Behavior) -> Prompt:
    return Prompt(messages=MESSAGES, n=behavior.n, json_schema=SCHEMA if behavior.schema else None)


def check_samples(name: str, behavior: Behavior, samples: list[Completion]) -> None:
    texts = [sample.text for sample in samples]
    ends = [sample.finish_reason for sample in samples]
    assert ends == list(behavior.ends or ["stop"] * behavior.n)
    if behavior.texts is not None:
        assert texts == list(behavior.texts)
    else:
        assert {text for text, end in zip(texts, ends, strict=True) if end == "stop"} == {GOOD}
    # LangChain's ChatOpenAI keeps no thinking that has a field of its own.
    hidden = name == "chat" and "reasoning_content" in json.dumps(behavior.body)
    assert samples[0].reasoning == ("" if hidden else behavior.reasoning)
    if behavior.tokens is not None:
        assert samples[0].tokens == behavior.tokens
    for sample in samples:
        assert KEY not in sample.detail
        assert bool(sample.detail) == (sample.finish_reason != "stop")
        if sample.detail:
            assert behavior.detail in sample.detail


@pytest.mark.parametrize(("name", "behavior"), PLAYED)
async def test_what_a_server_does_has_its_outcome(
    server: ScriptedServer, open_engine: Open, name: str, behavior: Behavior
) -> None:
    server.script, server.owner = behavior.reply, behavior.owner
    engine = open_engine(name)
    if behavior.error is not None:
        kind, words = behavior.error
        with pytest.raises(kind, match=f"(?s){words}") as caught:
            await engine.sample([prompt_for(behavior)], PARAMS)
        check_error(caught.value)
        return
    [samples] = await engine.sample([prompt_for(behavior)], PARAMS)
    check_samples(name, behavior, samples)
    last = server.requests[-1]
    assert not set(behavior.without) & set(last)
    assert {field: last.get(field) for field in behavior.sent} == dict(behavior.sent)
    if behavior.learned:
        asked = len(server.requests)
        [again] = await engine.sample([prompt_for(behavior)], PARAMS)
        check_samples(name, behavior, again)
        later = server.requests[asked:]
        assert not any(behavior.when(body, asked) for body in later), "asked in the old way again"


def check_error(error: Exception) -> None:
    assert isinstance(error, PGenRMError)
    assert "\n" not in str(error)
    for part in (KEY, "sk-do", "this."):
        assert part not in str(error)


def test_the_corpus_is_whole() -> None:
    names = [behavior.name for behavior in BEHAVIORS]
    assert len(names) == len(set(names)) >= 30
    for behavior in BEHAVIORS:
        assert re.fullmatch(r"[a-z0-9-]+", behavior.name)
        assert behavior.behavior
        assert behavior.outcome


# --- the cases that were handed over, where they are at hand ---

HANDED_OVER = {
    "stop refused": "stop-refused",
    "seed refused, FastAPI shape": "seed-refused",
    "max_tokens refused behind a gateway": "limit-renamed",
    "temperature refused": "temperature-refused",
    "n ignored": "n-ignored",
    "error with status 200": "error-with-status-200-always",
    "content as blocks": "content-as-blocks",
    "only reasoning": "only-thinking",
    "refusal": "refusal",
    "one of n filtered": "one-of-several-filtered",
    "system role refused": "system-role-refused",
    "response_format refused": "json-schema-refused",
    "schema with a fence": "schema-in-a-fence",
    "key refused": "key-refused",
}
"""Cases by the behavior of the corpus that has their outcome."""


def test_the_cases_that_were_handed_over_are_in_the_corpus() -> None:
    assert set(HANDED_OVER.values()) <= {behavior.name for behavior in BEHAVIORS}
    if SHARED.is_file():
        lines = SHARED.read_text(encoding="utf-8").splitlines()
        assert {json.loads(line)["name"] for line in lines} == set(HANDED_OVER)


async def test_their_own_bodies_have_the_same_outcome(
    server: ScriptedServer, open_engine: Open
) -> None:
    """Without the file there is nothing to play; the corpus has the same cases in its own words."""
    if not SHARED.is_file():
        return
    outcomes = {behavior.name: behavior for behavior in BEHAVIORS}
    for line in SHARED.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        behavior = outcomes[HANDED_OVER[case["name"]]]
        name = behavior.engines[0]
        played = Behavior(
            **{
                **vars(behavior),
                "body": case["body"],
                "status": case["status"],
                "texts": None,
                "reasoning": "",
            }
        )
        server.requests.clear()
        server.script = played.reply
        engine = open_engine(name)
        if played.error is not None:
            with pytest.raises(played.error[0]) as caught:
                await engine.sample([prompt_for(played)], PARAMS)
            check_error(caught.value)
            continue
        [samples] = await engine.sample([prompt_for(played)], PARAMS)
        assert [sample.finish_reason for sample in samples] == list(
            played.ends or ["stop"] * played.n
        ), case["name"]
        assert not set(played.without) & set(server.requests[-1]), case["name"]
