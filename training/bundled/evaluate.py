"""Measure a model on people and queries that training never saw, beside what it must beat.

    pgenrm train evaluate --model runs/psi/model --data FOLDER --out runs/psi/evaluation

Each test person brings a few past choices and one more, held back; the model ranks the two answers
of that one. A tie counts one half; a comparison that could not be scored counts as wrong and is
shown. Baselines see the same comparisons. Results are appended one by one, so a run that was cut
off continues where it stopped.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.engines.protocol import Engine
from pgenrm_agent.errors import ChainError
from pgenrm_agent.jsonl import RecordLog
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Candidate, Model, PreferencePair, Scaling, UserSignals
from pgenrm_agent.training.bundled.chains import wishes_in
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

__all__ = [
    "Accuracy",
    "Asked",
    "Case",
    "ChainMargin",
    "ChoiceRecord",
    "EvaluationReport",
    "agreement",
    "as_asked",
    "baseline_margins",
    "baselines",
    "chance",
    "credit",
    "draw_cases",
    "evaluate_model",
    "expected_accuracy",
    "expected_accuracy_of_one",
    "judge_choices",
]

BRADLEY_TERRY_COMPARISONS = 8000
CONCURRENT = 16
"""Comparisons in flight: enough to fill the engine's batches."""


@dataclass(frozen=True)
class Case:
    """One person's shown choices and the one to predict. `flipped`: the rejected one stands first."""

    user: SimulatedUser
    shown: tuple[Comparison, ...]
    asked: Comparison
    flipped: bool
    seed: int


@dataclass(frozen=True)
class Asked:
    """A choice for a model to predict, as texts. `key` names it in the records, once each."""

    key: str
    pair: PreferencePair
    history: tuple[PreferencePair, ...]
    flipped: bool
    seed: int


class ChainMargin(Model):
    """One chain over both answers.

    margin: total of the chosen answer minus that of the other. first: which of them was shown first.
    slips: of `totals` totals that the model wrote itself, those off by more than 0.1.
    """

    margin: float
    first: Literal["chosen", "rejected"]
    slips: int
    totals: int


class ChoiceRecord(Model):
    """What a model made of one choice.

    user: the choice's `Asked.key`. margin: mean reward of the chosen answer minus that of the other;
        None where it could not be scored, for the reason `why`.
    failed: chains that could not be read.
    """

    user: str
    margin: float | None
    chains: tuple[ChainMargin, ...] = ()
    failed: int = 0
    why: str | None = None


class Accuracy(Model):
    """Share of comparisons predicted right, 0-1, with its standard error."""

    mean: float
    standard_error: float
    comparisons: int

    @classmethod
    def of(cls, credits: Sequence[float]) -> Accuracy:
        """From credits in [0, 1], one a comparison."""
        values = np.asarray(credits, dtype=np.float64)
        error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
        return cls(mean=float(values.mean()), standard_error=error, comparisons=len(values))


class EvaluationReport(Model):
    """What `pgenrm train evaluate` measured; the model card is written from it."""

    simulation: str
    people: int
    history: int
    chains: int
    temperature: float
    seed: int
    engine: str
    seconds: float
    accuracy: dict[str, Accuracy]
    ties: int = Field(description="comparisons in which both answers got the same mean reward")
    not_scored: int
    failed_chains: int
    position_bias: float = Field(
        description="share of single chains that prefer the first response"
    )
    arithmetic_slips: float = Field(
        description="share of marked totals that differ from the model's own by more than 0.1"
    )


def draw_cases(
    world: World, answers: Answers, *, split: str, count: int, history: int, seed: int
) -> list[Case]:
    """`count` people of a split, one held-back comparison each, on distinct queries per person."""
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


def credit(margin: float) -> float:
    """1 for a right prediction (the chosen answer is ahead), 0.5 for a tie, else 0."""
    return 1.0 if margin > 0 else 0.5 if margin == 0 else 0.0


def chance(case: Case, answers: Answers) -> float:
    """That the person prefers the answer she chose, if asked the same again, 0-1.

    answers: those that the case's indices are of.
    """
    asked = case.asked
    odds = World().margin(case.user, answers, asked.query, asked.chosen, asked.rejected)
    return float(1.0 / (1.0 + np.exp(-odds)))


