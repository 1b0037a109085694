"""Chains for measuring test-time user-based scaling: sampled once, combined afterward in many ways.

For each seed the prototypes of a population are learned, and test users, who are not in it, ask for
evaluations through the real graph. Of an evaluation is recorded what each chain gave the two answers;
`tables` reads every setting off that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.embedding import Embedder, RememberingEmbedder
from pgenrm_agent.engines.protocol import Engine
from pgenrm_agent.errors import ChainError, ConfigurationError
from pgenrm_agent.fields import Model
from pgenrm_agent.jsonl import RecordLog
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.sampling import derive_seed
from pgenrm_agent.schema import Candidate, Level, Scaling
from pgenrm_agent.training.bundled.simulation import Answers, World
from studies.bundled.evaluate import Case, chance
from studies.limits.bayes import IdealPredictor
from studies.scaling.population import (
    CHOSEN,
    MEMBER_CHOICES,
    UNREFINED,
    Agreement,
    Population,
    RememberingEngine,
    draw_population,
    known_as,
)

Budget = tuple[int, int]
"""Individual and prototype chains."""

BUDGETS: tuple[Budget, ...] = (
    (1, 0),
    (8, 0),
    (4, 4),
    (16, 0),
    (8, 4),
    (8, 8),
    (32, 0),
    (16, 8),
    (0, 8),
    (16, 16),
)
"""The paper's settings."""

Part = Literal["pool", "alone", "with others", "others", "timed"]
"""pool: as many chains of both levels as any setting has. alone, with others: none to six choices known,
without prototypes and with them. others: only similar users' chains. timed: one evaluation at a time,
for what it takes."""

SHOWN = Scaling().history
"""Past choices in a prompt: of a similar user so many, however few the asked user made. More where more
are known of the asked user, so that every choice known is shown."""
CONCURRENT = 12
TIMED_USERS = 3
RECORDS, AGREEMENT = "records.jsonl", "agreement.jsonl"


class Study(Model):
    """What is measured.

    users: test users of each seed. newcomers: how many are asked for with nothing known of them,
    `users` among them. members: who agreed, of each seed. history: choices known of a test user in
    the pool. known: most choices known, one and more of them compared. individual, prototype: chains
    of the pool. few: chains of each level in that comparison.
    ks: numbers of prototypes to compare, beside the one by the spectrum.
    """

    users: int = 40
    newcomers: int = 60
    seeds: int = 5
    members: int = 160
    history: Annotated[int, Field(ge=1, le=SHOWN)] = SHOWN
    known: Annotated[int, Field(ge=1, le=MEMBER_CHOICES)] = MEMBER_CHOICES
    individual: int = 32
    prototype: int = 16
    few: int = 8
    ks: tuple[int, ...] = (1, 3, 6, 24)

    @property
    def versions(self) -> tuple[str, ...]:
        """The prototype versions that are compared."""
        return (CHOSEN, *(str(k) for k in self.ks), UNREFINED)


class SampledChain(Model):
    """What one chain gave the two answers (totals, 1-10), and which it was shown first."""

    level: Level
    chosen: float
    rejected: float
    chosen_first: bool
    tokens: int


class ScalingRecord(Model):
    """One evaluation.

    chance: that the user prefers the answer called chosen, if asked again; the simulation knows it.
    ideal: the same, as well as it can be told from the known choices by whoever knows the world.
    history: how many of the user's choices were known. version: which prototypes. budget: what was
    asked for. failed: texts that could not be read. seconds, engine_seconds: of the whole call, and
    of the engine's part; with others at the same time but for the part "timed".
    """

    part: Part
    seed: int
    user: str
    archetype: str
    chance: Annotated[float, Field(ge=0, le=1)]
    ideal: Annotated[float, Field(ge=0, le=1)]
    history: int
    version: str
    budget: Budget
    prototype: str | None
    chains: tuple[SampledChain, ...]
    failed: int
    tokens: int
    engine_calls: int
    seconds: float
    engine_seconds: float

    @property
    def key(self) -> tuple[object, ...]:
        """What there is one record of."""
        return self.part, self.seed, self.user, self.history, self.version, self.budget


@dataclass(frozen=True)
class _Ask:
    part: Part
    seed: int
    history: int
    version: str
    budget: Budget
    case: Case

    @property
    def key(self) -> tuple[object, ...]:
        user = self.case.user.user_id
        return self.part, self.seed, user, self.history, self.version, self.budget


