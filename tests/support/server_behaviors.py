"""How OpenAI-compatible servers behave, and what is right: played by a scripted server in the tests.

`behavior` and `outcome` are sentences for people: the table of the documentation is made of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from scripted_server import Body, Reply

from pgenrm_agent.engines.protocol import SchemaRefused
from pgenrm_agent.errors import (
    ConfigurationError,
    EngineError,
    EngineUnavailable,
)

__all__ = ["BEHAVIORS", "GOOD", "GOOD_JSON", "SCHEMA", "STOP", "Behavior", "good_answer"]

GOOD = "a good answer"
GOOD_JSON = '{"persona": "Likes it short."}'
STOP = "<END>"
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "persona": {"type": "string", "maxLength": 300},
        "title": {"type": "array", "items": {"type": "string"}, "maxItems": 4},
    },
    "required": ["persona"],
}


@dataclass(frozen=True)
class Behavior:
    """A server that does something, and what an engine makes of it.

    Attributes:
        when: Which requests get `status`, `body` and `headers`; the others get a good answer. It is
            told the request's body and its number.
        learned: Whether the second call is asked in the new way from the start.
        n: Samples asked for. schema: Whether an answer is to be held to SCHEMA.
        texts: The samples' texts; None: all good. ends: How the samples end; None: all "stop".
        reasoning, detail: What the samples with such an end say. tokens: of the first sample.
        error: What is raised, and a pattern of its words.
        without: Fields that the last request does not have. sent: Fields that it has.
        owner: Whom the server's list of models names.
        engines: The engines that this concerns.
    """

    name: str
    behavior: str
    outcome: str
    when: Callable[[Body, int], bool]
    body: object
    status: int = 200
    headers: Mapping[str, str] | None = None
    learned: bool = False
    n: int = 1
    schema: bool = False
    texts: tuple[str, ...] | None = None
    ends: tuple[str, ...] | None = None
    reasoning: str = ""
    detail: str = ""
    tokens: int | None = None
    error: tuple[type[Exception], str] | None = None
    without: tuple[str, ...] = ()
    sent: Mapping[str, object] = field(default_factory=dict)
    owner: str = "someone"
    engines: tuple[str, ...] = ("openai", "chat")

    def reply(self, body: Body, number: int) -> Reply:
        """Return what the server sends."""
        if not self.when(body, number):
            return good_answer(body)
        return Reply(self.body, status=self.status, headers=self.headers)


def good_answer(body: Body) -> Reply:
    text = GOOD_JSON if "response_format" in body else GOOD
    message = {"role": "assistant", "content": text}
    choices = [
        {"index": index, "message": message, "finish_reason": "stop"}
        for index in range(body.get("n") or 1)
    ]
    return Reply({"object": "chat.completion", "choices": choices})


def answer(message: Mapping[str, object], finish: str | None = "stop", **more: object) -> Body:
    """Return the body of an answer with one choice."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return {"object": "chat.completion", "choices": [choice], **more}


def usage(prompt: int, completion: int, thought: int, total: int) -> Body:
    """Return the tokens as servers report them."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "completion_tokens_details": {"reasoning_tokens": thought},
    }


def error(message: str, **more: object) -> Body:
    """Return OpenAI's error object."""
    return {"error": {"message": message, **more}}


def has(name: str) -> Callable[[Body, int], bool]:
    """Return whether a request has a field."""
    return lambda body, _: name in body


def always(body: Body, number: int) -> bool:
    """Every request."""
    return True


def first(body: Body, number: int) -> bool:
    """The first request only."""
    return number == 0


def has_system(body: Body, number: int) -> bool:
    """Whether a message is a system message."""
    return any(message["role"] == "system" for message in body["messages"])


def asks_for(kind: str) -> Callable[[Body, int], bool]:
    """Return whether a request asks for this kind of `response_format`."""
    return lambda body, _: (body.get("response_format") or {}).get("type") == kind


def more_than(count: int) -> Callable[[Body, int], bool]:
    """Return whether a request asks for more samples."""
    return lambda body, _: (body.get("n") or 1) > count


FOLDED = {"messages": [{"role": "user", "content": "You judge.\n\nHow is this?"}]}
SERVER_ONLY = ("openai",)
CHAT_ONLY = ("chat",)

