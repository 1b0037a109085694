"""Prototype learning: who is learned from, what a kill costs, and the real model end to end."""

from __future__ import annotations

import asyncio
import random
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from moments import every_moment
from users_learned_from import PERSONAS, context, describe, fill, names_in_force, scoring

from pgenrm_agent import PGenRM, PreferencePair, Scaling
from pgenrm_agent.embedding import HashingEmbedder
from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.errors import ConfigurationError, EngineError
from pgenrm_agent.graphs.learning_jobs import Job, merged
from pgenrm_agent.graphs.prototype_learning import build_graph, learn_prototypes
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.prototypes import PrototypeStore
from pgenrm_agent.prototypes.fitting import Choices, FittedPrototypes, fit_prototypes, names_of
from pgenrm_agent.prototypes.refinement import Samples
from pgenrm_agent.testing import ScriptedEngine

SCRIPT = Path(__file__).parents[2] / "support" / "users_learned_from.py"


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[UserMemory]:
    """Twelve people of two tastes with three choices each; the last two have not agreed."""
    with UserMemory(tmp_path / "memory") as opened:
        fill(opened)
        yield opened


async def test_people_of_one_taste_come_together(memory: UserMemory) -> None:
    told: list[tuple[str, int, int]] = []
    learned = await learn_prototypes(
        context(
            memory, ScriptedEngine(describe), on_progress=lambda *progress: told.append(progress)
        )
    )
    assert (learned.prototypes, learned.users, learned.personas) == (2, 10, 20)
    version = PrototypeStore(memory).current()
    assert version is not None
    by_taste = {
        taste: {int(version.homes[f"u{n}"][0]) for n in range(10) if n % 2 == i}
        for i, taste in enumerate(PERSONAS)
    }
    assert all(len(homes) == 1 for homes in by_taste.values())
    assert by_taste["plain"] != by_taste["warm"]
    assert {"plain", "warm"} <= {word for label in version.labels for word in label.split(", ")}
    assert ("personas", 20, 20) in told
    assert "u11" not in version.homes


async def test_a_choice_is_not_shown_to_derive_the_persona_of_its_own_query(
    memory: UserMemory,
) -> None:
    engine = ScriptedEngine(describe)
    await learn_prototypes(context(memory, engine))
    for prompts, _ in engine.calls:
        for prompt in prompts:
            asked = re.search(r"Question \d of \d+", prompt.messages[-1].content)
            assert asked is not None
            assert asked[0] not in prompt.messages[0].content
            assert prompt.messages[0].content.count("Chosen:") == 2


@pytest.mark.parametrize("when", ["before", "after the personas"])
async def test_what_a_newer_choice_overrules_is_neither_shown_nor_learned_from(
    memory: UserMemory, when: str
) -> None:
    """The answers stand the other way round in it, so its sign would be wrong as well."""
    taken_back = PreferencePair(query="Question 1 of 4", chosen="or not", rejected="very plain")

    def take_back(*_: object) -> None:
        memory.remember("u4", taken_back)

    learned_from: list[Choices] = []

    def fit(choices: Choices, k: int | None, seed: int) -> FittedPrototypes:
        learned_from.append(choices)
        return fit_prototypes(choices, k, seed)

    def told(what: str, done: int, total: int) -> None:
        if when != "before" and what == "personas" and done == total:
            take_back()

    if when == "before":
        take_back()
    engine = ScriptedEngine(describe)
    learned = await learn_prototypes(context(memory, engine, queries=3, fit=fit, on_progress=told))
    assert (learned.personas, learned.unreadable) == (30, 0)
    samples = learned_from[0].samples
    overruled = HashingEmbedder().embed(["very plain", "or not"])
    overruled_query = HashingEmbedder().embed([taken_back.query])[0]
    signs = {
        bool((samples.chosen[row] == overruled[0]).all())
        for row in np.flatnonzero((samples.query == overruled_query).all(axis=1))
    }
    past = (samples.past_query == overruled_query).all(axis=2) & samples.past
    gaps = samples.past_difference[past]
    assert (gaps == overruled[1] - overruled[0]).all()
    if when == "before":
        assert signs == {False}
        shown = [prompt.messages[0].content for prompts, _ in engine.calls for prompt in prompts]
        of_it = [text for text in shown if taken_back.query in text]
        assert len(of_it) == 2  # for each of their two other choices
        for text in of_it:
            assert text.count(taken_back.query) == 1
            assert "very plain" not in text.split(taken_back.query)[1].split("Rejected:")[0]
    else:
        assert signs == set()  # its persona was derived; it is not learned from
        assert len(samples) == 29
    status = PrototypeStore(memory).status()
    assert (status.pairs_since, status.not_members) == (0, 0)
    memory.remember("u1", taken_back)
    assert PrototypeStore(memory).status().pairs_since == 1


