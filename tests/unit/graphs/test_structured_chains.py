"""Chains as JSON objects in the graph: chosen by what the engine can, whole or in turns."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import jsonschema
import pytest
from scripted_server import Body, Reply, ScriptedServer, completion, refusal

from pgenrm_agent import PGenRM
from pgenrm_agent.chain import read_criteria
from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.engines import Completion, Prompt, SamplingParams
from pgenrm_agent.engines.openai import OpenAIEngine
from pgenrm_agent.engines.protocol import SchemaRefused
from pgenrm_agent.errors import ChainError, EngineError, EngineTimeout
from pgenrm_agent.schema import (
    Candidate,
    Evaluation,
    EvaluationRequest,
    Message,
    PreferencePair,
    Prices,
    Scaling,
    UserSignals,
)
from pgenrm_agent.testing import ScriptedEngine, write_chain

PAIR = PreferencePair(query="Tea or coffee?", chosen="Tea, plainly.", rejected="It depends a lot.")
ANSWERS = ["Red, as ever.", "Green, and here is a long story about why that is so."]
SIGNALS = UserSignals(user_id="ada", history=(PAIR,))
SCALING = Scaling(individual=4, prototype=0, seed=1)


def told(prompt: Prompt) -> str:
    return "\n".join(message.content for message in prompt.messages)


def brief(prompt: Prompt, number: int = 0) -> str:
    """Prefers the shorter answer, unless a persona says that this person loves stories."""
    text = told(prompt)
    stories = "loves stories" in text
    red_first = text.index("Red, as") < text.index("Green, and")
    red = 2 if stories else 9
    marks = [red, 11 - red] if red_first else [11 - red, red]
    criteria = [
        {"name": "Stories" if stories else "Brevity", "weight": 80, "reason": "It shows."},
        {"name": "Warmth", "weight": 10, "reason": "It hardly counts."},
        {"name": "Detail", "weight": 10, "reason": "It hardly counts."},
    ]
    scores = {
        f"response_{place}": {"why": "So it is.", "marks": [mark, 5, 5]}
        for place, mark in enumerate(marks, start=1)
    }
    assert prompt.json_schema is not None
    wanted: Any = prompt.json_schema["properties"]
    parts: dict[str, object] = {
        "persona": "Somebody who wants it short.",
        "criteria": criteria,
        "scores": scores,
        "evaluation": {"criteria": criteria, "scores": scores},
    }
    answer = {key: parts[key] for key in wanted}
    jsonschema.validate(answer, prompt.json_schema)
    return json.dumps(answer)


def model(engine: ScriptedEngine, **options: Any) -> PGenRM:
    return PGenRM(engine=engine, scaling=SCALING, **options)


async def score(engine: ScriptedEngine, **options: Any):
    async with model(engine, **options) as rm:
        return await rm.ascore("ada", "Which color?", ANSWERS, signals=SIGNALS)


async def test_an_engine_that_holds_to_a_schema_is_asked_for_one_object_a_chain() -> None:
    engine = ScriptedEngine(brief, json_schema=True, continues=False)
    evaluation = await score(engine)
    assert evaluation.best == "answer-1"
    assert len(engine.calls) == 1
    chain = evaluation.chains[0]
    assert chain.totals_from == "marks"
    assert chain.reasons["answer-1"] == "So it is."
    assert chain.totals == pytest.approx({"answer-1": 8.2, "answer-2": 2.6})


async def test_half_an_emoji_in_an_answer_loses_no_evaluation() -> None:
    def halved(prompt: Prompt, number: int) -> str:
        return brief(prompt).replace("wants it short", "wants it \ud83d short \0")

    for schema in (True, False):
        reply = halved if schema else write_chain([5, 5], persona="Somebody \ude00.")
        evaluation = await score(ScriptedEngine(reply, json_schema=schema, continues=False))
        assert "\ufffd" in evaluation.chains[0].text
        assert Evaluation.model_validate_json(evaluation.model_dump_json()) == evaluation


async def test_an_engine_that_cannot_is_asked_for_prose() -> None:
    engine = ScriptedEngine(lambda prompt, _: write_chain([5, 5]), continues=False)
    evaluation = await score(engine)
    assert evaluation.chains[0].totals == {"answer-1": 5.0, "answer-2": 5.0}
    assert engine.calls[0][0][0].json_schema is None


class Refusing(ScriptedEngine):
    """Holds to no schema after all, and finds that out when it is asked to."""

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        if any(prompt.json_schema for prompt in prompts):
            self._capabilities = self._capabilities.model_copy(update={"json_schema": False})
            raise SchemaRefused("no schema here")
        return await super().sample(prompts, params)


async def test_a_server_that_turns_out_unable_is_asked_for_prose_from_then_on() -> None:
    engine = Refusing(lambda prompt, _: write_chain([5, 5]), json_schema=True, continues=False)
    async with model(engine) as rm:
        for _ in range(2):
            evaluation = await rm.ascore("ada", "Which color?", ANSWERS, signals=SIGNALS)
            assert evaluation.chains[0].rubric is not None
    assert len(engine.calls) == 2
    assert "<JSON_START>" in engine.calls[0][0][0].messages[0].content


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("taken", [0, 1, 3, 5])
async def test_evaluations_at_once_on_a_server_that_turns_out_unable_lose_no_chain(
    taken: int, staged: bool
) -> None:
    """taken: how many requests with a schema the server answers before it refuses them."""
    server = ScriptedServer()
    asked = count()

    def reply(body: Body, _: int) -> Reply:
        if "response_format" not in body:
            return completion(write_chain([5, 5])).after(0.01)
        number = next(asked)
        if number >= taken:
            return refusal(400, "response_format is not supported").after(0.02 * (number % 3))
        held = body["response_format"]["json_schema"]["schema"]
        messages = tuple(Message.model_validate(message) for message in body["messages"])
        return completion(brief(Prompt(messages=messages, json_schema=held))).after(0.01)

    server.script = reply
    engine = OpenAIEngine("m", base_url=server.url, api_key="none", concurrency=4)
    scaling = SCALING.model_copy(update={"resamples": 0})
    try:
        async with PGenRM(engine=engine, scaling=scaling, staged=staged) as rm:
            evaluations = await asyncio.gather(
                *(rm.ascore("ada", f"Color {n}?", ANSWERS, signals=SIGNALS) for n in range(3))
            )
    finally:
        await engine.aclose()
        server.close()
    for evaluation in evaluations:
        assert len(evaluation.chains) == 4
        assert not evaluation.failures
        assert evaluation.usage.chains_sampled == 4
        assert len({chain.seed for chain in evaluation.chains}) == 4


class RefusingLater(ScriptedEngine):
    """Takes the small schema of a persona, and not the one that comes after it."""

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        if any(prompt.json_schema and len(prompt.messages) > 2 for prompt in prompts):
            self._capabilities = self._capabilities.model_copy(update={"json_schema": False})
            raise SchemaRefused("no such schema here")
        return await super().sample(prompts, params)


async def test_a_schema_refused_in_the_middle_begins_the_chains_anew() -> None:
    def reply(prompt: Prompt, number: int) -> str:
        return brief(prompt) if prompt.json_schema else write_chain([5, 5])

    engine = RefusingLater(reply, json_schema=True, continues=False)
    evaluation = await score(engine, staged=True)
    assert len(evaluation.chains) == 4
    assert all("### Persona" in chain.text for chain in evaluation.chains)


@pytest.mark.parametrize("rounds", [None, 0.99])
async def test_an_engine_that_fails_later_costs_no_chain_that_is_there(
    rounds: float | None,
) -> None:
    class Dying(ScriptedEngine):
        """Answers its first call, and no more."""

        async def sample(
            self, prompts: Sequence[Prompt], params: SamplingParams
        ) -> list[list[Completion]]:
            if self.calls:
                raise EngineError("the filter took it")
            return await super().sample(prompts, params)

    engine = Dying(lambda prompt, number: "No." if number == 0 else brief(prompt), json_schema=True)
    scaling = Scaling(individual=16, prototype=0, seed=1, stop_when_sure=rounds)
    async with PGenRM(engine=engine, scaling=scaling) as rm:
        evaluation = await rm.ascore("ada", "Which color?", ANSWERS, signals=SIGNALS)
    assert evaluation.best == "answer-1"
    assert "the filter took it" in {failure.message for failure in evaluation.failures}


async def test_a_rubric_that_cannot_be_read_is_not_kept_for_another_try() -> None:
    def reply(prompt: Prompt, number: int) -> str:
        text = brief(prompt)
        first = sum("criteria" in str(prompts[0].json_schema) for prompts, _ in engine.calls) == 1
        return text.replace('"weight": 80', '"weight": "heavy"') if first else text

    engine = ScriptedEngine(reply, json_schema=True)
    evaluation = await score(engine, staged=True)
    assert len(evaluation.chains) == 4
    assert {failure.reason for failure in evaluation.failures} == {"no_rubric"}


async def test_an_engine_that_tells_its_model_is_asked_in_the_models_format() -> None:
    class Published(ScriptedEngine):
        """A checkpoint, opened by its owner."""

        models = ("/models/P-GenRM-8B-PRISM",)

    engine = Published(lambda prompt, _: write_chain([5, 5]), json_schema=True)
    await score(engine)
    assert engine.calls[0][0][0].json_schema is None


async def test_a_format_asked_for_by_name_is_not_given_up() -> None:
    engine = Refusing(lambda prompt, _: write_chain([5, 5]), json_schema=True)
    with pytest.raises(SchemaRefused):
        await score(engine, chain_format="structured-1")


async def test_staged_each_section_is_a_turn_on_any_engine() -> None:
    engine = ScriptedEngine(brief, json_schema=True, continues=False)
    staged = await score(engine, staged=True)
    assert [len(calls[0][0].messages) for calls in engine.calls] == [2, 4, 6]
    assert all(prompt.partial == "" for prompts, _ in engine.calls for prompt in prompts)
    whole = await score(ScriptedEngine(brief, json_schema=True))
    assert staged.scores == whole.scores
    assert staged.chains[0].text == whole.chains[0].text


def test_an_edited_persona_is_in_the_request_and_changes_the_rubric() -> None:
    engine = ScriptedEngine(brief, json_schema=True, continues=False)
    request = EvaluationRequest(
        user_id="ada",
        query="Which color?",
        candidates=tuple(
            Candidate(id=f"answer-{k}", text=text) for k, text in enumerate(ANSWERS, start=1)
        ),
    )
    with DebugSession(engine=engine) as session:

        def rubric(run: str) -> str:
            return read_criteria(session.state(run)["chains"][0]["text"])[0].name

        run = session.start(request, signals=SIGNALS, scaling=SCALING)
        session.resume(run, ["after:derive_persona"])
        unedited = session.fork(run)
        session.edit_persona(run, "Ada loves stories.")
        assert "loves stories" in session.prompt(run, 0)[2].content
        session.resume(run)
        assert "loves stories" in told(engine.calls[-1][0][0])
        assert (rubric(run), session.checkpoint(run).ranking[0]) == ("Stories", "answer-2")
        session.edit_persona(unedited, "Somebody who wants it short.")
        session.resume(unedited)
        assert (rubric(unedited), session.checkpoint(unedited).ranking[0]) == (
            "Brevity",
            "answer-1",
        )
        assert session.replay(run).same


async def test_what_a_model_thought_is_kept_apart() -> None:
    class Thinking(ScriptedEngine):
        """Says what it thought beside its answer."""

        async def sample(
            self, prompts: Sequence[Prompt], params: SamplingParams
        ) -> list[list[Completion]]:
            answers = await super().sample(prompts, params)
            return [
                [part.model_copy(update={"reasoning": '{"persona": "No."}'}) for part in answer]
                for answer in answers
            ]

    evaluation = await score(Thinking(brief, json_schema=True), staged=True)
    assert evaluation.chains[0].persona.text == "Somebody who wants it short."
    assert evaluation.chains[0].reasoning.count("No.") == 3


class Partial(ScriptedEngine):
    """Of every prompt's samples, the first ends in another way."""

    def __init__(self, reply: Callable[[Prompt, int], str], **first: Any) -> None:
        super().__init__(reply, json_schema=True)
        self.first = first

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        answers = await super().sample(prompts, params)
        return [
            [answer[0].model_copy(update={"text": "", **self.first}), *answer[1:]]
            for answer in answers
        ]