def agreement(ahead: float, chance: float) -> float:
    """How probable a choice is that prefers the chosen answer with probability `ahead`.

    The mean of what `ahead` would be credited with if the person chose again and again, and so a
    sharper count than one choice allows; `chance` as by the function of that name.
    """
    return ahead * chance + (1.0 - ahead) * (1.0 - chance)


def expected_accuracy(
    answers: Answers, cases: Sequence[Case], margins: Sequence[float | None]
) -> Accuracy:
    """Accuracy by `agreement`; a margin of None, of what could not be scored, is never right."""
    return Accuracy.of(
        [
            0.0 if margin is None else agreement(credit(margin), chance(case, answers))
            for case, margin in zip(cases, margins, strict=True)
        ]
    )


def expected_accuracy_of_one(
    answers: Answers, cases: Sequence[Case], records: Sequence[ChoiceRecord]
) -> Accuracy:
    """The same of one chain, as the mean over the chains of each record; none readable is never right."""
    return Accuracy.of(
        [
            agreement(
                float(np.mean([credit(one.margin) for one in row.chains])), chance(case, answers)
            )
            if row.chains
            else 0.0
            for case, row in zip(cases, records, strict=True)
        ]
    )


def _bradley_terry(world: World, answers: Answers, seed: int) -> Callable[[Answers, Case], float]:
    """Non-personal Bradley-Terry over the same twelve attributes, fitted on training people."""
    from sklearn.linear_model import LogisticRegression

    cases = draw_cases(
        world, answers, split="bradley-terry", count=BRADLEY_TERRY_COMPARISONS, history=0, seed=seed
    )
    sign = np.where([case.flipped for case in cases], -1.0, 1.0)
    rows = np.array([_difference(answers, case.asked) for case in cases]) * sign[:, None]
    fit = LogisticRegression(fit_intercept=False).fit(rows, sign)
    return lambda test, case: float(_difference(test, case.asked) @ fit.coef_[0])


def _teacher_margin(answers: Answers, case: Case) -> float:
    chain = write_chain(
        int(answers.kinds[case.asked.query]),
        [(answers.levels[one.chosen], answers.levels[one.rejected]) for one in case.shown],
        wishes_in(()),
        [answers.levels[case.asked.chosen], answers.levels[case.asked.rejected]],
    )
    return float(chain.totals[0] - chain.totals[1])


def baseline_margins(
    world: World, training: Answers, test: Answers, cases: Sequence[Case], seed: int
) -> dict[str, list[float]]:
    """By baseline, how far it puts the chosen answer ahead in each case, in units of its own.

    Chance, longest answer, non-personal Bradley-Terry, teacher and true utility.
    """
    fitted = _bradley_terry(world, training, seed)
    margins: dict[str, Callable[[Case], float]] = {
        "chance": lambda case: 0.0,
        "longest answer": lambda case: float(
            len(test.texts[case.asked.chosen]) - len(test.texts[case.asked.rejected])
        ),
        "Bradley-Terry, not personal": lambda case: fitted(test, case),
        "teacher": lambda case: _teacher_margin(test, case),
        "true utility": lambda case: world.margin(
            case.user, test, case.asked.query, case.asked.chosen, case.asked.rejected
        ),
    }
    return {name: [margin(case) for case in cases] for name, margin in margins.items()}


def baselines(
    world: World, training: Answers, test: Answers, cases: Sequence[Case], seed: int
) -> dict[str, Accuracy]:
    """The accuracy of each of `baseline_margins`."""
    return {
        name: Accuracy.of([credit(margin) for margin in margins])
        for name, margins in baseline_margins(world, training, test, cases, seed).items()
    }


