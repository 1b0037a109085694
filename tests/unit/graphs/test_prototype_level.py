"""The evaluation graph with similar people: whose signals are shown, to whom, and in how many calls."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.embedding import HashingEmbedder
from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.graphs.evaluation import graph
from pgenrm_agent.graphs.state import EvaluationContext
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.prototypes import Member, Neighbors
from pgenrm_agent.schema import Evaluation, PreferencePair, StatedPreference
from pgenrm_agent.testing import ScriptedEngine, write_chain

PUBLISHED = ChainFormat.load("published")
EMBEDDER = HashingEmbedder()
PERSONAS = {"plain": "Wants plain short answers.", "warm": "Wants warm friendly chatter."}
PEOPLE = {"ann": "plain", "bob": "plain", "cid": "plain", "dee": "warm", "eve": "warm"}


def taste_in(prompt: Prompt) -> str:
    """Which taste the history or wishes in a prompt speak for; that is all the engine looks at."""
    taste = re.search(r"secret (plain|warm)", prompt.messages[0].content)
    return taste[1] if taste else "none"


def judge(prompt: Prompt, _: int) -> str:
    """Likes the first candidate when the signals are plain, the second when they are warm."""
    taste = taste_in(prompt)
    shown = re.findall(r"Start of Response \d+\]\s*(\S+)", prompt.messages[-1].content)
    liked = {"plain": "short", "warm": "chatty"}.get(taste)
    marks = [9.0 if text == liked else 4.0 for text in shown]
    return write_chain(marks, persona=PERSONAS.get(taste, "Somebody."))


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[UserMemory]:
    """Five people with a taste each, all but bob agreed; and prototypes of them."""
    with UserMemory(tmp_path / "memory") as opened:
        for user, taste in PEOPLE.items():
            opened.remember(
                user,
                PreferencePair(
                    query=f"A {taste} question", chosen=f"secret {taste} of {user}", rejected="no"
                ),
            )
            opened.set_consent(user, user != "bob")
        yield opened


@pytest.fixture
def neighbors(memory: UserMemory) -> Neighbors:
    source = Neighbors(memory, EMBEDDER)
    centroids = EMBEDDER.embed(list(PERSONAS.values()))
    members = [
        Member(user, list(PERSONAS).index(taste), centroids[list(PERSONAS).index(taste)])
        for user, taste in PEOPLE.items()
    ]
    source.store.replace(centroids, members, embedder=EMBEDDER.name)
    return source


async def run(
    user: str, neighbors: Neighbors | None, engine: ScriptedEngine, **options: Any
) -> tuple[Evaluation, dict[str, Any]]:
    context = EvaluationContext(
        engine=engine,
        chain_format=PUBLISHED,
        memory=neighbors.memory if neighbors else None,
        neighbors=neighbors,
        staged=options.pop("staged", False),
        show_neighbors=options.pop("show_neighbors", False),
    )
    given: Any = {
        "request": {
            "user_id": user,
            "query": options.pop("query", "A question"),
            "candidates": [{"id": text, "text": text} for text in ("short", "chatty")],
        },
        "scaling": {"seed": 3, "individual": 4, "prototype": 2, **options},
    }
    state = await graph.ainvoke(given, context=context)
    return Evaluation.model_validate(state["evaluation"]), dict(state)


def told(evaluation: Evaluation) -> str:
    return evaluation.model_dump_json()


async def test_similar_people_add_chains_of_their_own(neighbors: Neighbors) -> None:
    evaluation, _ = await run("ann", neighbors, ScriptedEngine(judge))
    levels = [chain.level for chain in evaluation.chains]
    assert (levels.count("individual"), levels.count("prototype")) == (4, 2)
    assert evaluation.prototype == "0"
    score = evaluation.score_of("short")
    # cid is plain, too; bob is, but has not agreed; dee or eve fills the second place.
    assert (score.individual_mean, score.prototype_mean, score.mean) == (9.0, 6.5, 7.75)
    assert evaluation.best == "short"


async def test_results_do_not_say_who_the_similar_people_are(neighbors: Neighbors) -> None:
    evaluation, _ = await run("ann", neighbors, ScriptedEngine(judge))
    prototype = [chain for chain in evaluation.chains if chain.level == "prototype"]
    for secret in ('"cid"', '"dee"', '"eve"', "secret warm", PERSONAS["warm"]):
        assert secret not in told(evaluation)
    assert all(re.fullmatch(r"neighbor-[0-9a-f]{12}", name) for name in evaluation.neighbors)
    assert {chain.signals_of for chain in prototype} == set(evaluation.neighbors)
    assert all(chain.text == "" and chain.marks for chain in prototype)
    rubrics = [chain.rubric for chain in prototype if chain.rubric is not None]
    assert [[criterion.name for criterion in rubric.criteria] for rubric in rubrics] == [
        ["criterion 1"]
    ] * 2
    shown, _ = await run("ann", neighbors, ScriptedEngine(judge), show_neighbors=True)
    assert PERSONAS["warm"] in told(shown)
    assert shown.scores == evaluation.scores


async def test_nobody_takes_part_without_consent_nor_in_ones_own_evaluation(
    neighbors: Neighbors,
) -> None:
    engine = ScriptedEngine(judge)
    evaluation, _ = await run("ann", neighbors, engine, prototype=16)
    said = " ".join(m.content for prompts, _ in engine.calls for p in prompts for m in p.messages)
    assert "of bob" not in said
    assert {user for user in PEOPLE if f"of {user}" in said} == {"ann", "cid", "dee", "eve"}
    assert len(evaluation.neighbors) == 3
    neighbors.memory.set_consent("cid", False)
    neighbors.memory.forget("dee")
    evaluation, _ = await run("ann", neighbors, ScriptedEngine(judge), prototype=16)
    assert len(evaluation.neighbors) == 1


@pytest.mark.parametrize(("staged", "calls"), [(False, 2), (True, 3)])
async def test_both_levels_share_each_later_stage(
    neighbors: Neighbors, staged: bool, calls: int
) -> None:
    engine = ScriptedEngine(judge)
    evaluation, _ = await run("ann", neighbors, engine, staged=staged, individual=6)
    assert len(engine.calls) == evaluation.usage.engine_calls == calls
    first, *later = engine.calls
    assert "\n### Criteria" in first[1].stop
    assert sum(prompt.n for prompt in first[0]) == 6
    assert all(sum(prompt.n for prompt in prompts) == 8 for prompts, _ in later)


async def test_an_engine_that_cannot_continue_writes_whole_chains_level_by_level(
    neighbors: Neighbors,
) -> None:
    engine = ScriptedEngine(judge, continues=False)
    evaluation, _ = await run("ann", neighbors, engine)
    assert len(engine.calls) == 2
    assert len(evaluation.chains) == 6


async def test_of_somebody_unknown_the_prior_over_prototypes_decides(
    neighbors: Neighbors,
) -> None:
    evaluation, _ = await run("new", neighbors, ScriptedEngine(judge))
    assert {chain.level for chain in evaluation.chains} == {"prototype"}
    assert len(evaluation.chains) == 4  # four people have agreed; the budget is six
    assert evaluation.prototype is None
    assert evaluation.score_of("short").individual_mean is None


async def test_a_stated_wish_alone_leads_to_people_who_want_the_like(
    neighbors: Neighbors,
) -> None:
    neighbors.memory.state("new", StatedPreference(text="secret warm"))
    evaluation, _ = await run("new", neighbors, ScriptedEngine(judge))
    assert evaluation.prototype == "1"
    assert evaluation.best == "chatty"
    assert evaluation.score_of("chatty").prototype_mean == 9.0


def about_cats(number: int) -> PreferencePair:
    return PreferencePair(query=f"Feeding cats, part {number}", chosen="a", rejected="b")


async def test_the_queries_neighborhood_moves_the_prior(
    neighbors: Neighbors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgenrm_agent.prototypes.matching.NEAR_QUERIES", 3)
    for number, user in enumerate(("dee", "dee", "eve")):
        neighbors.memory.remember(user, about_cats(number))
    version = neighbors.store.current()
    assert version is not None
    elsewhere = neighbors.prior(version, "A plain question")
    cats = neighbors.prior(version, "Feeding cats")
    assert cats.sum() == pytest.approx(1)
    assert elsewhere.sum() == pytest.approx(1)
    assert cats[1] == pytest.approx(2 / 5 + 2 / 16 * (1 - 2 / 5))
    assert cats[1] > elsewhere[1]


@pytest.mark.parametrize("choices", [60, 300], ids=["beside others", "all that is looked at"])
async def test_choices_of_a_single_user_hardly_move_the_prior_however_many_they_are(
    neighbors: Neighbors, choices: int
) -> None:
    version = neighbors.store.current()
    assert version is not None
    before = neighbors.prior(version, "Feeding cats")
    neighbors.memory.remember_many("dee", [about_cats(number) for number in range(choices)])
    assert neighbors.memory.users_who_were_asked("Feeding cats", limit=50) == ["dee"]
    moved = neighbors.prior(version, "Feeding cats")
    assert np.abs(moved - before).max() <= 1 / 16


async def test_where_many_are_near_a_query_they_have_half_of_the_prior(
    neighbors: Neighbors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgenrm_agent.prototypes.matching.NEAR_QUERIES", 8)
    version = neighbors.store.current()
    assert version is not None
    warm = version.centroids[1]
    for number in range(8):
        neighbors.memory.remember(f"u{number}", about_cats(number))
        version = version.with_member(Member(f"u{number}", 1, warm))
    prior = neighbors.prior(version, "Feeding cats")
    # Ten of thirteen people are warm, and all eight of those near the query.
    assert prior == pytest.approx([(3 / 13 + 0) / 2, (10 / 13 + 1) / 2])


async def test_no_chain_of_ones_own_still_finds_the_prototype_by_ones_persona(
    neighbors: Neighbors,
) -> None:
    engine = ScriptedEngine(judge)
    evaluation, _ = await run("dee", neighbors, engine, individual=0, prototype=1)
    assert [chain.level for chain in evaluation.chains] == ["prototype"]
    assert evaluation.prototype == "1"
    assert evaluation.best == "chatty"
    assert len(engine.calls) == 2


async def test_when_nobody_similar_agreed_ones_own_chains_are_left(neighbors: Neighbors) -> None:
    for user in PEOPLE:
        neighbors.memory.set_consent(user, False)
    evaluation, _ = await run("new", neighbors, ScriptedEngine(judge))
    assert [chain.level for chain in evaluation.chains] == ["individual"] * 4
    evaluation, _ = await run("ann", neighbors, ScriptedEngine(judge))
    assert [chain.level for chain in evaluation.chains] == ["individual"] * 4


async def test_whoever_agreed_joins_the_nearest_prototype_at_once(neighbors: Neighbors) -> None:
    neighbors.memory.state("zoe", StatedPreference(text="secret warm"))
    await run("zoe", neighbors, ScriptedEngine(judge))
    version = neighbors.store.current()
    assert version is not None
    assert "zoe" not in version.homes
    neighbors.memory.set_consent("zoe", True)
    await run("zoe", neighbors, ScriptedEngine(judge))
    version = neighbors.store.current()
    assert version is not None
    assert version.homes["zoe"].tolist() == [1]


async def test_whoever_is_forgotten_in_the_moment_of_joining_stays_forgotten(
    neighbors: Neighbors, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = neighbors.memory
    memory.state("zoe", StatedPreference(text="secret warm"))
    memory.set_consent("zoe", True)
    join = neighbors.store.join

    def forget_first(user_id: str, vector: Any) -> None:
        memory.forget(user_id)  # as another thread does between the question and the write
        join(user_id, vector)

    monkeypatch.setattr(neighbors.store, "join", forget_first)
    await run("zoe", neighbors, ScriptedEngine(judge))
    version = neighbors.store.current()
    assert version is not None
    assert "zoe" not in version.homes


async def test_another_embedder_than_the_versions_is_refused(
    neighbors: Neighbors, memory: UserMemory
) -> None:
    mismatched = Neighbors(memory, HashingEmbedder(64))
    with pytest.raises(ConfigurationError, match=r"'hashing-1-256', and this is 'hashing-1-64'"):
        await run("ann", mismatched, ScriptedEngine(judge))


async def test_without_a_version_nothing_changes(memory: UserMemory) -> None:
    engine = ScriptedEngine(judge)
    evaluation, _ = await run("ann", Neighbors(memory, EMBEDDER), engine)
    assert len(engine.calls) == 1
    alone, _ = await run("ann", Neighbors(memory, EMBEDDER), ScriptedEngine(judge), prototype=0)
    assert alone.scores == evaluation.scores


async def test_what_a_similar_persons_failed_chain_says_is_withheld_too(
    neighbors: Neighbors,
) -> None:
    def reply(prompt: Prompt, number: int) -> str:
        text = judge(prompt, number)
        return text if "of ann" in prompt.messages[0].content else "secret warm, and no chain"

    evaluation, _ = await run("ann", neighbors, ScriptedEngine(reply))
    assert {failure.level for failure in evaluation.failures} == {"prototype"}
    assert "secret warm" not in told(evaluation)
    assert evaluation.score_of("short").prototype_mean is None
    assert evaluation.score_of("short").individual_mean == evaluation.score_of("short").mean == 9.0


async def test_no_own_chain_wanted_and_nobody_who_agreed_is_a_clear_error(
    neighbors: Neighbors,
) -> None:
    for user in PEOPLE:
        neighbors.memory.set_consent(user, False)
    for user in ("ann", "new"):
        with pytest.raises(ConfigurationError, match="nobody similar has agreed"):
            await run(user, neighbors, ScriptedEngine(judge), individual=0)


# --- stop when sure ---


def wavering(rng: np.random.Generator) -> Callable[[Prompt, int], str]:
    """Likes either candidate by chance."""

    def reply(prompt: Prompt, _: int) -> str:
        marks: Sequence[float] = rng.integers(1, 11, size=2).tolist()
        return write_chain(list(marks))

    return reply


async def test_who_is_sure_stops_early(neighbors: Neighbors) -> None:
    engine = ScriptedEngine(judge)
    evaluation, state = await run(
        "ann", neighbors, engine, individual=16, prototype=0, stop_when_sure=0.9
    )
    assert len(evaluation.chains) == 4
    assert state["round"] == 1


async def test_fewer_than_four_chains_settle_nothing(neighbors: Neighbors) -> None:
    """Rounds of two, three and four of each level: only the user's own come where nobody has agreed."""
    for user in PEOPLE:
        neighbors.memory.set_consent(user, False)
    evaluation, state = await run(
        "ann", neighbors, ScriptedEngine(judge), individual=4, prototype=4, stop_when_sure=0.9
    )
    assert len(evaluation.chains) == 4
    assert state["round"] == 3


