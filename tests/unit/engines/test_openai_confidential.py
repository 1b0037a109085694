"""What a server is asked with a similar user's words, and says to it, is in no log, error or refusal."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable

import pytest
from scripted_server import Body, Reply, ScriptedServer, completion, refusal

from pgenrm_agent.engines.openai import OpenAIEngine
from pgenrm_agent.engines.protocol import Prompt, SamplingParams
from pgenrm_agent.errors import PGenRMError
from pgenrm_agent.schema import Message

CANARY, OWN = "kestrel", "petrel"
PARAMS = SamplingParams(max_tokens=8, stop=("<JSON_END>",))
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}


def asked(word: str) -> Prompt:
    return Prompt(
        messages=(Message(role="user", content=f"They said {word}"),),
        json_schema=SCHEMA,
        confidential=word == CANARY,
    )


def quoted(body: Body) -> str:
    text: str = body["messages"][0]["content"]
    return text


REPLIES: dict[str, Callable[[Body, int], Reply]] = {
    "an answer": lambda body, _: completion(f"fine: {quoted(body)}"),
    "too busy at first": lambda body, n: (
        completion("fine") if n > 2 else refusal(429, f"busy with {quoted(body)}")
    ),
    "no schema": lambda body, _: (
        refusal(400, f"no response_format in {quoted(body)}", param=quoted(body))
        if "response_format" in body
        else completion("fine")
    ),
    "refused": lambda body, _: refusal(400, quoted(body), code=quoted(body), type=quoted(body)),
    "forbidden": lambda body, _: refusal(403, quoted(body)),
    "not found": lambda body, _: refusal(404, quoted(body)),
    "broken": lambda body, _: refusal(500, quoted(body)),
    "no JSON": lambda body, _: Reply(f"<html>{body['messages']}</html>", status=502),
    "no JSON, and well": lambda body, _: Reply(f"fine {body['messages']}"),
    "an error that is well": lambda body, _: Reply({"error": {"message": quoted(body)}}),
    "another shape": lambda body, _: Reply({"choices": quoted(body)}),
    "a reason of its own": lambda body, _: completion("", reason=quoted(body)),
}


TELLING = {"no schema", "refused", "forbidden", "not found", "broken", "no JSON"}


@pytest.mark.parametrize("name", REPLIES)
async def test_nothing_of_a_confidential_request_is_told(
    server: ScriptedServer,
    connect: Callable[..., OpenAIEngine],
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    server.script = REPLIES[name]
    told: dict[str, str] = {}
    for word in (OWN, CANARY):
        caplog.clear()
        caplog.set_level(logging.DEBUG)
        engine = connect(retries=1)
        error = ""
        try:
            await engine.sample([asked(word)], PARAMS)
        except PGenRMError as raised:
            error = "".join(traceback.format_exception(raised))
        told[word] = caplog.text + error + "".join(record.getMessage() for record in caplog.records)
    assert any(CANARY in quoted(body) for body in server.requests)
    if name in TELLING:
        assert OWN in told[OWN]  # the same places tell of a request that is not confidential
    assert CANARY not in told[CANARY]
    assert CANARY not in told[OWN]
