"""What the chains of a scaling study say: accuracy by setting, by known choices, by number of prototypes.

Pure. A setting's score is what the library's own aggregation makes of some of the chains that were
sampled: the first so many of each level. Where the pool has several such blocks of individual chains,
each is a comparison of its own. Figures are means over seeds with the standard error of that mean, and
strict (`evaluation.metrics`): ties and what could not be scored are wrong.

A prediction counts with the probability that the user makes that choice, which the simulation knows.
So its mean is the accuracy that single choices have on average, without their luck.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pgenrm_agent.aggregation import aggregate, leader_holds
from pgenrm_agent.evaluation.metrics import (
    CHANCE,
    Accuracy,
    MeanError,
    credit,
    macro_mean,
    mean_error,
    position_bias,
    strict,
)
from pgenrm_agent.fields import Model
from pgenrm_agent.sampling import plan_rounds
from pgenrm_agent.schema import EvaluationChain, Persona
from studies.scaling.pool import BUDGETS, Budget, Part, SampledChain, ScalingRecord
from studies.scaling.population import CHOSEN, UNREFINED, Agreement

THRESHOLDS = (0.8, 0.9, 0.95, 0.99)
STOPPING_BUDGET: Budget = (16, 8)
ONE: Budget = (1, 0)
MIXED_AND_OWN: tuple[Budget, Budget] = ((16, 8), (32, 0))
IDS = ("chosen", "rejected")


class SettingRow(Model):
    """One of the paper's settings. seconds, tokens, tokens_a_second: of an evaluation on its own.

    drawn: against the choice that each user happened to make. over_one: strict accuracy beyond that
    of one chain, paired by seed. macro: mean over prototypes of their users' strict accuracy, all
    seeds together.
    """

    budget: Budget
    accuracy: Accuracy
    drawn: MeanError
    over_one: MeanError
    macro: float
    seconds: float | None
    tokens: float | None
    tokens_a_second: float | None
    engine_calls: float | None


class KnownRow(Model):
    """Strict accuracy with so many known choices; gain is paired by seed.

    best: of whoever knows the simulated world, from the same choices; see `bayes`.
    """

    history: int
    alone: MeanError
    with_others: MeanError
    gain: MeanError
    best: MeanError


class VersionRow(Model):
    """One way of grouping users.

    others: accuracy of similar users' chains alone. with_own: with as many of the user's own.
    before, after: agreement with the archetypes (adjusted Rand index).
    """

    version: str
    k: str
    others: MeanError
    with_own: MeanError
    before: MeanError
    after: MeanError


class StoppingRow(Model):
    """Sampling in rounds until sure. chains: share of the budget that was spent, 0-1.

    against_full: accuracy beyond that of the whole budget, paired by seed.
    """

    threshold: float
    accuracy: MeanError
    against_full: MeanError
    chains: MeanError


class ScalingReport(Model):
    """All tables of a study.

    seeds_of_versions: how many seeds have every version that is compared. mixed_over_own: strict accuracy
    of Ind-16+Pro-8 beyond that of Ind-32, paired by seed.
    """

    users: int
    newcomers: int
    seeds: int
    settings: tuple[SettingRow, ...]
    mixed_over_own: MeanError
    by_known: tuple[KnownRow, ...]
    versions: tuple[VersionRow, ...]
    seeds_of_versions: int
    own_chains: MeanError
    stopping: tuple[StoppingRow, ...]
    by_chains: dict[int, MeanError]
    position_bias: float | None
    failed: float


def budget_name(budget: Budget) -> str:
    """Return what the paper calls it: 1, Ind-8, Ind-8+Pro-4."""
    individual, prototype = budget
    if budget == ONE:
        return "1"
    return f"Ind-{individual}" + (f"+Pro-{prototype}" if prototype else "")


def report(records: Sequence[ScalingRecord], agreements: Sequence[Agreement]) -> ScalingReport:
    """Read all tables off the records of `sample_study`."""
    of: dict[Part, list[ScalingRecord]] = defaultdict(list)
    for record in records:
        of[record.part].append(record)
    pool = [_Pooled.of(record) for record in of["pool"]]
    own = max(record.budget[0] for record in of["with others"])
    # Versions are compared on the seeds that have all of them.
    seeds = {user.seed for user in pool}
    for version in {record.version for record in of["others"]}:
        seeds &= {record.seed for record in of["others"] if record.version == version}
    compared = [user for user in pool if user.seed in seeds]
    return ScalingReport(
        users=len(pool),
        newcomers=len(of["alone"]),
        seeds=len({record.seed for record in records}),
        settings=tuple(_setting(budget, pool, of) for budget in BUDGETS),
        mixed_over_own=_gain(
            *(_by_seed(pool, partial(_Pooled.outcomes, budget=budget)) for budget in MIXED_AND_OWN)
        ),
        by_known=_by_known(of["alone"], of["with others"], own),
        versions=_versions(compared, of["others"], agreements, own),
        seeds_of_versions=len(seeds),
        own_chains=_mean(_by_seed(compared, partial(_Pooled.outcomes, budget=(own, 0)))),
        stopping=tuple(_stopping(threshold, pool) for threshold in THRESHOLDS),
        by_chains={
            count: _mean(_by_seed(pool, partial(_Pooled.outcomes, budget=(count, 0))))
            for count in (1, 2, 4, 8, 16, 32)
        },
        position_bias=position_bias(
            [
                (credit(chain.chosen, chain.rejected), chain.chosen_first)
                for record in of["pool"]
                for chain in record.chains
            ]
        ).prefers_first,
        failed=sum(record.failed for record in records)
        / sum(record.failed + len(record.chains) for record in records),
    )


Outcome = tuple[float, float]
"""Of one comparison: its credit, and how probable it is that the user chooses as they did."""


@dataclass(frozen=True)
class _Pooled:
    """The chains of one user, by level; `asked` is how many individual ones were asked for."""

    seed: int
    user: str
    chance: float
    ideal: float
    prototype: str | None
    asked: int
    individual: tuple[SampledChain, ...]
    others: tuple[SampledChain, ...]

    @classmethod
    def of(cls, record: ScalingRecord) -> _Pooled:
        individual, others = (
            tuple(chain for chain in record.chains if chain.level == level)
            for level in ("individual", "prototype")
        )
        return cls(
            seed=record.seed,
            user=record.user,
            chance=record.chance,
            ideal=record.ideal,
            prototype=record.prototype,
            asked=record.budget[0],
            individual=individual,
            others=others,
        )

    def blocks(self, budget: Budget) -> list[tuple[SampledChain, ...]]:
        """The chains of a setting: each block has other individual chains, and the nearest users'.

        As many blocks for every user, whatever could be read; what is missing is missing in the last.
        """
        individual, prototype = budget
        others = self.others[:prototype]
        if not individual:
            return [others]
        return [
            self.individual[block * individual : (block + 1) * individual] + others
            for block in range(max(1, self.asked // individual))
        ]

    def outcomes(self, budget: Budget) -> list[Outcome]:
        """One a block of this setting."""
        return [self.outcome(block) for block in self.blocks(budget)]

    def outcome(self, chains: Sequence[SampledChain]) -> Outcome:
        """Of what these chains say together."""
        return _credit(chains), self.chance

    def best(self) -> list[Outcome]:
        """Of the ideal predictor's preference."""
        return [(credit(self.ideal, CHANCE), self.chance)]


