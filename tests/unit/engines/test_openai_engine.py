"""The OpenAI engine against a server that misbehaves on purpose, over a real socket.

What a well-behaved server does is in tests/integration/test_openai_engine_on_vllm.py, with vLLM.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from scripted_server import Body, Reply, ScriptedServer, completion, refusal

from pgenrm_agent.engines.grammar import json_grammar
from pgenrm_agent.engines.openai import OpenAIEngine, first_seed
from pgenrm_agent.engines.protocol import Engine, Prompt, SamplingParams
from pgenrm_agent.errors import (
    ConfigurationError,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
)
from pgenrm_agent.schema import Message

KEY = "sk-do-not-show-this"
PROMPT = Prompt(messages=(Message(role="user", content="Hello?"),))
FEW_TOKENS = SamplingParams(max_tokens=8)


def prompts(n: int = 1, **more: Any) -> list[Prompt]:
    return [PROMPT.model_copy(update={"n": n, **more})]


def test_it_is_an_engine(connect: Callable[..., OpenAIEngine]) -> None:
    assert isinstance(connect(), Engine)


async def test_a_prompt_is_paid_for_with_every_request(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    server.script = lambda body, _: completion("a sample", total_tokens=2)  # whatever n asks for
    [samples] = await connect().sample(prompts(3), FEW_TOKENS)
    assert len(samples) == 3
    assert sum(sample.prompt_tokens for sample in samples) == 5 * len(server.requests) == 15


async def test_n_samples_are_one_request_with_the_parameters_asked_for(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    server.script = lambda body, _: completion("one", "a longer two", "3", total_tokens=16)
    [samples] = await connect().sample(
        prompts(3, seed=7), SamplingParams(temperature=0.5, max_tokens=9, stop=("<JSON_END>",))
    )

    assert [sample.text for sample in samples] == ["one", "a longer two", "3"]
    assert sum(sample.tokens for sample in samples) == 16
    assert samples[1].tokens > samples[0].tokens > samples[2].tokens
    assert [sample.prompt_tokens for sample in samples] == [5, 0, 0]
    assert server.requests == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "Hello?"}],
            "temperature": 0.5,
            "max_tokens": 9,
            "stop": ["<JSON_END>"],
            "n": 3,
            "seed": first_seed(7),
        }
    ]


async def test_an_answer_cut_by_the_limit_says_so(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    server.script = lambda body, _: completion("half an ans", reason="length")
    [[sample]] = await connect().sample(prompts(), FEW_TOKENS)
    assert sample.finish_reason == "length"


async def test_a_server_that_ignores_n_is_asked_once_for_each_sample(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine], caplog: pytest.LogCaptureFixture
) -> None:
    server.script = lambda body, number: completion(f"sample {body['seed'] - first_seed(0)}")
    engine = connect()

    [samples] = await engine.sample(prompts(4), FEW_TOKENS)
    assert [sample.text for sample in samples] == [f"sample {j}" for j in range(4)]
    assert "gave 1 of 4 samples" in caplog.text

    # Known from now on: no request for several any more.
    await engine.sample(prompts(2), FEW_TOKENS)
    assert [body.get("n") for body in server.requests] == [4] + [None] * 5


async def test_a_server_that_refuses_n_is_asked_once_for_each_sample(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    server.script = lambda body, _: (
        refusal(400, "n must be 1") if body.get("n", 1) > 1 else completion("fine")
    )
    [samples] = await connect().sample(prompts(3), FEW_TOKENS)
    assert [sample.text for sample in samples] == ["fine"] * 3


async def test_a_model_that_knows_the_limit_by_its_newer_name_gets_it_so(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    server.script = lambda body, _: (
        refusal(400, "Use 'max_completion_tokens' instead.", param="max_tokens")
        if "max_tokens" in body
        else completion("fine")
    )
    engine = connect()
    await engine.sample(prompts(), FEW_TOKENS)
    await engine.sample(prompts(), FEW_TOKENS)
    assert [body.get("max_completion_tokens") for body in server.requests] == [None, 8, 8]


async def test_too_many_requests_are_tried_again(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    server.script = lambda body, number: (
        refusal(429, "slow down") if number < 2 else completion("fine")
    )
    [[sample]] = await connect(retries=2).sample(prompts(), FEW_TOKENS)
    assert sample.text == "fine"
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, EngineUnavailable), (503, EngineUnavailable), (500, EngineError)],
)
async def test_a_fault_that_stays_is_reported_after_the_last_attempt(
    server: ScriptedServer,
    connect: Callable[..., OpenAIEngine],
    status: int,
    error: type[EngineError],
) -> None:
    server.script = lambda body, _: refusal(status, f"not now, {KEY}")
    with pytest.raises(error, match=f"3 attempts .HTTP {status}: not now") as caught:
        await connect(retries=2).sample(prompts(), FEW_TOKENS)
    assert type(caught.value) is error
    assert KEY not in str(caught.value)
    assert len(server.requests) == 3


async def test_a_server_that_hangs_is_given_up(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    server.script = lambda body, _: completion("too late").after(60)
    with pytest.raises(EngineTimeout, match=r"did not answer within 0\.2 s"):
        await connect(timeout_s=0.2, retries=0).sample(prompts(), FEW_TOKENS)


async def test_a_server_that_trickles_bytes_is_given_up(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    server.trickle = True
    with pytest.raises(EngineTimeout):
        await connect(timeout_s=0.5, retries=0).sample(prompts(), FEW_TOKENS)


@pytest.mark.parametrize(
    "body",
    [
        "<html>Bad gateway</html>",
        '{"choices": [',
        {"object": "chat.completion"},
        {"choices": []},
        {"choices": "none"},
        {"choices": [{"index": 0}]},
        {"choices": [{"index": 0, "message": {"content": 12}}]},
        [],
        None,
    ],
)
async def test_an_answer_that_is_no_completion_is_an_error(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine], body: object
) -> None:
    server.script = lambda *_: Reply(body)
    with pytest.raises(EngineError, match="no chat completion"):
        await connect(retries=0).sample(prompts(), FEW_TOKENS)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_not_shown(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine], status: int
) -> None:
    server.script = lambda *_: refusal(status, f"Incorrect API key provided: {KEY}")
    engine = connect()
    with pytest.raises(ConfigurationError, match=f"refuses the API key .HTTP {status}") as caught:
        await engine.sample(prompts(), FEW_TOKENS)
    assert KEY not in f"{caught.value} {engine!r} {engine.name}"


async def test_a_model_that_is_not_served_is_unavailable(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    server.script = lambda *_: refusal(404, "The model `m` does not exist.")
    with pytest.raises(EngineUnavailable, match=r"does not exist.*usually ends in /v1"):
        await connect().sample(prompts(), FEW_TOKENS)


async def test_a_request_that_is_refused_tells_the_servers_reason(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    server.script = lambda *_: refusal(400, "temperature is not supported")
    with pytest.raises(ConfigurationError, match="temperature is not supported"):
        await connect().sample(prompts(2), FEW_TOKENS)


async def test_a_prompt_that_is_too_long_says_what_to_do(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    server.script = lambda *_: refusal(400, "maximum context length is 10 tokens")
    with pytest.raises(ConfigurationError, match="show fewer past choices"):
        await connect().sample(prompts(), FEW_TOKENS)


async def test_vllm_with_less_room_than_the_limit_fills_the_room(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    server.owner = "vllm"
    server.script = lambda body, _: (
        refusal(400, "This model's maximum context length is 10 tokens")
        if "max_tokens" in body
        else completion("fine", reason="length")
    )
    [[sample]] = await connect().sample(prompts(), FEW_TOKENS)
    assert sample.finish_reason == "length"


async def test_vllm_is_given_a_grammar_without_white_space(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    asked = prompts(json_schema=schema)
    await connect().sample(asked, FEW_TOKENS)
    server.owner = "vllm"
    engine = connect()
    await engine.sample(asked, FEW_TOKENS)
    await engine.sample(prompts(json_schema={**schema, "not": {"required": ["b"]}}), FEW_TOKENS)

    forms = [body["response_format"] for body in server.requests]
    assert [form["type"] for form in forms] == ["json_schema", "structural_tag", "json_schema"]
    assert forms[1]["format"] == {"type": "grammar", "grammar": json_grammar(schema)}


async def test_an_unreachable_server_is_unavailable(server: ScriptedServer) -> None:
    server.close()
    engine = OpenAIEngine("m", base_url=server.url, api_key=KEY, retries=0)
    with pytest.raises(EngineUnavailable, match=r"cannot be reached.*start the server"):
        await engine.sample(prompts(), FEW_TOKENS)
    assert not engine.capabilities.continues
    await engine.aclose()


async def test_requests_in_flight_are_bounded(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    server.script = lambda *_: completion("fine").after(0.05)
    engine = connect(concurrency=3)
    await asyncio.gather(*(engine.sample(prompts() * 4, FEW_TOKENS) for _ in range(3)))
    assert len(server.requests) == 12
    assert server.most_together == 3


async def test_one_failure_is_one_sample_that_says_why(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    server.script = lambda body, number: (
        refusal(400, "not this one") if number == 1 else completion("fine")
    )
    samples = await connect(concurrency=1).sample(prompts() * 3, FEW_TOKENS)
    assert [sample.finish_reason for [sample] in samples] == ["stop", "failed", "stop"]
    assert "not this one" in samples[1][0].detail
    assert samples[1][0].text == ""


async def test_a_canceled_call_leaves_the_engine_usable(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    server.script = lambda body, number: completion("fine").after(60 if number == 0 else 0)
    engine = connect(concurrency=1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await engine.sample(prompts(), FEW_TOKENS)
    [[sample]] = await engine.sample(prompts(), FEW_TOKENS)
    assert sample.text == "fine"


async def test_closing_ends_calls_that_wait(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    arrived = threading.Event()

    def late(body: Body, number: int) -> Reply:
        arrived.set()
        return completion("late").after(60)

    server.script = late
    engine = connect()
    waiting = asyncio.create_task(engine.sample(prompts(), FEW_TOKENS))
    await asyncio.to_thread(arrived.wait)
    await engine.aclose()
    with pytest.raises(EngineUnavailable, match="closed"):
        await waiting
    with pytest.raises(EngineUnavailable, match="make another one"):
        await engine.sample(prompts(), FEW_TOKENS)


def test_one_engine_serves_several_event_loops_in_sequence(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    engine = connect()
    for _ in range(3):
        [[sample]] = asyncio.run(engine.sample(prompts(), FEW_TOKENS))
        assert sample.text == "fine"


def test_only_a_vllm_server_is_taken_to_continue_answers(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    plain = connect().capabilities
    assert (plain.continues, plain.seeds) == (False, "none")
    assert connect(continues=True).capabilities.continues
    server.owner = "vllm"
    vllm = connect()
    assert (vllm.capabilities.continues, vllm.capabilities.seeds) == (True, "per_batch")
    assert not connect(continues=False).capabilities.continues


def test_the_server_is_looked_up_once(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    engine = connect()
    assert engine.capabilities == engine.capabilities
    asyncio.run(engine.sample(prompts(), FEW_TOKENS))
    assert server.lookups == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 501])
def test_a_refused_look_up_is_settled(
    server: ScriptedServer,
    connect: Callable[..., OpenAIEngine],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    monkeypatch.setattr("pgenrm_agent.engines.openai.LOOKUP_PAUSE_S", 0.0)
    server.listed = refusal(status, "not for you")
    engine = connect()
    for _ in range(2):
        assert not engine.capabilities.continues
        assert asyncio.run(engine.sample(prompts(), FEW_TOKENS))[0][0].text == "fine"
    assert server.lookups == 1


@pytest.mark.parametrize(
    "listed", [refusal(429, "later"), refusal(503, "later"), Reply("<html>"), Reply([1])]
)
def test_a_look_up_that_tells_nothing_is_not_repeated_for_a_minute(
    server: ScriptedServer,
    connect: Callable[..., OpenAIEngine],
    listed: Reply,
) -> None:
    server.owner, server.listed = "vllm", listed
    engine = connect()
    assert not engine.capabilities.continues
    assert not engine.capabilities.continues
    assert asyncio.run(engine.sample(prompts(), FEW_TOKENS))[0][0].text == "fine"
    assert server.lookups == 1
    server.listed = None
    engine._no_look_before -= 60
    assert engine.capabilities.continues


async def test_calls_at_once_wait_for_a_single_look_up(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgenrm_agent.engines.openai.LOOKUP_TIMEOUT_S", 0.3)
    server.listed = Reply([]).after(5)
    engine = connect()
    began = time.monotonic()
    for [[sample]] in await asyncio.gather(
        *[engine.sample(prompts(), FEW_TOKENS) for _ in range(6)]
    ):
        assert sample.text == "fine"
    assert server.lookups == 1
    assert time.monotonic() - began < 4


async def test_a_begun_answer_is_sent_to_be_continued(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    engine = connect(continues=True)
    await engine.sample(prompts(partial="## Part 1"), FEW_TOKENS)
    [body] = server.requests
    assert body["messages"][-1] == {"role": "assistant", "content": "## Part 1"}
    assert body["continue_final_message"] is True
    assert body["add_generation_prompt"] is False


async def test_a_begun_answer_is_refused_where_the_server_would_start_anew(
    server: ScriptedServer, connect: Callable[..., OpenAIEngine]
) -> None:
    with pytest.raises(ConfigurationError, match="pass continues=True"):
        await connect().sample(prompts(partial="## Part 1"), FEW_TOKENS)
    assert not server.requests


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'pgenrm-agent\[openai\]'"):
        OpenAIEngine("m")


def test_no_key_is_an_error_for_openai_and_none_for_a_server_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, server: ScriptedServer
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigurationError, match="set OPENAI_API_KEY"):
        OpenAIEngine("m")
    engine = OpenAIEngine("m", base_url=server.url)
    assert asyncio.run(engine.sample(prompts(), FEW_TOKENS))[0][0].text == "fine"
    asyncio.run(engine.aclose())


@pytest.mark.parametrize("option", [{"concurrency": 0}, {"timeout_s": 0}, {"retries": -1}])
def test_a_number_out_of_range_is_refused(option: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        OpenAIEngine("m", base_url="http://127.0.0.1:9/v1", **option)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        *("http://localhost:80o0/v1", "http://localhost:99999999/v1", "http://a\nb/v1"),
        *("http://[::1/v1", "http://me:hunter2/x@host/v1", "http://\x7f/v1"),
        *("localhost:8000/v1", "ftp://host/v1", "/v1", "http://", ""),
    ],
)
@pytest.mark.parametrize("told", ["base_url", "OPENAI_BASE_URL"])
def test_an_address_that_is_none_is_refused_and_not_shown(
    url: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    options = {"base_url": url} if told == "base_url" else {}
    with pytest.raises(ConfigurationError, match=f"^{told} is no address of a server") as caught:
        OpenAIEngine("m", api_key=KEY, **options)  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)


def test_neighboring_seeds_share_no_samples() -> None:
    firsts = sorted(first_seed(seed) for seed in range(100))
    assert min(high - low for low, high in pairwise(firsts)) > 32
    assert firsts[-1] + 2**16 <= 2**31
