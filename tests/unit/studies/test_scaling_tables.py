"""What is read off a pool of chains, against values worked out by hand."""

from __future__ import annotations

import pytest

from studies.scaling.pool import SampledChain, ScalingRecord
from studies.scaling.population import Agreement
from studies.scaling.tables import ScalingReport, SettingRow, report

AGREEMENT = [
    Agreement(seed=seed, version="chosen", k=2, before=0.2, after=0.4, reason="-")
    for seed in (0, 1)
]


def chain(margin: float, level: str = "individual") -> SampledChain:
    return SampledChain(
        level=level,  # type: ignore[arg-type]
        chosen=5 + margin,
        rejected=5,
        chosen_first=True,
        tokens=10,
    )


def record(
    part: str, seed: int, own: list[float], others: list[float], **changed: object
) -> ScalingRecord:
    fields: dict[str, object] = {
        "part": part,
        "seed": seed,
        "user": "p",
        "archetype": "a",
        "chance": 1.0,
        "ideal": 0.6,
        "history": 3,
        "version": "chosen",
        "budget": (len(own), len(others)),
        "prototype": "0",
        "failed": 0,
        "tokens": 100,
        "engine_calls": 2,
        "seconds": 2.0,
        "engine_seconds": 1.9,
        "chains": [
            *(chain(margin) for margin in own),
            *(chain(margin, "prototype") for margin in others),
        ],
    }
    return ScalingRecord.model_validate(fields | changed)


def study(margin: float = 1.0) -> ScalingReport:
    """Two seeds of one user: of the second, own chains are wrong and similar users' right.

    margin: of the first seed's own chains; those of similar users have twice as much.
    """
    right = [margin] * 32
    mixed = [1.0, -1.0] * 16
    return report(
        [
            record("pool", 0, right, [2 * margin] * 16),
            record("pool", 1, mixed, [2.0] * 16),
            *(record("alone", seed, [-1.0], [], history=0) for seed in (0, 1)),
            *(
                record("with others", seed, [], [1.0, 1.0], history=0, budget=(2, 2))
                for seed in (0, 1)
            ),
            *(record("with others", seed, [-1.0, -1.0], [3.0, 3.0], history=1) for seed in (0, 1)),
            *(record("with others", seed, [1.0, 1.0], [1.0, 1.0]) for seed in (0, 1)),
            *(record("others", seed, [], [-2.0, -2.0]) for seed in (0, 1)),
            record("timed", 0, [1.0], [], budget=(1, 0)),
        ],
        AGREEMENT,
    )


def row(tables: ScalingReport, budget: tuple[int, int]) -> SettingRow:
    return next(setting for setting in tables.settings if setting.budget == budget)


def test_one_chain_is_the_mean_over_all_chains() -> None:
    single = row(study(), (1, 0))
    assert single.accuracy.strict.mean == pytest.approx(0.75)  # 1 of seed 0, one half of seed 1
    assert single.accuracy.strict.standard_error == pytest.approx(0.25)
    assert (single.over_one.mean, single.over_one.standard_error) == (0.0, 0.0)


def test_ties_and_what_could_not_be_read_are_never_right() -> None:
    """Of seed 0 all chains say the same of both answers; of seed 1 none could be read."""
    tables = report(
        [record("pool", 0, [0.0] * 32, []), record("pool", 1, [], [], budget=(32, 16))]
        + [
            record(part, seed, [1.0], [], history=0)
            for part in ("alone", "with others")
            for seed in (0, 1)
        ],
        AGREEMENT,
    )
    for budget in ((1, 0), (8, 0), (16, 8)):
        accuracy = row(tables, budget).accuracy
        assert (accuracy.strict.mean, accuracy.coverage) == (0.0, 0.5)
        assert accuracy.accuracy is not None
        assert accuracy.accuracy.mean == 0.5
    # Every user weighs the same: 32 single chains, read or not.
    assert row(tables, (1, 0)).accuracy.comparisons == 64


def test_a_prediction_counts_with_the_chance_that_the_user_chooses_so() -> None:
    """Seed 0's chains prefer what was chosen, seed 1's the other; of ten times that is chosen seven."""
    for_it, against = [1.0] * 32, [-1.0] * 32
    tables = report(
        [
            record("pool", seed, own, [], chance=0.7, ideal=0.4)
            for seed, own in ((0, for_it), (1, against))
        ]
        + [
            record(part, seed, [1.0], [], history=0, chance=0.7, ideal=0.4)
            for part in ("alone", "with others")
            for seed in (0, 1)
        ],
        AGREEMENT,
    )
    ind_8 = row(tables, (8, 0))
    assert ind_8.accuracy.strict.mean == pytest.approx((0.7 + 0.3) / 2)
    assert ind_8.accuracy.strict.standard_error == pytest.approx(0.2)
    assert ind_8.drawn.mean == 0.5
    assert ind_8.drawn.standard_error == pytest.approx(0.5)
    assert tables.by_known[-1].best.mean == pytest.approx(0.3)