def _setting(
    budget: Budget, pool: Sequence[_Pooled], of: Mapping[Part, Sequence[ScalingRecord]]
) -> SettingRow:
    single = _by_seed(pool, partial(_Pooled.outcomes, budget=ONE))
    if not budget[0]:
        # Without chains of their own, users are matched by other personas than in the pool.
        probed = [_Pooled.of(record) for record in of["others"] if record.version == CHOSEN]
        pool = probed or pool
    accuracy = _by_seed(pool, partial(_Pooled.outcomes, budget=budget))
    drawn = _by_seed(pool, lambda user: [(value, 1.0) for value, _ in user.outcomes(budget)])
    mine = [record for record in of["timed"] if record.budget == budget and record.chains]
    seconds = sum(record.seconds for record in mine)
    tokens = sum(record.tokens for record in mine)
    return SettingRow(
        budget=budget,
        accuracy=Accuracy.over(list(accuracy.values())),
        drawn=_mean(drawn),
        over_one=_gain(accuracy, single),
        macro=_macro(pool, budget),
        seconds=seconds / len(mine) if mine else None,
        tokens=tokens / len(mine) if mine else None,
        tokens_a_second=tokens / seconds if mine else None,
        engine_calls=statistics.fmean(record.engine_calls for record in mine) if mine else None,
    )


def _macro(pool: Sequence[_Pooled], budget: Budget) -> float:
    outcomes = [
        ((user.seed, user.prototype), outcome) for user in pool for outcome in user.outcomes(budget)
    ]
    counted = strict([value for _, (value, _) in outcomes], [chance for _, (_, chance) in outcomes])
    return macro_mean(counted, [group for group, _ in outcomes]) or 0.0


def _by_known(
    alone: Sequence[ScalingRecord], together: Sequence[ScalingRecord], own: int
) -> tuple[KnownRow, ...]:
    rows = []
    for history in sorted({record.history for record in together}):
        some = [_Pooled.of(record) for record in together if record.history == history]
        # With any choice known, the chains without prototypes are the individual ones among these.
        lone = [_Pooled.of(record) for record in alone if record.history == history] or some
        rows.append(_known(history, lone, some, own))
    return tuple(rows)


