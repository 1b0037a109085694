"""A teacher's chains: kept where they are right, counted where not, and paid for once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pgenrm_agent.chain import ChainFormat, parse_chain
from pgenrm_agent.cli.train import app
from pgenrm_agent.engines.protocol import Completion, Engine, Prompt, SamplingParams
from pgenrm_agent.errors import ConfigurationError, EngineTimeout
from pgenrm_agent.evaluation.datasets.rows import Example
from pgenrm_agent.model_files import bundled_model
from pgenrm_agent.schema import PreferencePair, StatedPreference
from pgenrm_agent.testing import ScriptedEngine, write_chain
from pgenrm_agent.training.chain_dataset import (
    CHAINS,
    DATASET,
    REPORT,
    ChainDatasetReport,
    example_key,
    read_dataset,
    sample_chains,
)

FORMAT = ChainFormat.load("published")
SECRET = "Only in verse, please."


def choice(number: int) -> Example:
    return Example(
        user_id=f"user-{number}",
        history=(PreferencePair(query="before", chosen="liked", rejected="disliked"),),
        stated=(StatedPreference(text=SECRET),),
        asked=PreferencePair(query=f"ask {number}", chosen="THE-GOOD one", rejected="the bad one"),
    )


def right(prompt: Prompt, number: int) -> str:
    """Prefers the chosen answer, wherever it stands."""
    return write_chain([9, 2] if chosen_first(prompt) else [2, 9])


def chosen_first(prompt: Prompt) -> bool:
    text = prompt.messages[-1].content
    return text.index("THE-GOOD") < text.index("the bad")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def asked_for(engine: ScriptedEngine) -> int:
    return sum(prompt.n for prompts, _ in engine.calls for prompt in prompts)


async def sample(
    engine: Engine, out: Path, count: int = 3, chains: int = 4, **more: Any
) -> ChainDatasetReport:
    return await sample_chains(
        engine, FORMAT, [choice(i) for i in range(count)], out, chains=chains, seed=1, **more
    )


async def test_chains_that_rank_as_the_person_did_are_kept(tmp_path: Path) -> None:
    def reply(prompt: Prompt, number: int) -> str:
        # Each order gets two samples: the first is right, the second says the contrary.
        first = chosen_first(prompt) == (number == 0)
        return write_chain([9, 2] if first else [2, 9])

    report = await sample(ScriptedEngine(reply), tmp_path)
    assert report.outcomes == {"kept": 6, "ranking disagrees with the choice": 6}
    assert (report.chains, report.kept, report.examples_with_a_kept_chain) == (12, 6, 3)
    kept = rows(tmp_path / DATASET)
    assert len(kept) == 6
    for row in kept:
        shown = row["prompt"][-1]["content"]
        first = shown.index("THE-GOOD") < shown.index("the bad")
        totals = parse_chain(row["completion"][0]["content"], ("1", "2")).totals
        assert (totals["1"] > totals["2"]) == first
    assert {row["user_id"] for row in kept} == {"user-0", "user-1", "user-2"}
    assert ChainDatasetReport.model_validate_json((tmp_path / REPORT).read_text()) == report


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (write_chain([5, 5]), "tie"),
        ("no chain at all", "unreadable: "),
        (write_chain([5]), "unreadable: missing_candidates"),
        ("word " * 100_000, "unreadable: truncated"),
        ("<think>" + "word " * 100_000, "unreadable: unfinished_reasoning"),
    ],
)
async def test_why_a_chain_was_not_kept_is_counted(
    tmp_path: Path, reply: str, outcome: str
) -> None:
    report = await sample(ScriptedEngine(reply), tmp_path)
    assert report.kept == 0
    ((why, count),) = report.outcomes.items()
    assert why.startswith(outcome)
    assert count == 12
    assert rows(tmp_path / DATASET) == []
    assert len(rows(tmp_path / CHAINS)) == 12  # paid for, so not thrown away


async def test_a_student_does_not_learn_what_its_teacher_thought(tmp_path: Path) -> None:
    engine = ScriptedEngine(
        lambda prompt, number: (
            f"<think>\n### Criteria\n1. Fun (100%)\n</think>\n\n{right(prompt, number)}"
        )
    )
    report = await sample(engine, tmp_path, count=1)
    assert report.kept == 4
    for row in rows(tmp_path / DATASET):
        assert row["completion"][0]["content"].startswith("## Part 1")
    assert all(row["text"].startswith("<think>") for row in rows(tmp_path / CHAINS))


async def test_the_teacher_sees_what_the_person_stated_and_history(tmp_path: Path) -> None:
    engine = ScriptedEngine(right)
    await sample(engine, tmp_path, withhold_stated=True)
    for prompts, _ in engine.calls:
        for prompt in prompts:
            shown = " ".join(message.content for message in prompt.messages)
            assert SECRET in shown
            assert "disliked" in shown
    # ... and the student need not.
    written = (tmp_path / DATASET).read_text()
    assert "disliked" in written
    assert SECRET not in written
    await sample(engine, tmp_path)
    assert SECRET in (tmp_path / DATASET).read_text()


async def test_what_is_kept_of_a_teacher_that_favors_a_place_is_told(tmp_path: Path) -> None:
    report = await sample(ScriptedEngine(write_chain([9, 2])), tmp_path)
    assert (report.chains, report.kept, report.kept_chosen_first) == (12, 6, 6)
    fair = await sample(ScriptedEngine(right), tmp_path / "fair")
    assert (fair.kept, fair.kept_chosen_first) == (12, 6)


@pytest.mark.parametrize("chains", [2, 3, 8])
async def test_both_answers_stand_first_equally_often(tmp_path: Path, chains: int) -> None:
    await sample(ScriptedEngine(right), tmp_path, count=40, chains=chains)
    counts = Counter(row["chosen_first"] for row in rows(tmp_path / CHAINS))
    assert sum(counts.values()) == 40 * chains
    # Of an odd number, either order gets the odd one: a fair coin over 40 choices.
    assert abs(counts[True] - counts[False]) <= (0 if chains % 2 == 0 else 20)


async def test_a_chain_is_never_paid_for_twice(tmp_path: Path) -> None:
    engine = ScriptedEngine(right)
    await sample(engine, tmp_path, count=2, chains=2)
    assert asked_for(engine) == 4
    again = await sample(engine, tmp_path, count=2, chains=2)
    assert asked_for(engine) == 4
    assert (again.chains, again.sampled_now) == (4, 0)
    more = await sample(engine, tmp_path, count=3, chains=4)  # more choices, more chains of each
    assert asked_for(engine) == 12
    assert (more.chains, more.sampled_now, more.kept) == (12, 8, 12)
    assert len({row["seed"] for row in rows(tmp_path / CHAINS)}) == 10  # 2 orders x (2 + 2 + 1)
    fewer = await sample(engine, tmp_path, count=1, chains=2)
    assert (fewer.examples, fewer.sampled_now) == (1, 0)


async def test_equal_choices_count_once(tmp_path: Path) -> None:
    engine = ScriptedEngine(right)
    twice = [choice(1), choice(1)]  # with ids and times of their own
    assert example_key(twice[0]) == example_key(twice[1]) != example_key(choice(2))
    report = await sample_chains(engine, FORMAT, twice, tmp_path, chains=2, seed=1)
    assert (report.examples, asked_for(engine)) == (1, 2)


class Unreliable(ScriptedEngine):
    """Fails at every call but the first few."""

    def __init__(self, good: int) -> None:
        super().__init__(right)
        self._good = good

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        if len(self.calls) >= self._good:
            raise EngineTimeout("the server went away")
        return await super().sample(prompts, params)


async def test_a_run_that_fails_keeps_what_it_has_and_goes_on(tmp_path: Path) -> None:
    with pytest.raises(EngineTimeout, match="went away"):
        await sample(Unreliable(good=5), tmp_path / "cut", count=12)
    there = len(rows(tmp_path / "cut" / CHAINS))
    assert there == 5 * 4
    with (tmp_path / "cut" / CHAINS).open("a") as file:
        file.write('{"example": "torn')  # as if it had been killed while it wrote
    engine = ScriptedEngine(right)
    report = await sample(engine, tmp_path / "cut", count=12)
    assert asked_for(engine) == 12 * 4 - there
    whole = await sample(ScriptedEngine(right), tmp_path / "whole", count=12)
    timeless = {"seconds", "sampled_now"}
    assert report.model_dump(exclude=timeless) == whole.model_dump(exclude=timeless)
    assert (tmp_path / "cut" / DATASET).read_text() == (tmp_path / "whole" / DATASET).read_text()


class Narrow(ScriptedEngine):
    """Refuses one person's choice, as an engine does with a prompt that is too long."""

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        if any("ask 1" in message.content for prompt in prompts for message in prompt.messages):
            raise ConfigurationError("the prompt has 9,000 tokens and the context 6,144")
        return await super().sample(prompts, params)


