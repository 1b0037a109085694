"""Prototype learning on an engine that fails: what is tried again, what is counted, what ends a build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from users_learned_from import context, describe, fill

from pgenrm_agent.engines.outcomes import part_for_part
from pgenrm_agent.engines.protocol import Completion, Prompt, SamplingParams, SchemaRefused
from pgenrm_agent.errors import ConfigurationError, EngineError, EngineUnavailable, PGenRMError
from pgenrm_agent.graphs.prototype_learning import learn_prototypes
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.prototypes import PrototypeStore
from pgenrm_agent.testing import ScriptedEngine


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[UserMemory]:
    """Ten people of two tastes with three choices each, and two who have not agreed."""
    with UserMemory(tmp_path / "memory") as opened:
        fill(opened)
        yield opened


class Failing(ScriptedEngine):
    """Fails as engines do, part for part: a prompt in which any of `errors` is has that error.

    errors: by text, the error and how often it comes; afterwards the prompt is answered.
    """

    def __init__(self, errors: dict[str, tuple[PGenRMError, int]]) -> None:
        super().__init__(describe)
        self.errors = errors
        self.met: Counter[str] = Counter()

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        answers = await super().sample(prompts, params)
        outcomes = [
            self._error(prompt) or answer for prompt, answer in zip(prompts, answers, strict=True)
        ]
        return part_for_part(prompts, outcomes)

    def _error(self, prompt: Prompt) -> PGenRMError | None:
        said = " ".join(message.content for message in prompt.messages)
        for text, (error, times) in self.errors.items():
            if text in said and self.met[said] < times:
                self.met[said] += 1
                return error
        return None


TOO_LONG = ConfigurationError("the prompt is longer than the context")
ALWAYS = 99


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
@pytest.mark.parametrize("long", ["u5", "u9"], ids=["among others", "last"])
async def test_a_user_whose_choices_are_too_long_stops_no_build(
    memory: UserMemory, batch: int, long: str
) -> None:
    engine = Failing({f" of {long[1:]}": (TOO_LONG, ALWAYS)})
    learned = await learn_prototypes(context(memory, engine, batch=batch))
    assert (learned.personas, learned.failed, learned.unreadable) == (18, 2, 0)
    version = PrototypeStore(memory).current()
    assert version is not None
    assert set(version.homes) == {f"u{n}" for n in range(10)} - {long}
    assert PrototypeStore(memory).status().not_members == 1


async def test_a_server_that_is_away_ends_a_build_that_can_go_on(memory: UserMemory) -> None:
    engine = Failing({" of 3": (EngineUnavailable("the server is away"), ALWAYS)})
    with pytest.raises(EngineUnavailable, match="away"):
        await learn_prototypes(context(memory, engine, batch=1))


async def test_what_an_engine_cannot_do_at_all_is_an_error_at_once(memory: UserMemory) -> None:
    engine = Failing({"": (TOO_LONG, ALWAYS)})
    with pytest.raises(ConfigurationError, match="longer than the context"):
        await learn_prototypes(context(memory, engine))
    assert len(engine.calls) == 1


@pytest.mark.parametrize("times", [1, ALWAYS])
async def test_a_sample_that_fails_is_tried_again_at_the_end_and_counted_apart(
    memory: UserMemory, tmp_path: Path, times: int
) -> None:
    busy = EngineUnavailable("the server is busy")
    told: list[tuple[str, int, int]] = []
    engine = Failing({" of 3": (busy, times), " of 4": (busy, 1)})
    learned = await learn_prototypes(
        context(memory, engine, on_progress=lambda *progress: told.append(progress)),
        keep=tmp_path / "kept.sqlite",
    )
    lost = 0 if times == 1 else 2
    assert (learned.personas, learned.failed, learned.unreadable) == (20 - lost, lost, 0)
    assert learned.users == (10 if times == 1 else 9)
    assert [progress for progress in told if progress[0] == "personas"][-1] == ("personas", 24, 24)
    assert learned.usage.chains_sampled == 24
    assert [len(prompts) for prompts, _ in engine.calls] == [5, 5, 5, 5, 4]


@pytest.mark.parametrize("batch", [1, 2, 5])
async def test_prompts_on_which_a_server_always_fails_stop_no_build(
    memory: UserMemory, batch: int
) -> None:
    engine = Failing({" of 3": (EngineError("error 500"), ALWAYS)})
    learned = await learn_prototypes(context(memory, engine, batch=batch))
    assert (learned.personas, learned.failed, learned.users) == (18, 2, 9)


async def test_a_build_cut_off_among_second_tries_goes_on_with_them(
    memory: UserMemory, tmp_path: Path
) -> None:
    keep = tmp_path / "kept.sqlite"
    busy = EngineUnavailable("the server is busy")

    def told(what: str, done: int, total: int) -> None:
        if (done, total) == (21, 24):
            raise EngineError("cut off")

    with pytest.raises(EngineError, match="cut off"):
        await learn_prototypes(
            context(
                memory,
                Failing({" of 3": (busy, 1), " of 6": (busy, 1)}),
                batch=3,
                on_progress=told,
            ),
            keep=keep,
        )
    engine = ScriptedEngine(describe)
    learned = await learn_prototypes(context(memory, engine, batch=3), keep=keep)
    assert (learned.personas, learned.failed, learned.users) == (20, 0, 10)
    assert [len(prompts) for prompts, _ in engine.calls] == [3, 3]  # the last two, and four again


async def test_a_server_that_holds_to_no_schema_is_asked_without(memory: UserMemory) -> None:
    engine = Failing({"": (SchemaRefused("no schema, please"), 1)})
    learned = await learn_prototypes(context(memory, engine, batch=64))
    assert (learned.personas, learned.failed) == (20, 0)
