"""The evaluation graph: stages, batching, resampling, faults, checkpoints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.debugging.edits import with_persona
from pgenrm_agent.engines.protocol import Completion, Prompt, SamplingParams
from pgenrm_agent.errors import ChainError, ConfigurationError, EngineTimeout
from pgenrm_agent.graphs.evaluation import build_graph, graph
from pgenrm_agent.graphs.state import EvaluationContext, EvaluationInput
from pgenrm_agent.schema import Evaluation, PreferencePair, StatedPreference, UserSignals
from pgenrm_agent.testing import ScriptedEngine, write_chain

PUBLISHED = ChainFormat.load("published")
NODES = [
    "recall",
    "derive_persona",
    "match_prototype",
    "generate_rubric",
    "sample_scores",
    "aggregate",
]
PAIR = PreferencePair(query="Tea or coffee?", chosen="Tea, plainly.", rejected="It depends a lot.")


def chain_text(totals: Sequence[float], persona: str = "Wants short answers.") -> str:
    """A chain with one criterion, whose marks are the totals in shown order."""
    marks = ", ".join(f"Response {k}: Fit {total:g}" for k, total in enumerate(totals, start=1))
    better = {f"response_{k}": total for k, total in enumerate(totals, start=1)}
    block = {"rationale": f"A. Fit 100%. B. {marks}.", "better_response": better}
    return (
        f"## Part 1: Analysis\n### Persona\n{persona}\n### Criteria\n1. Fit (100%): asked for\n"
        f"## Part 2: Scoring\n<JSON_START>\n{json.dumps(block)}\n<JSON_END>"
    )


def shown(prompt: Prompt) -> list[str]:
    """The candidates in a prompt, in the order shown."""
    return re.findall(r"Start of Response \d+\]\s*(\S+)", prompt.messages[-1].content)


def taste(marks: dict[str, float]) -> Callable[[Prompt, int], str]:
    """A model that gives each candidate its mark, wherever it is shown."""
    return lambda prompt, _: chain_text([marks[text] for text in shown(prompt)])


def request(
    candidates: Sequence[str] = ("red", "green", "blue"), **scaling: Any
) -> EvaluationInput:
    return {
        "request": {
            "user_id": "ada",
            "query": "Which color?",
            "candidates": [{"id": text, "text": text} for text in candidates],
        },
        "scaling": {"seed": 5, **scaling},
        "history": [PAIR.model_dump(mode="json")],
    }


async def evaluate(
    given: EvaluationInput,
    engine: ScriptedEngine,
    *,
    staged: bool = False,
    chain_format: ChainFormat = PUBLISHED,
) -> Evaluation:
    context = EvaluationContext(engine=engine, chain_format=chain_format, staged=staged)
    state = await graph.ainvoke(given, context=context)
    return Evaluation.model_validate(state["evaluation"])


MARKS = {"red": 3.0, "green": 8.0, "blue": 5.0}


async def test_candidates_get_their_own_marks_in_whatever_order_they_are_shown() -> None:
    engine = ScriptedEngine(taste(MARKS))
    evaluation = await evaluate(request(), engine)
    assert {score.candidate_id: score.mean for score in evaluation.scores} == MARKS
    assert evaluation.ranking == ("green", "blue", "red")
    assert evaluation.best == "green"
    assert len({chain.order for chain in evaluation.chains}) == 3
    assert all(chain.persona.text == "Wants short answers." for chain in evaluation.chains)
    assert evaluation.seed == 5


async def test_a_model_that_favors_the_first_place_favors_nobody() -> None:
    engine = ScriptedEngine(lambda prompt, _: chain_text([9, *[4] * (len(shown(prompt)) - 1)]))
    evaluation = await evaluate(request(("red", "green"), individual=8), engine)
    assert [score.mean for score in evaluation.scores] == [6.5, 6.5]
    assert evaluation.best is None


async def test_a_fused_run_is_one_engine_call_with_shared_prompts() -> None:
    engine = ScriptedEngine(taste(MARKS))
    evaluation = await evaluate(request(individual=8), engine)
    ((prompts, params),) = engine.calls
    assert sorted(prompt.n for prompt in prompts) == [2, 3, 3]
    assert all(prompt.partial == "" for prompt in prompts)
    assert params.stop == ()
    assert evaluation.usage.engine_calls == 1
    assert evaluation.usage.chains_sampled == 8


async def test_what_prompts_have_room_for_is_measured_once_however_many_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[int] = []
    fitting = ChainFormat.fitting

    def counted(self: ChainFormat, query: str, candidates: Sequence[str], *known: Any) -> Any:
        measured.append(len(candidates))
        return fitting(self, query, candidates, *known)

    monkeypatch.setattr(ChainFormat, "fitting", counted)
    colors = [f"color{number}" for number in range(24)]
    engine = ScriptedEngine(lambda prompt, _: chain_text([5] * len(shown(prompt))))
    compact = ChainFormat.load("compact-2")
    await evaluate(request(colors, individual=8, resamples=0), engine, chain_format=compact)
    prompts = engine.calls[0][0]
    assert len(prompts) > 12
    # Of all candidates once for the prompts and once for the evidence, and of its own for each prompt.
    assert (measured.count(4), measured.count(24)) == (len(prompts), 2)


async def test_a_staged_run_is_one_engine_call_by_stage_and_ends_the_same() -> None:
    engine = ScriptedEngine(taste(MARKS))
    staged = await evaluate(request(individual=6), engine, staged=True)
    assert [params.stop for _, params in engine.calls] == [
        ("\n### Criteria", "\n## Part 2: Scoring", "<JSON_END>"),
        ("\n## Part 2: Scoring", "<JSON_END>"),
        (),
    ]
    first, second, third = (prompts for prompts, _ in engine.calls)
    assert all(prompt.partial == "" for prompt in first)
    assert all("Wants short answers." in prompt.partial for prompt in second)
    assert all("Fit (100%)" in prompt.partial for prompt in third)
    fused = await evaluate(request(individual=6), ScriptedEngine(taste(MARKS)))
    assert staged.scores == fused.scores
    assert staged.usage.chains_sampled == 6


async def test_an_engine_that_cannot_continue_writes_whole_chains_even_when_staged() -> None:
    engine = ScriptedEngine(taste(MARKS), continues=False)
    evaluation = await evaluate(request(individual=4), engine, staged=True)
    assert len(engine.calls) == 1
    assert evaluation.best == "green"


async def test_more_candidates_than_the_format_shows_are_scored_in_groups() -> None:
    names = [f"c{i}" for i in range(10)]
    engine = ScriptedEngine(taste({name: 1.0 + i / 2 for i, name in enumerate(names)}))
    compact = ChainFormat.load("compact-2")
    evaluation = await evaluate(request(names, individual=4), engine, chain_format=compact)
    assert evaluation.ranking == tuple(reversed(names))
    assert all(score.chains == 4 for score in evaluation.scores)
    assert all(len(chain.order) <= 4 for chain in evaluation.chains)
    assert all(len(chain.totals) == len(chain.order) for chain in evaluation.chains)


async def test_unreadable_chains_are_sampled_again_with_other_seeds_and_reported() -> None:
    def reply(prompt: Prompt, sample: int) -> str:
        return "I would rather not." if sample == 0 and len(engine.calls) == 1 else good(prompt, 0)

    good, engine = taste(MARKS), ScriptedEngine("")
    engine = ScriptedEngine(reply)
    evaluation = await evaluate(request(individual=6), engine)
    assert len(engine.calls) == 2
    assert len(evaluation.chains) == 6
    assert len(evaluation.failures) == 3
    assert evaluation.usage.chains_sampled == 9
    first, again = ({prompt.seed for prompt in prompts} for prompts, _ in engine.calls)
    assert not first & again
    assert {failure.attempt for failure in evaluation.failures} == {0}


async def test_no_readable_chain_is_an_error_that_counts_the_reasons() -> None:
    engine = ScriptedEngine("I would rather not.")
    with pytest.raises(ChainError, match=r"none of 8 texts sampled from scripted") as caught:
        await evaluate(request(individual=4, resamples=2), engine)
    assert caught.value.reason == "no_usable_chain"
    assert re.search(r"\w+ 8", str(caught.value))
    assert len(engine.calls) == 2


async def test_a_model_that_cannot_write_the_format_is_named_in_the_first_round() -> None:
    engine = ScriptedEngine("I would rather not.")
    with pytest.raises(ChainError, match="scripted may not be able to write chains"):
        await evaluate(request(individual=8, stop_when_sure=0.9), engine)
    assert len(engine.calls) <= 2


async def test_without_resamples_the_remaining_chains_are_used() -> None:
    good = taste(MARKS)
    engine = ScriptedEngine(lambda prompt, sample: good(prompt, 0) if sample else "No.")
    evaluation = await evaluate(request(individual=6, resamples=0), engine)
    assert len(evaluation.chains) == 3
    assert len(evaluation.failures) == 3
    assert evaluation.best == "green"


def without_blue(prompt: Prompt, _: int) -> str:
    """A chain that neither marks nor totals one of its candidates."""
    texts = shown(prompt)
    text = chain_text([MARKS[text] for text in texts])
    place = texts.index("blue") + 1
    return re.sub(rf',? ?"response_{place}": 5.0|Response {place}: Fit 5', "", text).replace(
        "{, ", "{"
    )


async def test_a_chain_without_all_candidates_is_a_failure_and_sampled_again() -> None:
    good = taste(MARKS)

    def reply(prompt: Prompt, sample: int) -> str:
        first = len(engine.calls) == 1 and sample == 0
        return without_blue(prompt, 0) if first else good(prompt, 0)

    engine = ScriptedEngine(reply)
    evaluation = await evaluate(request(individual=3), engine)
    assert len(engine.calls) == 2
    assert [chain.totals for chain in evaluation.chains] == [MARKS] * 3
    assert {failure.reason for failure in evaluation.failures} == {"missing_candidates"}
    assert "no total for blue" in evaluation.failures[0].message


async def test_where_no_chain_has_all_candidates_none_counts() -> None:
    with pytest.raises(ChainError, match="missing_candidates 6"):
        await evaluate(request(individual=3, resamples=1), ScriptedEngine(without_blue))


async def test_a_chain_that_lacks_one_mark_does_not_count() -> None:
    """The criterion without a mark has a fifth of the weight, and the totals agree."""

    def reply(prompt: Prompt, sample: int) -> str:
        marks = [[MARKS[text], MARKS[text]] for text in shown(prompt)]
        whole = write_chain(marks, criteria=(("Fit", 80), ("Depth", 20)))
        return re.sub(r"(Response 2: Fit \d+), Depth \d+", r"\1", whole) if sample == 0 else whole

    evaluation = await evaluate(
        request(individual=6, resamples=0),
        ScriptedEngine(reply),
        chain_format=ChainFormat.load("published"),
    )
    assert [failure.reason for failure in evaluation.failures] == ["missing_marks"] * 3
    assert " on Depth" in evaluation.failures[0].message
    assert len(evaluation.chains) == 3


async def test_what_is_not_scored_in_any_group_says_why_and_leaves_no_probability() -> None:
    names = [f"c{number}" for number in range(5)]

    def reply(prompt: Prompt, _: int) -> str:
        return "No." if "c0" in shown(prompt) else chain_text([5.0] * len(shown(prompt)))

    evaluation = await evaluate(
        request(names, individual=4, resamples=0),
        ScriptedEngine(reply),
        chain_format=ChainFormat.load("compact-2"),
    )
    assert evaluation.score_of("c0").outcome == "not_scored"
    assert "none of the" in (evaluation.score_of("c0").reason or "")
    assert {score.probability_best for score in evaluation.scores} == {None}


class Truncating(ScriptedEngine):
    """Runs into the token limit in its first call, just before the end marker."""

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        answers = await super().sample(prompts, params)
        if len(self.calls) > 1:
            return answers
        return [[self._cut(completion) for completion in answer] for answer in answers]

    @staticmethod
    def _cut(completion: Completion) -> Completion:
        text = completion.text.removesuffix("<JSON_END>")
        return completion.model_copy(update={"text": text, "finish_reason": "length"})


async def test_truncated_chains_are_not_read_even_if_they_could_be() -> None:
    evaluation = await evaluate(request(individual=3), Truncating(taste(MARKS)))
    assert [failure.reason for failure in evaluation.failures] == ["truncated"] * 3
    assert len(evaluation.chains) == 3


@pytest.mark.parametrize("staged", [False, True])
async def test_what_a_model_tried_out_while_thinking_does_not_count(staged: bool) -> None:
    def reply(prompt: Prompt, _: int) -> str:
        marks = [MARKS[text] for text in shown(prompt)]
        tried = chain_text([11 - mark for mark in marks], persona="Somebody else.")
        return f"<think>\n{tried}\nNo.\n</think>\n{chain_text(marks)}"

    evaluation = await evaluate(request(individual=3), Unstopped(reply), staged=staged)
    expected = await evaluate(request(individual=3), ScriptedEngine(taste(MARKS)))
    assert evaluation.ranking == expected.ranking
    assert [chain.rubric for chain in evaluation.chains] == [
        chain.rubric for chain in expected.chains
    ]
    assert "Somebody else." not in {chain.persona.text for chain in evaluation.chains}


class Unstopped(ScriptedEngine):
    """Takes no notice of stop strings, as a server that is not told them."""

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        return await super().sample(prompts, params.model_copy(update={"stop": ()}))


async def test_a_budget_spent_on_thinking_is_told_as_such() -> None:
    def reply(prompt: Prompt, _: int) -> str:
        chain = taste(MARKS)(prompt, 0)
        return chain if len(engine.calls) > 1 else f"<think>\n{chain}\nBut"

    engine = Truncating(reply)
    evaluation = await evaluate(request(individual=3), engine)
    assert [failure.reason for failure in evaluation.failures] == ["unfinished_reasoning"] * 3
    assert "reasoning never ends" in evaluation.failures[0].message
    assert "limit of" in evaluation.failures[0].message
    assert len(evaluation.chains) == 3


async def test_a_chain_truncated_in_its_persona_is_restarted_in_the_last_stage() -> None:
    engine = Truncating(taste(MARKS))
    evaluation = await evaluate(request(individual=3), engine, staged=True)
    assert len(engine.calls) == 2
    assert [failure.reason for failure in evaluation.failures] == ["truncated"] * 3
    assert evaluation.usage.chains_sampled == 6


async def test_a_resampled_staged_chain_keeps_its_persona_and_rubric() -> None:
    def reply(prompt: Prompt, sample: int) -> str:
        text = chain_text(
            [MARKS[candidate] for candidate in shown(prompt)], persona="The first persona."
        )
        broken = len(engine.calls) == 3
        return prompt.partial + "I would rather not." if broken else text

    engine = ScriptedEngine(reply)
    evaluation = await evaluate(request(individual=3), engine, staged=True)
    assert len(engine.calls) == 4
    assert all("The first persona." in prompt.partial for prompt in engine.calls[3][0])
    assert len(evaluation.chains) == 3
    assert len(evaluation.failures) == 3


async def test_what_a_person_edited_is_kept_however_often_a_chain_is_sampled_again() -> None:
    def reply(prompt: Prompt, _: int) -> str:
        marks = [MARKS[candidate] for candidate in shown(prompt)]
        if len(engine.calls) in (2, 3, 4):  # rubric and scores, and the first attempt after them
            return prompt.partial + "I would rather not."
        return chain_text(marks, persona="Loves red." if "Loves red." in prompt.partial else "New.")

    engine = ScriptedEngine(reply)
    graph = build_graph(InMemorySaver())
    context = EvaluationContext(engine=engine, chain_format=PUBLISHED, staged=True)
    config = {"configurable": {"thread_id": "t"}}
    await graph.ainvoke(
        request(individual=2), config, context=context, interrupt_after=["derive_persona"]
    )
    drafts = (await graph.aget_state(config)).values["chains"]
    edited = [with_persona(draft, "Loves red.", PUBLISHED) for draft in drafts]
    await graph.aupdate_state(config, {"chains": edited})
    done = await graph.ainvoke(None, config, context=context)
    evaluation = Evaluation.model_validate(done["evaluation"])
    assert len(evaluation.failures) == 4
    assert [chain.persona.text for chain in evaluation.chains] == ["Loves red.", "Loves red."]


async def test_an_edited_persona_is_what_the_engine_continues() -> None:
    engine = ScriptedEngine(lambda prompt, _: prompt.partial + tail(prompt))

    def tail(prompt: Prompt) -> str:
        loves = "loves red" in prompt.partial
        marks = [
            9.0 if loves and candidate == "red" else MARKS[candidate] for candidate in shown(prompt)
        ]
        whole = chain_text(marks)
        if not prompt.partial:
            return whole
        at = "### Criteria\n" if "### Criteria\n" not in prompt.partial else "## Part 2: Scoring\n"
        _, _, rest = whole.partition(at)
        return rest if prompt.partial.endswith(at) else at + rest

    stepping = build_graph(InMemorySaver())
    context = EvaluationContext(engine=engine, chain_format=PUBLISHED, staged=True)
    config = {"configurable": {"thread_id": "t"}}
    await stepping.ainvoke(
        request(individual=2), config, context=context, interrupt_after=["derive_persona"]
    )
    state = (await stepping.aget_state(config)).values
    chains = [
        {**draft, "text": draft["text"].replace("Wants short answers.", "She loves red.")}
        for draft in state["chains"]
    ]
    await stepping.aupdate_state(config, {"chains": chains})
    done = await stepping.ainvoke(None, config, context=context)
    evaluation = Evaluation.model_validate(done["evaluation"])
    assert evaluation.best == "red"
    assert {chain.persona.text for chain in evaluation.chains} == {"She loves red."}


async def test_a_passing_engine_fault_is_retried_and_a_lasting_one_raised() -> None:
    evaluation = await evaluate(request(), ScriptedEngine(taste(MARKS), fail_times=1))
    assert evaluation.best == "green"
    with pytest.raises(EngineTimeout):
        await evaluate(request(), ScriptedEngine(taste(MARKS), fail_times=9))


async def test_the_same_seed_asks_the_engine_the_same_and_another_seed_does_not() -> None:
    asked = []
    for seed in (5, 5, 6):
        engine = ScriptedEngine(taste(MARKS))
        await evaluate(request(seed=seed), engine)
        asked.append(engine.calls)
    assert asked[0] == asked[1]
    assert asked[0] != asked[2]


async def test_a_seed_that_nobody_chose_is_drawn_and_reported() -> None:
    engine = ScriptedEngine(taste(MARKS))
    first = await evaluate(request(seed=None), engine)
    second = await evaluate(request(seed=None), engine)
    assert first.seed != second.seed


async def test_signals_come_from_memory_unless_the_input_brings_them() -> None:
    class Recording:
        def __init__(self) -> None:
            self.asked: list[tuple[str, str | None, int | None, str]] = []

        def recall(
            self,
            user_id: str,
            *,
            query: str | None = None,
            limit: int | None = None,
            selection: Literal["random", "similar", "recent"] = "random",
            seed: int = 0,
        ) -> UserSignals:
            self.asked.append((user_id, query, limit, selection))
            return UserSignals(
                user_id=user_id, history=(PAIR,), stated=(StatedPreference(text="Be brief."),)
            )

    memory, engine = Recording(), ScriptedEngine(taste(MARKS))
    context = EvaluationContext(engine=engine, chain_format=PUBLISHED, memory=memory)
    given = request(history=2, history_selection="recent")
    await graph.ainvoke(given, context=context)
    assert memory.asked == []
    del given["history"]
    await graph.ainvoke(given, context=context)
    assert memory.asked == [("ada", "Which color?", 2, "recent")]
    for prompts, _ in engine.calls:
        assert all("Tea, plainly." in prompt.messages[0].content for prompt in prompts)


@pytest.mark.parametrize("selection", ["random", "recent", "similar"])
async def test_explicit_pairs_beyond_the_history_are_chosen_from(selection: str) -> None:
    pairs = [
        PreferencePair(query=f"Question {i}?", chosen=f"Chosen-{i}.", rejected=f"Rejected-{i}.")
        for i in range(6)
    ]
    engine = ScriptedEngine(taste(MARKS))
    given = request(history=2, history_selection=selection)
    given["history"] = [pair.model_dump(mode="json") for pair in pairs]
    await evaluate(given, engine)
    system = engine.calls[0][0][0].messages[0].content
    used = [i for i in range(6) if f"Chosen-{i}." in system]
    assert len(used) == 2
    if selection == "recent":
        assert used == [4, 5]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("staged", [False, True])
async def test_checkpointers_give_back_what_they_got_after_every_node(
    kind: str, staged: bool, tmp_path: Path
) -> None:
    context = EvaluationContext(
        engine=ScriptedEngine(taste(MARKS)), chain_format=PUBLISHED, staged=staged
    )
    direct = await graph.ainvoke(request(individual=4), context=context)

    async def step_through(saver: BaseCheckpointSaver[str]) -> None:
        stepping = build_graph(saver)
        config = {"configurable": {"thread_id": "t"}}
        given: EvaluationInput | None = request(individual=4)
        for node in NODES:
            await stepping.ainvoke(given, config, context=context, interrupt_after=[node])
            given = None
            values = (await stepping.aget_state(config)).values
            assert json.loads(json.dumps(values)) == values
        done = (await stepping.aget_state(config)).values
        ours, theirs = (
            Evaluation.model_validate(state["evaluation"]).model_copy(update={"timings": {}})
            for state in (done, direct)
        )
        assert ours == theirs

    if kind == "memory":
        await step_through(InMemorySaver())
    else:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "steps.db")) as saver:
            await step_through(saver)


async def test_a_thread_used_again_starts_afresh() -> None:
    again = build_graph(InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    context = EvaluationContext(engine=ScriptedEngine(taste(MARKS)), chain_format=PUBLISHED)
    for individual in (6, 2):
        state = await again.ainvoke(request(individual=individual), config, context=context)
        evaluation = Evaluation.model_validate(state["evaluation"])
        assert len(evaluation.chains) == evaluation.usage.chains_sampled == individual


async def test_timings_name_every_stage_in_seconds() -> None:
    engine = ScriptedEngine(taste(MARKS), latency_s=0.05)
    evaluation = await evaluate(request(), engine)
    assert set(evaluation.timings) == {*NODES, "engine"}
    assert 0.05 <= evaluation.timings["engine"] <= evaluation.timings["derive_persona"] < 5


async def test_no_chain_of_ones_own_is_refused_where_there_are_no_prototypes() -> None:
    with pytest.raises(ConfigurationError, match=r"individual is 0 .* prototypes build"):
        await evaluate(request(individual=0, prototype=4), ScriptedEngine(taste(MARKS)))


async def test_a_begun_chain_is_not_handed_to_an_engine_that_cannot_continue_it() -> None:
    stepping = build_graph(InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    able = EvaluationContext(ScriptedEngine(taste(MARKS)), PUBLISHED, staged=True)
    await stepping.ainvoke(request(), config, context=able, interrupt_after=["derive_persona"])
    unable = EvaluationContext(ScriptedEngine(taste(MARKS), continues=False), PUBLISHED)
    with pytest.raises(ConfigurationError, match="cannot continue"):
        await stepping.ainvoke(None, config, context=unable)


def test_the_graph_tells_studio_its_shape_and_what_it_takes() -> None:
    drawn = graph.get_graph()
    assert list(drawn.nodes) == ["__start__", *NODES, "__end__"]
    assert "request" in graph.get_input_jsonschema()["properties"]
    schema = graph.get_context_jsonschema()
    assert schema is not None
    assert "staged" in schema["properties"]


def test_langgraph_json_names_the_graph() -> None:
    root = Path(__file__).parents[3]
    config = json.loads((root / "langgraph.json").read_text(encoding="utf-8"))
    file, variable = config["graphs"]["evaluation"].split(":")
    assert (root / file).is_file()
    assert variable == "graph"
