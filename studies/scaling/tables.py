"""What the chains of a scaling study say: accuracy by setting, by known choices, by number of prototypes.

Pure. A setting's score is what the library's own aggregation makes of some of the chains that were
sampled: the first so many of each level. Where the pool has several such blocks of individual chains,
the accuracy is the mean over them. Figures are means over seeds with the standard error of that mean.

A prediction counts with the probability that the person makes that choice, which the simulation knows.
So its mean is the accuracy that single choices have on average, without their luck.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pgenrm_agent.aggregation import aggregate
from pgenrm_agent.sampling import plan_rounds
from pgenrm_agent.schema import CandidateScore, EvaluationChain, Model, Persona
from pgenrm_agent.training.bundled.evaluate import agreement, credit
from studies.scaling.pool import BUDGETS, Budget, Part, SampledChain, ScalingRecord
from studies.scaling.population import CHOSEN, UNREFINED, Agreement

__all__ = [
    "FewChoicesRow",
    "MeanOverSeeds",
    "ScalingReport",
    "SettingRow",
    "StoppingRow",
    "VersionRow",
    "budget_name",
    "report",
]

THRESHOLDS = (0.8, 0.9, 0.95, 0.99)
STOPPING_BUDGET: Budget = (16, 8)
IDS = ("chosen", "rejected")


class MeanOverSeeds(Model):
    """Mean and its standard error over seeds; the error is None for a single seed."""

    mean: float
    standard_error: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> MeanOverSeeds:
        """From one value a seed."""
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
        return cls(mean=statistics.fmean(values), standard_error=error)


class SettingRow(Model):
    """One of the paper's settings. seconds, tokens, tokens_a_second: of an evaluation on its own.

    drawn: accuracy against the choice that each person happened to make. over_one: accuracy beyond
    that of one chain, paired by seed. macro: mean over prototypes of their people's accuracy, all
    seeds together.
    """

    budget: Budget
    accuracy: MeanOverSeeds
    drawn: MeanOverSeeds
    over_one: MeanOverSeeds
    macro: float
    seconds: float | None
    tokens: float | None
    tokens_a_second: float | None
    engine_calls: float | None


class FewChoicesRow(Model):
    """Accuracy with so many known choices; gain is paired by seed.

    best: of whoever knows the simulated world, from the same choices; see `bayes`.
    """

    history: int
    alone: MeanOverSeeds
    with_others: MeanOverSeeds
    gain: MeanOverSeeds
    best: MeanOverSeeds


class VersionRow(Model):
    """One way of grouping people. others: accuracy of similar people's chains alone, with_own: with
    as many of the person's own. before, after: agreement with the archetypes (adjusted Rand index)."""

    version: str
    k: str
    others: MeanOverSeeds
    with_own: MeanOverSeeds
    before: MeanOverSeeds
    after: MeanOverSeeds


class StoppingRow(Model):
    """Sampling in rounds until sure. chains: share of the budget that was spent, 0-1.

    against_full: accuracy beyond that of the whole budget, paired by seed.
    """

    threshold: float
    accuracy: MeanOverSeeds
    against_full: MeanOverSeeds
    chains: MeanOverSeeds


class ScalingReport(Model):
    """All tables of a study."""

    people: int
    newcomers: int
    seeds: int
    settings: tuple[SettingRow, ...]
    few_choices: tuple[FewChoicesRow, ...]
    versions: tuple[VersionRow, ...]
    own_chains: MeanOverSeeds
    stopping: tuple[StoppingRow, ...]
    by_chains: dict[int, MeanOverSeeds]
    position_bias: float
    failed: float


def budget_name(budget: Budget) -> str:
    """As the paper names it: 1, Ind-8, Ind-8+Pro-4."""
    individual, prototype = budget
    if budget == (1, 0):
        return "1"
    return f"Ind-{individual}" + (f"+Pro-{prototype}" if prototype else "")


