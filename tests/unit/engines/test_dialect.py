"""What refusals teach, in the many words that servers have for them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from pgenrm_agent.engines.dialect import Dialect, Request, learn
from pgenrm_agent.engines.masking import without_key
from pgenrm_agent.engines.server_errors import (
    ServerFault,
    ServerWords,
    read_words,
    wait_asked_for,
)
from pgenrm_agent.schema import Message

KEY = "sk-proj-4fGh7Qw2Zx9LmN3v"
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "persona": {"type": "string", "maxLength": 300},
        "format": {"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": 6},
    },
}
FULL: Request = {
    "messages": (Message(role="system", content="Judge."), Message(role="user", content="How?")),
    "temperature": 0.7,
    "top_p": 0.9,
    "seed": 5,
    "n": 8,
    "max_tokens": 3000,
    "stop": ["END"],
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "return_token_ids": True,
    "json_schema": SCHEMA,
}


def changed(body: object, status: int = 400, request: Request = FULL) -> set[str]:
    """The parts of a request that are another after the refusal."""
    before = Dialect().translate(request)
    fault = ServerFault(read_words(body), status=status)
    after = learn(Dialect(), before, fault)[0].translate(request)
    return {
        name for name in {*before, *after} if before.get(name, "none") != after.get(name, "none")
    }


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        # stop
        ("stop sequences are not supported by this endpoint", {"stop"}),
        ({"error": {"message": 'Unknown name "stop": Cannot find field.', "code": 400}}, {"stop"}),
        ({"error": "stop: at most 4 stop sequences"}, {"stop"}),
        ({"message": "Unsupported parameter stop", "type": "BadRequestError"}, {"stop"}),
        ({"detail": "Field `stop` must have fewer than 5 entries"}, {"stop"}),
        # seed
        ({"errors": {"seed": ["Unknown field."]}}, {"seed"}),
        ({"detail": [{"loc": ("body", "seed"), "type": "extra_forbidden"}]}, {"seed"}),
        ("Error: seed is not a valid parameter", {"seed"}),
        # n
        ({"error": {"message": "n must be 1", "param": "n"}}, {"n"}),
        ("The parameter `n` is not supported", {"n"}),
        ("this model cannot generate multiple completions", {"n"}),
        ("Invalid value for 'n': 8 is too many", {"n"}),
        ("sampling with n > 1 is not available", {"n"}),
        # temperature, top_p
        ({"error": {"message": "`temperature` is deprecated for this model."}}, {"temperature"}),
        ({"detail": "temperature: Input should be less than or equal to 0.5"}, {"temperature"}),
        ("Unsupported value: 'top_p' does not support 0.9. Only the default (1)", {"top_p"}),
        ({"error": {"message": "Unknown name 'topP'", "param": "top_p"}}, {"top_p"}),
        ("`temperature` and `top_p` cannot both be specified for this model", {"top_p"}),
        ("temperature and top_p cannot be used together", {"top_p"}),
        # the limit
        ("Unsupported parameter: 'max_tokens'", {"max_tokens", "max_completion_tokens"}),
        (
            {
                "error": {
                    "message": "Unsupported parameter: 'max_tokens' is not supported with this"
                    " model. Use 'max_completion_tokens' instead.",
                    "param": "max_tokens",
                    "code": "unsupported_parameter",
                }
            },
            {"max_tokens", "max_completion_tokens"},
        ),
        ("max_tokens: 3000 > 2048, which is the maximum for this model", {"max_tokens"}),
        # several
        ("extra fields not permitted: min_p, return_token_ids", {"min_p", "return_token_ids"}),
        ({"detail": [{"loc": ["body", "top_k"]}, {"loc": ["body", "seed"]}]}, {"top_k", "seed"}),
        (
            "<html><body><b>repetition_penalty</b> is not allowed</body></html>",
            {"repetition_penalty"},
        ),
        # schemas
        ("This response_format type is unavailable now", {"response_format", "messages"}),
        ("this model does not support structured outputs", {"response_format", "messages"}),
        ({"error": {"message": "no", "param": "response_format"}}, {"response_format", "messages"}),
        ("For 'string' type, property 'maxLength' is not supported", {"response_format"}),
        ("response schema: too many states for serving", {"response_format"}),
        ('Invalid schema: keyword "maxItems" unknown', {"response_format"}),
        # the system role
        ("System role not supported", {"messages"}),
        ({"error": {"message": "no", "param": "messages[0].role"}}, {"messages"}),
        ({"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "invalid"}]}, {"messages"}),
        ("Developer instruction is not enabled for models/gemma-3-27b-it", {"messages"}),
        ("Conversation roles must alternate user/assistant/user/assistant/...", {"messages"}),
        ("A conversation must start with a user message.", {"messages"}),
        ("Only user and assistant roles are supported!", {"messages"}),
        # wrapped
        (
            'OpenAIException - {"error": {"message": "Unrecognized request argument: seed"}}',
            {"seed"},
        ),
        (
            {"error": {"message": "upstream", "metadata": {"raw": '{"detail": "seed: unknown"}'}}},
            {"seed"},
        ),
        ("Error code: 400 - {'error': {'message': \"'stop' is not allowed\"}}", {"stop"}),
        # with what the server does take behind it
        ("Unsupported parameter: seed. Supported parameters are: temperature, top_p", {"seed"}),
        ("Unknown parameter 'top_k'. Allowed fields: seed, stop, n, max_tokens.", {"top_k"}),
        ("Valid parameters are `temperature` and `seed`. 'min_p' is unknown", {"min_p"}),
        ("unknown field `seed`, expected one of `stop`, `n`, `temperature`", {"seed"}),
        ("Not supported parameters: seed", {"seed"}),
        ("Invalid value: 'system'. Supported values are: 'user' and 'assistant'.", {"messages"}),
        # nothing of these
        ("The model is overloaded", set()),
        ("We cannot help with that; please stop.", set()),
        ("I can't do this: it isn't allowed", set()),
        ({"error": {"message": "bad", "request": {"seed": 5, "stop": ["END"], "n": 8}}}, set()),
        ("the account is not active", set()),
    ],
)
def test_a_refusal_changes_what_it_names_and_nothing_else(body: object, fields: set[str]) -> None:
    assert changed(body) == fields


def test_a_failing_server_has_to_complain_of_a_field() -> None:
    assert changed("generate() got an unexpected keyword argument 'seed'", 500) == {"seed"}
    assert changed("internal error while sampling at temperature 0.7", 500) == set()
    assert changed("rate limit for seed requests is not available", 429) == set()
    for status in (502, 503, 504, 529):
        assert changed("Cannot serve this. Reduce max_tokens or try again", status) == set()


def test_ways_to_hold_to_a_schema_end() -> None:
    dialect, ways = Dialect(), []
    while dialect.schema_ways:
        told = dialect.translate(FULL)
        ways.append(told["response_format"])
        fault = ServerFault(ServerWords("no", "response_format is not supported"), status=400)
        dialect, _ = learn(dialect, told, fault)
    assert [way["type"] for way in ways if isinstance(way, dict)] == ["json_schema", "json_object"]
    assert "response_format" not in dialect.translate(FULL)


@pytest.mark.parametrize(
    "said",
    [
        "Invalid grammar specification: 'triggers'",
        "Invalid response_format structural_tag specification.",
        "Outlines backend does not support structural tags",
        "1 validation error: response_format.type: Input should be 'text' or 'json_schema'",
    ],
)
def test_a_grammar_that_is_refused_leaves_the_schema(said: str) -> None:
    request: Request = {**FULL, "json_grammar": 'root ::= "{}"'}
    told = Dialect().translate(request)
    assert told["response_format"] == {
        "type": "structural_tag",
        "format": {"type": "grammar", "grammar": 'root ::= "{}"'},
    }
    fault = ServerFault(ServerWords(said, said), status=400)
    after, lessons = learn(Dialect(), told, fault)
    assert after == Dialect(takes_grammar=False)
    assert len(lessons) == 1
    assert "disable_any_whitespace" in lessons[0]
    assert after.translate(request) == Dialect().translate(FULL)


def test_a_strict_schema_names_every_property_and_no_others() -> None:
    held: Any = Dialect().translate(FULL)["response_format"]
    assert held["json_schema"]["strict"] is True
    schema = held["json_schema"]["schema"]
    assert schema["required"] == ["persona", "format"]
    assert schema["additionalProperties"] is False
    assert "required" not in SCHEMA, "the caller's own schema stays as it was"


def test_a_keyword_that_is_left_out_is_no_property_of_its_name() -> None:
    told = Dialect(keywords=frozenset({"format", "maxLength"})).translate(FULL)
    text = json.dumps(told["response_format"])
    assert "maxLength" not in text
    assert '"format": {"type": "array"' in text


def test_a_refusal_of_the_limits_value_lowers_it() -> None:
    told = Dialect().translate(FULL)
    words = read_words("max_tokens is too large: 3000. This model supports at most 2048 tokens")
    dialect, _ = learn(Dialect(), told, ServerFault(words, status=400))
    assert dialect.translate(FULL)["max_tokens"] == 2048


def test_a_cap_on_n_is_believed_once() -> None:
    dialect = Dialect()
    for together in (4, 1):
        told = dialect.translate(FULL)
        words = read_words({"error": {"message": "n must be at most 4", "param": "n"}})
        dialect, _ = learn(dialect, told, ServerFault(words, status=400))
        assert dialect.together == together
    assert "n" not in dialect.translate(FULL)


def test_what_another_request_taught_meanwhile_is_not_learned_twice() -> None:
    told = Dialect().translate(FULL)
    words = read_words({"error": {"message": "n must be at most 4", "param": "n"}})
    learned, lessons = learn(Dialect(), told, ServerFault(words, status=400))
    assert lessons
    assert learn(learned, told, ServerFault(words, status=400)) == (learned, ())


# --- faults ---


@pytest.mark.parametrize(
    ("said", "wait_s", "spent"),
    [
        ("You exceeded your current quota; see billing", None, True),
        ("You exceeded your current quota; see billing", 36.0, False),
        ("You exceeded your current quota; see billing", 3600.0, True),
        ("insufficient_quota", 1.0, True),
        ("slow down", None, False),
    ],
)
def test_a_quota_that_is_free_again_in_a_moment_is_not_spent(
    said: str, wait_s: float | None, spent: bool
) -> None:
    fault = ServerFault(read_words(said), status=429, wait_s=wait_s)
    assert (fault.is_spent, fault.is_transient, fault.concerns_all) == (spent, not spent, spent)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 503])
@pytest.mark.parametrize(
    "said",
    [
        "Too many tokens, please wait before trying again.",
        "too many input tokens this minute: reduce the length of requests",
        "the moderation system is busy",
        "the output limit was reached for now",
    ],
)
def test_what_passes_is_neither_too_long_nor_filtered(said: str, status: int) -> None:
    fault = ServerFault(read_words(said), status=status)
    assert fault.is_transient
    assert not any([fault.is_about_length, fault.is_filter, fault.is_about_reached_limit])


# --- words ---


@pytest.mark.parametrize(
    ("body", "text", "status"),
    [
        ({"error": {"message": "a", "code": 429}}, "a", 429),
        ({"status": 503, "title": "Down", "detail": "for repair"}, "Down: for repair", 503),
        ({"success": False, "errors": [{"code": 7009, "message": "a"}]}, "a", None),
        ({"base_resp": {"status_code": 1004, "status_msg": "login fail"}}, "login fail", None),
        ([{"error": {"code": 400, "message": "a", "status": "INVALID_ARGUMENT"}}], "a", 400),
        ("<html><head><title>502 Bad Gateway</title></head></html>", "502 Bad Gateway", None),
        ("must be one of ['text', 'json_object']", "must be one of ['text', 'json_object']", None),
        ({"fault": {"faultstring": "a"}}, "a", None),
        ("", "without a word", None),
        (None, "without a word", None),
        ({"choices": [{"message": {"content": "secret"}}]}, "without a word", None),
    ],
)
def test_words_are_read_from_every_shape(body: object, text: str, status: int | None) -> None:
    words = read_words(body)
    assert (words.text, words.status) == (text, status)


@pytest.mark.parametrize("body", ["{" * 5000, "[{" * 5000, '{"error": ' * 3000, "{'a': " * 3000])
def test_nested_without_end_is_text(body: str) -> None:
    assert len(read_words(body).text) <= 303


@pytest.mark.parametrize(
    "said",
    [
        f"Incorrect API key provided: {KEY}",
        "Incorrect API key provided: sk-proj-***********Lm N3v"[:41],
        "Incorrect API key provided: sk-...mN3v",
        "the key that ends in mN3v is revoked",
        "bad key (sk-proj-4fGh…)",
        "Authorization: Bearer sk-proj-4fGh7Qw2",
        f"https://api/v1?key={KEY}&x=1",
        "invalid credential XXXXXXXXN3v",
        "sk-proj-4f**w2Zx**mN3v and sk-proj-...mN3v, or 4fGh***",
        "sk-proj...Zx9L**mN3v",
        "key=**mN3v",
    ],
)
def test_no_part_of_a_key_is_left(said: str) -> None:
    left = without_key(said, [KEY])
    for size in range(4, len(KEY)):
        assert KEY[:size] not in left
        assert KEY[-size:] not in left


@pytest.mark.parametrize(
    "said",
    ["wait... and see", "This model only supports temperature 1.", "max_tokens is too large: 64"],
)
def test_other_words_are_left_as_they_are(said: str) -> None:
    assert without_key(said, ["sk-do-not-show-this"]) == said


@pytest.mark.parametrize("letter", ["a", "x", "-", "a.", "sk-", "*", "a*", "xxxx-"])
def test_a_long_word_takes_no_long_time(letter: str) -> None:
    started = time.process_time()
    without_key(letter * 100_000, [KEY])
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("headers", "said", "seconds"),
    [
        ({"retry-after": "7"}, "", 7.0),
        ({"retry-after-ms": "1500"}, "", 1.5),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, "", 0.0),
        ({"retry-after": "soon"}, "Please try again in 6.5s.", 6.5),
        ({}, "retry in 250ms", 0.25),
        ({}, "Please retry after 2 minutes", 120.0),
        ({"retry-after": "0.25"}, "", 0.25),
        ({"retry-after": "90s"}, "", 90.0),
        ({}, "Please try again in 1m30.5s.", 90.5),
        ({}, "Try again in 2h15m, or upgrade.", 8100.0),
        ({}, "retry 3 times", None),
        ({}, "Please try again later. Request id: 8839", None),
        ({}, "slow down", None),
    ],
)
def test_the_wait_is_read_from_headers_then_words(
    headers: dict[str, str], said: str, seconds: float | None
) -> None:
    assert wait_asked_for(headers, read_words(said)) == seconds