def test_levels_are_weighed_alike_whatever_their_number_of_chains() -> None:
    """Seed 1's sixteen own chains cancel; eight similar users' decide."""
    assert row(study(), (16, 8)).accuracy.strict.mean == 1.0
    assert row(study(), (16, 8)).over_one.mean == pytest.approx(0.25)
    assert row(study(), (32, 0)).accuracy.strict.mean == 0.5
    assert study().mixed_over_own.mean == pytest.approx(0.5)
    assert row(study(), (16, 0)).accuracy.strict.mean == 0.5  # a tie is wrong
    half = row(study(), (16, 0)).accuracy.accuracy
    assert half is not None
    assert half.mean == pytest.approx(0.75)  # a tie is one half


def test_without_chains_of_their_own_users_are_matched_as_they_are_then() -> None:
    """The pool's similar users are found by 32 personas, and favor the chosen answer; the others do not."""
    assert row(study(), (0, 8)).accuracy.strict.mean == 0.0


def test_versions_are_compared_on_the_seeds_that_have_all_of_them() -> None:
    others = [record("others", seed, [], [-2.0 + 4 * seed]) for seed in (0, 1)]
    refined = [record("others", 0, [], [1.0], version="6")]
    agreement = [
        Agreement(seed=seed, version=version, k=2, before=0.1, after=0.4 * seed, reason="-")
        for seed, version in ((0, "chosen"), (1, "chosen"), (0, "6"))
    ]
    rest = [
        record(part, seed, [1.0], [], history=0)
        for part in ("alone", "with others")
        for seed in (0, 1)
    ]
    own = [record("pool", seed, [1.0 - 2 * seed] * 32, []) for seed in (0, 1)]
    tables = report([*own, *rest, *others, *refined], agreement)
    assert tables.seeds_of_versions == 1
    chosen, six = tables.versions
    assert (chosen.version, chosen.others.mean, chosen.after.mean) == ("chosen", 0.0, 0.0)
    assert (six.version, six.others.mean) == ("6", 1.0)
    assert tables.own_chains.mean == 1.0  # of that seed, too


def test_what_an_evaluation_takes_comes_from_the_timed_ones_alone() -> None:
    single = row(study(), (1, 0))
    assert (single.seconds, single.tokens, single.tokens_a_second) == (2.0, 100.0, 50.0)
    assert row(study(), (8, 0)).seconds is None


def test_macro_accuracy_is_over_prototypes() -> None:
    tables = report(
        [
            record("pool", 0, [1.0], [], user="p", prototype="0"),
            record("pool", 0, [1.0], [], user="q", prototype="0"),
            record("pool", 0, [-1.0], [], user="r", prototype="1"),
            record("with others", 0, [1.0], [1.0], history=0),
            record("alone", 0, [1.0], [], history=0),
        ],
        [],
    )
    assert row(tables, (1, 0)).accuracy.strict.mean == pytest.approx(2 / 3)
    assert row(tables, (1, 0)).macro == pytest.approx(0.5)


def test_gain_of_similar_users_by_known_choices() -> None:
    none, some, all_ = study().by_known
    assert (none.history, none.alone.mean, none.with_others.mean) == (0, 0.0, 1.0)
    # One known choice: own margin -1, others' +3, so the mean of the levels is above zero.
    assert (some.history, some.alone.mean, some.with_others.mean) == (1, 0.0, 1.0)
    assert some.gain.mean == 1.0
    assert all_.history == 3


def test_versions_tell_chains_alone_and_with_own_ones() -> None:
    (version,) = study().versions
    assert (version.version, version.k) == ("chosen", "2")
    assert version.others.mean == 0.0
    assert version.with_own.mean == 0.0  # seed 0: +1 and -2; seed 1: 0 and -2
    assert version.after.mean == pytest.approx(0.4)


def test_stopping_spends_less_where_all_chains_agree() -> None:
    """Of 16 and 8 chains, the first round of four samples 4 and 2: all of seed 0 agree, seed 1's do not.

    Own chains that cancel and others' that agree leave seed 1 less sure at first than seed 0 is.
    """
    stopping = {row.threshold: row for row in study(margin=2.5).stopping}
    unsure = report(
        [record("pool", seed, [1.0, -1.0] * 16, [1.0, -1.0] * 8) for seed in (0, 1)]
        + [
            record(part, seed, [1.0], [], history=0)
            for part in ("alone", "with others")
            for seed in (0, 1)
        ],
        AGREEMENT,
    )
    assert {row.chains.mean for row in unsure.stopping} == {1.0}
    sure = report(
        [record("pool", seed, [5.0] * 32, [5.0] * 16) for seed in (0, 1)]
        + [
            record(part, seed, [1.0], [], history=0)
            for part in ("alone", "with others")
            for seed in (0, 1)
        ],
        AGREEMENT,
    )
    assert {row.chains.mean for row in sure.stopping} == {6 / 24}
    spent = [stopping[threshold].chains.mean for threshold in (0.8, 0.9, 0.95, 0.99)]
    assert spent == sorted(spent)
    assert 6 / 24 <= spent[0] < 1
    # What was right with the whole budget is right with less of it here.
    assert {row.against_full.mean for row in stopping.values()} == {0.0}
