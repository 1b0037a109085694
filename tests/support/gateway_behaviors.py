"""More of what gateways and providers send; see server_behaviors.py."""

from __future__ import annotations

from behaviors import (
    GOOD,
    GOOD_JSON,
    SERVER_ONLY,
    Behavior,
    always,
    answer,
    asks_for,
    error,
    first,
    has,
    more_than,
)

from pgenrm_agent.errors import EngineError

__all__ = ["GATEWAYS"]

AS_OBJECT = {"response_format": {"type": "json_object"}}
WHOLE = {"index": 0, "message": {"role": "assistant", "content": GOOD}, "finish_reason": "stop"}

GATEWAYS: tuple[Behavior, ...] = (
    Behavior(
        "xai-stop",
        "names the argument that it does not support behind a colon (xAI)",
        "asked without it from then on; texts are cut here",
        has("stop"),
        {
            "code": "Client specified an invalid argument",
            "error": "Argument not supported on this model: stop",
        },
        400,
        learned=True,
        without=("stop",),
    ),
    Behavior(
        "google-seeding",
        "has no seeding for a model (Google)",
        "asked without `seed`",
        has("seed"),
        [error("Seeding is not enabled for models/m", code=400, status="INVALID_ARGUMENT")],
        400,
        learned=True,
        without=("seed",),
        engines=SERVER_ONLY,
    ),
    Behavior(
        "no-endpoint-takes-the-parameters",
        "knows no endpoint that can handle the requested parameters, which it does not name (OpenRouter)",
        "asked for an object, with the schema in words, from then on",
        asks_for("json_schema"),
        error("No endpoints found that can handle the requested parameters.", code=404),
        404,
        learned=True,
        schema=True,
        texts=(GOOD_JSON,),
        sent=AS_OBJECT,
    ),
    Behavior(
        "schema-not-compiled",
        "answers 500 because it cannot compile the schema",
        "asked for an object, with the schema in words, from then on",
        asks_for("json_schema"),
        error("Internal server error: failed to compile the json schema", code=500),
        500,
        learned=True,
        schema=True,
        texts=(GOOD_JSON,),
        sent=AS_OBJECT,
    ),
    Behavior(
        "moderation-in-chinese",
        "does not take the prompt, in Chinese (Zhipu)",
        "filtered, in the server's words",
        always,
        error("系统检测到输入或生成内容可能包含不安全或敏感内容", code="1301"),
        400,
        error=(EngineError, "filtered .*敏感内容"),
    ),
    Behavior(
        "finish-reason-of-an-enumeration",
        "ends an answer for safety, with the word of an enumeration",
        "a failed sample, filtered",
        always,
        answer({"content": ""}, "FINISH_REASON_SAFETY"),
        texts=("",),
        ends=("filtered",),
        detail="filter",
    ),
    Behavior(
        "finish-reason-timeout",
        "ends an answer because its time was over",
        "a failed sample",
        always,
        answer({"content": "half of it"}, "timeout"),
        texts=("half of it",),
        ends=("failed",),
        detail="the server ended the answer",
    ),
    Behavior(
        "cut-body-once",
        "sends half of a body once, as where the connection was cut",
        "asked again",
        first,
        '{"choices": [{"index": 0, "message": {"content": "a go',
    ),
    Behavior(
        "empty-body-once",
        "sends an empty body with status 200 once",
        "asked again",
        first,
        "",
    ),
    Behavior(
        "errors-without-choices-once",
        "sends status 200 without choices, and what went wrong under a name of its own, once",
        "asked again",
        first,
        {"success": False, "errors": [{"code": 7009, "message": "Upstream unavailable"}]},
    ),
    Behavior(
        "one-choice-of-several-is-nothing",
        "sends nothing in the place of one choice of several",
        "one failed sample; the others count",
        more_than(1),
        {"choices": [WHOLE, None, {**WHOLE, "index": 2}]},
        n=3,
        texts=(GOOD, "", GOOD),
        ends=("stop", "failed", "stop"),
        detail="no message",
        engines=SERVER_ONLY,
    ),
    Behavior(
        "same-index-for-all",
        "gives all choices the index 0 (LiteLLM)",
        "each of them is a sample",
        more_than(1),
        {"choices": [WHOLE, WHOLE, WHOLE]},
        n=3,
        engines=SERVER_ONLY,
    ),
    Behavior(
        "error-that-is-null",
        "sends `error: null` beside the answer (OpenRouter)",
        "the answer is read",
        always,
        {**answer({"content": GOOD}), "error": None},
    ),
    Behavior(
        "empty-thinking-in-the-text",
        "opens and closes a thinking in which there is nothing (Qwen3, told not to think)",
        "the answer is read",
        always,
        answer({"content": f"<think>\n\n</think>\n\n{GOOD}"}),
    ),
    Behavior(
        "thinking-that-is-withheld",
        "sends thinking as a block of data that is not to be read (Anthropic)",
        "the answer is read",
        always,
        answer(
            {
                "content": [
                    {"type": "redacted_thinking", "data": "RXhhbXBsZQ=="},
                    {"type": "text", "text": GOOD},
                ]
            }
        ),
    ),
    Behavior(
        "answer-as-thinking",
        "takes a whole answer for thinking (vLLM's reasoning parser, with thinking turned off)",
        "a failed sample that says so: what was thought is never read",
        always,
        answer({"content": None, "reasoning_content": GOOD_JSON}),
        schema=True,
        texts=("",),
        ends=("failed",),
        reasoning=GOOD_JSON,
        detail="ended its turn without an answer",
        engines=SERVER_ONLY,
    ),
)