@pytest.mark.parametrize("reason", ["filtered", "refused", "failed", "timeout"])
async def test_one_failed_sample_is_one_failed_chain(reason: str) -> None:
    engine = Partial(brief, finish_reason=reason, detail="in the server's words")
    evaluation = await score(engine)
    assert evaluation.best == "answer-1"
    assert 0 < len(evaluation.chains) < 4
    assert {failure.reason for failure in evaluation.failures} == {reason}
    assert {failure.message for failure in evaluation.failures} == {"in the server's words"}


async def test_all_samples_refused_is_an_error_in_the_servers_words() -> None:
    class Refused(Partial):
        """Refuses every sample."""

        async def sample(
            self, prompts: Sequence[Prompt], params: SamplingParams
        ) -> list[list[Completion]]:
            answers = await ScriptedEngine.sample(self, prompts, params)
            return [
                [part.model_copy(update={"text": "", **self.first}) for part in answer]
                for answer in answers
            ]

    engine = Refused(brief, finish_reason="refused", detail="I cannot rate people.")
    with pytest.raises(ChainError, match="I cannot rate people") as caught:
        await score(engine)
    assert caught.value.failures == {"refused": 12}


async def test_a_budget_that_went_into_thinking_is_said() -> None:
    engine = Partial(
        brief, finish_reason="length", detail="the budget went into thinking", reasoning="Hm."
    )
    evaluation = await score(engine)
    assert {failure.reason for failure in evaluation.failures} == {"truncated"}
    assert "went into thinking" in evaluation.failures[0].message


