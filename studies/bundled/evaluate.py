"""Measure a model on users and queries that training never saw, beside what it must beat.

    python -m studies.bundled measure --part test --model MODEL --data FOLDER --out FOLDER

Each test user brings a few past choices and one more, held back; the model ranks the two answers of
that one. Baselines see the same comparisons. What is asked, kept and counted is the evaluation
module's (`evaluation.running`, `evaluation.metrics`); here are the cases and what the world knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.chain.signs import THEMES, read
from pgenrm_agent.engines.protocol import Engine
from pgenrm_agent.evaluation.baselines import LengthJudge
from pgenrm_agent.evaluation.bradley_terry import fit_bradley_terry
from pgenrm_agent.evaluation.comparisons import (
    credits_of,
    sample_credits,
    samples_as_shown,
    slip_share,
)
from pgenrm_agent.evaluation.judges import ChainJudge
from pgenrm_agent.evaluation.metrics import Accuracy, credit, position_bias
from pgenrm_agent.evaluation.questions import Question
from pgenrm_agent.evaluation.records import Record
from pgenrm_agent.evaluation.running import RunDescription, evaluate
from pgenrm_agent.fields import Model
from pgenrm_agent.machine import describe_machine
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Candidate, Scaling
from pgenrm_agent.training.bundled.simulation import (
    CLIP,
    VERSION,
    Answers,
    Comparison,
    SimulatedUser,
    World,
    as_pair,
)
from pgenrm_agent.training.bundled.teacher import write_chain

BRADLEY_TERRY_COMPARISONS = 8000
BRADLEY_TERRY_PENALTY = 0.5
LONGEST, SHORTEST = LengthJudge("longest"), LengthJudge("shortest")


@dataclass(frozen=True)
class Case:
    """One user's shown choices and the one to predict. `flipped`: the rejected one stands first."""

    user: SimulatedUser
    shown: tuple[Comparison, ...]
    asked: Comparison
    flipped: bool
    seed: int


class EvaluationReport(Model):
    """What `evaluate` measured; the model card is written from it."""

    simulation: str
    users: int
    history: int
    chains: int
    temperature: float
    seed: int
    engine: str
    seconds: float
    accuracy: dict[str, Accuracy]
    failed_chains: int
    position_bias: float | None = Field(
        description="share of single chains that prefer the first response"
    )
    arithmetic_slips: float | None = Field(
        description="share of marked totals that differ from the model's own by more than 0.1"
    )


def draw_cases(
    world: World, answers: Answers, *, split: str, count: int, history: int, seed: int
) -> list[Case]:
    """Draw `count` users of a split with one held-back comparison each, each user's on own queries."""
    cases = []
    for index, user in enumerate(world.users(split, count)):
        rng = np.random.default_rng([seed, index])
        queries = rng.choice(len(answers.queries), history + 1, replace=False)
        drawn = [world.compare(user, answers, int(query), rng) for query in queries]
        cases.append(
            Case(
                user,
                tuple(drawn[:-1]),
                drawn[-1],
                bool(rng.random() < 0.5),
                int(rng.integers(2**31)),
            )
        )
    return cases