async def test_copies_settle_nothing(neighbors: Neighbors) -> None:
    evaluation, _ = await run(
        "ann",
        neighbors,
        ScriptedEngine(judge),
        **{"individual": 16, "prototype": 0, "stop_when_sure": 0.9, "temperature": 0.0},
    )
    assert len(evaluation.chains) == 16


async def test_who_is_not_sure_spends_the_budget_and_no_more(neighbors: Neighbors) -> None:
    engine = ScriptedEngine(wavering(np.random.default_rng(0)))
    evaluation, state = await run(
        "ann", neighbors, engine, individual=16, prototype=2, stop_when_sure=0.999
    )
    levels = [chain.level for chain in evaluation.chains]
    assert (levels.count("individual"), levels.count("prototype")) == (16, 2)
    assert state["round"] == 4
    assert evaluation.usage.chains_sampled == 18
    orders = [chain.order for chain in evaluation.chains if chain.level == "individual"]
    assert orders.count((0, 1)) == orders.count((1, 0)) == 8


async def test_the_whole_budget_in_rounds_is_planned_as_at_once(neighbors: Neighbors) -> None:
    # Marks depend on the prompt and the sample's seed only.
    def reply(prompt: Prompt, number: int) -> str:
        rng = np.random.default_rng([len(prompt.messages[-1].content), number])
        return write_chain(rng.integers(1, 11, size=2).tolist())

    at_once, _ = await run("ann", neighbors, ScriptedEngine(reply), individual=8, prototype=2)
    rounds, state = await run(
        "ann", neighbors, ScriptedEngine(reply), individual=8, prototype=2, stop_when_sure=0.9999
    )
    seeds = [sorted(chain.seed for chain in evaluation.chains) for evaluation in (at_once, rounds)]
    assert seeds[0] == seeds[1]
    assert json.dumps(state["failures"]) == "[]"


async def test_an_unreadable_chain_of_an_earlier_round_is_not_sampled_again(
    neighbors: Neighbors,
) -> None:
    def reply(prompt: Prompt, number: int) -> str:
        return "nothing of use" if number == 0 else write_chain([5, 5])

    engine = ScriptedEngine(reply)
    evaluation, state = await run(
        "ann",
        neighbors,
        engine,
        individual=16,
        prototype=0,
        resamples=1,
        stop_when_sure=0.999,
    )
    assert state["round"] == 4
    rows = sum(prompt.n for prompts, _ in engine.calls for prompt in prompts)
    assert evaluation.usage.chains_sampled == rows
    unreadable = len(evaluation.failures)
    assert rows == 16 + unreadable / 2
