"""The transformers engine against the library's own generation, alone and in batches."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pgenrm_agent.engines import Prompt, SamplingParams, load_engine
from pgenrm_agent.engines.transformers import TransformersEngine
from pgenrm_agent.errors import ConfigurationError, EngineError, EngineUnavailable
from pgenrm_agent.model_files import bundled_model
from pgenrm_agent.schema import Message


def prompt(text: str, *, n: int = 1, seed: int = 0, partial: str = "") -> Prompt:
    return Prompt(messages=(Message(role="user", content=text),), n=n, seed=seed, partial=partial)


SHORT = SamplingParams(max_tokens=24)


@pytest.fixture
async def engine(tiny_llama: Path) -> AsyncIterator[TransformersEngine]:
    made = TransformersEngine(tiny_llama, device="cpu")
    yield made
    await made.aclose()


def reference(folder: Path, prompt: Prompt, tokens: int) -> str:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    text = tokenizer.apply_chat_template(
        [m.model_dump() for m in prompt.messages], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text + prompt.partial, add_special_tokens=False, return_tensors="pt").input_ids
    out = model.generate(ids, do_sample=False, max_new_tokens=tokens)[0, ids.shape[1] :]
    return str(tokenizer.decode(out, skip_special_tokens=True))


@pytest.mark.parametrize(
    "text", ["how", "what the person asked and why, one two three", "answer " * 40]
)
async def test_greedy_text_is_the_librarys_own(
    engine: TransformersEngine, tiny_llama: Path, text: str
) -> None:
    params = SamplingParams(temperature=0, max_tokens=24)
    others = [prompt("another " * 9), prompt(text), prompt("why")]
    (_, (sample,), _) = await engine.sample(others, params)
    assert sample.text == reference(tiny_llama, prompt(text), 24)


async def test_samples_do_not_depend_on_what_else_is_in_the_batch(
    engine: TransformersEngine,
) -> None:
    wanted = [
        prompt(f"{word} " * length, n=3, seed=length)
        for word in ("why", "one two")
        for length in (3, 17, 60)
    ]
    together = await asyncio.gather(*(engine.sample([asked], SHORT) for asked in wanted))
    alone = [await engine.sample([asked], SHORT) for asked in wanted]
    assert together == alone


async def test_samples_of_a_prompt_differ_and_more_of_them_keep_the_first(
    engine: TransformersEngine,
) -> None:
    ((*many,),) = await engine.sample([prompt("how", n=6, seed=3)], SHORT)
    assert many[0].prompt_tokens > 0
    assert not any(sample.prompt_tokens for sample in many[1:])  # read once
    ((*few,),) = await engine.sample([prompt("how", n=2, seed=3)], SHORT)
    assert len({sample.text for sample in many}) > 1
    assert many[:2] == few
    ((single,),) = await engine.sample([prompt("how", n=1, seed=4)], SHORT)
    assert single.text != few[0].text


async def test_a_stop_string_ends_a_sample_and_is_left_out(engine: TransformersEngine) -> None:
    ((whole,),) = await engine.sample([prompt("how", seed=5)], SamplingParams(max_tokens=40))
    middle = len(whole.text) // 2
    stop = whole.text[middle : middle + 3]
    params = SamplingParams(max_tokens=40, stop=(stop,))
    ((sample,),) = await engine.sample([prompt("how", seed=5)], params)
    assert sample.text == whole.text[: whole.text.index(stop)]
    assert sample.finish_reason == "stop"
    assert sample.tokens <= whole.tokens


async def test_a_begun_answer_is_continued(engine: TransformersEngine, tiny_llama: Path) -> None:
    params = SamplingParams(temperature=0, max_tokens=12)
    begun = prompt("how", partial="the answer said")
    ((sample,),) = await engine.sample([begun], params)
    assert sample.text == reference(tiny_llama, begun, 12)


async def test_length_is_reported_when_the_limit_is_reached(engine: TransformersEngine) -> None:
    ((sample,),) = await engine.sample([prompt("how")], SamplingParams(max_tokens=2))
    assert (sample.tokens, sample.finish_reason) == (2, "length")


async def test_top_p_near_zero_is_greedy(engine: TransformersEngine) -> None:
    greedy = await engine.sample([prompt("how")], SamplingParams(temperature=0, max_tokens=10))
    narrow = await engine.sample([prompt("how", seed=9)], SamplingParams(top_p=1e-6, max_tokens=10))
    assert narrow == greedy


async def test_more_samples_than_fit_a_batch_are_all_written(tiny_llama: Path) -> None:
    small = TransformersEngine(tiny_llama, max_batch=3)
    large = TransformersEngine(tiny_llama, max_batch=64)
    asked = [prompt("how", n=5, seed=1), prompt("why", n=4, seed=2)]
    assert await small.sample(asked, SHORT) == await large.sample(asked, SHORT)
    await small.aclose()
    await large.aclose()


async def test_a_prompt_longer_than_the_context_is_refused(engine: TransformersEngine) -> None:
    with pytest.raises(ConfigurationError, match="256"):
        await engine.sample([prompt("one " * 400)], SHORT)


def test_it_serves_several_event_loops_in_turn(tiny_llama: Path) -> None:
    engine = TransformersEngine(tiny_llama)
    first = asyncio.run(engine.sample([prompt("how", seed=2)], SHORT))
    second = asyncio.run(engine.sample([prompt("how", seed=2)], SHORT))
    asyncio.run(engine.aclose())
    assert first == second
    with pytest.raises(EngineError, match="closed"):
        asyncio.run(engine.sample([prompt("how")], SHORT))


async def test_a_canceled_caller_leaves_the_engine_usable(engine: TransformersEngine) -> None:
    task = asyncio.create_task(engine.sample([prompt("how", n=8)], SamplingParams(max_tokens=100)))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await engine.sample([prompt("how")], SHORT)


def _sample_in_fork(engine: TransformersEngine, answers: multiprocessing.Queue[str]) -> None:
    try:
        asyncio.run(engine.sample([prompt("how")], SHORT))
    except EngineError as error:
        answers.put(str(error))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_use_after_a_fork_is_refused(tiny_llama: Path) -> None:
    engine = TransformersEngine(tiny_llama)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_sample_in_fork, args=(engine, answers))
    child.start()
    assert "fork" in answers.get(timeout=60)
    child.join(60)


async def test_an_adapter_changes_the_samples(tiny_llama: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    adapted = get_peft_model(
        base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    adapted.save_pretrained(tmp_path)
    plain = TransformersEngine(tiny_llama)
    with_adapter = TransformersEngine(tiny_llama, adapter=tmp_path)
    params = SamplingParams(temperature=0, max_tokens=24)
    assert await plain.sample([prompt("how")], params) != await with_adapter.sample(
        [prompt("how")], params
    )
    await plain.aclose()
    await with_adapter.aclose()


@pytest.mark.parametrize(
    ("name", "model", "options", "error", "complaint"),
    [
        ("transformers", Path("nowhere"), {}, EngineUnavailable, "nowhere"),
        ("transformers", "./nowhere", {}, EngineUnavailable, "nowhere"),
        ("abacus", "x", {}, ConfigurationError, "abacus"),
        ("transformers", "x", {"wheels": 4}, ConfigurationError, "wheels"),
        ("transformers", bundled_model(), {"dtype": "float7"}, ConfigurationError, "float7"),
        ("transformers", "x", {"max_batch": 0}, ConfigurationError, "max_batch"),
    ],
)
def test_a_wrong_engine_gets_one_clear_error(
    name: str, model: str | Path, options: dict[str, object], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        load_engine(name, model, **options)  # type: ignore[arg-type]


async def test_a_canceled_call_ends_with_its_next_token(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, forward = asyncio.get_running_loop(), engine._model.forward
    steps, cancel = 0, None
    reached = threading.Event()

    def counted(*arguments: object, **options: object) -> object:
        nonlocal steps
        steps += 1
        if cancel is not None and steps == 3:
            loop.call_soon_threadsafe(cancel)
            reached.wait(30)
        return forward(*arguments, **options)

    monkeypatch.setattr(engine._model, "forward", counted)
    long = SamplingParams(max_tokens=100)
    await engine.sample([prompt("how", n=8)], long)
    assert steps > 50
    steps, task = 0, asyncio.create_task(engine.sample([prompt("how", n=8)], long))
    cancel = task.cancel
    with pytest.raises(asyncio.CancelledError):
        await task
    reached.set()
    await engine.sample([prompt("why")], SamplingParams(max_tokens=1))
    assert steps < 10


def test_no_draw_lets_a_token_win_that_has_no_chance() -> None:
    """One float32 draw in 2 ** 23 is 0: of 33 million, four or so."""
    from pgenrm_agent.engines.decoding import Row, SamplingRules, _choose
    from pgenrm_agent.engines.grammar import TokenMask

    rules = SamplingRules(1.0, 1.0, frozenset())
    rows = [Row(0, np.random.Generator(np.random.Philox(key=[7, place])), 99) for place in range(8)]
    logits = torch.full((len(rows), 2**17), -60.0)
    logits[:, 5] = 0.0
    for _ in range(32):
        assert _choose(logits, rows, rules, TokenMask()) == [5] * len(rows)
