"""More of what gateways and providers send; see server_behaviors.py."""

from __future__ import annotations

from behaviors import (
    CHAT_ONLY,
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

from pgenrm_agent.errors import ConfigurationError, EngineError, EngineUnavailable

__all__ = ["GATEWAYS"]

AS_OBJECT = {"response_format": {"type": "json_object"}}
WHOLE = {"index": 0, "message": {"role": "assistant", "content": GOOD}, "finish_reason": "stop"}
PARTS = [{"type": "text", "text": GOOD}]
FOREIGN: tuple[tuple[str, str, object], ...] = (
    (
        "form-of-ollama",
        "Ollama's own API",
        {"model": "m", "message": {"role": "assistant", "content": GOOD}, "done": True},
    ),
    (
        "form-of-ollama-streamed",
        "Ollama's own API",
        '{"message": {"content": "a good"}, "done": false}\n{"message": {}, "done": true}\n',
    ),
    (
        "form-of-anthropic",
        "Anthropic's Messages API",
        {"type": "message", "role": "assistant", "content": PARTS, "stop_reason": "end_turn"},
    ),
    (
        "form-of-gemini",
        "Google's Gemini API",
        {"candidates": [{"content": {"parts": [{"text": GOOD}]}, "finishReason": "STOP"}]},
    ),
    (
        "form-of-responses",
        "OpenAI's Responses API",
        {
            "object": "response",
            "status": "completed",
            "error": None,
            "output": [{"type": "message", "content": PARTS}],
        },
    ),
    (
        "form-of-converse",
        "Amazon Bedrock's Converse API",
        {"output": {"message": {"content": [{"text": GOOD}]}}, "stopReason": "end_turn"},
    ),
    (
        "form-of-text-generation",
        "Hugging Face's text generation API",
        [{"generated_text": GOOD}],
    ),
)

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
    # --- too many requests, told with another status ---
    Behavior(
        "throttled-with-400",
        "answers 400 with a ThrottlingException once (AWS)",
        "asked again, as after 429",
        first,
        {"__type": "ThrottlingException", "message": "Rate exceeded"},
        400,
    ),
    Behavior(
        "rate-limit-by-its-code-with-400",
        "answers 400 with the code of a rate limit once",
        "asked again, as after 429",
        first,
        error("Slow down.", code="rate_limit_exceeded"),
        400,
    ),
    Behavior(
        "exhausted-with-403",
        "answers 403 with RESOURCE_EXHAUSTED once (Google)",
        "asked again, as after 429: the key is not refused",
        first,
        [error("Resource has been exhausted.", code=403, status="RESOURCE_EXHAUSTED")],
        403,
        engines=SERVER_ONLY,
    ),
    Behavior(
        "too-many-requests-as-text-with-400",
        "answers 400 with nothing but the words of 429 once",
        "asked again, as after 429",
        first,
        "Too Many Requests",
        400,
    ),
    Behavior(
        "rate-limit-with-403-always",
        "answers 403 with the words of a rate limit every time",
        "an error that says how to send fewer, after the last repetition",
        always,
        {"message": "API rate limit exceeded for this consumer"},
        403,
        error=(
            EngineUnavailable,
            "too many requests after 2 attempts.*HTTP 403: .*lower concurrency",
        ),
    ),
    Behavior(
        "too-many-of-something-else-with-400",
        "answers 400 because there is too much of something in the request",
        "an error at once: the request is refused",
        always,
        error("Too many images in the request.", type="invalid_request_error"),
        400,
        error=(ConfigurationError, "refuses the request .*Too many images"),
    ),
    Behavior(
        "rate-limit-as-a-field-with-400",
        "refuses a field that has the name of a rate limit",
        "an error at once: the request is refused",
        always,
        error("rate_limit_exceeded: unknown field", param="rate_limit_exceeded"),
        400,
        error=(ConfigurationError, "refuses the request"),
    ),
    # --- the form of another API ---
    *(
        Behavior(
            name,
            f"answers in the form of {api}{', streamed' if 'streamed' in name else ''}",
            "an error at once that names the form, and what to look at",
            always,
            body,
            error=(EngineUnavailable, f"in the form of {api}.*base_url is probably.*ends in /v1"),
            engines=SERVER_ONLY,
        )
        for name, api, body in FOREIGN
    ),
    Behavior(
        "form-of-another-api-behind-langchain",
        "answers without choices, in the form of another API",
        "an error after the last repetition that says what to look at",
        always,
        FOREIGN[0][2],
        error=(EngineError, "no choices in it, as in .* another API .*check .* base_url"),
        engines=CHAT_ONLY,
    ),
    Behavior(
        "no-choices-but-a-status",
        "answers with a status and nothing else, as a check of its health",
        "an error after the last repetition that says what to look at",
        always,
        {"status": "ok"},
        error=(EngineError, "no choices in it: ok; .*ends in /v1"),
        engines=SERVER_ONLY,
    ),
)
