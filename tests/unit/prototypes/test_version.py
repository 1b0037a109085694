"""One version in memory: nearest, similar, never the wrong users."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pgenrm_agent.prototypes import Member, PrototypeSet
from pgenrm_agent.prototypes.version import shares


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def random_version(seed: int, *, k: int = 3, users: int = 20, d: int = 5) -> PrototypeSet:
    rng = np.random.default_rng(seed)
    centroids = unit(rng.normal(size=(k, d)))
    vectors = unit(rng.normal(size=(2 * users, d)))
    return PrototypeSet(
        "v",
        "then",
        "e",
        "salt",
        centroids,
        ("",) * k,
        tuple(f"u{i % users}" for i in range(2 * users)),
        (vectors @ centroids.T).argmax(1),
        vectors,
    )


def everybody(asked: Sequence[str]) -> set[str]:
    return set(asked)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 25))
def test_similar_people_are_those_that_a_full_sort_finds(seed: int, count: int) -> None:
    version = random_version(seed)
    vector = unit(np.random.default_rng([seed, 1]).normal(size=(1, 5)))[0]
    rows = sorted(
        range(len(version.user_ids)),
        key=lambda row: (
            list(version.nearest(vector)).index(version.prototype_of[row]),
            -float(version.vectors[row] @ vector),
        ),
    )
    may = {f"u{i}" for i in range(20) if i % 3}
    expected = [u for u in dict.fromkeys(version.user_ids[row] for row in rows) if u in may]
    expected = [user for user in expected if user != "u4"][:count]
    similar = version.similar(vector, count, exclude="u4", allowed=lambda asked: may & set(asked))
    assert similar == expected


def test_consent_is_asked_in_batches_and_not_of_everybody() -> None:
    version = random_version(0, users=500)
    asked: list[int] = []

    def allowed(users: Sequence[str]) -> set[str]:
        asked.append(len(users))
        return set(users)

    assert len(version.similar(version.centroids[0], 3, exclude="", allowed=allowed)) == 3
    assert asked == [12]


@given(weights=st.lists(st.floats(0, 100), min_size=1, max_size=8), count=st.integers(0, 40))
def test_shares_are_proportional_and_complete(weights: list[float], count: int) -> None:
    given_weights = np.array(weights)
    places = shares(given_weights, count)
    assert places.sum() == count
    total = given_weights.sum()
    exact = given_weights / total * count if total else np.full(len(weights), count / len(weights))
    assert (np.abs(places - exact) < 1 + 1e-9).all()


def test_representatives_follow_the_prior_and_are_topped_up() -> None:
    version = random_version(1, users=12)
    prior = np.array([0.0, 0.75, 0.25])
    representatives = version.representatives(prior, 4, exclude="u0", allowed=everybody)
    homes = [set(version.homes[user].tolist()) for user in representatives]
    assert len(set(representatives)) == 4
    assert sum(1 in home for home in homes) >= 3
    everyone = version.representatives(prior, 100, exclude="u0", allowed=everybody)
    assert sorted(everyone) == sorted(set(version.user_ids) - {"u0"})


def test_a_person_who_joins_is_found_at_once() -> None:
    version = random_version(2)
    vector = version.centroids[2]
    joined = version.with_member(Member("new", 2, vector))
    assert joined.similar(vector, 1, exclude="", allowed=everybody) == ["new"]
    assert "new" not in version.user_ids
    assert joined.sizes[2] == version.sizes[2] + 1


def test_neighbors_among_100_000_members_take_a_few_milliseconds() -> None:
    import time

    version = random_version(3, k=50, users=50_000, d=192)
    vector = unit(np.random.default_rng(9).normal(size=(1, 192)))[0]
    version.similar(vector, 8, exclude="u1", allowed=everybody)  # groups the rows, once
    spent = []
    for _ in range(9):
        started = time.perf_counter()
        version.similar(vector, 8, exclude="u1", allowed=everybody)
        spent.append(time.perf_counter() - started)
    assert sorted(spent)[4] < 0.01


def test_sizes_count_people_not_personas() -> None:
    version = PrototypeSet(
        "v",
        "then",
        "e",
        "salt",
        np.eye(2, dtype=np.float32),
        ("", ""),
        ("a", "a", "b"),
        np.array([0, 0, 1]),
        np.eye(2, dtype=np.float32)[[0, 0, 1]],
    )
    assert version.sizes.tolist() == [1, 1]
    assert {user: sorted(homes) for user, homes in version.homes.items()} == {"a": [0, 0], "b": [1]}