async def test_a_run_that_was_cut_off_samples_nothing_twice(
    memory: UserMemory, tmp_path: Path
) -> None:
    engine = ScriptedEngine(describe)
    asked = 0

    def dies_later(prompt: Prompt, number: int) -> str:
        nonlocal asked
        asked += 1
        if asked == 13:
            raise EngineError("the machine was switched off")
        return describe(prompt, number)

    keep = tmp_path / "kept.sqlite"
    with pytest.raises(EngineError, match="switched off"):
        await learn_prototypes(context(memory, ScriptedEngine(dies_later)), keep=keep)
    assert PrototypeStore(memory).current() is None
    learned = await learn_prototypes(context(memory, engine), keep=keep)
    assert learned.personas == 20
    assert sum(len(prompts) for prompts, _ in engine.calls) == 10  # two batches of five were kept
    again = ScriptedEngine(describe)
    await learn_prototypes(context(memory, again), keep=keep)
    assert sum(len(prompts) for prompts, _ in again.calls) == 20  # a finished run is finished


async def test_whoever_withdraws_before_a_build_goes_on_is_not_asked_about(
    memory: UserMemory, tmp_path: Path
) -> None:
    asked = 0

    def stops(prompt: Prompt, number: int) -> str:
        nonlocal asked
        asked += 1
        if asked == 6:
            raise EngineError("the budget is spent")
        return describe(prompt, number)

    keep = tmp_path / "kept.sqlite"
    with pytest.raises(EngineError, match="budget"):
        await learn_prototypes(context(memory, ScriptedEngine(stops)), keep=keep)
    memory.set_consent("u9", False)
    withdrawn = {pair.query for pair in memory.history("u9")}
    others = {pair.query for n in range(9) for pair in memory.history(f"u{n}")}
    engine = ScriptedEngine(describe)
    await learn_prototypes(context(memory, engine), keep=keep)
    sent = "".join(
        m.content for prompts, _ in engine.calls for prompt in prompts for m in prompt.messages
    )
    assert sent
    assert not any(query in sent for query in withdrawn - others)


async def test_a_kept_file_that_a_stranger_wrote_runs_nothing(
    memory: UserMemory, tmp_path: Path
) -> None:
    keep, made = tmp_path / "kept.sqlite", tmp_path / "made"
    fails = ScriptedEngine(lambda prompt, number: 1 / 0)  # type: ignore[arg-type, return-value]
    with pytest.raises(ZeroDivisionError):
        await learn_prototypes(context(memory, fails), keep=keep)
    call = ormsgpack.Ext(0, ormsgpack.packb(("os", "mkdir", str(made))))
    with sqlite3.connect(keep) as kept:
        kept.execute("UPDATE checkpoints SET checkpoint = ?", (ormsgpack.packb([call]),))
    kept.close()
    with pytest.raises(ConfigurationError, match="not plain data"):
        await learn_prototypes(context(memory, ScriptedEngine(describe)), keep=keep)
    await learn_prototypes(context(memory, ScriptedEngine(describe)), keep=keep, fresh=True)
    assert not made.exists()


