"""PGenRM, the object a user meets: plain and async calls, memory, life cycle."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from pgenrm_agent.engines.protocol import Capabilities, Completion, Prompt, SamplingParams
from pgenrm_agent.errors import ConfigurationError, EngineTimeout
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import (
    Candidate,
    Evaluation,
    EvaluationRequest,
    Message,
    PreferencePair,
    Scaling,
    StatedPreference,
    UserSignals,
)
from pgenrm_agent.testing import ScriptedEngine

MARKS = {"red": 3.0, "green": 8.0, "blue": 5.0}
PAIR = PreferencePair(query="Tea or coffee?", chosen="Tea, plainly.", rejected="It depends a lot.")
FOUR = Scaling(individual=4, seed=1)


def answer(prompt: Prompt, _: int) -> str:
    """A model that gives each color its mark, wherever it is shown."""
    texts = re.findall(r"Start of Response \d+\]\s*(\S+)", prompt.messages[-1].content)
    totals = [MARKS[text] for text in texts]
    marks = ", ".join(f"Response {k}: Fit {total:g}" for k, total in enumerate(totals, start=1))
    block = {
        "rationale": f"A. Fit 100%. B. {marks}.",
        "better_response": {f"response_{k}": total for k, total in enumerate(totals, start=1)},
    }
    return (
        "## Part 1: Analysis\n### Persona\nWants short answers.\n### Criteria\n1. Fit (100%)\n"
        f"## Part 2: Scoring\n<JSON_START>\n{json.dumps(block)}\n<JSON_END>"
    )


class Watchful(ScriptedEngine):
    """Counts how many calls are under way at once, and whether it was closed."""

    def __init__(self, latency_s: float = 0.0) -> None:
        super().__init__(answer, latency_s=latency_s)
        self.now = self.most = 0
        self.closings = 0

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await super().sample(prompts, params)
        finally:
            self.now -= 1

    async def aclose(self) -> None:
        self.closings += 1


@pytest.fixture
def engine() -> Watchful:
    return Watchful()


@pytest.fixture
def rm(engine: Watchful, tmp_path: Path) -> Iterator[PGenRM]:
    with PGenRM(engine=engine, memory=tmp_path / "memory", scaling=FOUR) as reward_model:
        yield reward_model


def test_a_plain_call_scores_and_ranks(rm: PGenRM) -> None:
    evaluation = rm.score("ada", "Which color?", ["red", "green", "blue"])
    assert isinstance(evaluation, Evaluation)
    assert evaluation.best == "answer-2"
    assert [score.mean for score in evaluation.scores] == [3.0, 8.0, 5.0]
    assert evaluation.timings["total"] >= evaluation.timings["aggregate"] > 0


def test_candidates_keep_the_ids_they_come_with(rm: PGenRM) -> None:
    candidates = [Candidate(id="warm", text="red"), "green"]
    assert rm.score("ada", "Which color?", candidates).ranking == ("answer-2", "warm")


def test_what_is_remembered_is_shown_to_the_model(rm: PGenRM, engine: Watchful) -> None:
    rm.remember("ada", PAIR)
    rm.state_preference("ada", "Be brief.")
    rm.state_preference("ada", StatedPreference(kind="self_description", text="I teach physics."))
    rm.remember("bob", PAIR.model_copy(update={"chosen": "Coffee, of course.", "id": "x"}))
    rm.score("ada", "Which color?", ["red", "green"])
    everything = "\n".join(
        message.content for prompt in engine.calls[0][0] for message in prompt.messages
    )
    assert "Tea, plainly." in everything
    assert "Be brief." in everything
    assert "I teach physics." in everything
    assert "Coffee" not in everything


def test_what_is_forgotten_is_gone(rm: PGenRM, engine: Watchful) -> None:
    rm.remember("ada", PAIR)
    assert rm.forget("ada") >= 1
    rm.score("ada", "Which color?", ["red", "green"])
    assert "Tea, plainly." not in engine.calls[0][0][0].messages[0].content


def test_rerank_returns_the_texts_in_their_new_order(rm: PGenRM) -> None:
    result = rm.rerank("ada", "Which color?", ["red", "green", "blue"])
    assert [(item.index, item.text, item.score) for item in result] == [
        (1, "green", 8.0),
        (2, "blue", 5.0),
        (0, "red", 3.0),
    ]
    assert len(result) == 3
    assert result[0].id == "answer-2"
    assert [item.text for item in result.top(2)] == ["green", "blue"]
    assert result.evaluation.best == "answer-2"


async def test_async_calls_give_the_same_result(rm: PGenRM) -> None:
    plain = await asyncio.to_thread(rm.score, "ada", "Which color?", ["red", "green"])
    awaited = await rm.ascore("ada", "Which color?", ["red", "green"])
    same = {"timings": {}}
    assert plain.model_copy(update=same) == awaited.model_copy(update=same)
    assert [item.text for item in await rm.arerank("ada", "Which color?", ["red", "green"])] == [
        "green",
        "red",
    ]
    assert await rm.aremember("ada", PAIR) == PAIR.id
    assert await rm.astate_preference("ada", "Be brief.")
    assert await rm.aforget("ada") >= 2


async def test_plain_calls_work_inside_a_running_event_loop(rm: PGenRM) -> None:
    assert rm.score("ada", "Which color?", ["red", "green"]).best == "answer-2"


def test_plain_calls_work_from_many_threads_at_once(rm: PGenRM) -> None:
    bests: list[str | None] = []
    threads = [
        threading.Thread(
            target=lambda: bests.append(rm.score("ada", "Which?", ["red", "green"]).best)
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bests == ["answer-2"] * 8


async def test_many_calls_at_once_are_with_the_engine_together(tmp_path: Path) -> None:
    engine = Watchful(latency_s=0.2)
    async with PGenRM(engine=engine, memory=tmp_path, scaling=FOUR) as rm:
        await rm.ascore("ada", "Which?", ["red", "green"])
        evaluations = await asyncio.gather(
            *(rm.ascore(f"user-{i}", "Which?", ["red", "green"]) for i in range(16))
        )
    assert engine.most == 16
    assert [evaluation.request.user_id for evaluation in evaluations] == [
        f"user-{i}" for i in range(16)
    ]


@pytest.mark.parametrize(
    ("query", "candidates", "said"),
    [
        ("  ", ["red"], "query"),
        ("Which?", [], "candidates"),
        ("Which?", [Candidate(id="a", text="x"), Candidate(id="a", text="y")], "repeated: a"),
        ("Which?", "red", "pass a list"),
    ],
)
def test_bad_requests_are_refused_in_one_line(
    rm: PGenRM, query: str, candidates: list[str | Candidate], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        rm.score("ada", query, candidates)
    assert "\n" not in str(caught.value)


def test_an_answer_that_cannot_be_judged_costs_the_others_nothing(tmp_path: Path) -> None:
    engine = Watchful()
    answers = [
        Candidate(id="blank", text=" "),
        Candidate(id="green", text="green"),
        Candidate(id="long", text="x" * 50_001),
        Candidate(id="red", text="red"),
    ]
    with PGenRM(engine=engine, memory=tmp_path, scaling=FOUR) as rm:
        alone = rm.score("ada", "Which?", [answers[1], answers[3]])
        evaluation = rm.score("ada", "Which?", answers)
        calls = len(engine.calls)
        nothing = rm.rerank("ada", "Which?", [answers[0], answers[2]])
        assert len(engine.calls) == calls
    assert evaluation.ranking == ("green", "red")
    assert evaluation.score_of("blank").reason == "its text is blank"
    assert "at most 50,000" in str(evaluation.score_of("long").reason)
    for name in ("green", "red"):
        assert evaluation.score_of(name).mean == alone.score_of(name).mean
        assert evaluation.score_of(name).probability_best == pytest.approx(
            alone.score_of(name).probability_best
        )
    assert set(evaluation.evidence.candidate_writings) == {"green", "red"}
    assert all(set(chain.order) <= {1, 3} for chain in evaluation.chains)
    assert Evaluation.model_validate_json(evaluation.model_dump_json()) == evaluation
    assert nothing.evaluation.chains == ()
    assert [item.score for item in nothing] == [None, None]
    assert nothing.evaluation.usage.engine_calls == 0


def test_a_thousand_answers_are_ranked_in_groups(tmp_path: Path) -> None:
    colors = ["red", "green", "blue", ""]
    answers = [colors[number % 4] for number in range(1000)]
    with PGenRM(engine=Watchful(), memory=tmp_path, scaling=FOUR) as rm:
        result = rm.rerank("ada", "Which?", answers)
    by_color = {"green": 250, "blue": 250, "red": 250, "": 250}
    assert [item.text for item in result] == [c for c, n in by_color.items() for _ in range(n)]
    scores = [item.score for item in result.top(1000) if item.score is not None]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 750
    assert max(len(chain.order) for chain in result.evaluation.chains) <= 32
    assert any("in groups" in told for told in result.evaluation.evidence.warnings)


def test_a_model_that_is_down_gives_the_given_order_if_told_so(tmp_path: Path) -> None:
    engine = ScriptedEngine("", fail_times=1000)
    with PGenRM(engine=engine, memory=tmp_path) as rm:
        with pytest.raises(EngineTimeout):
            rm.rerank("ada", "Which?", ["red", "green"])
        result = rm.rerank("ada", "Which?", ["red", "", "green"], fallback="order")
        said = Message(role="user", content="Colors, please.")
        once = rm.rerank(
            "ada",
            "Which?",
            iter(["red", "", "green"]),  # type: ignore[arg-type]
            conversation=iter([said]),  # type: ignore[arg-type]
            fallback="order",
        )
        with pytest.raises(ConfigurationError, match="fallback is 'best'"):
            rm.rerank("ada", "Which?", ["red", "green"], fallback="best")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="query is blank"):
            rm.rerank("ada", " ", ["red", "green"], fallback="order")
    assert [item.text for item in result] == ["red", "", "green"]
    assert once.items == result.items
    assert once.evaluation.request.conversation == (said,)
    assert result.top(3) == ()
    assert result[1].reason == "its text is blank"
    assert "told to time out" in str(result.fallback)
    assert result.evaluation.evidence.warnings == (result.fallback,)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("Well \ud83d", "Well \ufffd"), ("\ud83d\udc4d", "\U0001f44d"), ("A\0B", "A\ufffdB")],
)
def test_what_no_text_holds_is_replaced_wherever_texts_come_in(given: str, kept: str) -> None:
    assert Candidate(id="a", text=given).text == kept
    assert StatedPreference(text=given).text == kept
    assert Message(role="user", content=given).content == kept
    pair = PreferencePair(query=given, chosen=f"{given} a", rejected=given)
    assert (pair.query, pair.chosen, pair.rejected) == (kept, f"{kept} a", kept)


def test_a_blank_statement_is_refused(rm: PGenRM) -> None:
    with pytest.raises(ConfigurationError, match="stated preference"):
        rm.state_preference("ada", "  ")


def test_steps_are_kept_by_a_checkpointer_under_the_callers_thread(
    engine: Watchful, tmp_path: Path
) -> None:
    saver = InMemorySaver()
    with PGenRM(engine=engine, memory=tmp_path, scaling=FOUR, checkpointer=saver) as rm:
        rm.score("ada", "Which?", ["red", "green"], thread_id="mine")
        rm.score("ada", "Which?", ["red", "green"])  # whose steps nobody could find again
        rm.score_many(
            [
                EvaluationRequest(
                    user_id="bob",
                    query="q",
                    candidates=[Candidate(id=name, text=name) for name in ("red", "blue")],
                )
            ]
        )
    assert set(saver.storage) == {"mine"}
    steps = list(saver.list({"configurable": {"thread_id": "mine"}}))
    assert len(steps) == 8
    stored = steps[0].checkpoint["channel_values"]["evaluation"]
    assert Evaluation.model_validate(stored).best == "answer-2"


def test_a_thread_without_a_checkpointer_is_refused(rm: PGenRM) -> None:
    with pytest.raises(ConfigurationError, match="checkpointer"):
        rm.score("ada", "Which?", ["red"], thread_id="mine")


def test_what_the_caller_brought_stays_open(engine: Watchful, tmp_path: Path) -> None:
    with UserMemory(tmp_path) as memory:
        with PGenRM(engine=engine, memory=memory, scaling=FOUR) as rm:
            rm.remember("ada", PAIR)
            rm.score("ada", "Which?", ["red", "green"])
        assert memory.recall("ada").history == (PAIR,)
    assert engine.closings == 0


def test_a_closed_object_refuses_and_its_memory_can_be_opened_again(
    engine: Watchful, tmp_path: Path
) -> None:
    rm = PGenRM(engine=engine, memory=tmp_path, scaling=FOUR)
    rm.remember("ada", PAIR)
    rm.score("ada", "Which?", ["red"])
    rm.close()
    rm.close()
    with pytest.raises(ConfigurationError, match="closed"):
        rm.score("ada", "Which?", ["red"])
    with pytest.raises(ConfigurationError, match="closed"):
        rm.remember("ada", PAIR)
    with UserMemory(tmp_path) as memory:
        assert memory.recall("ada").history == (PAIR,)
    assert not any("PGenRM" in thread.name for thread in threading.enumerate())


def test_a_model_beside_a_ready_engine_is_refused(engine: Watchful) -> None:
    with pytest.raises(ConfigurationError, match="pass one of them"):
        PGenRM("some-model", engine=engine)


class Plain(ScriptedEngine):
    def sample(self, prompts: object, params: object) -> object:  # type: ignore[override]
        return [[]]


class Vague(ScriptedEngine):
    capabilities = None  # type: ignore[assignment]


class Forgetful(ScriptedEngine):
    def capabilities(self) -> Capabilities:  # type: ignore[override]
        return self._capabilities


class Slow(ScriptedEngine):
    """It asks a server what that can do."""

    @property
    def capabilities(self) -> Capabilities:
        raise AssertionError("it is asked before it is needed")


class Around:
    """An engine around another."""

    def __init__(self, inside: ScriptedEngine) -> None:
        self._inside = inside

    def __getattr__(self, name: str) -> object:
        return getattr(self._inside, name)


class Lettered(ScriptedEngine):
    models = "P-GenRM"


def test_an_engine_is_not_asked_what_it_can_do_before_it_is_needed() -> None:
    PGenRM(engine=Slow("a")).close()
    PGenRM(engine=Around(ScriptedEngine("a"))).close()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (ScriptedEngine, "pass an engine"),
        (lambda: None, "pass an engine"),
        (Plain("a"), "not async"),
        (Vague("a"), "pass Capabilities"),
        (Forgetful("a"), "pass Capabilities"),
        (Around(Vague("a")), "pass Capabilities"),
        (Lettered("a"), "names in a tuple"),
    ],
)
def test_what_is_no_engine_is_refused_when_it_is_given(wrong: object, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        PGenRM(engine=wrong)  # type: ignore[arg-type]


def test_a_server_needs_the_name_of_its_model() -> None:
    with (
        PGenRM(engine="openai") as rm,
        pytest.raises(ConfigurationError, match="name of the model"),
    ):
        rm.score("ada", "Which?", ["red"], signals=UserSignals(user_id="ada"))


def test_a_langchain_chat_model_is_a_model() -> None:
    from langchain_core.language_models import FakeListChatModel

    prompt = Prompt.model_validate(
        {"messages": [{"role": "user", "content": "[The Start of Response 1]\nred\n"}]}
    )
    with PGenRM(FakeListChatModel(responses=[answer(prompt, 0)]), scaling=FOUR) as rm:
        evaluation = rm.score("ada", "Which?", ["red"], signals=UserSignals(user_id="ada"))
    assert evaluation.score_of("answer-1").mean == 3.0


def test_the_bundled_model_gives_the_same_result_for_the_same_seed() -> None:
    scaling = Scaling(individual=4, seed=3)
    with PGenRM(scaling=scaling) as rm:
        evaluations = [
            rm.score(
                "ada",
                "How do I descale a kettle?",
                ["Boil water with vinegar.", "1. Fill it.\n2. Add citric acid.\n3. Rinse."],
                signals=UserSignals(user_id="ada", history=(PAIR,)),
            ).model_copy(update={"timings": {}})
            for _ in range(2)
        ]
    assert evaluations[0] == evaluations[1]
    assert len(evaluations[0].ranking) == 2


def test_prototypes_and_their_embedder_are_loaded_once(tmp_path: Path) -> None:
    with PGenRM(engine=ScriptedEngine("unused"), memory=tmp_path / "one") as rm:
        context = rm.prepare()[1]
        assert context.neighbors is not None
        # A status then reads what scoring has in memory already.
        assert rm.prototypes is rm.prototypes
        with rm.with_memory(tmp_path / "other") as tenant:
            others = tenant.prepare()[1].neighbors
            assert others is not None
            assert others is not context.neighbors
            assert vars(others)["embedder"] is vars(context.neighbors)["embedder"]