async def sample_study(
    study: Study,
    engine: Engine,
    chain_format: ChainFormat,
    embedder: Embedder,
    answers: Answers,
    out: Path,
    *,
    only: int | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> None:
    """Sample what is missing in the folder `out`.

    answers: those to queries never trained on. only: the seed to work on, so that several processes
        share the folder; None for all.

    Raises what the engine raises; what is done by then is kept, and the same call goes on.
    """
    remembering, embedder = RememberingEngine(engine), RememberingEmbedder(embedder)
    ideal = IdealPredictor(World(), seed=0)
    with ExitStack() as stack:
        seeds = [
            (population, stack.enter_context(_Log(out, population.seed)))
            for population in _populations(study, answers)
            if only in (None, population.seed)
        ]
        # Every seed gets the first version before any gets the second, so that what a stopped run
        # leaves is even.
        for version in study.versions:
            for population, log in seeds:
                waiting = [
                    ask
                    for ask in _asks(study, population, version)
                    if ask.key not in log.records and not (ask.part == "timed" and only is not None)
                ]
                if not waiting and (population.seed, version) in log.agreements:
                    continue
                with UserMemory(_folder(out, population.seed) / "memory") as memory:
                    population.remember(memory)
                    agreement = await population.learn(
                        version, remembering, chain_format, embedder, memory, progress=progress
                    )
                    log.agreed(agreement)
                    async with PGenRM(
                        engine=engine,
                        memory=memory,
                        chain_format=chain_format,
                        persona_embedder=embedder,
                    ) as model:
                        what = f"seed {population.seed}, prototypes: {version}"
                        async with aclosing(_evaluate(model, population, ideal, waiting)) as coming:
                            done = 0
                            progress(what, done, len(waiting))
                            async for record in coming:
                                log.append(record)
                                done += 1
                                progress(what, done, len(waiting))


def read_study(
    study: Study, answers: Answers, out: Path
) -> tuple[list[ScalingRecord], list[Agreement]]:
    """What a study has so far: of each version, the seeds that are complete.

    Raises ConfigurationError when no seed is complete, or while another process samples there.
    """
    complete: list[ScalingRecord] = []
    agreed: list[Agreement] = []
    for population in _populations(study, answers):
        with _Log(out, population.seed) as log:
            for version in study.versions:
                asks = _asks(study, population, version)
                if all(ask.key in log.records for ask in asks if ask.part != "timed"):
                    complete += [log.records[ask.key] for ask in asks if ask.key in log.records]
                    agreed.append(log.agreements[population.seed, version])
    if not any(record.part == "pool" for record in complete):
        raise ConfigurationError(f"{out} has no complete seed yet: go on without --no-sampling")
    return complete, agreed


def _folder(out: Path, seed: int) -> Path:
    return out / f"seed-{seed}"


class _Log:
    """What is on record of a seed, by key; its files are this process's while it is open."""

    def __init__(self, out: Path, seed: int) -> None:
        folder = _folder(out, seed)
        self._sampled = RecordLog(folder / RECORDS, ScalingRecord)
        self._groups = RecordLog(folder / AGREEMENT, Agreement)
        self.records: dict[tuple[object, ...], ScalingRecord] = {}
        self.agreements: dict[tuple[int, str], Agreement] = {}

    def __enter__(self) -> _Log:
        with ExitStack() as stack:
            for log in (self._sampled, self._groups):
                stack.enter_context(log)
            self._open = stack.pop_all()
        self.records = {record.key: record for record in self._sampled.records}
        self.agreements = {agreement.key: agreement for agreement in self._groups.records}
        return self

    def __exit__(self, *raised: object) -> None:
        self._open.close()

    def append(self, record: ScalingRecord) -> None:
        self.records[record.key] = record
        self._sampled.append(record)

    def agreed(self, agreement: Agreement) -> None:
        if agreement.key not in self.agreements:
            self.agreements[agreement.key] = agreement
            self._groups.append(agreement)


def _populations(study: Study, answers: Answers) -> list[Population]:
    world = World()
    return [
        draw_population(
            world,
            answers,
            members=study.members,
            users=max(study.users, study.newcomers),
            history=max(study.history, study.known),
            seed=seed,
        )
        for seed in range(study.seeds)
    ]


def _asks(study: Study, population: Population, version: str) -> list[_Ask]:
    """The evaluations of one seed and version, user by user."""
    seed, usual = population.seed, study.history
    whole, both = (study.individual, study.prototype), (study.few, study.few)
    asks = []
    for case in population.cases[: study.users]:
        asks.append(_Ask("others", seed, usual, version, (0, study.few), case))
        if version == CHOSEN:
            asks.append(_Ask("pool", seed, usual, version, whole, case))
            asks += [
                _Ask("with others", seed, known, version, both, case)
                for known in range(1, study.known + 1)
            ]
    if version == CHOSEN:
        for case in population.cases[: study.newcomers]:
            asks.append(_Ask("alone", seed, 0, version, (study.few, 0), case))
            asks.append(_Ask("with others", seed, 0, version, both, case))
    if version == CHOSEN and seed == 0:
        # The settings in turn, so that what else the machine does falls on all of them.
        asks += [
            _Ask("timed", seed, usual, version, budget, case)
            for case in population.cases[:TIMED_USERS]
            for budget in BUDGETS
        ]
    return asks


async def _evaluate(
    model: PGenRM, population: Population, ideal: IdealPredictor, asks: Sequence[_Ask]
) -> AsyncGenerator[ScalingRecord]:
    """The records as they come; the timed ones last, one at a time."""
    gate = asyncio.Semaphore(CONCURRENT)

    async def evaluate(ask: _Ask) -> ScalingRecord:
        async with gate:
            return await _record(model, population.answers, ideal, ask)

    tasks = [asyncio.create_task(evaluate(ask)) for ask in asks if ask.part != "timed"]
    try:
        for task in asyncio.as_completed(tasks):
            yield await task
    finally:
        for left in tasks:
            left.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for ask in asks:
        if ask.part == "timed":
            yield await _record(model, population.answers, ideal, ask)


async def _record(
    model: PGenRM, answers: Answers, ideal: IdealPredictor, ask: _Ask
) -> ScalingRecord:
    case, (individual, prototype) = ask.case, ask.budget
    candidates = [
        Candidate(id="chosen", text=answers.texts[case.asked.chosen]),
        Candidate(id="rejected", text=answers.texts[case.asked.rejected]),
    ]
    about = {
        "part": ask.part,
        "seed": ask.seed,
        "user": case.user.user_id,
        "archetype": case.user.archetype,
        "chance": chance(case, answers),
        "ideal": ideal.predict(answers, case.shown[: ask.history], case.asked)[0],
        "history": ask.history,
        "version": ask.version,
        "budget": ask.budget,
    }
    started = time.perf_counter()
    try:
        evaluation = await model.ascore(
            known_as(case.user, ask.history),
            answers.queries[case.asked.query],
            candidates[::-1] if case.flipped else candidates,
            scaling=Scaling(
                individual=individual,
                prototype=prototype,
                history=max(SHOWN, ask.history),
                # The parts have chains of their own, so that no two figures share their luck.
                seed=derive_seed(case.seed, ask.part, ask.history, ask.version),
            ),
        )
    except ChainError as error:  # nothing readable: a record without chains
        seconds = time.perf_counter() - started
        return ScalingRecord.model_validate(
            about
            | {"prototype": None, "chains": (), "failed": sum(error.failures.values()), "tokens": 0}
            | {"engine_calls": 0, "seconds": seconds, "engine_seconds": seconds}
        )
    seconds = time.perf_counter() - started
    ids = [candidate.id for candidate in evaluation.request.candidates]
    chains = [
        SampledChain(
            level=chain.level,
            chosen=chain.totals["chosen"],
            rejected=chain.totals["rejected"],
            chosen_first=ids[chain.order[0]] == "chosen",
            tokens=chain.tokens,
        )
        for chain in evaluation.chains
        if len(chain.totals) == len(ids)
    ]
    return ScalingRecord.model_validate(
        about
        | {
            "prototype": evaluation.prototype,
            "chains": chains,
            "failed": len(evaluation.failures),
            "tokens": evaluation.usage.completion_tokens,
            "engine_calls": evaluation.usage.engine_calls,
            "seconds": seconds,
            "engine_seconds": evaluation.timings["engine"],
        }
    )
