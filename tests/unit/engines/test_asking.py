"""How servers are asked: part for part, within a time, at a pace, with fields and headers of one's own."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from scripted_server import Body, Reply, ScriptedServer, completion, refusal

from pgenrm_agent.engines.asking import Pace
from pgenrm_agent.engines.openai import OpenAIEngine
from pgenrm_agent.engines.protocol import Prompt, SamplingParams, SchemaRefused
from pgenrm_agent.errors import ConfigurationError, EngineTimeout, EngineUnavailable
from pgenrm_agent.schema import Message

Connect = Callable[..., OpenAIEngine]

FEW = SamplingParams(max_tokens=8)


def ask(text: str = "Hello?", n: int = 1, **more: Any) -> Prompt:
    return Prompt(messages=(Message(role="user", content=text),), n=n, **more)


def said(body: Body) -> str:
    return str(body["messages"][-1]["content"])


@pytest.mark.parametrize(
    ("characters", "read", "is_cut"),
    [(30_000, 4096, True), (30_000, 4095, False), (30_000, 6144, False), (9_000, 2048, False)],
)
async def test_a_prompt_that_the_server_cut_without_a_word_is_no_evidence(
    server: ScriptedServer, connect: Connect, characters: int, read: int, is_cut: bool
) -> None:
    """As Ollama does: a round number of tokens, and far fewer than the text has."""
    answer = completion("fine", total_tokens=2)
    body = json.loads(answer.content)
    body["usage"]["prompt_tokens"] = read
    server.script = lambda *_: Reply(body)
    engine, long = connect(), ask("words " * (characters // 6))
    if is_cut:
        with pytest.raises(ConfigurationError, match=r"read 4096 tokens .* 30000 .*num_ctx"):
            await engine.sample([long], FEW)
        return
    [[sample]] = await engine.sample([long], FEW)
    assert sample.text == "fine"


async def test_a_prompt_that_is_too_long_costs_its_own_samples_only(
    server: ScriptedServer, connect: Connect
) -> None:
    server.script = lambda body, _: (
        refusal(400, "maximum context length is 10 tokens")
        if said(body) == "long"
        else completion(*["fine"] * body.get("n", 1))
    )
    short, long, next_short = await connect().sample([ask("a", 2), ask("long", 2), ask("b")], FEW)
    assert [sample.finish_reason for sample in short + next_short] == ["stop"] * 3
    assert [sample.finish_reason for sample in long] == ["failed"] * 2
    assert "too long" in long[0].detail


GROQ = (
    "Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 8022, please"
    " reduce your message size and try again."
)


@pytest.mark.parametrize(
    "refused",
    [
        refusal(413, "Rate limit exceeded: too many tokens in this minute"),
        refusal(413, "Too many requests"),
    ],
)
async def test_too_much_for_this_minute_is_asked_again_with_its_limit(
    server: ScriptedServer, connect: Connect, refused: Reply
) -> None:
    server.script = lambda _, number: refused if number == 0 else completion("fine")
    [[sample]] = await connect().sample([ask()], FEW)
    assert sample.text == "fine"
    assert [body["max_tokens"] for body in server.requests] == [8, 8]
    server.script = lambda *_: refused
    with pytest.raises(EngineUnavailable, match=r"too many requests after 2 attempts.*HTTP 413"):
        await connect(retries=1).sample([ask()], FEW)


@pytest.mark.parametrize(
    "refused",
    [
        Reply("<html><head><title>413 Request Entity Too Large</title></head></html>", status=413),
        refusal(413, "Request exceeds the maximum size", type="request_too_large"),
        refusal(413, "max_tokens or messages: the body is too large"),
        refusal(413, GROQ, type="tokens", code="rate_limit_exceeded"),
        Reply("", status=413),
    ],
)
async def test_a_body_that_is_too_large_takes_no_limit_away(
    server: ScriptedServer, connect: Connect, refused: Reply
) -> None:
    server.script = lambda *_: refused
    engine = connect()
    with pytest.raises(ConfigurationError, match=r"too large for the server.*show fewer past"):
        await engine.sample([ask()], FEW)
    server.script = lambda *_: completion("fine")
    await engine.sample([ask()], FEW)
    assert [body["max_tokens"] for body in server.requests] == [8, 8]


async def test_a_413_about_the_context_is_one_about_the_context(
    server: ScriptedServer, connect: Connect
) -> None:
    refused = refusal(413, "maximum context length is 90 tokens; you asked for 40 and 64")
    server.script = lambda body, _: refused if "max_tokens" in body else completion("fine")
    [[sample]] = await connect().sample([ask()], FEW)
    assert sample.text == "fine"
    server.script = lambda *_: refused
    with pytest.raises(ConfigurationError, match="too long for the model's context"):
        await connect().sample([ask()], FEW)


async def test_what_is_not_there_in_time_is_a_timeout_and_what_is_there_counts(
    server: ScriptedServer, connect: Connect
) -> None:
    server.script = lambda body, _: completion("fine").after(30 if said(body) == "slow" else 0)
    params = FEW.model_copy(update={"timeout_s": 0.8})
    started = time.monotonic()
    [quick], [slow] = await connect().sample([ask("quick"), ask("slow")], params)
    assert time.monotonic() - started < 10
    assert (quick.text, quick.finish_reason) == ("fine", "stop")
    assert (slow.text, slow.finish_reason) == ("", "timeout")
    assert "0.8 s" in slow.detail


async def test_where_nothing_is_there_in_time_every_sample_is_a_timeout(
    server: ScriptedServer, connect: Connect
) -> None:
    server.script = lambda *_: completion("late").after(30)
    params = FEW.model_copy(update={"timeout_s": 0.3})
    [samples] = await connect().sample([ask(n=3)], params)
    assert [sample.finish_reason for sample in samples] == ["timeout"] * 3


async def test_a_request_that_times_out_by_itself_is_a_timeout_among_others(
    server: ScriptedServer, connect: Connect
) -> None:
    server.script = lambda body, _: completion("fine").after(30 if said(body) == "slow" else 0)
    engine = connect(timeout_s=0.5, retries=0)
    [quick], [slow] = await engine.sample([ask("quick"), ask("slow")], FEW)
    assert (quick.finish_reason, slow.finish_reason) == ("stop", "timeout")
    with pytest.raises(EngineTimeout, match="did not answer within"):
        await engine.sample([ask("slow"), ask("slow")], FEW)


async def test_a_refused_key_is_tried_once_and_not_for_every_sample(
    server: ScriptedServer, connect: Connect
) -> None:
    server.script = lambda *_: refusal(401, "no such key")
    with pytest.raises(ConfigurationError, match="refuses the API key"):
        await connect(concurrency=1).sample([ask()] * 5, FEW)
    assert len(server.requests) == 1


async def test_credit_that_ends_on_the_way_keeps_what_was_paid_for(
    server: ScriptedServer, connect: Connect
) -> None:
    server.script = lambda body, number: (
        completion("fine") if number < 2 else refusal(402, "Insufficient credits")
    )
    samples = await connect(concurrency=1).sample([ask()] * 6, FEW)
    assert [sample.finish_reason for [sample] in samples] == ["stop"] * 2 + ["failed"] * 4
    assert "Insufficient credits" in samples[5][0].detail
    assert len(server.requests) == 3


async def test_a_server_that_is_down_is_given_up_after_the_first_request(
    server: ScriptedServer, connect: Connect
) -> None:
    server.script = lambda *_: refusal(503, "restarting")
    with pytest.raises(EngineUnavailable, match="restarting"):
        await connect(concurrency=1, retries=1).sample([ask()] * 8, FEW)
    assert len(server.requests) == 2


async def test_different_failures_of_every_sample_are_an_error_too(
    server: ScriptedServer, connect: Connect
) -> None:
    server.script = lambda _, number: refusal(400, f"reason {number}")
    with pytest.raises(ConfigurationError, match="reason 0"):
        await connect(concurrency=1).sample([ask(), ask()], FEW)


@pytest.mark.parametrize(
    "headers",
    [{"retry-after-ms": "300"}, {"retry-after": "0.3"}],
)
async def test_the_wait_that_a_server_asks_for_is_kept(
    server: ScriptedServer, connect: Connect, headers: dict[str, str]
) -> None:
    times: list[float] = []

    def script(body: Body, number: int) -> Reply:
        times.append(time.monotonic())
        if number:
            return completion("fine")
        return Reply({"error": {"message": "slow down"}}, status=429, headers=headers)

    server.script = script
    await connect().sample([ask()], FEW)
    assert 0.28 <= times[1] - times[0] < 5


async def test_requests_begin_at_the_pace_that_was_asked_for(
    server: ScriptedServer, connect: Connect
) -> None:
    times: list[float] = []
    lock = threading.Lock()

    def script(body: Body, number: int) -> Reply:
        with lock:
            times.append(time.monotonic())
        return completion("fine")

    server.script = script
    await connect(requests_per_minute=600).sample([ask()] * 6, FEW)
    assert max(times) - min(times) >= 0.45, "six requests, 0.1 s apart"


async def test_repetitions_keep_the_pace() -> None:
    pace = Pace(4, 1200)
    started = time.monotonic()
    await asyncio.gather(*(pace.turn() for _ in range(5)))
    assert 0.19 <= time.monotonic() - started < 5


async def test_requests_that_are_given_up_while_they_wait_take_no_turn() -> None:
    pace = Pace(4, 300)
    await pace.turn()
    waiting = [asyncio.create_task(pace.turn()) for _ in range(50)]
    await asyncio.sleep(0.01)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    async with asyncio.timeout(2):  # Fifty turns would be ten seconds.
        await pace.turn()


async def test_requests_that_waited_for_their_turn_are_sent_as_was_learned_meanwhile(
    server: ScriptedServer, connect: Connect
) -> None:
    server.script = lambda body, _: (
        refusal(400, "seed: unknown field") if "seed" in body else completion("fine")
    )
    await connect(requests_per_minute=150).sample([ask()] * 6, FEW)
    assert ["seed" in body for body in server.requests] == [True] + [False] * 6


async def test_requests_that_waited_for_their_turn_are_not_sent_where_all_would_fail(
    server: ScriptedServer, connect: Connect
) -> None:
    server.script = lambda *_: refusal(401, "no such key")
    with pytest.raises(ConfigurationError, match="refuses the API key"):
        await connect(requests_per_minute=150).sample([ask()] * 6, FEW)
    assert len(server.requests) == 1


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_pace_that_lets_nothing_pass_is_refused(rate: float) -> None:
    with pytest.raises(ConfigurationError, match="requests_per_minute"):
        Pace(1, rate)


async def test_fields_and_headers_of_ones_own_go_with_every_request(
    server: ScriptedServer, connect: Connect
) -> None:
    engine = connect(
        extra_body={"chat_template_kwargs": {"enable_thinking": False}, "temperature": 0.1},
        headers={"X-Team": "judges"},
    )
    await engine.sample([ask()], FEW)
    [body] = server.requests
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["temperature"] == 0.1
    assert server.headers[0]["x-team"] == "judges"


async def test_a_limit_of_ones_own_under_either_name_is_the_only_one(
    server: ScriptedServer, connect: Connect
) -> None:
    await connect(max_tokens=500).sample([ask()], FEW)
    await connect(extra_body={"max_completion_tokens": 600}).sample([ask()], FEW)
    first, second = server.requests
    assert first["max_tokens"] == 500
    assert (second.get("max_tokens"), second["max_completion_tokens"]) == (None, 600)


async def test_a_key_in_a_header_or_in_the_address_is_in_no_error(
    server: ScriptedServer, connect: Connect
) -> None:
    server.script = lambda *_: refusal(400, "header gw-key-123456 and hunter2hunter2: no access")
    address = server.url.replace("//", "//me:hunter2hunter2@")
    engine = connect(base_url=address, headers={"api-key": "gw-key-123456"})
    with pytest.raises(ConfigurationError) as caught:
        await engine.sample([ask()], FEW)
    for secret in ("gw-key-123456", "hunter2"):
        assert secret not in f"{caught.value} {engine!r}"


async def test_what_was_learned_is_said_once(
    server: ScriptedServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    server.script = lambda body, _: (
        refusal(400, "seed: unknown field") if "seed" in body else completion("fine")
    )
    with caplog.at_level(logging.WARNING):
        engine = connect()
        await engine.sample([ask()] * 6, FEW)
        await engine.sample([ask()] * 6, FEW)
    assert len([record for record in caplog.records if "seed" in record.getMessage()]) == 1


async def test_a_schema_that_is_refused_is_said_before_what_else_fails(
    server: ScriptedServer, connect: Connect
) -> None:
    """Without a schema there is an answer yet: whoever asks has to learn that."""
    server.script = lambda body, number: (
        refusal(418, "no tea") if number == 0 else refusal(400, "response_format is not supported")
    )
    prompt = ask().model_copy(update={"json_schema": {"type": "object"}})
    with pytest.raises(SchemaRefused):
        await connect(concurrency=1).sample([prompt, prompt], FEW)


async def test_a_server_of_vllm_that_refuses_seeds_promises_none(
    server: ScriptedServer, connect: Connect
) -> None:
    server.owner = "vllm"
    server.script = lambda body, _: (
        refusal(422, "seed is not supported") if "seed" in body else completion("fine")
    )
    engine = connect()
    assert (await asyncio.to_thread(lambda: engine.capabilities)).seeds == "per_batch"
    await engine.sample([ask()], FEW)
    assert (await asyncio.to_thread(lambda: engine.capabilities)).seeds == "none"


async def test_a_sample_that_fails_when_it_is_asked_for_again_costs_no_others(
    server: ScriptedServer, connect: Connect
) -> None:
    server.script = lambda body, number: (
        completion("fine", "<think>what ends", "fine", total_tokens=30)
        if number == 0
        else refusal(400, "not now")
    )
    params = FEW.model_copy(update={"stop": ("END",)})
    [samples] = await connect().sample([ask(n=3)], params)
    assert [sample.finish_reason for sample in samples] == ["stop", "failed", "stop"]
    assert "not now" in samples[1].detail
    assert sum(sample.tokens for sample in samples) == 30, "what was written first is paid for"


async def test_only_the_samples_whose_thinking_was_ended_are_asked_for_again(
    server: ScriptedServer, connect: Connect
) -> None:
    server.script = lambda body, number: (
        completion("fine", "<think>what ends", "fine")
        if number == 0
        else completion("<think>x</think>y")
    )
    params = FEW.model_copy(update={"stop": ("END",)})
    [samples] = await connect().sample([ask(n=3)], params)
    assert [sample.text for sample in samples] == ["fine", "y", "fine"]
    assert samples[1].reasoning == "x"
    assert ["stop" in body for body in server.requests] == [True, False]