async def test_a_choice_that_the_engine_refuses_is_counted_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    report = await sample(Narrow(right), tmp_path)
    assert report.outcomes == {"kept": 8, "refused by the engine": 4}
    with pytest.raises(ConfigurationError, match="9,000 tokens"):
        await sample_chains(Narrow(right), FORMAT, [choice(1)], tmp_path / "b", chains=2, seed=1)


async def test_chains_of_two_settings_are_not_mixed(tmp_path: Path) -> None:
    await sample(ScriptedEngine(right), tmp_path)
    with pytest.raises(ConfigurationError, match=r"temperature = 1\.0, and 0\.5"):
        await sample(ScriptedEngine(right), tmp_path, temperature=0.5)
    with pytest.raises(ConfigurationError, match="chains is 0"):
        await sample(ScriptedEngine(right), tmp_path, chains=0)
    with pytest.raises(ConfigurationError, match="no choices"):
        await sample(ScriptedEngine(right), tmp_path, count=0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2, field row: it is not JSON"),
        ('{"user_id": "a", "prompt": [], "completion": []}', "line 2, field prompt: "),
        (
            '{"user_id": "a", "prompt": [{"role": "user"}], "completion": []}',
            r"line 2, field prompt\.0\.content: ",
        ),
    ],
)
async def test_a_spoilt_row_is_named(tmp_path: Path, line: str, message: str) -> None:
    await sample(ScriptedEngine(right), tmp_path, count=1, chains=1)
    with (tmp_path / DATASET).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ConfigurationError, match=message):
        read_dataset(tmp_path)