async def _judge(model: PGenRM, one: Asked) -> ChoiceRecord:
    asked = [
        Candidate(id="chosen", text=one.pair.chosen),
        Candidate(id="rejected", text=one.pair.rejected),
    ]
    try:
        evaluation = await model.ascore(
            one.key,
            one.pair.query,
            asked[::-1] if one.flipped else asked,
            conversation=one.pair.conversation,
            signals=UserSignals(user_id=one.key, history=one.history),
        )
    except ChainError as error:
        failed = sum(error.failures.values())
        return ChoiceRecord(user=one.key, margin=None, failed=failed, why=str(error))
    scores = {score.candidate_id: score.mean for score in evaluation.scores}
    chosen, rejected = scores["chosen"], scores["rejected"]
    chains = []
    for chain in evaluation.chains:
        if not {"chosen", "rejected"} <= chain.totals.keys():
            continue
        first = evaluation.request.candidates[chain.order[0]].id
        chains.append(
            ChainMargin(
                margin=chain.totals["chosen"] - chain.totals["rejected"],
                first="chosen" if first == "chosen" else "rejected",
                slips=sum(
                    abs(chain.totals[key] - value) > 0.1 for key, value in chain.reported.items()
                ),
                totals=len(chain.reported),
            )
        )
    return ChoiceRecord(
        user=one.key,
        margin=None if chosen is None or rejected is None else chosen - rejected,
        chains=tuple(chains),
        failed=len(evaluation.failures),
    )


def as_asked(test: Answers, case: Case) -> Asked:
    return Asked(
        key=case.user.user_id,
        pair=as_pair(test, case.asked),
        history=tuple(as_pair(test, one) for one in case.shown),
        flipped=case.flipped,
        seed=case.seed,
    )


async def judge_choices(
    engine: Engine,
    chain_format: ChainFormat,
    choices: Sequence[Asked],
    *,
    chains: int,
    temperature: float,
    records: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ChoiceRecord]:
    """A record of each choice, in their order: the margin of the chosen answer, and the chains'.

    `records` is a JSONL file that grows by one line a choice; choices already there are not asked
    again. A margin is None where no chain could be read.
    """
    gate = asyncio.Semaphore(CONCURRENT)

    with RecordLog(records, ChoiceRecord) as log:
        done = {record.user: record for record in log.found}
        known = sum(one.key in done for one in choices)

        async def run(one: Asked) -> None:
            nonlocal known
            async with gate:
                scaling = Scaling(
                    individual=chains,
                    prototype=0,
                    history=len(one.history),
                    temperature=temperature,
                    seed=one.seed,
                )
                model = PGenRM(engine=engine, chain_format=chain_format, scaling=scaling)
                record = await _judge(model, one)
            done[one.key] = record
            log.append(record)
            known += 1
            progress(known, len(choices))

        progress(known, len(choices))
        await asyncio.gather(*(run(one) for one in choices if one.key not in done))
    return [done[one.key] for one in choices]


async def evaluate_model(
    engine: Engine,
    chain_format: ChainFormat,
    world: World,
    training: Answers,
    test: Answers,
    *,
    people: int,
    history: int,
    chains: int,
    seed: int,
    records: Path,
    temperature: float = 1.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> EvaluationReport:
    """Score `people` comparisons with `chains` samples each, and the baselines on the same.

    `records` is a JSONL file that grows by one line a comparison; lines already there are kept.
    The accuracy of one sample is the mean over single chains of the same evaluations.
    """
    started = time.perf_counter()
    cases = draw_cases(world, test, split="test", count=people, history=history, seed=seed)
    rows = await judge_choices(
        engine,
        chain_format,
        [as_asked(test, case) for case in cases],
        chains=chains,
        temperature=temperature,
        records=records,
        progress=progress,
    )
    accuracy = baselines(world, training, test, cases, seed)
    every = [chain for row in rows for chain in row.chains]
    accuracy["model, 1 sample"] = Accuracy.of(
        [
            float(np.mean([credit(chain.margin) for chain in row.chains])) if row.chains else 0.0
            for row in rows
        ]
    )
    accuracy[f"model, {chains} samples"] = Accuracy.of(
        [0.0 if row.margin is None else credit(row.margin) for row in rows]
    )
    decided = [chain for chain in every if chain.margin != 0]
    return EvaluationReport(
        simulation=VERSION,
        people=people,
        history=history,
        chains=chains,
        temperature=temperature,
        seed=seed,
        engine=engine.name,
        seconds=time.perf_counter() - started,
        accuracy=accuracy,
        ties=sum(row.margin == 0 for row in rows),
        not_scored=sum(row.margin is None for row in rows),
        failed_chains=sum(row.failed for row in rows),
        position_bias=float(np.mean([(c.margin > 0) == (c.first == "chosen") for c in decided]))
        if decided
        else 0.5,
        arithmetic_slips=sum(c.slips for c in every) / max(1, sum(c.totals for c in every)),
    )
