"""Answers of the transformers engine that are held to a schema, and models that think first."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from fixtures.models import ANSWER
from tokenizers import AddedToken

from pgenrm_agent.engines import Prompt, SamplingParams
from pgenrm_agent.engines.grammar import Grammars, TokenMask, json_grammar
from pgenrm_agent.engines.reasoning import special_tokens
from pgenrm_agent.engines.transformers import TransformersEngine
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.schema import Message

MARK: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": 10}
CHAIN: dict[str, Any] = {
    "type": "object",
    "properties": {
        "persona": {"type": "string", "maxLength": 12},
        "criteria": {
            "type": "array",
            "minItems": 1,
            "maxItems": 2,
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 4}, "weight": MARK},
                "required": ["name", "weight"],
                "additionalProperties": False,
            },
        },
        "marks": {"type": "array", "items": MARK, "minItems": 2, "maxItems": 2},
    },
    "required": ["persona", "criteria", "marks"],
    "additionalProperties": False,
}
CHOICE: dict[str, Any] = {
    "type": "object",
    "properties": {"best": {"enum": ["first", "second"]}},
    "required": ["best"],
    "additionalProperties": False,
}
LONG = SamplingParams(max_tokens=200)


def prompt(text: str, *, n: int = 1, seed: int = 0, schema: Any = None) -> Prompt:
    return Prompt(
        messages=(Message(role="user", content=text),), n=n, seed=seed, json_schema=schema
    )


@pytest.fixture
async def engine(tiny_llama: Path) -> AsyncIterator[TransformersEngine]:
    made = TransformersEngine(tiny_llama, device="cpu")
    yield made
    await made.aclose()


@pytest.fixture
async def thinking(thinking_llama: Path) -> AsyncIterator[TransformersEngine]:
    made = TransformersEngine(thinking_llama, device="cpu")
    yield made
    await made.aclose()


@pytest.fixture
async def opening(opening_llama: Path) -> AsyncIterator[TransformersEngine]:
    """The same under a template that opens the thinking."""
    made = TransformersEngine(opening_llama, device="cpu")
    yield made
    await made.aclose()


# --- schemas ---


@pytest.mark.parametrize(
    "schema",
    [
        CHAIN,
        CHOICE,
        {"type": "array", "items": MARK, "minItems": 3, "maxItems": 3},
        {"enum": ["yes", "no"]},
        {"type": "integer", "minimum": 10, "maximum": 99},
    ],
    ids=lambda schema: str(schema)[:24],
)
async def test_every_sample_of_a_random_model_is_an_instance(
    engine: TransformersEngine, schema: Any
) -> None:
    assert engine.capabilities.json_schema
    [samples] = await engine.sample([prompt("how", n=6, schema=schema)], LONG)
    for sample in samples:
        assert (sample.finish_reason, sample.detail) == ("stop", "")
        jsonschema.validate(json.loads(sample.text), schema)
        compact = json.dumps(json.loads(sample.text), separators=(",", ":"), ensure_ascii=False)
        assert sample.text == compact
    assert len({sample.text for sample in samples}) > 1


async def test_rows_with_different_schemas_and_none_share_a_batch(
    engine: TransformersEngine,
) -> None:
    asked = [
        prompt("how", n=3, seed=1, schema=CHAIN),
        prompt("how", n=2, seed=1),
        prompt("why", n=3, seed=2, schema=CHOICE),
    ]
    together = await engine.sample(asked, LONG)
    alone = [(await engine.sample([single], LONG))[0] for single in asked]
    assert together == alone
    for samples, schema in zip(together, (CHAIN, None, CHOICE), strict=True):
        for sample in samples:
            if schema is not None:
                jsonschema.validate(json.loads(sample.text), schema)


async def test_the_likeliest_text_is_held_too_and_top_p_is_of_what_is_allowed(
    engine: TransformersEngine,
) -> None:
    for params in (
        SamplingParams(temperature=0, max_tokens=200),
        SamplingParams(top_p=0.05, max_tokens=200),
    ):
        [[sample]] = await engine.sample([prompt("how", schema=CHAIN)], params)
        jsonschema.validate(json.loads(sample.text), CHAIN)


async def test_a_schema_that_is_cut_off_says_so(engine: TransformersEngine) -> None:
    [[sample]] = await engine.sample([prompt("how", schema=CHAIN)], SamplingParams(max_tokens=4))
    assert (sample.finish_reason, sample.tokens) == ("length", 4)
    assert sample.text.startswith('{"')


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ({"type": "strin"}, "strin"),
        ({"type": "string", "pattern": "("}, "parenthesis"),
        ({"$ref": "#/nowhere"}, "nowhere"),
        ({"type": "array", "items": {"type": "integer", "multipleOf": 3}}, "multipleOf"),
        ({"type": "object", "properties": {"a": {"not": {"type": "string"}}}}, "'not'"),
        ({"type": "string", "minLength": 5, "maxLength": 2}, "minLength"),
    ],
)
async def test_a_schema_that_cannot_be_held_to_is_refused(
    engine: TransformersEngine, schema: Any, complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        await engine.sample([prompt("how", schema=schema)], LONG)


def test_names_that_look_like_keywords_are_no_keywords() -> None:
    schema = {
        "type": "object",
        "properties": {"not": {"enum": ["if"]}, "contains": {"const": {"multipleOf": 1}}},
        "required": ["not", "contains"],
        "additionalProperties": False,
    }
    assert "multipleOf" in json_grammar(schema)


async def test_no_string_holds_a_control_character_or_a_special_token(tiny_llama: Path) -> None:
    """JSON forbids the first; the second would vanish from the text."""
    engine = TransformersEngine(tiny_llama, device="cpu")
    tokenizer = engine._tokenizer
    tokenizer.add_tokens([AddedToken("<file_sep>", special=True)])
    assert len(special_tokens(tokenizer)) > len(tokenizer.all_special_ids)
    grammars = Grammars(tokenizer, len(tokenizer), engine._ends)
    for string in ({"type": "string"}, {"type": "string", "maxLength": 50}):
        matcher = grammars.matcher(json_grammar(string))
        assert matcher.accept_string('"a')
        logits = torch.zeros(1, len(tokenizer))
        TokenMask().apply(logits, [matcher])
        allowed = [token for token in range(len(tokenizer)) if logits[0, token] == 0]
        assert not set(allowed) & special_tokens(tokenizer)
        texts = [tokenizer.decode([token]) for token in allowed]
        assert "b" in texts
        assert not [text for text in texts if any(ord(sign) < 32 for sign in text)]


def test_a_grammar_of_ones_own_holds(tiny_llama: Path) -> None:
    engine = TransformersEngine(tiny_llama, device="cpu")
    grammars = Grammars(engine._tokenizer, len(engine._tokenizer), engine._ends)
    with pytest.raises(ConfigurationError, match="no grammar"):
        grammars.matcher("root ::= (")
    matcher = grammars.matcher('root ::= "mark " [1-9] [0-9]? "\\n"')
    for text, held in (("mark 1", True), ("2\n", True), ("3", False)):
        assert matcher.accept_string(text) is held
    assert matcher.is_completed()


# --- thinking ---

GREEDY = SamplingParams(temperature=0, max_tokens=150)
STOPPED = SamplingParams(temperature=0, max_tokens=150, stop=("STOP",))


async def test_what_a_model_thinks_is_no_part_of_its_text(thinking: TransformersEngine) -> None:
    [[sample], [plain]] = await thinking.sample([prompt("how"), prompt("why")], GREEDY)
    assert (sample.reasoning, sample.text) == ("one STOP two", ANSWER)
    assert (plain.reasoning, plain.text) == ("", ANSWER)
    assert sample.tokens > plain.tokens
    assert sample.finish_reason == plain.finish_reason == "stop"


@pytest.mark.parametrize("template", ["plain", "opens"])
async def test_no_stop_string_fires_within_the_thinking(
    thinking: TransformersEngine, opening: TransformersEngine, template: str
) -> None:
    engine = {"plain": thinking, "opens": opening}[template]
    [[sample]] = await engine.sample([prompt("how")], STOPPED)
    assert (sample.reasoning, sample.text) == ("one STOP two", "the answer said ")
    assert sample.finish_reason == "stop"
    # A token may hold the end of the stop string and more.
    [[whole]] = await engine.sample([prompt("how")], GREEDY)
    assert sample.tokens < whole.tokens


async def test_thinking_is_split_off_where_the_template_opened_it(
    opening: TransformersEngine,
) -> None:
    [[sample]] = await opening.sample([prompt("how")], GREEDY)
    assert (sample.reasoning, sample.text) == ("one STOP two", ANSWER)


@pytest.mark.parametrize("template", ["plain", "opens"])
@pytest.mark.parametrize("schema", [None, CHOICE])
async def test_thinking_that_never_ends_leaves_no_text(
    thinking: TransformersEngine, opening: TransformersEngine, template: str, schema: Any
) -> None:
    engine = {"plain": thinking, "opens": opening}[template]
    params = SamplingParams(temperature=0, max_tokens=30, stop=("STOP",))
    [[sample]] = await engine.sample([prompt("what", schema=schema)], params)
    assert (sample.text, sample.finish_reason, sample.tokens) == ("", "length", 30)
    assert sample.reasoning.startswith("one two three one two three")
    assert "raise max_tokens" in sample.detail


@pytest.mark.parametrize("template", ["plain", "opens"])
async def test_a_schema_holds_from_the_end_of_the_thinking_on(
    thinking: TransformersEngine, opening: TransformersEngine, template: str
) -> None:
    engine = {"plain": thinking, "opens": opening}[template]
    asked = [prompt("how", schema=CHAIN), prompt("how", schema=CHOICE)]
    for [sample], schema in zip(await engine.sample(asked, GREEDY), (CHAIN, CHOICE), strict=True):
        assert sample.reasoning == "one STOP two"
        jsonschema.validate(json.loads(sample.text), schema)
        assert sample.finish_reason == "stop"


async def test_a_model_that_does_not_think_first_is_held_at_once(
    thinking: TransformersEngine,
) -> None:
    [[sample]] = await thinking.sample([prompt("why", schema=CHAIN)], GREEDY)
    assert sample.reasoning == ""
    jsonschema.validate(json.loads(sample.text), CHAIN)


async def test_a_begun_answer_is_continued_under_a_template_that_opens_thinking(
    opening: TransformersEngine,
) -> None:
    begun = prompt("how").model_copy(update={"partial": "the answer "})
    [[sample]] = await opening.sample([begun], SamplingParams(max_tokens=3))
    assert (sample.reasoning, sample.detail) == ("", "")


async def test_marks_that_are_special_tokens_count_as_marks(
    thinking_llama: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(thinking_llama)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    assert "<think>" not in tokenizer.decode(
        tokenizer.encode("<think>", add_special_tokens=False), skip_special_tokens=True
    )
    engine = TransformersEngine(
        AutoModelForCausalLM.from_pretrained(thinking_llama), tokenizer=tokenizer, device="cpu"
    )
    [[sample]] = await engine.sample([prompt("how")], STOPPED)
    assert (sample.reasoning, sample.text) == ("one STOP two", "the answer said ")
    await engine.aclose()


# --- part for part ---


async def test_a_prompt_that_is_too_long_fails_alone(engine: TransformersEngine) -> None:
    asked = [prompt("how", n=2), prompt("one " * 400, n=3), prompt("why")]
    usable, failed, last = await engine.sample(asked, SamplingParams(max_tokens=4))
    assert [len(usable), len(failed), len(last)] == [2, 3, 1]
    assert {sample.finish_reason for sample in failed} == {"failed"}
    assert "reads at most 256" in failed[0].detail
    assert all(sample.tokens == 4 for sample in usable + last)
    with pytest.raises(ConfigurationError, match="reads at most 256"):
        await engine.sample(asked[1:2] * 2, LONG)


async def test_at_the_deadline_what_is_whole_stays_and_the_rest_says_timeout(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, forward, late_step = 0, engine._model.forward, threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > 30:
            # The deadline is a matter of the caller, not of how long a step takes.
            late_step.wait(20)
        return forward(*arguments, **options)

    monkeypatch.setattr(engine._model, "forward", slow)
    asked = [prompt("how", n=2, schema=CHOICE), prompt("why", n=2)]
    params = SamplingParams(max_tokens=200, timeout_s=3)
    short, endless = await engine.sample(asked, params)
    late_step.set()
    assert [sample.finish_reason for sample in short] == ["stop", "stop"]
    assert all(json.loads(sample.text)["best"] in ("first", "second") for sample in short)
    late = [sample for sample in endless if sample.finish_reason == "timeout"]
    assert late
    for sample in late:
        assert 0 < sample.tokens < 40
        assert sample.text
        assert "3 s were over" in sample.detail
    # The engine is free again, and a job that never got its turn says the same.
    monkeypatch.setattr(engine._model, "forward", forward)
    assert await engine.sample([prompt("how")], SamplingParams(max_tokens=4))
    busy = asyncio.create_task(engine.sample([prompt("how", n=64)], SamplingParams(max_tokens=200)))
    await asyncio.sleep(0.05)
    [[waiting]] = await engine.sample(
        [prompt("why")], SamplingParams(max_tokens=9, timeout_s=0.02, top_p=0.5)
    )
    assert (waiting.finish_reason, waiting.text, waiting.tokens) == ("timeout", "", 0)
    assert len((await busy)[0]) == 64


async def test_enough_time_changes_nothing(engine: TransformersEngine) -> None:
    asked = [prompt("how", n=2, seed=3)]
    timed = await engine.sample(asked, SamplingParams(max_tokens=20, timeout_s=300))
    assert timed == await engine.sample(asked, SamplingParams(max_tokens=20))


def test_the_grammar_of_a_schema_is_made_once_and_keeps_the_order_of_its_keys() -> None:
    schema = {"type": "object", "properties": {"a": MARK, "b": MARK}, "required": ["a", "b"]}
    assert json_grammar(schema) is json_grammar(json.loads(json.dumps(schema)))
    turned = {**schema, "properties": {"b": MARK, "a": MARK}}
    assert json_grammar(turned) != json_grammar(schema)
    with pytest.raises(ConfigurationError, match="no JSON schema"):
        json_grammar({"type": "object", "properties": {"a": {1, 2}}})
