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
        "person": "p",
        "archetype": "a",
        "chance": 1.0,
        "ideal": 0.6,
        "history": 3,
        "version": "chosen",
        "budget": (2, 2),
        "prototype": "0",
        "failed": 0,
        "tokens": 100,
        "engine_calls": 2,
        "seconds": 2.0,
        "engine_seconds": 1.9,
        "chains": [*(chain(one) for one in own), *(chain(one, "prototype") for one in others)],
    }
    return ScalingRecord.model_validate(fields | changed)


def study() -> ScalingReport:
    """Two seeds of one person: of the second, own chains are wrong and similar people's right."""
    right = [1.0] * 32
    mixed = [1.0, -1.0] * 16
    return report(
        [
            record("pool", 0, right, [2.0] * 16),
            record("pool", 1, mixed, [2.0] * 16),
            *(record("alone", seed, [-1.0], [], history=0) for seed in (0, 1)),
            *(record("with others", seed, [], [1.0, 1.0], history=0) for seed in (0, 1)),
            *(record("with others", seed, [-1.0, -1.0], [3.0, 3.0], history=1) for seed in (0, 1)),
            *(record("others", seed, [], [-2.0, -2.0]) for seed in (0, 1)),
            record("timed", 0, [1.0], [], budget=(1, 0)),
        ],
        AGREEMENT,
    )


def row(found: ScalingReport, budget: tuple[int, int]) -> SettingRow:
    return next(one for one in found.settings if one.budget == budget)


def test_one_chain_is_the_mean_over_all_chains() -> None:
    one = row(study(), (1, 0))
    assert one.accuracy.mean == pytest.approx(0.75)  # 1 of seed 0, one half of seed 1
    assert one.accuracy.standard_error == pytest.approx(0.25)
    assert (one.over_one.mean, one.over_one.standard_error) == (0.0, 0.0)


def test_a_prediction_counts_with_the_chance_that_the_person_chooses_so() -> None:
    """Seed 0's chains prefer what was chosen, seed 1's the other; of ten times that is chosen seven."""
    for_it, against = [1.0] * 32, [-1.0] * 32
    found = report(
        [
            record("pool", seed, own, [], chance=0.7, ideal=0.4)
            for seed, own in ((0, for_it), (1, against))
        ]
        + [
            record(part, seed, [1.0], [], history=0, chance=0.7)
            for part in ("alone", "with others")
            for seed in (0, 1)
        ],
        AGREEMENT,
    )
    ind_8 = row(found, (8, 0))
    assert ind_8.accuracy.mean == pytest.approx((0.7 + 0.3) / 2)
    assert ind_8.accuracy.standard_error == pytest.approx(0.2)
    assert ind_8.drawn.mean == 0.5
    assert ind_8.drawn.standard_error == pytest.approx(0.5)
    assert found.few_choices[-1].best.mean == pytest.approx(0.3)


def test_levels_are_weighed_alike_whatever_their_number_of_chains() -> None:
    """Seed 1's sixteen own chains cancel; eight similar people's decide."""
    assert row(study(), (16, 8)).accuracy.mean == 1.0
    assert row(study(), (16, 8)).over_one.mean == pytest.approx(0.25)
    assert row(study(), (16, 0)).accuracy.mean == pytest.approx(0.75)  # a tie is one half
    assert row(study(), (0, 8)).accuracy.mean == 1.0


def test_what_an_evaluation_takes_comes_from_the_timed_ones_alone() -> None:
    one = row(study(), (1, 0))
    assert (one.seconds, one.tokens, one.tokens_a_second) == (2.0, 100.0, 50.0)
    assert row(study(), (8, 0)).seconds is None


def test_macro_accuracy_is_over_prototypes() -> None:
    found = report(
        [
            record("pool", 0, [1.0], [], person="p", prototype="0"),
            record("pool", 0, [1.0], [], person="q", prototype="0"),
            record("pool", 0, [-1.0], [], person="r", prototype="1"),
            record("with others", 0, [1.0], [1.0], history=0),
            record("alone", 0, [1.0], [], history=0),
        ],
        [],
    )
    assert row(found, (1, 0)).accuracy.mean == pytest.approx(2 / 3)
    assert row(found, (1, 0)).macro == pytest.approx(0.5)


def test_gain_of_similar_people_by_known_choices() -> None:
    none, one, all_ = study().few_choices
    assert (none.history, none.alone.mean, none.with_others.mean) == (0, 0.0, 1.0)
    # One known choice: own margin -1, others' +3, so the mean of the levels is above zero.
    assert (one.history, one.alone.mean, one.with_others.mean, one.gain.mean) == (1, 0.0, 1.0, 1.0)
    assert all_.history == 2


def test_versions_tell_chains_alone_and_with_own_ones() -> None:
    (version,) = study().versions
    assert (version.version, version.k) == ("chosen", "2")
    assert version.others.mean == 0.0
    assert version.with_own.mean == 0.0  # seed 0: +1 and -2; seed 1: 0 and -2
    assert version.after.mean == pytest.approx(0.4)


def test_stopping_spends_less_where_all_chains_agree() -> None:
    found = {one.threshold: one for one in study().stopping}
    # Seed 0 is unanimous: the first of four rounds settles it, 4 + 2 of 24 chains.
    assert found[0.8].chains.mean < 0.8
    assert found[0.8].chains.mean >= 0.25
    assert found[0.99].chains.mean >= found[0.8].chains.mean