def _difference(
    answers: Answers, comparison: Comparison
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    difference = answers.x[comparison.chosen] - answers.x[comparison.rejected]
    return np.asarray(np.clip(difference, -CLIP, CLIP), dtype=np.float64)


def chance(case: Case, answers: Answers) -> float:
    """Return how probable it is that the user chooses as they did, if asked the same again, 0-1.

    answers: those that the case's indices are of.
    """
    asked = case.asked
    odds = World().margin(case.user, answers, asked.query, asked.chosen, asked.rejected)
    return float(1.0 / (1.0 + np.exp(-odds)))


def expected_accuracy(
    answers: Answers, cases: Sequence[Case], credits: Sequence[float]
) -> Accuracy:
    """Count one credit a case with the probability that the user chooses so again.

    A sharper count than one drawn choice allows, with the same mean (`metrics.expected`).
    """
    return Accuracy.of(credits, chances=[chance(case, answers) for case in cases])


def expected_accuracy_of_one_sample(
    answers: Answers, cases: Sequence[Case], records: Sequence[Record]
) -> Accuracy:
    """Count each sample by itself in the same way; the errors are over users."""
    credits: list[float] = []
    chances: list[float] = []
    users: list[str] = []
    for case, record in zip(cases, records, strict=True):
        own = sample_credits([record])
        credits += own
        chances += [chance(case, answers)] * len(own)
        users += [case.user.user_id] * len(own)
    return Accuracy.of(credits, chances=chances, clusters=users)


def _bradley_terry(world: World, answers: Answers, seed: int) -> Callable[[Answers, Case], float]:
    """Return a fit over the same twelve attributes on training users, which knows nobody of them."""
    cases = draw_cases(
        world, answers, split="bradley-terry", count=BRADLEY_TERRY_COMPARISONS, history=0, seed=seed
    )
    differences = np.array([_difference(answers, case.asked) for case in cases])
    weights = fit_bradley_terry(differences, penalty=BRADLEY_TERRY_PENALTY)
    return lambda test, case: float(_difference(test, case.asked) @ weights)


def _teacher_margin(values: np.ndarray[tuple[int, int], np.dtype[np.int64]], case: Case) -> float:
    chain = write_chain(
        [(values[past.chosen], values[past.rejected]) for past in case.shown],
        np.zeros(len(THEMES), dtype=np.int64),
        [values[case.asked.chosen], values[case.asked.rejected]],
    )
    return float(chain.totals[0] - chain.totals[1])


def baseline_margins(
    world: World, training: Answers, test: Answers, cases: Sequence[Case], seed: int
) -> dict[str, list[float]]:
    """Return by baseline how far it puts the chosen answer ahead in each case, in its own units.

    Longest and shortest answer, Bradley-Terry that knows no user, teacher and true utility.
    """
    fitted = _bradley_terry(world, training, seed)
    values = read(test.texts)

    def by_length(judge: LengthJudge, asked: Comparison) -> float:
        chosen, rejected = judge.scores([test.texts[asked.chosen], test.texts[asked.rejected]])
        return chosen - rejected

    margins: dict[str, Callable[[Case], float]] = {
        "longest answer": lambda case: by_length(LONGEST, case.asked),
        "shortest answer": lambda case: by_length(SHORTEST, case.asked),
        "Bradley-Terry, not personal": lambda case: fitted(test, case),
        "teacher": lambda case: _teacher_margin(values, case),
        "true utility": lambda case: world.margin(
            case.user, test, case.asked.query, case.asked.chosen, case.asked.rejected
        ),
    }
    return {name: [margin(case) for case in cases] for name, margin in margins.items()}


def baselines(
    world: World, training: Answers, test: Answers, cases: Sequence[Case], seed: int
) -> dict[str, Accuracy]:
    """Return the accuracy of each of `baseline_margins`."""
    return {
        name: Accuracy.of([credit(margin) for margin in margins])
        for name, margins in baseline_margins(world, training, test, cases, seed).items()
    }


def question_of(test: Answers, case: Case) -> Question:
    """Return a case as the evaluation module asks it."""
    pair = as_pair(test, case.asked)
    candidates = (
        Candidate(id="chosen", text=pair.chosen),
        Candidate(id="rejected", text=pair.rejected),
    )
    return Question(
        id=case.user.user_id,
        user_id=case.user.user_id,
        query=pair.query,
        candidates=candidates[::-1] if case.flipped else candidates,
        grades=(0.0, 1.0) if case.flipped else (1.0, 0.0),
        history=tuple(as_pair(test, past) for past in case.shown),
        group=case.user.archetype,
    )


async def judge_cases(
    engine: Engine,
    chain_format: ChainFormat,
    test: Answers,
    cases: Sequence[Case],
    out: Path,
    *,
    chains: int,
    temperature: float,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Record]:
    """Return a record of each case, in their order; as `evaluate`, which goes on in the folder `out`."""
    shown = max((len(case.shown) for case in cases), default=0)
    scaling = Scaling(individual=chains, prototype=0, history=shown, temperature=temperature)
    model = PGenRM(engine=engine, chain_format=chain_format, scaling=scaling)
    description = RunDescription(
        source=VERSION,
        questions=len(cases),
        engine=engine.name,
        model=engine.name,
        seed=seed,
        machine=describe_machine(),
    )
    return await evaluate(
        [question_of(test, case) for case in cases],
        [ChainJudge("model", model, scaling)],
        out,
        description,
        progress=progress,
    )


async def evaluate_model(
    engine: Engine,
    chain_format: ChainFormat,
    world: World,
    training: Answers,
    test: Answers,
    out: Path,
    *,
    users: int,
    history: int,
    chains: int,
    seed: int,
    temperature: float = 1.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> EvaluationReport:
    """Score one comparison of each of `users` with `chains` samples, and the baselines on the same.

    The folder `out` keeps what was judged; a run that was cut off goes on there, with more users too.
    The accuracy of one sample is over the single chains of the same evaluations.
    """
    started = time.perf_counter()
    cases = draw_cases(world, test, split="test", count=users, history=history, seed=seed)
    records = await judge_cases(
        engine,
        chain_format,
        test,
        cases,
        out,
        chains=chains,
        temperature=temperature,
        seed=seed,
        progress=progress,
    )
    samples = [len(sample_credits([record])) for record in records]
    accuracy = baselines(world, training, test, cases, seed)
    accuracy["model, 1 sample"] = Accuracy.of(
        sample_credits(records), clusters=np.repeat(np.arange(len(cases)), samples).tolist()
    )
    accuracy[f"model, {chains} samples"] = Accuracy.of(credits_of(records))
    return EvaluationReport(
        simulation=VERSION,
        users=users,
        history=history,
        chains=chains,
        temperature=temperature,
        seed=seed,
        engine=engine.name,
        seconds=time.perf_counter() - started,
        accuracy=accuracy,
        failed_chains=sum(sum(record.verdict.failures.values()) for record in records),
        position_bias=position_bias(samples_as_shown(records)).prefers_first,
        arithmetic_slips=slip_share(records),
    )