def _known(history: int, lone: Sequence[_Pooled], some: Sequence[_Pooled], own: int) -> KnownRow:
    without = _by_seed(lone, partial(_Pooled.outcomes, budget=(own, 0)))
    # Of somebody unknown all chains are similar users'; of others as many as of their own.
    most = 2 * own if history == 0 else own
    used = _by_seed(some, lambda user: user.outcomes((own if user.individual else 0, most)))
    return KnownRow(
        history=history,
        alone=_mean(without),
        with_others=_mean(used),
        gain=_gain(used, without),
        best=_mean(_by_seed(some, _Pooled.best)),
    )


def _versions(
    pool: Sequence[_Pooled],
    others: Sequence[ScalingRecord],
    agreements: Sequence[Agreement],
    own: int,
) -> tuple[VersionRow, ...]:
    individual = {(user.seed, user.user): user.individual[:own] for user in pool}
    seeds = {user.seed for user in pool}
    agreements = [agreement for agreement in agreements if agreement.seed in seeds]
    rows = []
    for version in dict.fromkeys(agreement.version for agreement in agreements):
        mine = [
            _Pooled.of(record)
            for record in others
            if record.version == version and record.seed in seeds
        ]
        if not mine:
            continue
        groupings = [agreement for agreement in agreements if agreement.version == version]
        sizes = sorted({agreement.k for agreement in groupings})
        rows.append(
            VersionRow(
                version=version,
                k=str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]}-{sizes[-1]}",
                others=_mean(_by_seed(mine, lambda user: [user.outcome(user.others)])),
                with_own=_mean(
                    _by_seed(
                        [user for user in mine if (user.seed, user.user) in individual],
                        lambda user: [user.outcome(individual[user.seed, user.user] + user.others)],
                    )
                ),
                before=mean_error([agreement.before for agreement in groupings]),
                after=mean_error([agreement.after for agreement in groupings]),
            )
        )
    order = {CHOSEN: 0, UNREFINED: 1}
    return tuple(sorted(rows, key=lambda row: order.get(row.version, 2)))


def _stopping(threshold: float, pool: Sequence[_Pooled]) -> StoppingRow:
    full = _by_seed(pool, partial(_Pooled.outcomes, budget=STOPPING_BUDGET))
    spent: dict[int, list[float]] = defaultdict(list)

    def stopped(user: _Pooled) -> list[Outcome]:
        outcomes = []
        for block in user.blocks(STOPPING_BUDGET):
            used = _until_sure(block, threshold)
            spent[user.seed].append(len(used) / max(1, len(block)))
            outcomes.append(user.outcome(used))
        return outcomes

    accuracy = _by_seed(pool, stopped)
    return StoppingRow(
        threshold=threshold,
        accuracy=_mean(accuracy),
        against_full=_gain(accuracy, full),
        chains=mean_error([statistics.fmean(shares) for shares in spent.values()]),
    )


def _until_sure(block: Sequence[SampledChain], threshold: float) -> list[SampledChain]:
    """Return the chains that are sampled by when the leader holds with that probability."""
    individual = [chain for chain in block if chain.level == "individual"]
    others = [chain for chain in block if chain.level == "prototype"]
    used: list[SampledChain] = []
    for own, shared in plan_rounds(*STOPPING_BUDGET):
        used = [*individual[:own], *others[:shared]]
        if leader_holds(IDS, _chains(used)) >= threshold:
            break
    return used


def _credit(chains: Sequence[SampledChain]) -> float:
    chosen, rejected = (score.mean for score in aggregate(IDS, _chains(chains)))
    return credit(chosen, rejected)


def _chains(chains: Sequence[SampledChain]) -> list[EvaluationChain]:
    return [
        EvaluationChain(
            level=chain.level,
            signals_of=f"neighbor {number}" if chain.level == "prototype" else "-",
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
        for number, chain in enumerate(chains)
    ]


def _by_seed(
    users: Iterable[_Pooled], outcomes: Callable[[_Pooled], list[Outcome]]
) -> dict[int, Accuracy]:
    """Count the outcomes of each seed's users."""
    by_seed: dict[int, list[Outcome]] = defaultdict(list)
    for user in users:
        by_seed[user.seed] += outcomes(user)
    return {
        seed: Accuracy.of([value for value, _ in own], chances=[chance for _, chance in own])
        for seed, own in sorted(by_seed.items())
    }


def _mean(by_seed: Mapping[int, Accuracy]) -> MeanError:
    return Accuracy.over(list(by_seed.values())).strict


def _gain(by_seed: Mapping[int, Accuracy], without: Mapping[int, Accuracy]) -> MeanError:
    """Return the difference in strict accuracy, paired by seed."""
    return mean_error(
        [accuracy.strict.mean - without[seed].strict.mean for seed, accuracy in by_seed.items()]
    )
