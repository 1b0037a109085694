"""Evaluations kept on disk: what is the same evaluation, and how long it is kept."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from command_line import pgenrm

from pgenrm_agent import EvaluationCache, PGenRM, PreferencePair, Prices, Scaling
from pgenrm_agent.embedding import HashingEmbedder
from pgenrm_agent.engines.protocol import Completion, FinishReason, Prompt, SamplingParams
from pgenrm_agent.errors import ConfigurationError, MemoryStoreError
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.prototypes import Member
from pgenrm_agent.schema import StatedPreference, UserSignals
from pgenrm_agent.testing import ScriptedEngine, write_chain

ANSWERS = ["Red, as ever.", "Green, and here is a long story."]
SCALING = Scaling(individual=4, prototype=0, seed=1)
PAIR = PreferencePair(query="Tea or coffee?", chosen="Tea, plainly.", rejected="It depends a lot.")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[EvaluationCache]:
    kept = EvaluationCache(tmp_path / "kept" / "evaluations.sqlite")
    yield kept
    kept.close()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(lambda prompt, _: write_chain([8, 3]))


@pytest.fixture
def rm(engine: ScriptedEngine, cache: EvaluationCache, tmp_path: Path) -> Iterator[PGenRM]:
    model = PGenRM(
        engine=engine,
        memory=tmp_path / "memory",
        scaling=SCALING,
        cache=cache,
        prices=Prices(prompt=1, completion=1),
    )
    with model:
        model.remember("ada", PAIR)
        yield model


def test_the_same_evaluation_is_made_once_and_then_costs_nothing(
    rm: PGenRM, engine: ScriptedEngine
) -> None:
    first = rm.score("ada", "Which color?", ANSWERS)
    second = rm.score("ada", "Which color?", ANSWERS)
    assert len(engine.calls) == 1
    assert not first.cached
    assert second.cached
    assert first.usage.cost
    assert second.usage.cost == 0
    assert second.usage.completion_tokens == 0
    assert (second.scores, second.chains, second.seed) == (first.scores, first.chains, first.seed)


@pytest.mark.parametrize(
    "change",
    [
        lambda rm: rm.score("ada", "Which color then?", ANSWERS),
        lambda rm: rm.score("bob", "Which color?", ANSWERS),
        lambda rm: rm.score("ada", "Which color?", ANSWERS[::-1]),
        lambda rm: rm.score("ada", "Which color?", ANSWERS, scaling=Scaling(individual=5)),
        lambda rm: rm.score(
            "ada", "Which color?", ANSWERS, scaling=SCALING.model_copy(update={"seed": 2})
        ),
        lambda rm: rm.score("ada", "Which color?", ANSWERS, signals=UserSignals(user_id="ada")),
        lambda rm: (
            rm.state_preference("ada", "Stories."),
            rm.score("ada", "Which color?", ANSWERS),
        ),
        lambda rm: (
            rm.remember("ada", PAIR.model_copy(update={"id": "x", "query": "Cat or dog?"})),
            rm.score("ada", "Which color?", ANSWERS),
        ),
    ],
)
def test_whatever_is_different_is_another_evaluation(
    rm: PGenRM, engine: ScriptedEngine, change
) -> None:
    rm.score("ada", "Which color?", ANSWERS)
    change(rm)
    assert len(engine.calls) == 2


def test_signals_that_say_the_same_are_the_same(rm: PGenRM, engine: ScriptedEngine) -> None:
    for _ in range(2):
        pair = PreferencePair(query=PAIR.query, chosen=PAIR.chosen, rejected=PAIR.rejected)
        signals = UserSignals(user_id="ada", history=(pair,))
        rm.score("ada", "Which color?", ANSWERS, signals=signals)
    assert len(engine.calls) == 1


def test_choices_in_another_order_or_under_other_names_are_others(
    rm: PGenRM, engine: ScriptedEngine
) -> None:
    """Prompts number them by age, and the result tells their ids."""
    day = datetime(2026, 1, 1, tzinfo=UTC)
    pairs = [
        PreferencePair(query=f"q{n}", chosen="a", rejected="b", id=f"p{n}", created_at=day)
        for n in range(2)
    ]
    later = pairs[0].model_copy(update={"created_at": day + timedelta(seconds=0.5)})
    named = pairs[0].model_copy(update={"id": "other"})
    for known in ((pairs[0], pairs[1]), (later, pairs[1]), (named, pairs[1])):
        signals = UserSignals(user_id="ada", history=known)
        rm.score("ada", "Which color?", ANSWERS, signals=signals)
    assert len(engine.calls) == 3
    rm.score(
        "ada",
        "Which color?",
        ANSWERS,
        signals=UserSignals(user_id="ada", history=(pairs[1], later)),
    )
    assert len(engine.calls) == 3


@pytest.mark.parametrize("shown", [None, UserSignals(user_id="ada", history=(PAIR,))])
def test_who_is_forgotten_while_it_is_written_does_not_come_back(
    cache: EvaluationCache, tmp_path: Path, shown: UserSignals | None
) -> None:
    def reply(_: object, __: int) -> str:
        model.memory.forget("ada")
        return write_chain([8, 3])

    with PGenRM(
        engine=ScriptedEngine(reply), memory=tmp_path / "memory", scaling=SCALING, cache=cache
    ) as model:
        model.remember("ada", PAIR)
        model.score("ada", "Which color?", ANSWERS, signals=shown)
        assert cache.forget("ada") == 0


@pytest.mark.parametrize("when", ["while it is written", "just before it is kept"])
def test_who_is_forgotten_by_another_process_meanwhile_does_not_come_back_either(
    cache: EvaluationCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def forget_elsewhere() -> None:
        second = EvaluationCache(cache.path)
        second.forget("ada")
        second.close()

    def reply(_: object, __: int) -> str:
        if when == "while it is written":
            forget_elsewhere()
        return write_chain([8, 3])

    put = cache.put
    if when == "just before it is kept":
        monkeypatch.setattr(cache, "put", lambda *a, **more: (forget_elsewhere(), put(*a, **more)))
    shown = UserSignals(user_id="ada", history=(PAIR,))
    with PGenRM(
        engine=ScriptedEngine(reply), memory=tmp_path / "memory", scaling=SCALING, cache=cache
    ) as model:
        model.score("ada", "Which secret color?", ANSWERS, signals=shown)
        assert b"secret color" not in cache.path.read_bytes()
        assert cache.forget("ada") == 0


def test_a_cache_that_is_gone_has_nothing_to_forget(cache: EvaluationCache) -> None:
    cache.close()
    cache.path.unlink()
    assert cache.forget("ada") == 0
    assert not cache.path.exists()


def test_a_file_that_somebody_deleted_is_not_read_any_more(
    rm: PGenRM, cache: EvaluationCache
) -> None:
    signals = UserSignals(user_id="ada", stated=(StatedPreference(text="Be brief."),))
    first = rm.score("ada", "Which?", ["red", "green"], signals=signals)
    assert rm.score("ada", "Which?", ["red", "green"], signals=signals).cached
    cache.path.unlink()
    cache.forget("ada")
    again = rm.score("ada", "Which?", ["red", "green"], signals=signals)
    assert (first.cached, again.cached) == (False, False)
    assert cache.path.exists()
    assert rm.score("ada", "Which?", ["red", "green"], signals=signals).cached
    cache.forget("ada")
    assert not rm.score("ada", "Which?", ["red", "green"], signals=signals).cached


def test_who_is_forgotten_leaves_the_file(
    rm: PGenRM, engine: ScriptedEngine, cache: EvaluationCache
) -> None:
    rm.score("ada", "Which secret color?", ANSWERS)
    rm.score("bob", "Which color?", ANSWERS)
    assert b"secret color" in cache.path.read_bytes()
    rm.forget("ada")
    assert b"secret color" not in cache.path.read_bytes()
    rm.score("bob", "Which color?", ANSWERS)
    assert len(engine.calls) == 2


def test_who_is_forgotten_by_the_memory_leaves_the_file(
    rm: PGenRM, cache: EvaluationCache, tmp_path: Path
) -> None:
    for forgets in ("its own object", "another object", "once the cache is closed"):
        rm.score("ada", "Which secret color?", ANSWERS)
        assert b"secret color" in cache.path.read_bytes()
        if forgets == "once the cache is closed":
            cache.close()
        if forgets == "another object":
            with UserMemory(tmp_path / "memory") as memory:
                memory.forget("ada")
        else:
            rm.memory.forget("ada")
        assert b"secret color" not in cache.path.read_bytes(), forgets


def test_a_memory_that_the_model_never_opened_has_the_file_forget(
    engine: ScriptedEngine, cache: EvaluationCache, tmp_path: Path
) -> None:
    with UserMemory(tmp_path / "memory") as memory:
        with PGenRM(engine=engine, memory=memory, scaling=SCALING, cache=cache) as model:
            signals = UserSignals(user_id="ada", history=(PAIR,))
            model.score("ada", "Which secret color?", ANSWERS, signals=signals)
        assert b"secret color" in cache.path.read_bytes()
        memory.forget("ada")
    assert b"secret color" not in cache.path.read_bytes()


def test_a_cache_that_cannot_forget_says_so(
    rm: PGenRM, cache: EvaluationCache, tmp_path: Path
) -> None:
    cache.close()
    cache.path.write_text("no database any more " * 100)
    with pytest.raises(MemoryStoreError, match="keeps of a user could not be removed"):
        rm.forget("ada")


def test_commands_keep_evaluations_and_forget_them(tmp_path: Path) -> None:
    file = tmp_path / "cache" / "evaluations.sqlite"
    memory = ("--memory", tmp_path / "memory")
    request = ("score", "-u", "ada", "-q", "Which secret color?", *ANSWERS, "--individual", 1)
    env = {"PGENRM_CACHE": str(file), "PGENRM_CACHE_DAYS": "1"}
    first, second = (
        json.loads(pgenrm(*request, "--seed", 1, *memory, "--json", env=env).stdout)
        for _ in range(2)
    )
    assert (first["cached"], second["cached"]) == (False, True)
    assert first["scores"] == second["scores"]
    assert b"secret color" in file.read_bytes()
    done = pgenrm("users", "forget", "ada", "--yes", *memory, "--cache", file)
    assert done.returncode == 0
    assert b"secret color" not in file.read_bytes()


def test_what_is_too_old_or_too_much_goes(
    rm: PGenRM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = rm.score("ada", "Which color?", ANSWERS)
    size = len(evaluation.model_dump_json())
    now = 1_000_000.0
    monkeypatch.setattr("pgenrm_agent.evaluation_cache.time.time", lambda: now)
    small = EvaluationCache(tmp_path / "small", max_bytes=int(2.5 * size), max_age_s=100)
    for number in range(3):
        now += 10
        small.put(str(number), evaluation)
    assert [small.get(str(number)) is None for number in range(3)] == [True, False, False]
    now += 95
    assert [small.get(str(number)) is None for number in range(3)] == [True, True, False]
    small.close()


def test_two_processes_share_a_file(rm: PGenRM, cache: EvaluationCache) -> None:
    evaluation = rm.score("ada", "Which color?", ANSWERS)
    second = EvaluationCache(cache.path)
    second.put("key", evaluation)
    assert cache.get("key") is not None
    second.close()


def test_a_run_with_a_thread_is_always_run(rm: PGenRM, engine: ScriptedEngine) -> None:
    from langgraph.checkpoint.memory import InMemorySaver

    with PGenRM(
        engine=engine,
        memory=rm.memory,
        scaling=SCALING,
        cache=rm._cache,
        checkpointer=InMemorySaver(),
    ) as kept:
        for thread in ("a", "b"):
            kept.score("ada", "Which color?", ANSWERS, thread_id=thread)
    assert len(engine.calls) == 2


def test_prototypes_that_take_no_part_are_no_part_of_what_is_kept(
    rm: PGenRM, engine: ScriptedEngine
) -> None:
    """They may be of another embedder, which is refused only where they are used."""
    rm.score("ada", "Which color?", ANSWERS)
    rm.memory.set_consent("ada", True)
    vector = np.ones((1, 3), dtype=np.float32)
    rm.prototypes.replace(vector, [Member("ada", 0, vector[0])], embedder="another")
    assert rm.score("ada", "Which color?", ANSWERS).cached
    assert len(engine.calls) == 1
    with pytest.raises(ConfigurationError, match="another"):
        rm.score("ada", "Which color?", ANSWERS, scaling=Scaling(individual=2, prototype=2))


@pytest.mark.parametrize("agreed", [True, False], ids=["somebody similar", "nobody similar yet"])
@pytest.mark.parametrize("fails", [True, False], ids=["their chains fail", "their chains count"])
def test_where_there_are_prototypes_nothing_is_kept_or_looked_up(
    tmp_path: Path, cache: EvaluationCache, agreed: bool, fails: bool
) -> None:
    def reply(prompt: Prompt, _: int) -> str:
        return "secret story" if prompt.confidential and fails else write_chain([8, 3])

    engine = ScriptedEngine(reply)
    known = UserSignals(user_id="ada", history=(PAIR,))
    shared = Scaling(individual=2, prototype=2, seed=1, resamples=0)
    with PGenRM(
        engine=engine,
        memory=tmp_path / "memory",
        scaling=shared,
        cache=cache,
        persona_embedder=HashingEmbedder(),
        show_neighbors=True,
    ) as rm:
        before = rm.score("ada", "Which color?", ANSWERS, signals=known)
        rm.remember("ada", PAIR)
        rm.remember("bob", PAIR)
        rm.memory.set_consent("bob", True)
        vector = HashingEmbedder().embed(["plain"])
        rm.prototypes.replace(
            vector, [Member("bob", 0, vector[0])], embedder=HashingEmbedder().name
        )
        rm.memory.set_consent("bob", agreed)
        for _ in range(2):
            assert not rm.score("ada", "Which color?", ANSWERS).cached
        # What was kept before there were prototypes does not count any more.
        again = rm.score("ada", "Which color?", ANSWERS, signals=known)
        assert (before.cached, again.cached) == (False, False)
        assert b"secret story" not in cache.path.read_bytes()
        alone = shared.model_copy(update={"prototype": 0})
        told = [rm.score("ada", "Which color?", ANSWERS, scaling=alone).cached for _ in range(2)]
        assert told == [False, True]


def test_what_is_written_while_prototypes_are_built_is_not_kept(
    tmp_path: Path, cache: EvaluationCache
) -> None:
    vector = HashingEmbedder().embed(["plain"])

    def reply(*_: object) -> str:
        rm.memory.set_consent("ada", True)
        rm.prototypes.replace(
            vector, [Member("ada", 0, vector[0])], embedder=HashingEmbedder().name
        )
        return write_chain([8, 3])

    with PGenRM(
        engine=ScriptedEngine(reply),
        memory=tmp_path / "memory",
        scaling=Scaling(individual=1, prototype=1, seed=1),
        cache=cache,
        persona_embedder=HashingEmbedder(),
    ) as rm:
        rm.remember("ada", PAIR)
        rm.score("ada", "Which color?", ANSWERS)
        assert cache.forget("ada") == 0


@pytest.mark.parametrize("reason", ["failed", "timeout", "length"])
def test_an_evaluation_of_which_a_call_failed_is_not_kept(
    tmp_path: Path, cache: EvaluationCache, reason: FinishReason
) -> None:
    class Failing(ScriptedEngine):
        async def sample(
            self, prompts: Sequence[Prompt], params: SamplingParams
        ) -> list[list[Completion]]:
            first, *others = await super().sample(prompts, params)
            ended = first[0].model_copy(update={"text": "", "finish_reason": reason})
            return [[ended, *first[1:]], *others]

    engine = Failing(lambda prompt, _: write_chain([8, 3]))
    scaling = SCALING.model_copy(update={"resamples": 0})
    with PGenRM(engine=engine, memory=tmp_path / "m", scaling=scaling, cache=cache) as rm:
        whole = [rm.score("ada", "Which color?", ANSWERS).cached for _ in range(2)]
    assert whole == [False, reason == "length"]


def test_a_result_from_the_cache_costs_nothing_where_there_are_prices_now(
    tmp_path: Path, engine: ScriptedEngine, cache: EvaluationCache
) -> None:
    for prices, cost in ((None, None), (Prices(prompt=1, completion=1), 0.0), (None, None)):
        with PGenRM(
            engine=engine, memory=tmp_path / "m", scaling=SCALING, cache=cache, prices=prices
        ) as rm:
            evaluation = rm.score("ada", "Which color?", ANSWERS)
            assert evaluation.usage.cost == cost
    assert evaluation.cached
    assert len(engine.calls) == 1


def test_the_file_is_its_owners_alone(cache: EvaluationCache) -> None:
    assert stat.S_IMODE(cache.path.stat().st_mode) == 0o600


def test_what_cannot_be_a_cache_is_refused(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text(json.dumps({"no": "database"}) * 100)
    with pytest.raises(ConfigurationError, match="cannot be used as a cache"):
        EvaluationCache(notes)
    with pytest.raises(ConfigurationError, match="max_bytes is 0"):
        EvaluationCache(tmp_path / "x", max_bytes=0)


def test_a_cache_that_fails_costs_no_evaluation(rm: PGenRM, engine: ScriptedEngine) -> None:
    cache = rm._cache
    assert cache is not None
    cache.close()
    for _ in range(2):
        assert rm.score("ada", "Which color?", ANSWERS).ranking
    assert len(engine.calls) == 2


@pytest.mark.parametrize("change", ["folder", "size"])
def test_two_models_of_one_name_are_two(
    tmp_path: Path, cache: EvaluationCache, engine: ScriptedEngine, change: str
) -> None:
    folders = [tmp_path / run / "model" for run in ("first", "second")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"1")
    for number in range(2):
        engine.models = (str(folders[number if change == "folder" else 0]),)
        if change == "size" and number:
            (folders[0] / "weights").write_bytes(b"22")
        with PGenRM(engine=engine, memory=tmp_path / "m", scaling=SCALING, cache=cache) as model:
            model.score("ada", "Which color?", ANSWERS)
    assert len(engine.calls) == 2