BEHAVIORS: tuple[Behavior, ...] = (
    # --- fields that a server does not take ---
    Behavior(
        "stop-refused",
        "refuses `stop`",
        "asked without it from then on; texts are cut here",
        has("stop"),
        error("Unsupported parameter: 'stop' is not supported with this model.", param="stop"),
        400,
        learned=True,
        without=("stop",),
    ),
    Behavior(
        "stop-refused-behind-a-gateway",
        "refuses `stop`, in JSON inside a gateway's sentence",
        "asked without it from then on",
        has("stop"),
        error(
            'litellm.BadRequestError: OpenAIException - {"error": {"message": "Unknown parameter:'
            ' stop_sequences", "type": "invalid_request_error"}}'
        ),
        400,
        learned=True,
        without=("stop",),
    ),
    Behavior(
        "too-many-stops",
        "takes four stop strings at most",
        "asked without them from then on; texts are cut here",
        has("stop"),
        {"detail": [{"loc": ["body", "stop"], "msg": "List should have at most 4 items"}]},
        422,
        learned=True,
        without=("stop",),
    ),
    Behavior(
        "seed-refused",
        "refuses `seed` as FastAPI does, in a list under `detail`",
        "asked without it; seeds are declared to mean nothing",
        has("seed"),
        {
            "detail": [
                {
                    "loc": ["body", "seed"],
                    "msg": "Extra inputs are not permitted",
                    "input": {"stop": ["a"], "temperature": 1},
                }
            ]
        },
        422,
        learned=True,
        without=("seed",),
        sent={"stop": [STOP], "temperature": 0.5},
        engines=SERVER_ONLY,
    ),
    Behavior(
        "seed-unknown-to-the-code",
        "fails with 500: a function got an unexpected keyword argument 'seed'",
        "asked without it at once, which counts as no repetition",
        has("seed"),
        "TypeError: generate() got an unexpected keyword argument 'seed'",
        500,
        learned=True,
        without=("seed",),
        engines=SERVER_ONLY,
    ),
    Behavior(
        "several-fields-refused",
        "refuses several fields by their names in one sentence",
        "asked without all of them from then on",
        lambda body, _: "seed" in body or "top_p" in body,
        {"error": "Unrecognized request arguments supplied: seed, top_p"},
        400,
        learned=True,
        without=("seed", "top_p"),
        sent={"temperature": 0.5},
        engines=SERVER_ONLY,
    ),
    Behavior(
        "limit-renamed",
        "wants `max_completion_tokens` in place of `max_tokens`, and says so in words only",
        "asked with the name it wants from then on",
        has("max_tokens"),
        error(
            "Use 'max_completion_tokens' instead of 'max_tokens'.",
            param="None",
            type="invalid_request_error",
        ),
        400,
        learned=True,
        without=("max_tokens",),
        sent={"max_completion_tokens": 64},
        engines=SERVER_ONLY,
    ),
    Behavior(
        "limit-by-its-older-name",
        "knows `max_tokens` only",
        "asked with the name it knows from then on",
        has("max_completion_tokens"),
        error("Unrecognized request argument supplied: max_completion_tokens"),
        400,
        learned=True,
        without=("max_completion_tokens",),
        sent={"max_tokens": 64},
        engines=CHAT_ONLY,
    ),
    Behavior(
        "no-limit-by-any-name",
        "takes no token limit by either name",
        "asked without a limit from then on",
        lambda body, _: "max_tokens" in body or "max_completion_tokens" in body,
        {"message": "max_tokens and max_completion_tokens: extra fields not permitted"},
        422,
        learned=True,
        without=("max_tokens", "max_completion_tokens"),
    ),
    Behavior(
        "limit-too-high",
        "refuses a token limit above its own",
        "asked with the highest that it takes from then on",
        lambda body, _: (body.get("max_tokens") or body.get("max_completion_tokens")) > 32,
        error("max_tokens is too large: 64. This model supports at most 32 completion tokens."),
        400,
        learned=True,
    ),
    Behavior(
        "temperature-refused",
        "takes temperature 1 only",
        "asked without one; a warning that samples differ less or more than asked for",
        has("temperature"),
        error("This model only supports temperature 1."),
        400,
        learned=True,
        without=("temperature",),
    ),
    Behavior(
        "top-p-refused",
        "refuses `top_p`",
        "asked without it from then on",
        has("top_p"),
        "<html><body><h1>Bad Request</h1><p>Unknown field: top_p</p></body></html>",
        400,
        learned=True,
        without=("top_p",),
        sent={"temperature": 0.5},
    ),
    Behavior(
        "fields-of-vllm-refused",
        "says it is vLLM, and does not know all of its fields",
        "asked without those that it names",
        lambda body, _: "return_token_ids" in body or "min_p" in body,
        {"object": "error", "message": "extra fields: min_p, return_token_ids", "code": 400},
        400,
        learned=True,
        without=("min_p", "return_token_ids"),
        sent={"top_k": -1},
        owner="vllm",
        engines=SERVER_ONLY,
    ),
    Behavior(
        "grammar-refused",
        "says it is vLLM, and holds to no grammar (its backend is guidance)",
        "held to the schema",
        asks_for("structural_tag"),
        error("Invalid grammar specification: 'triggers'", type="BadRequestError", code=400),
        400,
        learned=True,
        schema=True,
        texts=(GOOD_JSON,),
        owner="vllm",
        engines=SERVER_ONLY,
    ),
    Behavior(
        "grammar-unknown",
        "says it is vLLM, and knows no such `response_format` (an older one)",
        "held to the schema",
        asks_for("structural_tag"),
        {
            "object": "error",
            "message": "[{'type': 'missing', 'loc': ('body', 'response_format', 'structures'),"
            " 'msg': 'Field required'}]",
            "code": 400,
        },
        400,
        learned=True,
        schema=True,
        texts=(GOOD_JSON,),
        owner="vllm",
        engines=SERVER_ONLY,
    ),
    Behavior(
        "n-ignored",
        "gives one answer where three are asked for",
        "asked once for each sample from then on",
        more_than(1),
        answer({"content": GOOD}),
        learned=True,
        n=3,
        without=("n",),
        engines=SERVER_ONLY,
    ),
    Behavior(
        "n-refused",
        "refuses more than one answer",
        "asked once for each sample from then on",
        more_than(1),
        error("Only n=1 is supported"),
        400,
        learned=True,
        n=3,
        without=("n",),
        engines=SERVER_ONLY,
    ),
    Behavior(
        "n-refused-without-a-name",
        "refuses more than one answer without a word of `n`",
        "one answer is tried; as that is taken, each sample is asked for by itself",
        more_than(1),
        {"error": "bad request"},
        400,
        learned=True,
        n=3,
        without=("n",),
        engines=SERVER_ONLY,
    ),
    Behavior(
        "n-capped",
        "gives two answers at most",
        "asked for two at a time from then on",
        more_than(2),
        {"detail": [{"loc": ["body", "n"], "msg": "Input should be less than or equal to 2"}]},
        422,
        learned=True,
        n=4,
        sent={"n": 2},
        engines=SERVER_ONLY,
    ),
    Behavior(
        "system-role-refused",
        "refuses the system role",
        "the system text is sent in the first user turn from then on",
        has_system,
        {"object": "error", "message": "System role not supported"},
        400,
        learned=True,
        sent=FOLDED,
    ),
    Behavior(
        "template-without-system-role",
        "fails with 500 in a chat template where roles must alternate",
        "the system text is sent in the first user turn from then on",
        has_system,
        error(
            "TemplateError: Conversation roles must alternate user/assistant/user/assistant/...",
            type="server_error",
            code=500,
        ),
        500,
        learned=True,
        sent=FOLDED,
    ),
    Behavior(
        "unknown-field-stays",
        "refuses the request for a reason that no optional field explains",
        "an error in the server's own words",
        always,
        {"detail": "this tenant has no access to the model m"},
        400,
        error=(ConfigurationError, "this tenant has no access to the model m"),
    ),
    # --- schemas ---
    Behavior(
        "json-schema-refused",
        "knows `json_object`, and no `json_schema`",
        "asked for an object, with the schema in words, from then on",
        asks_for("json_schema"),
        error("'response_format.type' must be 'json_object' or 'text'"),
        400,
        learned=True,
        schema=True,
        texts=(GOOD_JSON,),
        sent={"response_format": {"type": "json_object"}},
    ),
    Behavior(
        "no-response-format",
        "knows no `response_format`",
        "declared unable to hold to a schema; the chain is asked for in prose",
        has("response_format"),
        {"detail": [{"loc": ["body", "response_format"], "msg": "Extra inputs are not permitted"}]},
        422,
        schema=True,
        error=(SchemaRefused, "Extra inputs are not permitted"),
    ),
    Behavior(
        "keyword-of-a-schema-refused",
        "holds to a schema, and does not know `maxLength` and `maxItems`",
        "asked with the schema without them from then on",
        lambda body, _: "maxLength" in json.dumps(body.get("response_format")),
        error(
            "Invalid schema for response_format 'answer': In context=('properties', 'persona'),"
            " 'maxLength' is not permitted; neither is 'maxItems'.",
            param="response_format",
        ),
        400,
        learned=True,
        schema=True,
        texts=(GOOD_JSON,),
    ),
    Behavior(
        "schema-in-a-fence",
        "puts the object into a fence",
        "the text is kept, and read without the fence",
        always,
        answer({"content": f"```json\n{GOOD_JSON}\n```"}),
        schema=True,
        texts=(f"```json\n{GOOD_JSON}\n```",),
    ),
    Behavior(
        "thinking-then-an-object-that-quotes-its-mark",
        "thinks in the text, and quotes `</think>` in the object behind it",
        "the thinking is kept apart, the object stays whole",
        always,
        answer({"content": '<think>hm</think>```json\n{"persona": "a </think> b"}\n```'}),
        schema=True,
        texts=('```json\n{"persona": "a </think> b"}\n```',),
        reasoning="hm",
    ),
    # --- answers ---
    Behavior(
        "content-as-blocks",
        "sends the content as blocks, thinking among them",
        "the text is joined, the thinking kept apart",
        always,
        answer(
            {
                "content": [
                    {"type": "thinking", "thinking": "let me see <END>"},
                    {"type": "text", "text": "a good "},
                    {"type": "text", "text": "answer"},
                ]
            }
        ),
        reasoning="let me see <END>",
    ),
    Behavior(
        "thinking-in-a-field",
        "sends what was thought in `reasoning_content`, and counts its tokens in",
        "the thinking is kept apart and counts as tokens",
        always,
        answer({"content": GOOD, "reasoning_content": "hm <END> hm"}, usage=usage(9, 30, 20, 39)),
        reasoning="hm <END> hm",
        tokens=30,
        engines=SERVER_ONLY,
    ),
    Behavior(
        "thinking-counted-apart",
        "counts the tokens of the thinking apart from the others",
        "they are counted in",
        always,
        answer({"content": GOOD, "reasoning": "hm"}, usage=usage(9, 10, 20, 39)),
        reasoning="hm",
        tokens=30,
        engines=SERVER_ONLY,
    ),
    Behavior(
        "thinking-in-details",
        "sends what was thought in `reasoning_details`",
        "the thinking is kept apart",
        always,
        answer(
            {
                "content": GOOD,
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "first"},
                    {"type": "reasoning.summary", "summary": "then"},
                    {"type": "reasoning.encrypted", "data": "a2Jk"},
                ],
            }
        ),
        reasoning="first\nthen",
        engines=SERVER_ONLY,
    ),
    Behavior(
        "thinking-in-the-text",
        "sends what was thought in the text, between `<think>` and `</think>`",
        "the thinking is kept apart, and no stop string ends it",
        always,
        answer({"content": f"<think>\nis it {STOP} or not?\n</think>\n\n{GOOD}{STOP} and on"}),
        reasoning=f"is it {STOP} or not?",
    ),
    Behavior(
        "thinking-with-a-lone-mark",
        "sends a lone `</think>`, as where the template opened the thinking",
        "what stands before it is thinking",
        always,
        answer({"content": f"so then\n</think>\n{GOOD}"}),
        reasoning="so then",
    ),
    Behavior(
        "stop-inside-the-thinking",
        "lets a stop string end the thinking",
        "asked again without stop strings, which are sent no more; texts are cut here",
        has("stop"),
        answer({"content": "<think>the marks are", "reasoning_content": None}),
        learned=True,
        without=("stop",),
    ),
    Behavior(
        "stop-inside-hidden-thinking",
        "sends no text and no thinking, because a stop string ended it",
        "asked again without stop strings, which are sent no more",
        has("stop"),
        answer({"content": ""}),
        learned=True,
        without=("stop",),
    ),
    Behavior(
        "only-thinking",
        "spends the token limit on thinking",
        "a failed sample that says so, and to raise max_tokens",
        always,
        answer({"content": None, "reasoning_content": "long thoughts"}, "length"),
        texts=("",),
        ends=("length",),
        reasoning="long thoughts",
        detail="budget of 64 tokens went into thinking: raise max_tokens",
    ),
    Behavior(
        "limit-reached-as-an-error",
        "answers 400 where the token limit was reached before there was an answer",
        "a failed sample that says so, and to raise max_tokens",
        always,
        error("Could not finish the message because max_tokens or model output limit was reached."),
        400,
        n=2,
        texts=("", ""),
        ends=("length", "length"),
        detail="budget of 64 tokens went into thinking: raise max_tokens",
        tokens=64,
    ),
    Behavior(
        "refusal",
        "refuses to answer, in `refusal`",
        "a failed sample with the refusal's words",
        always,
        answer({"content": None, "refusal": "I cannot rate people."}),
        texts=("",),
        ends=("refused",),
        detail="I cannot rate people.",
    ),
    Behavior(
        "cut-by-a-filter",
        "ends an answer with `content_filter`",
        "a failed sample, filtered",
        always,
        answer({"content": "half of it"}, "content_filter"),
        texts=("half of it",),
        ends=("filtered",),
        detail="filter",
    ),
    Behavior(
        "error-as-the-end",
        "ends an answer with `finish_reason` error",
        "a failed sample with the server's words",
        always,
        {
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": ""},
                    "finish_reason": "error",
                    "error": {"message": "the provider hung up"},
                }
            ]
        },
        texts=("",),
        ends=("failed",),
        detail="the provider hung up",
        engines=SERVER_ONLY,
    ),
    Behavior(
        "no-choices-once",
        "sends an answer without choices once",
        "asked again",
        first,
        {"object": "chat.completion", "choices": []},
        engines=SERVER_ONLY,
    ),
    # --- failures ---
    Behavior(
        "answer-that-fits-no-schema",
        "answers 400 with what the model wrote, because it does not fit the schema",
        "a failed sample; what the model wrote teaches nothing about the server",
        lambda body, number: number == 0,
        error(
            "Failed to generate JSON.",
            type="invalid_request_error",
            code="json_validate_failed",
            failed_generation="the schema must not ask for a seed; 'stop' and temperature, too",
        ),
        400,
        n=2,
        schema=True,
        texts=("", GOOD_JSON),
        ends=("failed", "stop"),
        detail="Failed to generate JSON.",
        sent={"stop": [STOP], "temperature": 0.5},
        engines=CHAT_ONLY,
    ),
    Behavior(
        "fields-listed-that-it-takes",
        "refuses `top_p`, and lists what it does take",
        "asked without `top_p` only",
        has("top_p"),
        error("Unsupported parameter: top_p. Supported parameters are: temperature, stop, seed."),
        400,
        learned=True,
        without=("top_p",),
        sent={"temperature": 0.5, "stop": [STOP]},
    ),
    Behavior(
        "overload-that-names-a-field",
        "answers 503 and advises to ask for less",
        "asked again as before",
        first,
        error("Cannot serve this now. Reduce max_tokens or try again."),
        503,
        sent={"max_tokens": 64},
        engines=SERVER_ONLY,
    ),
    Behavior(
        "limited-for-safety-reasons",
        "does not take the prompt for safety reasons",
        "filtered, in the server's words",
        always,
        error("Invalid prompt: we've limited access to this content for safety reasons."),
        400,
        error=(EngineError, "filtered .*safety reasons"),
    ),
    Behavior(
        "one-of-several-filtered",
        "filters one request of several",
        "one failed sample; the others count",
        lambda body, number: number == 1,
        error("The response was filtered.", code="content_filter"),
        400,
        n=4,
        ends=("stop", "filtered", "stop", "stop"),
        detail="The response was filtered.",
        engines=CHAT_ONLY,
    ),
    Behavior(
        "flagged-by-moderation",
        "answers 403 where its moderation flags the request",
        "filtered, in the server's words; the key is not blamed",
        always,
        error("m requires moderation. Your input was flagged for 'harassment'.", code=403),
        403,
        error=(EngineError, "filtered .*was flagged"),
    ),
    Behavior(
        "error-with-status-200",
        "sends an error with status 200 once",
        "asked again, as after the status that the error names",
        first,
        error("rate limited upstream", code=429),
        headers={"retry-after": "0"},
    ),
    Behavior(
        "error-with-status-200-always",
        "sends an error with status 200 every time",
        "an error in the server's words after the last repetition",
        always,
        error("rate limited upstream", code=429),
        headers={"retry-after": "0"},
        error=(EngineUnavailable, "HTTP 429.*rate limited upstream"),
    ),
    Behavior(
        "too-many-requests",
        "answers 429 with Retry-After once",
        "asked again after the time that it names",
        first,
        error("slow down"),
        429,
        headers={"retry-after": "0.05"},
        engines=SERVER_ONLY,
    ),
    Behavior(
        "too-many-tokens-for-now",
        "answers 429 once because of too many tokens in a minute",
        "asked again with the same limit; the prompt is not called too long",
        first,
        error("Too many tokens, please wait before trying again."),
        429,
        headers={"retry-after": "0.05"},
        sent={"max_tokens": 64},
        engines=SERVER_ONLY,
    ),
    Behavior(
        "asks-for-a-long-wait",
        "asks to wait for an hour",
        "an error at once that names the wait",
        always,
        error("daily limit"),
        429,
        headers={"retry-after": "3600"},
        error=(EngineUnavailable, "daily limit"),
    ),
    Behavior(
        "no-credit",
        "answers 429 because the account has no credit left",
        "an error at once: waiting does not help",
        always,
        error("You exceeded your current quota.", code="insufficient_quota"),
        429,
        error=(EngineUnavailable, "no credit left.*exceeded your current quota"),
    ),
    Behavior(
        "quota-of-a-minute",
        "answers 429 with words about quota and billing, and the seconds until the next minute",
        "asked again after the time that it names",
        first,
        [
            error(
                "You exceeded your current quota, please check your plan and billing details.",
                code=429,
                status="RESOURCE_EXHAUSTED",
                details=[
                    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.05s"}
                ],
            )
        ],
        429,
        headers={},
        engines=SERVER_ONLY,
    ),
    Behavior(
        "page-of-a-gateway",
        "answers 502 with an HTML page every time",
        "an error with the words of the page",
        always,
        "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>",
        502,
        error=(EngineUnavailable, "502 Bad Gateway"),
    ),
    Behavior(
        "upstream-error-in-metadata",
        "wraps the upstream's refusal in `metadata.raw`",
        "the upstream's words reach the user",
        always,
        error(
            "Provider returned error",
            code=400,
            metadata={"raw": '{"error": {"message": "images are not enabled"}}', "provider": "x"},
        ),
        400,
        error=(ConfigurationError, "images are not enabled"),
    ),
    Behavior(
        "prompt-too-long",
        "refuses a prompt that is longer than the context",
        "an error that says to show less",
        always,
        error("This model's maximum context length is 10 tokens.", code="context_length_exceeded"),
        400,
        error=(ConfigurationError, "too long.*show fewer past choices"),
    ),
    Behavior(
        "less-room-than-the-limit",
        "refuses a token limit for which the context has no room",
        "asked without a limit, for this request",
        lambda body, _: "max_tokens" in body or "max_completion_tokens" in body,
        error("maximum context length is 90 tokens; you asked for 40 and 64 in the completion"),
        400,
        without=("max_tokens", "max_completion_tokens"),
    ),
    Behavior(
        "key-refused",
        "refuses the key, and quotes its ends",
        "an error in one line without any part of the key, and no second attempt",
        always,
        error("Incorrect API key provided: sk-do-******this. It ends in this."),
        401,
        error=(ConfigurationError, "refuses the API key"),
    ),
    Behavior(
        "key-refused-with-400",
        "refuses the key with status 400",
        "the same error as with 401",
        always,
        [{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}],
        400,
        error=(ConfigurationError, "refuses the API key"),
    ),
    Behavior(
        "model-not-served",
        "does not serve the model",
        "an error that says where to look",
        always,
        error("The model `m` does not exist."),
        404,
        error=(EngineUnavailable, "does not exist"),
    ),
)