def report(records: Sequence[ScalingRecord], agreements: Sequence[Agreement]) -> ScalingReport:
    """Read all tables off the records of `sample_study`."""
    of: dict[Part, list[ScalingRecord]] = defaultdict(list)
    for record in records:
        of[record.part].append(record)
    pool = [_Pooled.of(record) for record in of["pool"]]
    one = _by_seed(pool, lambda person: person.accuracy((1, 0)))
    chains = [chain for record in of["pool"] for chain in record.chains]
    decided = [chain for chain in chains if chain.chosen != chain.rejected]
    own = max(record.budget[0] for record in of["with others"])
    return ScalingReport(
        people=len(pool),
        newcomers=len(of["alone"]),
        seeds=len({record.seed for record in records}),
        settings=tuple(_setting(budget, pool, one, of["timed"]) for budget in BUDGETS),
        few_choices=_few_choices(pool, of["alone"], of["with others"], own),
        versions=_versions(pool, of["others"], agreements, own),
        own_chains=_mean(_by_seed(pool, lambda person: person.accuracy((own, 0)))),
        stopping=tuple(_stopping(threshold, pool) for threshold in THRESHOLDS),
        by_chains={
            count: _mean(_by_seed(pool, partial(_Pooled.accuracy, budget=(count, 0))))
            for count in (1, 2, 4, 8, 16, 32)
        },
        position_bias=sum((c.chosen > c.rejected) == c.chosen_first for c in decided)
        / max(1, len(decided)),
        failed=sum(record.failed for record in records)
        / sum(record.failed + len(record.chains) for record in records),
    )


@dataclass(frozen=True)
class _Pooled:
    """The chains of one person, by level."""

    seed: int
    person: str
    chance: float
    ideal: float
    prototype: str | None
    individual: tuple[SampledChain, ...]
    others: tuple[SampledChain, ...]

    @classmethod
    def of(cls, record: ScalingRecord) -> _Pooled:
        individual, others = (
            tuple(chain for chain in record.chains if chain.level == level)
            for level in ("individual", "prototype")
        )
        return cls(
            record.seed,
            record.person,
            record.chance,
            record.ideal,
            record.prototype,
            individual,
            others,
        )

    def blocks(self, budget: Budget) -> list[tuple[SampledChain, ...]]:
        """The chains of a setting: each block has other individual chains, and the nearest people's."""
        individual, prototype = budget
        others = self.others[:prototype]
        if not individual:
            return [others]
        whole = len(self.individual) // individual
        return [
            self.individual[block * individual : (block + 1) * individual] + others
            for block in range(max(1, whole))
        ]

    def accuracy(self, budget: Budget) -> float:
        return statistics.fmean(self.right(block) for block in self.blocks(budget))

    def drawn(self, budget: Budget) -> float:
        """As `accuracy`, against the choice that was made."""
        return statistics.fmean(_right(block, 1.0) for block in self.blocks(budget))

    def right(self, chains: Sequence[SampledChain]) -> float:
        """How probable it is that the person chooses what these chains prefer."""
        return _right(chains, self.chance)

    def best(self) -> float:
        """The same of the ideal predictor's preference."""
        return agreement(credit(self.ideal - 0.5), self.chance)


def _setting(
    budget: Budget,
    pool: Sequence[_Pooled],
    one: Mapping[int, float],
    timed: Sequence[ScalingRecord],
) -> SettingRow:
    found = _by_seed(pool, lambda person: person.accuracy(budget))
    mine = [record for record in timed if record.budget == budget]
    seconds = sum(record.seconds for record in mine)
    tokens = sum(record.tokens for record in mine)
    return SettingRow(
        budget=budget,
        accuracy=_mean(found),
        drawn=_mean(_by_seed(pool, lambda person: person.drawn(budget))),
        over_one=_mean({seed: value - one[seed] for seed, value in found.items()}),
        macro=_macro(pool, budget),
        seconds=seconds / len(mine) if mine else None,
        tokens=tokens / len(mine) if mine else None,
        tokens_a_second=tokens / seconds if mine else None,
        engine_calls=statistics.fmean(record.engine_calls for record in mine) if mine else None,
    )


def _macro(pool: Sequence[_Pooled], budget: Budget) -> float:
    of: dict[tuple[int, str | None], list[float]] = defaultdict(list)
    for person in pool:
        of[person.seed, person.prototype].append(person.accuracy(budget))
    return statistics.fmean(statistics.fmean(values) for values in of.values())


def _few_choices(
    pool: Sequence[_Pooled],
    alone: Sequence[ScalingRecord],
    together: Sequence[ScalingRecord],
    own: int,
) -> tuple[FewChoicesRow, ...]:
    rows = []
    for history in sorted({record.history for record in together}):
        some = [_Pooled.of(record) for record in together if record.history == history]
        # With any choice known, the chains without prototypes are the individual ones among these.
        lone = [_Pooled.of(record) for record in alone if record.history == history] or some
        rows.append(_few(history, lone, some, own))
    known = max((record.history for record in together), default=-1) + 1
    return (*rows, _few(known, pool, pool, own))


