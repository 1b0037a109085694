"""Clustering and refinement, checked against a second computation in NumPy, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.prototypes.refinement import (
    AttentiveRefinement,
    RefinementSettings,
    Samples,
    choose_k,
    cluster,
    nearest,
    refine,
)


def _unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def _samples(rng: np.random.Generator, rows: int, steps: int, dimension: int) -> Samples:
    past = rng.random((rows, steps)) < 0.7
    past[0] = False  # somebody without any past choice

    def draw(*shape: int) -> np.ndarray:
        return _unit(rng.normal(size=(*shape, dimension)))

    return Samples(
        persona=draw(rows),
        query=draw(rows),
        chosen=draw(rows),
        rejected=draw(rows),
        past_query=draw(rows, steps),
        past_difference=draw(rows, steps),
        past=past,
    )


def _margin_by_hand(
    model: AttentiveRefinement, samples: Samples, of: np.ndarray, row: int
) -> float:
    """Eq. 4 to 6 for one sample, one past choice after the other."""
    settings = model.settings
    prototypes = model.prototypes.detach().numpy().astype(np.float64)
    history, query_map, summary_map = (
        part.weight.detach().numpy().astype(np.float64)
        for part in (model.history, model.query, model.summary)
    )
    own, query = prototypes[of[row]], samples.query[row].astype(np.float64)
    root = np.sqrt(len(query))
    said, logits = [], []
    for step in np.flatnonzero(samples.past[row]):
        both = np.concatenate([samples.past_query[row, step], samples.past_difference[row, step]])
        attended = np.tanh(history @ both.astype(np.float64))
        said.append(attended)
        logits.append(attended @ query / root + settings.rho * (attended @ own) / root)
    summary = np.zeros_like(query)
    if said:
        weights = np.exp(np.array(logits) - max(logits))
        weights /= weights.sum()
        for weight, attended in zip(weights, said, strict=True):
            summary += weight * attended
    z = own + settings.lambda_q * query_map @ query + settings.lambda_s * summary_map @ summary
    chosen, rejected = samples.chosen[row], samples.rejected[row]
    return float(z @ chosen.astype(np.float64) - z @ rejected.astype(np.float64))


@pytest.mark.parametrize("seed", range(5))
def test_equations_4_to_7_agree_with_a_computation_by_hand(seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = _samples(rng, rows=7, steps=4, dimension=6)
    settings = RefinementSettings(
        rho=0.3 + seed, lambda_q=0.7, lambda_s=1.3, lambda_cent=0.2, lambda_tr=0.4
    )
    torch.manual_seed(seed)
    prototypes = _unit(rng.normal(size=(3, 6)))
    model = AttentiveRefinement(torch.from_numpy(prototypes), settings)
    of = rng.integers(3, size=7)
    margins = np.array([_margin_by_hand(model, samples, of, row) for row in range(7)])
    assert model.predict(samples, of) == pytest.approx(margins, abs=1e-5)

    means, smoothed = rng.normal(size=(2, 3, 6))
    by_hand = np.mean(
        [
            np.log1p(np.exp(-margins[row]))
            + 0.2 * np.sum((prototypes[of[row]] - means[of[row]]) ** 2)
            + 0.4 * np.sum((prototypes[of[row]] - smoothed[of[row]]) ** 2)
            for row in range(7)
        ]
    )
    loss = model.loss(
        torch.from_numpy(of),
        samples,
        torch.from_numpy(means.astype(np.float32)),
        torch.from_numpy(smoothed.astype(np.float32)),
    )
    assert float(loss.detach()) == pytest.approx(by_hand, abs=1e-5)


def test_padding_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    samples = _samples(rng, rows=5, steps=3, dimension=4)
    wider = Samples(
        **{
            **vars(samples),
            "past_query": np.concatenate(
                [samples.past_query, np.full((5, 2, 4), 9, np.float32)], 1
            ),
            "past_difference": np.concatenate(
                [samples.past_difference, np.full((5, 2, 4), -9, np.float32)], 1
            ),
            "past": np.concatenate([samples.past, np.zeros((5, 2), bool)], 1),
        }
    )
    model = AttentiveRefinement(
        torch.from_numpy(_unit(rng.normal(size=(2, 4)))), RefinementSettings()
    )
    of = np.array([0, 1, 0, 1, 0])
    assert model.predict(wider, of) == pytest.approx(model.predict(samples, of), abs=1e-6)


def _two_camps(rng: np.random.Generator, rows: int) -> tuple[Samples, np.ndarray]:
    """People of two camps; what they choose by leans on what sets their personas apart, and more."""
    camp = rng.integers(2, size=rows)
    direction = _unit(2 * np.eye(8)[0] + np.eye(8)[2])
    lean = np.where(camp == 0, 1.0, -1.0)[:, None]
    persona = _unit(rng.normal(size=(rows, 8)) * 0.5 + np.eye(8)[2] * lean)
    answers = _unit(rng.normal(size=(2, rows, 8)))
    likes_first = ((answers[0] - answers[1]) @ direction) * lean[:, 0] > 0
    return (
        Samples(
            persona=persona,
            query=_unit(rng.normal(size=(rows, 8))),
            chosen=np.where(likes_first[:, None], answers[0], answers[1]),
            rejected=np.where(likes_first[:, None], answers[1], answers[0]),
            past_query=np.zeros((rows, 1, 8), np.float32),
            past_difference=np.zeros((rows, 1, 8), np.float32),
            past=np.zeros((rows, 1), bool),
        ),
        camp,
    )


def test_refinement_learns_what_each_camp_chooses() -> None:
    rng = np.random.default_rng(0)
    samples, camp = _two_camps(rng, 1200)
    train, test = samples.take(np.arange(800)), samples.take(np.arange(800, 1200))
    centroids, labels = cluster(train.persona, 2, seed=0)
    agreement = np.mean(labels == camp[:800])
    assert max(agreement, 1 - agreement) > 0.95
    before = AttentiveRefinement(
        torch.from_numpy(centroids), RefinementSettings(lambda_q=0, lambda_s=0)
    )
    untrained = np.mean(before.predict(test, nearest(test.persona, centroids)) > 0)
    refined = refine(
        train, centroids, RefinementSettings(epochs=6, learning_rate=3e-3, lambda_cent=0.1)
    )
    after = np.mean(refined.model.predict(test, nearest(test.persona, refined.prototypes)) > 0)
    assert refined.losses[-1] < refined.losses[0]
    assert after > untrained + 0.05
    assert np.linalg.norm(refined.prototypes, axis=1) == pytest.approx(np.ones(2), abs=1e-5)


def test_the_regularizers_hold_prototypes_back() -> None:
    samples, _ = _two_camps(np.random.default_rng(1), 300)
    centroids, _ = cluster(samples.persona, 2, seed=0)

    def moved(**constants: float) -> float:
        settings = RefinementSettings(epochs=3, learning_rate=1e-2, **constants)  # type: ignore[arg-type]
        return float(np.linalg.norm(refine(samples, centroids, settings).prototypes - centroids))

    free = moved(lambda_cent=0, lambda_tr=0)
    assert moved(lambda_cent=10, lambda_tr=0) < free
    assert moved(lambda_cent=0, lambda_tr=10) < free


def test_the_same_seed_gives_the_same_prototypes() -> None:
    samples, _ = _two_camps(np.random.default_rng(2), 200)
    centroids, _ = cluster(samples.persona, 3, seed=5)
    torch.manual_seed(1)
    first = refine(samples, centroids, RefinementSettings(epochs=2, seed=4))
    torch.manual_seed(2)
    again = refine(samples, centroids, RefinementSettings(epochs=2, seed=4))
    reseeded = refine(samples, centroids, RefinementSettings(epochs=2, seed=5))
    assert np.array_equal(first.prototypes, again.prototypes)
    assert not np.array_equal(first.prototypes, reseeded.prototypes)


def test_samples_can_be_drawn_anew_for_each_epoch() -> None:
    samples, _ = _two_camps(np.random.default_rng(2), 200)
    centroids, _ = cluster(samples.persona, 3, seed=5)
    settings = RefinementSettings(epochs=3)
    epochs: list[int] = []

    def draw(epoch: int) -> Samples:
        epochs.append(epoch)
        return samples

    again = refine(draw, centroids, settings)
    assert epochs == [0, 1, 2]
    assert np.array_equal(again.prototypes, refine(samples, centroids, settings).prototypes)
    others = refine(
        lambda epoch: samples.take(np.random.default_rng(epoch).integers(200, size=200)),
        centroids,
        settings,
    )
    assert not np.array_equal(again.prototypes, others.prototypes)
    with pytest.raises(ConfigurationError, match="draw equally many"):
        refine(lambda epoch: samples.take(np.arange(100 + epoch)), centroids, settings)


def test_a_prototype_without_samples_stays_where_it_is() -> None:
    samples, _ = _two_camps(np.random.default_rng(2), 60)
    centroids = np.concatenate([cluster(samples.persona, 2, seed=0)[0], -np.eye(8)[5:6]]).astype(
        np.float32
    )
    refined = refine(samples, centroids, RefinementSettings(epochs=2))
    if 2 not in nearest(samples.persona, centroids):
        assert refined.prototypes[2] == pytest.approx(centroids[2], abs=1e-3)


@pytest.mark.parametrize("groups", [3, 8, 20])
def test_k_is_near_the_number_of_groups(groups: int) -> None:
    rng = np.random.default_rng(groups)
    centers = _unit(rng.normal(size=(groups, 48)))
    personas = _unit(np.repeat(centers, 60, axis=0) + 0.02 * rng.normal(size=(groups * 60, 48)))
    choice = choose_k(personas)
    assert abs(choice.k - groups) <= max(1, groups // 5)
    assert f"{choice.k}" in choice.reason
    assert choice.retained[-1] == pytest.approx(1)
    assert np.all(np.diff(choice.retained) >= -1e-12)


def test_few_people_get_few_prototypes() -> None:
    rng = np.random.default_rng(0)
    choice = choose_k(_unit(rng.normal(size=(12, 48))))
    assert choice.k == 2
    assert "12 samples" in choice.reason
    assert choose_k(_unit(rng.normal(size=(1, 48)))).k == 1
    same = np.repeat(_unit(rng.normal(size=(1, 48))), 30, axis=0)
    assert choose_k(same).k == 1


def test_wrong_shapes_and_sizes_are_named() -> None:
    samples, _ = _two_camps(np.random.default_rng(2), 20)
    with pytest.raises(ConfigurationError, match=r"samples\.query has shape \(3, 8\)"):
        Samples(**{**vars(samples), "query": samples.query[:3]})
    with pytest.raises(ConfigurationError, match="k is 21"):
        cluster(samples.persona, 21, seed=0)
    with pytest.raises(ConfigurationError, match="same number of dimensions"):
        refine(samples, np.ones((2, 3), np.float32))
    with pytest.raises(ConfigurationError, match="no samples"):
        refine(samples.take(np.arange(0)), np.ones((2, 8), np.float32))
