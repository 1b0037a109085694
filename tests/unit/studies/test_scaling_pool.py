"""Sampling a scaling study through the real graph, memory and prototypes, from a scripted model."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.embedding import HashingEmbedder
from pgenrm_agent.engines.protocol import Completion, Prompt, SamplingParams
from pgenrm_agent.errors import ConfigurationError, EngineTimeout
from pgenrm_agent.testing import ScriptedEngine, write_chain
from pgenrm_agent.training.bundled.simulation import World, load_answers
from studies.bundled.evaluate import chance
from studies.scaling.pool import (
    BUDGETS,
    RECORDS,
    ScalingRecord,
    Study,
    read_study,
    sample_study,
)
from studies.scaling.population import Agreement, draw_population
from studies.scaling.tables import report

STUDY = Study(users=3, newcomers=4, seeds=2, members=10, individual=4, prototype=3, few=2, ks=(2,))
PERSONAS = ("Wants plain short answers.", "Wants warm friendly chatter.", "Wants numbered lists.")


def write(prompt: Prompt, number: int) -> str:
    """Marks and persona that depend on what is asked and shown, as a model's do."""
    drawn = sum(map(ord, prompt.messages[0].content)) + prompt.seed + number
    return write_chain([1 + drawn % 9, 1 + drawn // 9 % 9], persona=PERSONAS[drawn % 3])


class Stopping(ScriptedEngine):
    """Fails for good after so many calls."""

    def __init__(self, calls_left: int) -> None:
        super().__init__(write)
        self.calls_left = calls_left

    async def sample(self, prompts: list[Prompt], params: SamplingParams) -> list[list[Completion]]:  # type: ignore[override]
        self.calls_left -= 1
        if self.calls_left < 0:
            raise EngineTimeout("the power went out")
        return await super().sample(prompts, params)


def sample(responses: Path, out: Path, engine: ScriptedEngine, only: int | None = None) -> None:
    answers = load_answers(responses / "val.jsonl.gz")
    published = ChainFormat.load("published")
    asyncio.run(sample_study(STUDY, engine, published, HashingEmbedder(), answers, out, only=only))


def run(
    responses: Path, out: Path, engine: ScriptedEngine
) -> tuple[list[ScalingRecord], list[Agreement]]:
    sample(responses, out, engine)
    return read_study(STUDY, load_answers(responses / "val.jsonl.gz"), out)


def test_every_part_is_sampled_once_with_its_budget(responses: Path, tmp_path: Path) -> None:
    records, agreements = run(responses, tmp_path, ScriptedEngine(write))
    assert len({record.key for record in records}) == len(records)
    of = {
        part: [record for record in records if record.part == part]
        for part in ("pool", "alone", "with others", "others", "timed")
    }
    users, newcomers = STUDY.users * STUDY.seeds, STUDY.newcomers * STUDY.seeds
    assert len(of["pool"]) == users
    assert len(of["alone"]) == newcomers
    assert len(of["with others"]) == newcomers + 6 * users
    assert len(of["others"]) == 3 * users  # chosen, 2, and not refined
    assert len(of["timed"]) == 3 * len(BUDGETS)
    assert {agreement.version for agreement in agreements} == {"chosen", "2", "chosen, not refined"}
    for record in of["pool"]:
        levels = [chain.level for chain in record.chains]
        assert levels == ["individual"] * 4 + ["prototype"] * 3
        assert record.prototype is not None
    for record in of["with others"]:
        own = sum(chain.level == "individual" for chain in record.chains)
        # Of somebody unknown, all chains are other users'.
        assert own == (0 if record.history == 0 else 2)
        assert len(record.chains) == 4
    assert all(record.engine_calls == 2 for record in of["pool"])
    # The more choices are known, the more can be told from them.
    sure = {
        known: np.mean([abs(record.ideal - 0.5) for record in records if record.history == known])
        for known in (0, 3)
    }
    assert sure[3] > sure[0] + 0.05
    # Both answer orders, in equal parts.
    firsts = [chain.chosen_first for record in of["pool"] for chain in record.chains[:4]]
    assert sum(firsts) == len(firsts) / 2
    tables = report(records, agreements)
    assert (tables.users, tables.newcomers, tables.seeds) == (users, newcomers, 2)
    assert [row.history for row in tables.by_known] == list(range(7))
    assert {row.accuracy.coverage for row in tables.settings} == {1.0}


def test_a_run_that_was_stopped_goes_on(responses: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineTimeout):
        run(responses, tmp_path, Stopping(40))
    there = lines(tmp_path)
    assert any(there)
    answers = load_answers(responses / "val.jsonl.gz")
    with pytest.raises(ConfigurationError, match="no complete seed"):
        read_study(STUDY, answers, tmp_path)
    records, _ = run(responses, tmp_path, ScriptedEngine(write))
    now = lines(tmp_path)
    assert [of[: len(before)] for of, before in zip(now, there, strict=True)] == there
    assert sum(map(len, now)) == len(records)
    again = ScriptedEngine(write)
    assert run(responses, tmp_path, again)[0] == records
    assert not again.calls


def test_seeds_can_be_sampled_by_processes_of_their_own(responses: Path, tmp_path: Path) -> None:
    answers = load_answers(responses / "val.jsonl.gz")
    sample(responses, tmp_path, ScriptedEngine(write), only=1)
    records, _ = read_study(STUDY, answers, tmp_path)
    assert {record.seed for record in records} == {1}
    sample(responses, tmp_path, ScriptedEngine(write), only=0)
    records, agreements = read_study(STUDY, answers, tmp_path)
    assert {record.seed for record in records} == {0, 1}
    assert "timed" not in {record.part for record in records}, (
        "others work on the machine meanwhile"
    )
    everything, same = run(responses, tmp_path, ScriptedEngine(write))
    assert [record for record in everything if record.part != "timed"] == records
    assert sum(record.part == "timed" for record in everything) == 3 * len(BUDGETS)
    assert same == agreements
    done = ScriptedEngine(write)
    assert run(responses, tmp_path, done) == (everything, agreements)
    assert not done.calls


def lines(out: Path) -> list[list[str]]:
    """What each seed has on record."""
    return [
        (out / f"seed-{seed}" / RECORDS).read_text().splitlines() for seed in range(STUDY.seeds)
    ]


def test_the_chance_of_a_choice_is_what_it_was_drawn_with(responses: Path) -> None:
    answers = load_answers(responses / "val.jsonl.gz")
    population = draw_population(World(), answers, members=1, users=400, history=0, seed=4)
    chances = np.array([chance(case, population.answers) for case in population.cases])
    # Who prefers one answer with 80 % chooses it in 80 of 100.
    expected = np.maximum(chances, 1 - chances).mean()
    assert abs((chances > 0.5).mean() - expected) < 3 * 0.5 / len(chances) ** 0.5
    assert expected > 0.8


def test_nobody_and_no_query_is_on_both_sides(responses: Path) -> None:
    answers = load_answers(responses / "val.jsonl.gz")
    population = draw_population(World(), answers, members=20, users=20, history=3, seed=4)
    members = {user.user_id for user, _ in population.members}
    assert not members & {case.user.user_id for case in population.cases}
    theirs = {pair.query for _, pairs in population.members for pair in pairs}
    asked = {
        population.answers.queries[choice.query]
        for case in population.cases
        for choice in (*case.shown, case.asked)
    }
    assert theirs
    assert asked
    assert not theirs & asked
    assert not any(re.fullmatch(r"train-\d+", member) for member in members)