async def test_a_dataset_without_chains_says_where_the_reasons_are(tmp_path: Path) -> None:
    await sample(ScriptedEngine(write_chain([5, 5])), tmp_path)
    with pytest.raises(ConfigurationError, match=r"none was kept; .*report\.json counts why"):
        read_dataset(tmp_path)
    with pytest.raises(ConfigurationError, match="no such dataset"):
        read_dataset(tmp_path / "elsewhere")


async def test_progress_tells_chains_there_and_wanted(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    await sample(ScriptedEngine(right), tmp_path, count=1)
    await sample(ScriptedEngine(right), tmp_path, progress=lambda *both: told.append(both))
    assert told == [(4, 12), (8, 12), (12, 12)]


LIKES_LISTS = [
    ("How do I boil an egg?", "- Boil water.\n- Add the egg.\n- Wait 8 minutes.", "Just boil it."),
    ("How do I cook rice?", "1. Rinse it.\n2. Boil it for 12 minutes.", "Boil it until done."),
    (
        "How do I make tea?",
        "- Boil water.\n- Add 1 bag.\n- Wait.",
        "Pour water over it, my friend!",
    ),
    ("How do I fry an egg?", "1. Heat oil.\n2. Add the egg.\n3. Wait.", "In a pan, of course."),
]


@pytest.mark.long
def test_the_bundled_model_teaches(tmp_path: Path) -> None:
    data, out = tmp_path / "choices.jsonl", tmp_path / "out"
    data.write_text(
        "".join(
            json.dumps({"user_id": "ada", "query": q, "chosen": a, "rejected": b, "split": "train"})
            + "\n"
            for q, a, b in LIKES_LISTS
        )
    )

    def run(*more: str) -> dict[str, Any]:
        command = ("chains", "--data", str(data), "--teacher", str(bundled_model()), "--json")
        done = CliRunner().invoke(app, [*command, "--out", str(out), *more])
        assert done.exit_code == 0, done.output
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    first = run("--chains", "2", "--limit", "1")
    assert (first["examples"], first["chains"], first["sampled_now"]) == (1, 2, 2)
    assert first["completion_tokens"] > 2 * 50
    whole = run("--chains", "2")
    assert (whole["examples"], whole["chains"], whole["sampled_now"]) == (4, 8, 6)
    assert 0 < whole["kept"] == len(rows(out / DATASET)) == len(read_dataset(out))
    assert sum(whole["outcomes"].values()) == 8
    # What is kept is what the model's own format parses, with the person's choice ahead.
    for row in rows(out / DATASET):
        chain = parse_chain(row["completion"][0]["content"], ("1", "2"), asks_totals=False)
        assert chain.persona.text