class Slow(ScriptedEngine):
    """Its second call comes too late."""

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        answers = await super().sample(prompts, params)
        assert params.timeout_s is not None
        if len(self.calls) == 1:
            return answers
        cut = {"text": "", "finish_reason": "timeout", "detail": "the time was over"}
        return [[part.model_copy(update=cut) for part in answer] for answer in answers]


async def test_after_the_time_is_over_what_is_there_counts() -> None:
    def reply(prompt: Prompt, number: int) -> str:
        return "No." if number == 0 else brief(prompt)

    engine = Slow(reply, json_schema=True)
    async with model(engine) as rm:
        evaluation = await rm.ascore("ada", "Which color?", ANSWERS, signals=SIGNALS, timeout=60)
    assert evaluation.best == "answer-1"
    assert {failure.reason for failure in evaluation.failures} >= {"timeout"}


async def test_no_chain_within_the_time_is_a_timeout() -> None:
    engine = ScriptedEngine(brief, json_schema=True)
    async with model(engine) as rm:
        await rm.aprepare()
        with pytest.raises(EngineTimeout, match="no chain when the time was over"):
            await rm.ascore("ada", "Which color?", ANSWERS, signals=SIGNALS, timeout=1e-9)
    assert engine.calls == []


async def test_prices_make_money_of_the_tokens() -> None:
    engine = ScriptedEngine(brief, json_schema=True)
    evaluation = await score(engine, prices=Prices(prompt=1, completion=2))
    usage = evaluation.usage
    assert usage.model == "scripted"
    assert usage.cost == pytest.approx(
        (usage.prompt_tokens + 2 * usage.completion_tokens) / 1_000_000
    )


async def test_max_tokens_of_ones_own() -> None:
    engine = ScriptedEngine(brief, json_schema=True)
    await score(engine, max_tokens=9000)
    assert engine.calls[0][1].max_tokens == 9000
