"""What providers, gateways and servers do in their own words; see server_behaviors.py."""

from __future__ import annotations

import json

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

from pgenrm_agent.errors import ConfigurationError, EngineError, EngineUnavailable

AS_OBJECT = {"response_format": {"type": "json_object"}}
FAILED_CHOICE = {
    "index": 0,
    "finish_reason": "error",
    "error": {"code": 502, "message": "Upstream idle timeout exceeded"},
}
EVENTS = "\n\n".join(
    [
        ": PROCESSING",
        'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "reasoning": "h"}}]}',
        'data: {"choices": [{"index": 0, "delta": {"reasoning": "m"}}]}',
        'data: {"choices": [{"index": 0, "delta": {"content": "a good "}}]}',
        'data: {"choices": [{"index": 0, "delta": {"content": "answer"}, "finish_reason": "stop"}]}',
        'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 7}}',
        "data: [DONE]",
        "",
    ]
)
CHALLENGE = (
    '<!DOCTYPE html><html lang="en-US"><head><title>Just a moment...</title></head>'
    "<body>Enable JavaScript and cookies to continue</body></html>"
)

PROVIDERS: tuple[Behavior, ...] = (
    # --- servers of one's own ---
    Behavior(
        "llama-cpp-grammar",
        "makes no grammar of the schema (llama.cpp)",
        "asked for an object, with the schema in words, from then on",
        asks_for("json_schema"),
        error(
            "Failed to initialize samplers: failed to parse grammar",
            code=400,
            type="invalid_request_error",
        ),
        400,
        learned=True,
        schema=True,
        texts=(GOOD_JSON,),
        sent=AS_OBJECT,
    ),
    Behavior(
        "llama-cpp-n",
        "allows one completion choice only (llama.cpp)",
        "asked once for each sample from then on",
        more_than(1),
        error("Only one completion choice is allowed", code=400, type="invalid_request_error"),
        400,
        learned=True,
        n=3,
        without=("n",),
        engines=SERVER_ONLY,
    ),
    Behavior(
        "llama-cpp-loading",
        "answers 503 while it loads its model (llama.cpp)",
        "asked again",
        first,
        error("Loading model", code=503, type="unavailable_error"),
        503,
        engines=SERVER_ONLY,
    ),
    Behavior(
        "llama-cpp-context",
        "refuses a prompt that exceeds the available context (llama.cpp)",
        "an error that says to show less",
        always,
        error(
            "the request exceeds the available context size (4096 tokens), try increasing it",
            code=400,
            type="exceed_context_size_error",
        ),
        400,
        error=(ConfigurationError, "too long.*show fewer past choices"),
    ),
    Behavior(
        "vllm-errors-as-python",
        "lists pydantic's errors as Python writes them, in `message` (vLLM)",
        "asked without the field",
        has("seed"),
        {
            "object": "error",
            "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg':"
            " 'Extra inputs are not permitted', 'input': 3}]",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        400,
        learned=True,
        without=("seed",),
        sent={"temperature": 0.5},
        engines=SERVER_ONLY,
    ),
    Behavior(
        "vllm-limit-beside-the-prompt",
        "says that `max_tokens` is too large beside the prompt (vLLM)",
        "asked without a limit, for this request",
        lambda body, _: "max_tokens" in body or "max_completion_tokens" in body,
        error(
            "'max_tokens' or 'max_completion_tokens' is too large: 64. This model's maximum context"
            " length is 90 tokens and your request has 40 input tokens (64 > 90 - 40).",
            type="BadRequestError",
            param="max_tokens",
            code=400,
        ),
        400,
        without=("max_tokens", "max_completion_tokens"),
    ),
    Behavior(
        "object-as-an-object",
        "sends the object that was asked for as an object, not as its text",
        "its text is the answer",
        always,
        answer({"content": json.loads(GOOD_JSON)}),
        schema=True,
        texts=(GOOD_JSON,),
        engines=SERVER_ONLY,
    ),
    Behavior(
        "object-as-arguments",
        "sends the object as the arguments of a tool that it made of the schema",
        "the arguments are the answer",
        always,
        answer(
            {
                "content": None,
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "answer", "arguments": GOOD_JSON},
                    }
                ],
            },
            "tool_calls",
        ),
        schema=True,
        texts=(GOOD_JSON,),
        engines=SERVER_ONLY,
    ),
    Behavior(
        "channels-in-the-text",
        "sends the channels of gpt-oss in the text",
        "the final one is the answer, the others are thinking",
        always,
        answer(
            {
                "content": "<|channel|>analysis<|message|>is it <END> or not?<|end|><|start|>assistant"
                f"<|channel|>final<|message|>{GOOD}"
            }
        ),
        reasoning="is it <END> or not?",
    ),
    # --- gateways ---
    Behavior(
        "litellm-unsupported-parameters",
        "lists what the provider behind it does not support, in a sentence (LiteLLM)",
        "asked without all of them from then on",
        lambda body, _: "seed" in body or "top_p" in body,
        error(
            "litellm.UnsupportedParamsError: together_ai does not support parameters: ['seed',"
            " 'top_p'], for model=m. To drop these, set `litellm.drop_params=True`.",
            type="None",
            code="400",
        ),
        400,
        learned=True,
        without=("seed", "top_p"),
        sent={"temperature": 0.5},
        engines=SERVER_ONLY,
    ),
    Behavior(
        "litellm-wraps-an-error",
        "wraps the provider's 400 in a sentence, as Python writes it (LiteLLM)",
        "asked without the field that the provider names",
        has("temperature"),
        error(
            "litellm.BadRequestError: OpenAIException - Error code: 400 - {'error': {'message':"
            " \"Unsupported value: 'temperature' does not support 0.5 with this model.\", 'type':"
            " 'invalid_request_error', 'param': 'temperature', 'code': 'unsupported_value'}}."
            " Received Model Group=m\nAvailable Model Group Fallbacks=None",
            code="400",
        ),
        400,
        learned=True,
        without=("temperature",),
    ),
    Behavior(
        "litellm-budget",
        "answers 400 because a budget is used up (LiteLLM)",
        "an error at once: waiting does not help",
        always,
        error("Budget has been exceeded! Current cost: 12.3", type="budget_exceeded", code="400"),
        400,
        error=(EngineUnavailable, "no credit left.*Budget has been exceeded"),
    ),
    Behavior(
        "comments-before-the-body",
        "sends comments and blank lines before the body while the model is busy (OpenRouter)",
        "the body is read",
        always,
        f": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n{json.dumps(answer({'content': GOOD}))}",
        engines=SERVER_ONLY,
    ),
    Behavior(
        "blank-lines-before-the-body",
        "sends blank lines before the body",
        "the body is read",
        always,
        f"\n   \n\n{json.dumps(answer({'content': GOOD}))}\n",
    ),
    Behavior(
        "events-that-nobody-asked-for",
        "streams its answer although it was not asked to",
        "the pieces are joined, the thinking kept apart",
        always,
        EVENTS,
        reasoning="hm",
        tokens=7,
        engines=SERVER_ONLY,
    ),
    Behavior(
        "failed-choice-once",
        "sends an error in place of a choice's message once (OpenRouter)",
        "asked again, as after the status that the error names",
        first,
        {"choices": [FAILED_CHOICE]},
        engines=SERVER_ONLY,
    ),
    Behavior(
        "failed-choice-always",
        "sends an error in place of a choice's message every time (OpenRouter)",
        "an error in the server's words after the last repetition",
        always,
        {"choices": [FAILED_CHOICE]},
        error=(EngineUnavailable, "HTTP 502.*Upstream idle timeout exceeded"),
        engines=SERVER_ONLY,
    ),
    Behavior(
        "too-few-credits-for-the-limit",
        "answers 402 because the token limit may cost more than is left (OpenRouter)",
        "an error at once: waiting does not help",
        always,
        error("This request requires more credits, or fewer max_tokens.", code=402),
        402,
        error=(EngineUnavailable, "no credit left.*more credits"),
    ),
    # --- providers ---
    Behavior(
        "deepseek-response-format",
        "says that this response_format type is unavailable now (DeepSeek)",
        "asked for an object, with the schema in words, from then on",
        asks_for("json_schema"),
        error("This response_format type is unavailable now", type="invalid_request_error"),
        400,
        learned=True,
        schema=True,
        texts=(GOOD_JSON,),
        sent=AS_OBJECT,
    ),
    Behavior(
        "deepseek-deserialize",
        "fails to deserialize the body, in plain text (DeepSeek)",
        "asked for an object, with the schema in words, from then on",
        asks_for("json_schema"),
        "Failed to deserialize the JSON body into the target type: response_format:"
        " response_format.type `json_schema` is unavailable now at line 1 column 532",
        422,
        learned=True,
        schema=True,
        texts=(GOOD_JSON,),
        sent=AS_OBJECT,
    ),
    Behavior(
        "azure-prompt-filtered",
        "filters the prompt, with an `innererror` (Azure)",
        "filtered, in the server's words",
        always,
        error(
            "The response was filtered due to the prompt triggering Azure OpenAI's content"
            " management policy. Please modify your prompt and retry.",
            param="prompt",
            code="content_filter",
            status=400,
            innererror={
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": {"jailbreak": {"detected": True, "filtered": True}},
            },
        ),
        400,
        error=(EngineError, "filtered .*content management policy"),
    ),
    Behavior(
        "azure-answer-filtered",
        "filters the answer, and sends a choice without a message (Azure)",
        "a failed sample, filtered",
        always,
        {"choices": [{"index": 0, "finish_reason": "content_filter"}]},
        texts=("",),
        ends=("filtered",),
        detail="filter",
        engines=SERVER_ONLY,
    ),
    Behavior(
        "azure-no-deployment",
        "knows no such deployment (Azure)",
        "an error that says where to look",
        always,
        error("The API deployment for this resource does not exist.", code="DeploymentNotFound"),
        404,
        error=(EngineUnavailable, "not found .*deployment for this resource does not exist"),
    ),
    Behavior(
        "anthropic-temperature-or-top-p",
        "takes `temperature` or `top_p`, not both (Anthropic)",
        "asked without `top_p` from then on",
        lambda body, _: "temperature" in body and "top_p" in body,
        error(
            "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
            code="invalid_request_error",
        ),
        400,
        learned=True,
        without=("top_p",),
        sent={"temperature": 0.5},
    ),
    Behavior(
        "anthropic-credit",
        "answers 400 because the credit balance is too low (Anthropic)",
        "an error at once: waiting does not help",
        always,
        error(
            "Your credit balance is too low to access the API. Please go to Plans & Billing.",
            type="invalid_request_error",
        ),
        400,
        error=(EngineUnavailable, "no credit left.*credit balance is too low"),
    ),
    Behavior(
        "anthropic-overloaded",
        "answers 529 once (Anthropic)",
        "asked again",
        first,
        error("Overloaded", type="overloaded_error"),
        529,
        engines=SERVER_ONLY,
    ),
    Behavior(
        "anthropic-context-used-up",
        "ends an answer at the end of the context (Anthropic)",
        "a failed sample that says it was cut",
        always,
        answer({"content": "half of it"}, "model_context_window_exceeded"),
        texts=("half of it",),
        ends=("length",),
        detail="cut at the limit",
    ),
    Behavior(
        "google-unknown-name",
        "refuses a field in a list of errors (Google)",
        "asked without it",
        has("seed"),
        [
            error(
                'Invalid JSON payload received. Unknown name "seed": Cannot find field.',
                code=400,
                status="INVALID_ARGUMENT",
            )
        ],
        400,
        learned=True,
        without=("seed",),
        engines=SERVER_ONLY,
    ),
    Behavior(
        "google-error-in-a-list-with-200",
        "sends a list with an error, with status 200, once (Google)",
        "asked again, as after the status that the error names",
        first,
        [error("The model is overloaded.", code=503, status="UNAVAILABLE")],
        engines=SERVER_ONLY,
    ),
    Behavior(
        "google-blocked-prompt",
        "blocks the prompt with status 200 and no choices (Google)",
        "filtered, in the server's words",
        always,
        {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {}},
        error=(EngineError, "filtered .*PROHIBITED_CONTENT"),
        engines=SERVER_ONLY,
    ),
    Behavior(
        "google-safety-stop",
        "ends an answer for safety, with a reason behind the word and no content (Google)",
        "a failed sample, filtered",
        always,
        answer({"content": None}, "content_filter: PROHIBITED_CONTENT"),
        texts=("",),
        ends=("filtered",),
        detail="filter",
    ),
    Behavior(
        "mistral-details-in-message",
        "refuses a field in a list under `detail` in `message` (Mistral)",
        "asked without it",
        has("seed"),
        {
            "object": "error",
            "message": {
                "detail": [
                    {
                        "type": "extra_forbidden",
                        "loc": ["body", "seed"],
                        "msg": "Extra inputs are not permitted",
                    }
                ]
            },
            "type": "invalid_request_error",
        },
        422,
        learned=True,
        without=("seed",),
        engines=SERVER_ONLY,
    ),
    Behavior(
        "mistral-thinking-in-blocks",
        "sends thinking as blocks in a block (Mistral)",
        "the text is the answer, the thinking kept apart",
        always,
        answer(
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "is it <END>?"}]},
                    {"type": "text", "text": GOOD},
                ]
            }
        ),
        reasoning="is it <END>?",
    ),
    Behavior(
        "groq-limit-before-the-object",
        "answers 400 where the token limit came before the object was whole (Groq)",
        "a failed sample that says so, and to raise max_tokens",
        always,
        error(
            "Failed to validate JSON. See 'failed_generation' for more details.",
            type="invalid_request_error",
            code="json_validate_failed",
            failed_generation="max completion tokens reached before generating a valid document",
        ),
        400,
        schema=True,
        texts=("",),
        ends=("length",),
        detail="budget of 64 tokens went into thinking: raise max_tokens",
        tokens=64,
    ),
    # --- proxies, and how long to wait ---
    Behavior(
        "cloudflare-challenge",
        "answers 403 with a page that checks for people (Cloudflare)",
        "an error with the words of the page; the key is not blamed",
        always,
        CHALLENGE,
        403,
        error=(ConfigurationError, "refuses the request .*Just a moment"),
    ),
    Behavior(
        "cloudflare-524",
        "answers 524 with a page every time (Cloudflare)",
        "an error with the words of the page",
        always,
        "<!DOCTYPE html><html><head><title>524: A timeout occurred</title></head></html>",
        524,
        error=(EngineUnavailable, "unavailable .*524: A timeout occurred"),
    ),
    Behavior(
        "retry-after-a-date",
        "answers 429 once, with a date in Retry-After",
        "asked again at that date",
        first,
        error("slow down"),
        429,
        headers={"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"},
        engines=SERVER_ONLY,
    ),
    Behavior(
        "retry-after-with-a-unit",
        "answers 429 once, with a unit in Retry-After",
        "asked again after the time that it names",
        first,
        error("slow down"),
        429,
        headers={"retry-after": "50ms"},
        engines=SERVER_ONLY,
    ),
    Behavior(
        "asks-for-minutes-in-words",
        "asks in words to wait for seven minutes and a half",
        "an error at once that names the wait",
        always,
        error("Rate limit reached on tokens per day. Please try again in 7m30.5s."),
        429,
        headers={},
        error=(EngineUnavailable, "7m30.5s"),
    ),
)
