"""How fast prototypes are: an epoch of the refinement, and finding similar users in the store."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pgenrm_agent.embedding import Vectors
from pgenrm_agent.fields import Model
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.prototypes import Member, Neighbors, PrototypeStore

PAST = 3
PERSONAS_A_USER = 2
SIMILAR = 8
WARM_UP = 3


class MatchMeasurements(Model):
    """A version of `members` personas in an embedded store.

    p50, p99: milliseconds to find the nearest prototype and 8 similar users who agree, the
    persona's vector given. loading: seconds of the first call, which reads the version.
    """

    members: int
    written_per_second: float
    loading: float
    p50: float
    p99: float


def measure_refinement(
    samples: int = 50_000, *, dimension: int = 384, k: int = 50, seed: int = 0
) -> float:
    """Seconds of one epoch of Eq. 4 to 7 with the reference's constants, on random vectors.

    Each sample has three past choices. As many threads as PyTorch is set to.
    """
    from pgenrm_agent.prototypes.refinement import RefinementSettings, Samples, refine

    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Vectors:
        rows = rng.standard_normal((*shape, dimension), dtype=np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), dtype=np.float32)

    def epoch(count: int) -> float:
        drawn = Samples(
            persona=draw(count),
            query=draw(count),
            chosen=draw(count),
            rejected=draw(count),
            past_query=draw(count, PAST),
            past_difference=draw(count, PAST),
            past=np.ones((count, PAST), dtype=bool),
        )
        centroids = draw(k)
        started = time.perf_counter()
        refine(drawn, centroids, RefinementSettings(epochs=1, seed=seed))
        return time.perf_counter() - started

    epoch(32)  # the first one sets up what is set up once
    return epoch(samples)


def measure_matching(
    members: int,
    directory: Path,
    *,
    repeats: int,
    dimension: int = 384,
    k: int = 50,
    similar: int = SIMILAR,
    seed: int = 0,
) -> MatchMeasurements:
    """Write a version of random members to a new memory in `directory`, and match against it.

    members: personas, two of each user; everybody agreed. Each call asks for somebody else, and
    for consent, as an evaluation does.
    """
    rng = np.random.default_rng(seed)

    def draw(rows: int) -> Vectors:
        drawn = rng.standard_normal((rows, dimension), dtype=np.float32)
        return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float32)

    centroids, vectors = draw(k), draw(members)
    users = [f"user-{number // PERSONAS_A_USER}" for number in range(members)]
    labels = (vectors @ centroids.T).argmax(1)
    rows = [
        Member(user, int(label), vector)
        for user, label, vector in zip(users, labels, vectors, strict=True)
    ]
    embedder = _Given(draw(1)[0])
    with UserMemory(directory) as memory:
        memory.import_(
            [
                json.dumps({"record": "consent", "user_id": user, "consent": True})
                for user in dict.fromkeys(users)
            ]
        )
        started = time.perf_counter()
        PrototypeStore(memory).replace(centroids, rows, embedder=embedder.name)
        written = time.perf_counter() - started
        neighbors = Neighbors(memory, embedder, joining=False)
        times = []
        for number in range(WARM_UP + repeats):
            embedder.vector = draw(1)[0]
            started = time.perf_counter()
            neighbors.match(users[number % members], ["given"], "How?", similar)
            times.append(time.perf_counter() - started)
    p50, p99 = 1000 * np.quantile(times[WARM_UP:], [0.5, 0.99])
    return MatchMeasurements(
        members=members,
        written_per_second=members / written,
        loading=times[0],
        p50=float(p50),
        p99=float(p99),
    )


class _Given:
    """An embedder that says what it was given: how long embedding takes is another matter."""

    name = "given"

    def __init__(self, vector: Vectors) -> None:
        self.vector = vector

    @property
    def dimension(self) -> int:
        return len(self.vector)

    def embed(self, texts: Sequence[str]) -> Vectors:
        return np.stack([self.vector] * len(texts))