async def test_a_build_killed_at_whatever_moment_goes_on_from_there(
    memory: UserMemory, tmp_path: Path
) -> None:
    keep, engine = tmp_path / "kept.sqlite", ScriptedEngine(describe)

    def asked() -> int:
        return sum(len(prompts) for prompts, _ in engine.calls)

    with every_moment(keep, tmp_path / "moments", asked) as copies:
        await learn_prototypes(context(memory, engine), keep=keep)
    assert {done for _, done in copies} == {0, 5, 10, 15, 20}
    unsaid = [copy for copy, _ in copies if await next_nodes(copy) == ()]
    assert len(unsaid) > 5  # a node's results are there, the checkpoint behind them is not
    for copy, done in copies:
        engine.calls.clear()
        learned = await learn_prototypes(context(memory, engine), keep=copy)
        assert (learned.personas, learned.users, learned.unreadable) == (20, 10, 0)
        assert asked() == 20 - done, copy.name
        assert not copy.exists()


async def next_nodes(kept: Path) -> tuple[str, ...]:
    """What LangGraph says comes next in the run that is in the file."""
    async with AsyncSqliteSaver.from_conn_string(str(kept)) as saver:
        (newest,) = [checkpoint async for checkpoint in saver.alist(None, limit=1)]
        thread = {"thread_id": newest.config["configurable"]["thread_id"]}
        return (await build_graph(saver).aget_state({"configurable": thread})).next


jobs = st.lists(
    st.builds(Job, user=st.sampled_from("abc"), choice=st.sampled_from("123")), max_size=5
)


@given(first=st.lists(jobs, max_size=4), then=st.lists(jobs, max_size=4))
def test_what_is_written_again_is_there_once_in_whatever_batches(
    first: list[list[Job]], then: list[list[Job]]
) -> None:
    together = merged([], [*first, *then])
    assert merged(merged([], first), then) == together
    assert merged(together, [*first, *then]) == together
    keys = [(job["user"], job["choice"]) for job in together]
    assert len(keys) == len(set(keys))


@pytest.mark.long
def test_a_build_that_is_killed_samples_no_batch_twice(tmp_path: Path) -> None:
    with UserMemory(tmp_path / "memory") as memory:
        fill(memory)
    keep, log = tmp_path / "kept.sqlite", tmp_path / "log"
    draw = random.Random(0)
    for _ in range(3):
        killed = learn(tmp_path / "memory", keep, log, dies_after=draw.randrange(1, 4))
        assert killed.returncode == -9, killed.stderr
    done = learn(tmp_path / "memory", keep, log, dies_after=99)
    assert done.returncode == 0, done.stderr
    assert '"personas":20' in done.stdout
    # Only the batch that was under way when it died is asked for again, and it was not answered.
    assert sum(int(line) for line in log.read_text().split()) == 20


