"""What a job will cost: what is estimated against what is sent, and where a budget ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from scored_datasets import JOB, chain, write

from pgenrm_agent.chain import ChainFormat, read_persona
from pgenrm_agent.cli.engine_choice import EngineChoice
from pgenrm_agent.cli.evaluation_run import ModelRun, Part
from pgenrm_agent.costs import (
    CostLedger,
    Outline,
    Work,
    add_estimates,
    estimate_work,
    spread,
    tokens_in,
)
from pgenrm_agent.embedding import HashingEmbedder
from pgenrm_agent.engines.counting import CountingEngine
from pgenrm_agent.engines.protocol import Prompt, SamplingParams
from pgenrm_agent.errors import BudgetReached, ConfigurationError
from pgenrm_agent.evaluation.judges import PromptJudge
from pgenrm_agent.evaluation.questions import Question
from pgenrm_agent.graphs.prototype_learning import (
    LearningContext,
    estimate_learning,
    learn_prototypes,
)
from pgenrm_agent.integrations.dataset_estimate import estimate_dataset
from pgenrm_agent.integrations.dataset_scoring import DatasetJob, in_process, score_dataset
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.prototypes import Member, Neighbors
from pgenrm_agent.prototypes.fitting import fit_prototypes
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Candidate, Message, PreferencePair, Prices, Scaling, Usage
from pgenrm_agent.testing import ScriptedEngine

MILLIONS = Prices(prompt=1_000_000, completion=1_000_000)
"""A token costs 1."""


# --- arithmetic ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 5), ("abcd", 6), ("abcde", 7), ("ü" * 8, 9), ("中文字", 8)],
)
def test_tokens_are_estimated_from_bytes_and_messages(text: str, tokens: int) -> None:
    assert tokens_in([text]) == tokens


def test_a_sample_of_the_work_is_evenly_spaced() -> None:
    assert spread(range(100), 4) == [0, 25, 50, 75]
    assert spread(range(3), 8) == [0, 1, 2]


def test_about_is_a_share_of_the_limit_and_at_most_all_of_it_in_every_round() -> None:
    outline = Outline(calls=2, chains=16, shared=100, unshared=800, limit=900)
    work = Work(pieces=10, outline=outline, outlined=2, rounds=3)
    estimate = estimate_work("rows", {"rows": work}, Prices(prompt=1000, completion=10_000))
    assert estimate.about == Usage(
        engine_calls=10, prompt_tokens=500, completion_tokens=1500, chains_sampled=80, cost=15.5
    )
    assert estimate.at_most == Usage(
        engine_calls=30,
        prompt_tokens=12_000,
        completion_tokens=13_500,
        chains_sampled=240,
        cost=147,
    )
    assert estimate.each == {"rows": pytest.approx(1.55)}
    assert "1/3 of the tokens" in estimate.assumptions


def test_what_is_done_is_a_better_guide_than_a_share() -> None:
    outline = Outline(calls=1, chains=8, shared=100, unshared=800, limit=9000)
    spent = Usage(prompt_tokens=800, completion_tokens=1600)
    work = Work(pieces=5, outline=outline, outlined=1, done=8, spent=spent)
    estimate = estimate_work("rows", {"rows": work}, None)
    assert (estimate.about.prompt_tokens, estimate.about.completion_tokens) == (500, 1000)
    assert estimate.assumptions == "rows go on as the 8 that are done"
    assert estimate.about.cost is None
    assert estimate.each == {}


# --- ledger -------------------------------------------------------------------------------------


def test_jobs_are_added_up() -> None:
    prices = Prices(prompt=1, completion=2)
    jobs = [
        estimate_work(
            "verdicts",
            {kind: Work(pieces=pieces, outline=Outline(1, 1, 10, 20, 30), outlined=1)},
            prices,
        )
        for kind, pieces in (("judge", 3), ("blind", 0), ("p-genrm", 5))
    ]
    whole = add_estimates(jobs, prices)
    assert whole.pieces == 8
    for part in ("about", "at_most"):
        usage = getattr(whole, part)
        assert usage.prompt_tokens == sum(getattr(job, part).prompt_tokens for job in jobs)
        assert usage.cost == pytest.approx(sum(getattr(job, part).cost or 0 for job in jobs))
    assert set(whole.each) == {"judge", "blind", "p-genrm"}
    assert whole.left == {"judge": 3, "blind": 0, "p-genrm": 5}
    assert whole.assumptions == jobs[0].assumptions


@pytest.mark.parametrize(
    ("sets", "each"),
    [
        ([(100, 20), (0, 0)], 20),
        ([(0, 0), (100, 20)], 20),
        ([(30, 20), (10, 40)], 25),
        ([(0, 0)], 0),
    ],
)
def test_a_piece_costs_what_the_pieces_left_of_all_sets_do(
    sets: list[tuple[int, int]], each: float
) -> None:
    jobs = [
        estimate_work(
            "verdicts",
            {
                "judge": Work(pieces, Outline(1, 1, cost, cost, 0), outlined=min(pieces, 1)),
                "done": Work(0, Outline(), 0),
            },
            MILLIONS,
        )
        for pieces, cost in sets
    ]
    whole = add_estimates(jobs, MILLIONS)
    assert whole.each == {"judge": pytest.approx(each), "done": 0}
    assert add_estimates(jobs, None).each == {}
    ledger = CostLedger(MILLIONS, 50, whole.each)
    begun = sum(ledger.begin("judge") for _ in range(16))
    assert begun == (16 if not each else 50 // each)


def test_a_budget_needs_prices() -> None:
    with pytest.raises(ConfigurationError, match="needs prices"):
        CostLedger(budget=3)


def test_a_job_that_costs_more_than_its_budget_is_refused() -> None:
    work = Work(1, Outline(limit=300), 1, done=2, spent=Usage(completion_tokens=50))
    estimate = estimate_work("rows", {"rows": work}, MILLIONS)
    estimate.refuse_above(150)
    with pytest.raises(ConfigurationError, match=r"100\.00 beside 50\.00 that is spent.*149\.00"):
        estimate.refuse_above(149)
    # Of one that is done nothing more is asked, though its last piece cost more than was left.
    done = Work(0, Outline(limit=300), 1, done=3, spent=Usage(completion_tokens=151))
    estimate_work("rows", {"rows": done}, MILLIONS).refuse_above(150)


@given(
    costs=st.lists(st.integers(0, 100), max_size=40),
    budget=st.integers(0, 1000),
    at_once=st.integers(1, 8),
    guess=st.integers(0, 100),
)
def test_no_more_is_begun_than_the_budget_holds(
    costs: list[int], budget: int, at_once: int, guess: int
) -> None:
    ledger = CostLedger(MILLIONS, budget, {"rows": guess})
    waiting, running, begun = list(costs), [], 0
    while waiting and ledger.begin("rows"):
        begun += 1
        running.append(waiting.pop(0))
        if len(running) == at_once:
            ledger.record("rows", 0, running.pop(0))
    for cost in running:
        ledger.record("rows", 0, cost)
    spent = ledger.usage.cost
    assert spent == sum(costs[:begun])
    # What is under way when the budget turns out too small ends all the same.
    assert spent <= budget + at_once * max([0, *costs[:begun]])
    if len(set(costs)) == 1 and guess == costs[0]:
        assert spent <= budget
    assert ledger.stopped == bool(waiting)


def test_what_a_later_set_has_cost_counts_from_the_first_piece_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ScriptedEngine('{"response_1": 8, "response_2": 3}')
    monkeypatch.setattr(EngineChoice, "open", lambda self, model: engine)
    parts = [
        Part(
            source=name,
            questions=[
                Question(
                    id=f"{name}-{number}",
                    user_id="ada",
                    query=f"Question {number}?",
                    candidates=(Candidate(id="a", text="Good."), Candidate(id="b", text="Bad.")),
                    grades=(1.0, 0.0),
                )
                for number in range(4)
            ],
            judges=lambda model, runner, scaling: [PromptJudge("judge", runner)],
            out=tmp_path / name,
        )
        for name in ("first", "second")
    ]
    run = ModelRun(
        model=None,
        engine=EngineChoice(),
        scaling=Scaling(),
        memory=str(tmp_path / "memory"),
        finds_similar=None,
        seed=1,
        runs=1,
        concurrency=2,
        prices=MILLIONS,
    )

    def start(asked: list[Part], budget: float | None) -> Usage:
        estimates = [run.estimate(part) for part in asked]
        whole = add_estimates(estimates, MILLIONS).model_copy(update={"about": Usage()})
        return run.run(asked, whole, budget)[1]

    spent = start(parts[1:], None).cost
    assert spent is not None
    before = len(engine.calls)
    with pytest.raises(BudgetReached, match=r"0 of 4 verdicts"):
        start(parts, spent)
    with pytest.raises(BudgetReached, match=r"2 of 4 verdicts"):
        start(parts, spent * 1.5)
    assert len(engine.calls) == before + 2
    assert start(parts, spent * 2).cost == pytest.approx(spent * 2)
    assert len(engine.calls) == before + 4


# --- a file of rows -----------------------------------------------------------------------------


def estimated(source: Path, target: Path, job: DatasetJob, memory: UserMemory | Path):
    silent = CountingEngine(None)
    with PGenRM(engine=silent, memory=memory, chain_format="published") as model:
        return estimate_dataset(source, target, job, model, silent, MILLIONS)


@pytest.mark.parametrize("individual", [1, 2, 7])
def test_the_estimate_is_of_the_prompts_that_are_sent(tmp_path: Path, individual: int) -> None:
    job = JOB.model_copy(update={"scaling": Scaling(individual=individual, prototype=0)})
    source, target = write(tmp_path / "in.parquet", rows=7), tmp_path / "out.parquet"
    estimate = estimated(source, target, job, tmp_path / "memory")
    engine = ScriptedEngine(chain)
    with PGenRM(engine=engine) as model:
        score_dataset(source, target, job, in_process(model))
    prompts = [prompt for prompts, _ in engine.calls for prompt in prompts]
    read = [tokens_in(message.content for message in prompt.messages) for prompt in prompts]
    samples = sum(prompt.n for prompt in prompts)
    limits = {params.max_tokens for _, params in engine.calls}
    assert limits == {3072}
    assert (estimate.pieces, estimate.about.engine_calls) == (7, 7)
    assert estimate.about.prompt_tokens == sum(read)
    assert estimate.about.chains_sampled == samples == 7 * individual
    assert estimate.about.completion_tokens == samples * 3072 // 3
    assert estimate.at_most.completion_tokens == samples * 3072 * 3
    unshared = sum(size * prompt.n for size, prompt in zip(read, prompts, strict=True))
    assert estimate.at_most.prompt_tokens == unshared * 3


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[UserMemory]:
    """The users of the file, and two more in a prototype that all of them would join."""
    embedder = HashingEmbedder()
    with UserMemory(tmp_path / "memory") as opened:
        for user in ("user-0", "user-1", "ann", "bob"):
            pair = PreferencePair(query="Before?", chosen=f"As {user} likes it.", rejected="No.")
            opened.remember(user, pair)
            opened.set_consent(user, True)
        vector = embedder.embed(["Wants plain answers."])
        members = [Member(user, 0, vector[0]) for user in ("ann", "bob")]
        Neighbors(opened, embedder).store.replace(
            np.asarray(vector), members, embedder=embedder.name
        )
        yield opened


@pytest.mark.parametrize("column", ["none", "null"])
def test_similar_users_are_in_the_estimate_and_nobody_joins_them(
    tmp_path: Path, memory: UserMemory, column: str
) -> None:
    source = write(tmp_path / "in.parquet", rows=4)
    rows = parquet.read_table(source)
    place, field = rows.column_names.index("history"), rows.schema.field("history")
    if column == "null":
        rows = rows.set_column(place, field, pa.nulls(4, field.type))
    else:
        rows = rows.drop_columns(["history"])
    parquet.write_table(rows, source)
    job = JOB.model_copy(update={"scaling": Scaling(individual=2, prototype=2)})
    silent = CountingEngine(None)
    embedder = HashingEmbedder()
    with PGenRM(
        engine=silent, memory=memory, chain_format="published", persona_embedder=embedder
    ) as model:
        estimate = estimate_dataset(source, tmp_path / "out", job, model, silent, None)
    version = Neighbors(memory, embedder).store.current()
    assert version is not None
    assert set(version.homes) == {"ann", "bob"}
    # Personas first, and then their continuations beside the neighbors' chains.
    assert estimate.about.engine_calls == 2 * 4
    assert estimate.about.chains_sampled == 4 * 4


@pytest.mark.parametrize("schema", [None, {"type": "object"}])
async def test_no_two_counted_personas_are_alike(schema: dict[str, object] | None) -> None:
    """So what goes on from each counts as read on its own, as it is with a real model."""
    prompt = Prompt(messages=(Message(role="user", content="Who?"),), n=3, json_schema=schema)
    first, second = await CountingEngine(None).sample([prompt] * 2, SamplingParams())
    personas = {read_persona(completion.text) for completion in (*first, *second)}
    assert len(personas) == 6
    assert None not in personas


def test_a_job_stops_at_its_budget_and_goes_on_with_a_higher_one(tmp_path: Path) -> None:
    # All rows cost the same: which of them are done when the budget is spent is left to threads.
    source = write(tmp_path / "in.parquet", rows=20, history=[[]] * 20)
    target = tmp_path / "out.parquet"
    asked: list[int] = []

    def start(budget: float | None) -> CostLedger:
        ledger = CostLedger(MILLIONS, budget, {"rows": 1})
        engine = ScriptedEngine(chain)
        try:
            with PGenRM(engine=engine) as model:
                run = in_process(model, concurrency=3)
                score_dataset(source, target, JOB, run, ledger=ledger)
        finally:
            asked.append(len(engine.calls))
        return ledger

    whole = CostLedger(MILLIONS)
    with PGenRM(engine=ScriptedEngine(chain)) as model:
        score_dataset(source, tmp_path / "whole", JOB, in_process(model), ledger=whole)
    cost = whole.usage.cost
    assert cost is not None
    with pytest.raises(BudgetReached, match=r"of 20 rows are done and kept.*higher budget"):
        start(cost / 2)
    assert 0 < asked[0] < 14
    assert not target.exists()
    with pytest.raises(BudgetReached):
        start(cost / 2)
    assert asked[1] == 0
    finished = start(cost + 1)
    assert asked[0] + asked[2] == 20
    assert finished.usage.cost == pytest.approx(cost)


def test_texts_that_cannot_be_read_cost_too(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.parquet", rows=2), tmp_path / "out.parquet"
    ledger = CostLedger(MILLIONS)
    engine = ScriptedEngine("no chain at all")
    with PGenRM(engine=engine) as model:
        summary = score_dataset(source, target, JOB, in_process(model), ledger=ledger)
    assert summary.scored == 0
    sent = sum(prompt.n for prompts, _ in engine.calls for prompt in prompts)
    assert summary.usage.completion_tokens == 4 * sent
    assert summary.usage.prompt_tokens > 0


# --- prototypes ---------------------------------------------------------------------------------


def remember(memory: UserMemory, users: int, choices: int) -> None:
    for number in range(users):
        for choice in range(choices):
            query = f"Question {choice} of {number}?"
            pair = PreferencePair(query=query, chosen="Plain.", rejected="Long.")
            memory.remember(f"u{number}", pair)
        memory.set_consent(f"u{number}", True)


def test_a_build_stops_at_its_budget_and_goes_on(tmp_path: Path) -> None:
    persona = "### Persona\nWants plain short answers.\n### Criteria\n"
    asked = []

    def build(memory: UserMemory, budget: float) -> Usage:
        engine = ScriptedEngine(persona)
        context = LearningContext(
            engine=engine,
            chain_format=ChainFormat.load("published"),
            memory=memory,
            embedder=HashingEmbedder(),
            fit=fit_prototypes,
            batch=4,
            k=1,
            ledger=CostLedger(MILLIONS, budget, {"personas": 1}),
        )
        try:
            return asyncio.run(learn_prototypes(context, keep=tmp_path / "keep.sqlite")).usage
        finally:
            asked.append(sum(len(prompts) for prompts, _ in engine.calls))

    with UserMemory(tmp_path / "memory") as memory:
        remember(memory, users=3, choices=3)
        with pytest.raises(BudgetReached, match="4 of 9 personas are done and kept"):
            build(memory, 300)
        usage = build(memory, 1_000_000)
    assert asked == [4, 5]
    assert (usage.chains_sampled, usage.engine_calls) == (9, 3)
    assert usage.completion_tokens == 9 * len(persona.split("### Criteria")[0].split())


def test_an_estimate_of_a_build_counts_every_persona(tmp_path: Path) -> None:
    with UserMemory(tmp_path / "memory") as memory:
        remember(memory, users=6, choices=2)
        memory.set_consent("u0", False)
        chain_format = ChainFormat.load("structured-1")
        estimate = asyncio.run(estimate_learning(memory, chain_format, CountingEngine("openai")))
    assert (estimate.what, estimate.pieces, estimate.about.chains_sampled) == ("personas", 10, 10)
    limit = chain_format.max_tokens(2)
    assert estimate.at_most.completion_tokens == 10 * limit
    assert estimate.about.completion_tokens == limit