def _few(history: int, lone: Sequence[_Pooled], some: Sequence[_Pooled], own: int) -> FewChoicesRow:
    without = _by_seed(lone, lambda person: person.accuracy((own, 0)))
    # Of somebody unknown all chains are similar people's; of others as many as of her own.
    most = 2 * own if history == 0 else own
    used = _by_seed(some, lambda person: person.accuracy((own if person.individual else 0, most)))
    return FewChoicesRow(
        history=history,
        alone=_mean(without),
        with_others=_mean(used),
        gain=_mean({seed: used[seed] - without[seed] for seed in used}),
        best=_mean(_by_seed(some, _Pooled.best)),
    )


def _versions(
    pool: Sequence[_Pooled],
    others: Sequence[ScalingRecord],
    agreements: Sequence[Agreement],
    own: int,
) -> tuple[VersionRow, ...]:
    individual = {(person.seed, person.person): person.individual[:own] for person in pool}
    rows = []
    versions = dict.fromkeys(one.version for one in agreements)
    for version in versions:
        mine = [_Pooled.of(record) for record in others if record.version == version]
        if not mine:
            continue
        found = [one for one in agreements if one.version == version]
        sizes = sorted({one.k for one in found})
        rows.append(
            VersionRow(
                version=version,
                k=str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]}-{sizes[-1]}",
                others=_mean(_by_seed(mine, lambda person: person.right(person.others))),
                with_own=_mean(
                    _by_seed(
                        [one for one in mine if (one.seed, one.person) in individual],
                        lambda one: one.right(individual[one.seed, one.person] + one.others),
                    )
                ),
                before=MeanOverSeeds.of([one.before for one in found]),
                after=MeanOverSeeds.of([one.after for one in found]),
            )
        )
    order = {CHOSEN: 0, UNREFINED: 1}
    return tuple(sorted(rows, key=lambda row: order.get(row.version, 2)))


def _stopping(threshold: float, pool: Sequence[_Pooled]) -> StoppingRow:
    full = _by_seed(pool, lambda person: person.accuracy(STOPPING_BUDGET))
    stopped = {
        (person.seed, person.person): [
            _stop(person, block, threshold) for block in person.blocks(STOPPING_BUDGET)
        ]
        for person in pool
    }

    def of(person: _Pooled, place: int) -> float:
        return statistics.fmean(one[place] for one in stopped[person.seed, person.person])

    found = _by_seed(pool, lambda person: of(person, 0))
    return StoppingRow(
        threshold=threshold,
        accuracy=_mean(found),
        against_full=_mean({seed: found[seed] - full[seed] for seed in found}),
        chains=_mean(_by_seed(pool, lambda person: of(person, 1))),
    )


def _stop(person: _Pooled, block: Sequence[SampledChain], threshold: float) -> tuple[float, float]:
    """How right the favorite is when sampling stops, and the share of chains sampled by then."""
    individual = [chain for chain in block if chain.level == "individual"]
    others = [chain for chain in block if chain.level == "prototype"]
    used: list[SampledChain] = []
    for own, shared in plan_rounds(*STOPPING_BUDGET):
        used = [*individual[:own], *others[:shared]]
        surest = max((score.probability_best or 0.0 for score in _scores(used)), default=0.0)
        if surest >= threshold:
            break
    return person.right(used), len(used) / max(1, len(block))


def _right(chains: Sequence[SampledChain], chance: float) -> float:
    """`chance` where the chosen answer is ahead, else 1 - chance; 0.5 for a tie or nothing to go by."""
    chosen, rejected = (score.mean for score in _scores(chains))
    ahead = 0.5 if chosen is None or rejected is None else credit(round(chosen - rejected, 9))
    return agreement(ahead, chance)


def _scores(chains: Sequence[SampledChain]) -> tuple[CandidateScore, ...]:
    return aggregate(
        IDS,
        [
            EvaluationChain(
                level=chain.level,
                signals_of="-",
                order=(0, 1) if chain.chosen_first else (1, 0),
                persona=Persona(text="-"),
                rubric=None,
                marks={},
                reported={},
                totals={"chosen": chain.chosen, "rejected": chain.rejected},
                text="",
                tokens=chain.tokens,
                seed=0,
            )
            for chain in chains
        ],
    )


def _by_seed(people: Iterable[_Pooled], value: Callable[[_Pooled], float]) -> dict[int, float]:
    """Mean over the people of each seed."""
    found: dict[int, list[float]] = defaultdict(list)
    for person in people:
        found[person.seed].append(value(person))
    return {seed: statistics.fmean(values) for seed, values in sorted(found.items())}


def _mean(by_seed: Mapping[int, float]) -> MeanOverSeeds:
    return MeanOverSeeds.of(list(by_seed.values()))