def learn(
    memory: Path, keep: Path, log: Path, *, dies_after: int
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", str(SCRIPT), "learn", str(memory), str(keep), str(log)]
    return subprocess.run(
        [*command, str(dies_after)], capture_output=True, text=True, timeout=240, check=False
    )


async def test_what_is_kept_of_a_build_grows_with_it_and_not_faster(
    memory: UserMemory, tmp_path: Path
) -> None:
    """No checkpoint holds all that was done before it."""
    keep = tmp_path / "kept.sqlite"

    def fit(choices: Choices, k: int | None, seed: int) -> FittedPrototypes:
        raise EngineError("everything is sampled")

    with pytest.raises(EngineError):
        await learn_prototypes(
            context(memory, ScriptedEngine(describe), batch=1, fit=fit), keep=keep
        )
    with sqlite3.connect(keep) as kept:
        rows = kept.execute("SELECT length(checkpoint) FROM checkpoints ORDER BY checkpoint_id")
        sizes = [size for (size,) in rows]
    assert len(sizes) > 20
    assert sizes[-1] < 1.1 * sizes[5]


async def test_scoring_while_builds_run_sees_one_version_at_a_time(memory: UserMemory) -> None:
    told: list[tuple[str, ...]] = []
    versions: list[frozenset[str]] = []
    built = asyncio.Event()

    async def build() -> None:
        for seed in range(1, 4):
            await learn_prototypes(
                context(memory, ScriptedEngine(describe, latency_s=0.02), seed=seed)
            )
            versions.append(names_in_force(memory))
        built.set()

    with scoring(memory) as rm:

        async def score() -> None:
            while not built.is_set():
                evaluation = await rm.ascore("u11", "A question", ["short", "chatty"])
                told.append(evaluation.neighbors)

        await learn_prototypes(context(memory, ScriptedEngine(describe)))
        versions.append(names_in_force(memory))
        await asyncio.gather(build(), score(), score())
    each_of_one_version(told, versions)


@pytest.mark.long
def test_scoring_in_another_process_over_a_server_sees_one_version_at_a_time(
    chroma_server: str,
) -> None:
    with UserMemory(url=chroma_server) as memory:
        fill(memory)
        asyncio.run(learn_prototypes(context(memory, ScriptedEngine(describe))))
        versions = [names_in_force(memory)]
        command = [sys.executable, "-P", str(SCRIPT), "score", chroma_server]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as scorer:
            assert scorer.stdout is not None
            assert scorer.stdout.readline().strip() == "scoring"
            assert scorer.stdout.readline()
            for seed in range(1, 4):
                asyncio.run(learn_prototypes(context(memory, ScriptedEngine(describe), seed=seed)))
                versions.append(names_in_force(memory))
            said, _ = scorer.communicate("enough\n", timeout=240)
        assert scorer.returncode == 0
    each_of_one_version([tuple(line.split()) for line in said.splitlines()], versions)


def each_of_one_version(told: list[tuple[str, ...]], versions: list[frozenset[str]]) -> None:
    """Every evaluation's similar people are of a single version, and several versions were met."""
    met = [
        [number for number, names in enumerate(versions) if set(told_names) <= names]
        for told_names in told
    ]
    assert all(len(told_names) == 4 for told_names in told)
    assert all(len(numbers) == 1 for numbers in met)
    assert len({numbers[0] for numbers in met}) >= 2


async def test_a_build_kept_can_be_started_afresh(memory: UserMemory, tmp_path: Path) -> None:
    keep = tmp_path / "kept.sqlite"
    fails = ScriptedEngine(["nothing of use"], fail_times=9)
    with pytest.raises(EngineError):
        await learn_prototypes(context(memory, fails), keep=keep)
    engine = ScriptedEngine(describe)
    await learn_prototypes(context(memory, engine), keep=keep, fresh=True)
    assert sum(len(prompts) for prompts, _ in engine.calls) == 20


async def test_nobody_who_agreed_is_a_clear_error(tmp_path: Path) -> None:
    with (
        UserMemory(tmp_path / "empty") as empty,
        pytest.raises(ConfigurationError, match=r"nobody .* users consent"),
    ):
        await learn_prototypes(context(empty, ScriptedEngine(describe)))


async def test_texts_that_are_no_chain_are_counted_and_all_of_them_is_an_error(
    memory: UserMemory,
) -> None:
    def sometimes(prompt: Prompt, number: int) -> str:
        return describe(prompt, number) if "Question 1" in prompt.messages[-1].content else " "

    learned = await learn_prototypes(context(memory, ScriptedEngine(sometimes), queries=3))
    assert (learned.personas, learned.unreadable) == (10, 20)
    with pytest.raises(ConfigurationError, match="none of 20 personas"):
        await learn_prototypes(context(memory, ScriptedEngine(" ")))


def test_names_say_what_sets_a_prototype_apart() -> None:
    texts = ["wants plain answers"] * 3 + ["wants warm answers"] * 3
    names = names_of(texts, np.array([0, 0, 0, 1, 1, 1]), 2)
    assert names == ("plain", "warm")
    # Most say it everywhere, and so it is the form; that some leave it out changes nothing.
    form = "In this request this person wants {}, then honesty."
    wishes = ["numbers"] * 4 + ["warmth"] * 5 + ["warmth and order"] * 3
    labels = np.array([0] * 4 + [1] * 8)
    assert names_of([form.format(wish) for wish in wishes], labels, 2) == (
        "numbers",
        "warmth, order",
    )


def test_names_tell_nothing_of_a_single_person() -> None:
    texts = [*["plain, and my rare illness"] * 3, "plain", "plain", "warm"]
    labels = np.array([0, 0, 0, 0, 0, 1])
    # The first three are one person's: the illness is hers alone, and so is all of "warm".
    assert names_of(texts, labels, 2, users=[0, 0, 0, 1, 2, 3]) == ("plain", "")
    assert names_of(["", ""], np.array([0, 1]), 2) == ("", "")


async def test_whoever_withdraws_during_a_build_is_not_learned_from(memory: UserMemory) -> None:
    fitted: list[tuple[str, ...]] = []

    def fit(choices: Choices, k: int | None, seed: int) -> FittedPrototypes:
        fitted.append(choices.texts)
        memory.forget("u1")  # while the fit takes its time
        return fit_prototypes(choices, k, seed)

    def told(what: str, done: int, total: int) -> None:
        if what == "personas" and done == total:
            memory.set_consent("u0", False)

    learned = await learn_prototypes(
        context(memory, ScriptedEngine(describe), fit=fit, on_progress=told)
    )
    assert len(fitted[0]) == 18  # two personas each of nine people: u0's are left out
    version = PrototypeStore(memory).current()
    assert version is not None
    assert version.version == learned.version
    assert set(version.user_ids) == {f"u{n}" for n in range(2, 10)}


async def test_a_build_that_is_canceled_while_it_fits_replaces_nothing(memory: UserMemory) -> None:
    before = await learn_prototypes(context(memory, ScriptedEngine(describe)))
    fitting, go_on = threading.Event(), threading.Event()

    def fit(choices: Choices, k: int | None, seed: int) -> FittedPrototypes:
        fitting.set()
        assert go_on.wait(60)
        return fit_prototypes(choices, k, seed)

    build = asyncio.create_task(
        learn_prototypes(context(memory, ScriptedEngine(describe), fit=fit))
    )
    assert await asyncio.to_thread(fitting.wait, 60)
    build.cancel()
    with pytest.raises(asyncio.CancelledError):
        await build
    go_on.set()
    await asyncio.get_running_loop().shutdown_default_executor()  # the thread has come to its end
    version = PrototypeStore(memory).current()
    assert version is not None
    assert version.version == before.version


async def test_personas_do_not_outlive_the_build_that_they_were_kept_for(
    memory: UserMemory, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.sqlite"
    await learn_prototypes(context(memory, ScriptedEngine(describe)), keep=kept)
    assert not list(tmp_path.glob("kept.sqlite*"))


def test_more_prototypes_than_different_personas_are_clipped() -> None:
    rows = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]]
    past = np.zeros((4, 1, 4), dtype=np.float32)
    samples = Samples(rows, rows, rows, -rows, past, past, np.zeros((4, 1), dtype=bool))
    fitted = fit_prototypes(Choices(samples, ("a", "a", "b", "b")), 9)
    assert len(fitted.prototypes) == 2
    assert "2 different personas" in fitted.reason


