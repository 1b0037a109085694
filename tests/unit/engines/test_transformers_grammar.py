"""Answers of the transformers engine that are held to a grammar, and what it writes without the model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from pgenrm_agent.engines import Prompt, SamplingParams, decoding
from pgenrm_agent.engines.attention import read_prompts
from pgenrm_agent.engines.decoding import Row, SamplingRules, decode
from pgenrm_agent.engines.grammar import Grammars
from pgenrm_agent.engines.transformers import TransformersEngine
from pgenrm_agent.errors import ConfigurationError, InvalidInput
from pgenrm_agent.model_files import bundled_model
from pgenrm_agent.schema import Message

CHAIN = r"""
root ::= "## Notes\n" note note "## Persona\nThis person likes " taste (" and " taste)? ".\n" marks
note ::= "- [" [1-3] " chosen]: " ("warm" | "short" | "plain") " " [+-] [0-9] "\n"
taste ::= "short answers" | "short sentences" | "a caf\u00e9" | "a caf\u00e8re" | free
free ::= [a-z] [a-z ]{2,12}
marks ::= "## Marks\n" mark mark
mark ::= "Response " [1-3] ": " [1-9] ", " ([1-9] | "10") "\n"
"""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"persona": {"type": "string", "maxLength": 9}, "better": {"enum": [1, 2]}},
    "required": ["persona", "better"],
    "additionalProperties": False,
}
LONG = SamplingParams(max_tokens=300)


def prompt(text: str = "how", **options: Any) -> Prompt:
    options = {"grammar": CHAIN, **options}
    return Prompt(messages=(Message(role="user", content=text),), **options)


@pytest.fixture(scope="module")
def engine() -> Iterator[TransformersEngine]:
    made = TransformersEngine(bundled_model(), device="cpu", threads=1)
    yield made
    asyncio.run(made.aclose())


@pytest.fixture(scope="module")
def grammars(engine: TransformersEngine) -> Grammars:
    return Grammars(engine._tokenizer, engine._model.config.vocab_size, engine._ends)


def is_whole(grammars: Grammars, text: str) -> bool:
    matcher = grammars.matcher(CHAIN)
    return matcher.accept_string(text) and matcher.is_completed()


@pytest.mark.parametrize("temperature", [0.0, 0.7, 3.0])
async def test_every_text_is_one_of_the_grammars(
    engine: TransformersEngine, grammars: Grammars, temperature: float
) -> None:
    assert engine.capabilities.grammar
    params = SamplingParams(temperature=temperature, max_tokens=300)
    [samples] = await engine.sample([prompt(n=12, seed=int(temperature * 10))], params)
    for sample in samples:
        assert sample.finish_reason == "stop"
        assert is_whole(grammars, sample.text), sample.text


async def test_what_is_forced_takes_no_step_of_the_model(engine: TransformersEngine) -> None:
    for asked in (prompt(n=4), prompt(n=4, grammar=None, json_schema=SCHEMA)):
        before = engine.work
        [samples] = await engine.sample([asked], LONG)
        written = sum(sample.tokens for sample in samples)
        assert engine.work.written - before.written == written
        assert engine.work.drawn - before.drawn < written / 2
        assert engine.work.steps - before.steps < max(sample.tokens for sample in samples) / 2
    before = engine.work
    [[sample]] = await engine.sample([prompt(grammar='root ::= "no choice\\n"')], LONG)
    assert (sample.text, sample.finish_reason) == ("no choice\n", "stop")
    assert engine.work.drawn == before.drawn


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_model_is_asked_after_the_very_text_that_is_written(
    engine: TransformersEngine,
    grammars: Grammars,
    monkeypatch: pytest.MonkeyPatch,
    temperature: float,
) -> None:
    """Logits while decoding are those of a plain pass over prompt and text, whatever was jumped."""
    asked: list[tuple[Row, int, torch.Tensor]] = []
    choose = decoding._choose

    def noted(logits: torch.Tensor, rows: Any, *rest: Any) -> list[int]:
        asked.extend(
            (row, len(row.tokens), line.clone()) for row, line in zip(rows, logits, strict=True)
        )
        return choose(logits, rows, *rest)

    monkeypatch.setattr(decoding, "_choose", noted)
    start = list(range(100, 180))
    prompts = [[*start, *[300] * 5], [*start, 400, 500], [600, 700, 800]]
    rows = []
    for number in range(7):
        noise = np.random.Generator(np.random.Philox(key=[5, number]))
        row = Row(number % 3, noise, 200)
        row.matcher = grammars.matcher(CHAIN) if number != 4 else None
        row.limit = 60 if number == 4 else 200
        rows.append(row)
    rules = SamplingRules(temperature, 1.0, engine._ends, grammars=grammars)
    work = decode(engine._model, prompts, rows, rules)
    assert len(asked) == work.drawn < work.written
    whole = {}
    for row in rows:
        ids = torch.tensor([[*prompts[row.prompt], *row.tokens]])
        with torch.inference_mode():
            whole[row] = engine._model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    for row, place, logits in asked:
        plain = whole[row][len(prompts[row.prompt]) + place - 1]
        torch.testing.assert_close(logits.log_softmax(-1), plain, atol=1e-4, rtol=1e-4)


async def test_a_sample_is_its_own_whatever_is_written_beside_it(
    engine: TransformersEngine,
) -> None:
    shared = "what the person asked and why " * 12
    asked = [
        prompt(shared + "one", n=8, seed=1),
        prompt(shared + "two", n=3, seed=2),
        prompt("why", n=2, seed=1, grammar=None, json_schema=SCHEMA),
        prompt("why", n=2, seed=3, grammar=None),
    ]
    params = SamplingParams(max_tokens=120)
    together = await engine.sample(asked, params)
    alone = [(await engine.sample([single], params))[0] for single in asked]
    assert together == alone
    [first] = await engine.sample([asked[0].model_copy(update={"n": 1})], params)
    [many] = await engine.sample([asked[0].model_copy(update={"n": 24})], params)
    assert (first, many[:8]) == (alone[0][:1], alone[0])


def test_prompts_that_begin_alike_are_read_as_if_alone(engine: TransformersEngine) -> None:
    start = list(range(200, 300))
    prompts = [[*start, 5, 6], [7, 8], [*start, 9], start[:80], start]
    with torch.inference_mode():
        caches, together = read_prompts(engine._model, prompts)
        for place, single in enumerate(prompts):
            [cache], [logits] = read_prompts(engine._model, [single])
            assert caches[place].get_seq_length() == cache.get_seq_length() == len(single)
            torch.testing.assert_close(together[place], logits, atol=1e-4, rtol=1e-4)


# --- texts that end before their grammar does, and that begin before the model ---


@pytest.mark.parametrize("stop", ["## Persona", "son", "\n## Marks", ": "])
async def test_a_stop_string_cuts_where_it_stands_in_the_whole_text(
    engine: TransformersEngine, stop: str
) -> None:
    [whole] = await engine.sample([prompt(n=4, seed=3)], LONG)
    [cut] = await engine.sample([prompt(n=4, seed=3)], SamplingParams(max_tokens=300, stop=(stop,)))
    for sample, long in zip(cut, whole, strict=True):
        assert sample.text == long.text[: long.text.index(stop)]
        assert sample.finish_reason == "stop"
        assert sample.tokens < long.tokens


async def test_a_limit_cuts_within_what_is_forced(engine: TransformersEngine) -> None:
    [[whole]] = await engine.sample([prompt()], LONG)
    for limit in range(1, 9):
        [[sample]] = await engine.sample([prompt()], SamplingParams(max_tokens=limit))
        assert (sample.tokens, sample.finish_reason) == (limit, "length")
        assert whole.text.startswith(sample.text)


async def test_what_follows_a_begun_answer_is_held(engine: TransformersEngine) -> None:
    held = prompt(partial="The marks: 3, 4,", n=6, grammar='root ::= " " [5-9] (", " [5-9])? "."')
    [samples] = await engine.sample([held], LONG)
    for sample in samples:
        assert re.fullmatch(r" [5-9](, [5-9])?\.", sample.text)
        assert sample.finish_reason == "stop"


async def test_no_grammar_and_two_ways_to_hold_an_answer_are_refused(
    engine: TransformersEngine,
) -> None:
    with pytest.raises(ConfigurationError, match="no grammar"):
        await engine.sample([prompt(grammar="root ::= nowhere")], LONG)
    with pytest.raises(InvalidInput, match="to a grammar"):
        prompt(json_schema=SCHEMA)


# --- the tokens of forced texts ---


@pytest.mark.parametrize(
    ("grammar", "written", "held_back"),
    [
        ('root ::= "The person likes" (" short" | " long")', "The person likes", ""),
        ('root ::= "likes: " ("short" | "long")', "likes:", " "),  # " short" is one token
        ('root ::= "likes: " [0-9]', "likes: ", ""),  # digits stand alone
        ('root ::= "the answer" ("s" | "!")', "the", " answer"),
        ('root ::= "a" ("é" | "è") "z"', "", "a"),
        ('root ::= "ü\\n" [0-9]', "ü\n", ""),
        ('root ::= "- [" [1-3] " chosen]"', "-", " ["),  # "[1 chosen]" is one token
        ('root ::= "- [" [1-3] " chosen)"', "- [", ""),
    ],
)
def test_a_forced_text_is_written_up_to_where_it_may_merge(
    engine: TransformersEngine, grammars: Grammars, grammar: str, written: str, held_back: str
) -> None:
    tokenizer = engine._tokenizer
    tokens, complete = grammars.jump(grammars.matcher(grammar), [])
    assert not complete
    text = str(tokenizer.decode(tokens))
    if text != written:  # a vocabulary may hold no such merge: then nothing is held back
        assert text == written + held_back
    assert tokens == tokenizer.encode(text, add_special_tokens=False)


def test_forced_tokens_are_those_of_the_text_in_its_context(
    engine: TransformersEngine, grammars: Grammars
) -> None:
    row = Row(0, np.random.Generator(np.random.Philox(key=[1, 1])), 300)
    row.matcher = grammars.matcher(
        r'''root ::= "You can see it in choice " [1-3] ": the chosen answer was warm.\n" mark mark
mark ::= "Response " [1-3] ": " [1-9] ", " [1-9] "\n"'''
    )
    rules = SamplingRules(1.0, 1.0, engine._ends, grammars=grammars)
    decode(engine._model, [[100, 200, 300]], [row], rules)
    tokenizer = engine._tokenizer
    text = tokenizer.decode(row.tokens)
    assert tokenizer.encode(text, add_special_tokens=False) == row.tokens
    assert row.drawn == 7, "the digits"


def test_a_text_that_the_tokenizer_does_not_give_back_is_left_to_the_model(
    grammars: Grammars,
) -> None:
    matcher = grammars.matcher('root ::= "see <|end|> here" [0-9]')
    assert grammars.jump(matcher, []) == ([], False)
    assert matcher.accept_string("see <|end|> here1")