def test_the_bundled_model_learns_uses_and_draws_prototypes(tmp_path: Path) -> None:
    from pgenrm_agent.demo import demo_data
    from pgenrm_agent.prototypes.picture import plot_prototypes

    data = demo_data()
    with PGenRM(memory=tmp_path / "memory") as rm:
        for person in data.users:
            for copy in "ab":
                for number, pair in enumerate(data.pairs(person)):
                    rm.remember(
                        f"{person.id}-{copy}", pair.model_copy(update={"id": f"{copy}{number}"})
                    )
                rm.memory.set_consent(f"{person.id}-{copy}", True)
        learned = rm.learn_prototypes(k=2, queries=1, keep=tmp_path / "kept.sqlite")
        assert learned.prototypes <= 2
        user = f"{data.users[0].id}-a"
        scaling = Scaling(individual=4, prototype=4, seed=1)
        evaluation = rm.score(user, data.query, list(data.candidates.values()), scaling=scaling)
        levels = {chain.level for chain in evaluation.chains}
        assert levels == {"individual", "prototype"}
        assert evaluation.prototype in ("0", "1")
        assert len(evaluation.neighbors) == 4
        version = rm.prototypes.current()
        assert version is not None
        assert version.embedder.startswith("tokens:pgenrm-tiny:")
        picture = tmp_path / "map.png"
        plot_prototypes(version, picture)
        assert picture.read_bytes().startswith(b"\x89PNG")
