"""One version of the prototypes, in memory: who belongs where, and who is near. Pure NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pgenrm_agent.embedding import Vectors

Allowed = Callable[[Sequence[str]], set[str]]
"""Of these user ids, those who may take part."""

ASKED_AT_ONCE = 4
"""Candidates for a neighbor's place that are looked up together, times the places."""


@dataclass(frozen=True)
class Member:
    """One persona of one user, by its embedding (d,) of length 1."""

    user_id: str
    prototype: int
    vector: npt.NDArray[np.float32]


@dataclass(frozen=True)
class PrototypeSet:
    """A version, complete and unchanging.

    centroids: (k, d), unit length. labels: (k,), what a prototype's members share, in words.
    user_ids, prototype_of, vectors: one row per member persona; (m,), (m,), (m, d) of unit length.
    salt: makes the opaque names of this version's users.
    joined: how many of the rows came after the build. remembered: how many past choices there were of
    each user when it was made.
    """

    version: str
    built_at: str
    embedder: str
    salt: str
    centroids: Vectors
    labels: tuple[str, ...]
    user_ids: tuple[str, ...]
    prototype_of: npt.NDArray[np.int64]
    vectors: Vectors
    joined: int = 0
    remembered: Mapping[str, int] = field(default_factory=dict)

    @property
    def k(self) -> int:
        """The number of prototypes."""
        return len(self.centroids)

    @cached_property
    def rows_of(self) -> tuple[npt.NDArray[np.int64], ...]:
        """The rows of each prototype's members."""
        order = np.argsort(self.prototype_of, kind="stable")
        cuts = np.searchsorted(self.prototype_of[order], np.arange(1, self.k))
        return tuple(np.split(order, cuts))

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """(k,) users of each prototype."""
        pairs = {
            (user, int(prototype))
            for user, prototype in zip(self.user_ids, self.prototype_of, strict=True)
        }
        return np.bincount([prototype for _, prototype in pairs], minlength=self.k)

    @cached_property
    def homes(self) -> dict[str, npt.NDArray[np.int64]]:
        """The prototypes of each user, one per persona."""
        homes: dict[str, list[int]] = {}
        for user, prototype in zip(self.user_ids, self.prototype_of, strict=True):
            homes.setdefault(user, []).append(int(prototype))
        return {user: np.array(ones) for user, ones in homes.items()}

    def nearest(self, vector: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Prototypes by cosine to a persona (d,), nearest first."""
        return np.asarray(np.argsort(-(self.centroids @ vector), kind="stable"), dtype=np.int64)

    def with_member(self, member: Member) -> PrototypeSet:
        """Return the same version after somebody joined; their earlier rows stay beside the new one."""
        return replace(
            self,
            user_ids=(*self.user_ids, member.user_id),
            prototype_of=np.append(self.prototype_of, member.prototype),
            vectors=np.concatenate([self.vectors, member.vector[None]]),
            joined=self.joined + 1,
        )

    def similar(
        self, vector: npt.NDArray[np.float32], count: int, *, exclude: str, allowed: Allowed
    ) -> list[str]:
        """Return the `count` most similar users of the nearest prototype (paper 4.2.2), topped up.

        Nearest prototype first, most similar member first; users of the next prototype only where
        the nearer ones have too few. Never `exclude`, never twice, only those `allowed`.
        """
        return self._first_allowed(
            (
                user
                for prototype in self.nearest(vector)
                for user in self._members_by(int(prototype), vector)
            ),
            count,
            exclude,
            allowed,
        )

    def representatives(
        self, weights: npt.NDArray[np.float64], count: int, *, exclude: str, allowed: Allowed
    ) -> list[str]:
        """`count` users for somebody of whom nothing is known, by a prior over prototypes.

        weights: (k,), at least 0; each prototype gets places in proportion (largest remainder),
        filled with the members nearest to its centroid.
        """
        users: list[str] = []
        places = shares(weights, count)
        order = np.argsort(-weights, kind="stable")
        for wanted in (places, np.full(self.k, count)):  # the second time tops up
            for prototype in order:
                taken = set(users)
                need = min(int(wanted[prototype]), count - len(users))
                users += self._first_allowed(
                    (
                        u
                        for u in self._members_by(int(prototype), self.centroids[prototype])
                        if u not in taken
                    ),
                    need,
                    exclude,
                    allowed,
                )
        return users

    def _members_by(self, prototype: int, vector: npt.NDArray[np.float32]) -> Iterator[str]:
        """Yield a prototype's users, most similar first, each once."""
        rows = self.rows_of[prototype]
        seen: set[str] = set()
        for row in rows[np.argsort(-(self.vectors[rows] @ vector), kind="stable")]:
            user = self.user_ids[row]
            if user not in seen:
                seen.add(user)
                yield user

    @staticmethod
    def _first_allowed(
        ranked: Iterator[str], count: int, exclude: str, allowed: Allowed
    ) -> list[str]:
        users: list[str] = []
        seen = {exclude}
        batch: list[str] = []

        def ask() -> None:
            may = allowed(batch) if batch else set()
            users.extend(user for user in batch if user in may)
            batch.clear()

        if count < 1:
            return users
        for user in ranked:
            if user in seen:
                continue
            seen.add(user)
            batch.append(user)
            if len(batch) >= ASKED_AT_ONCE * count:
                ask()
                if len(users) >= count:
                    return users[:count]
        ask()
        return users[:count]


def shares(weights: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """`count` places dealt in proportion to weights (k,), by the largest remainder."""
    total = float(weights.sum())
    exact = (weights / total if total > 0 else np.full(len(weights), 1 / len(weights))) * count
    places = np.floor(exact).astype(np.int64)
    rest = np.argsort(-(exact - places), kind="stable")[: count - int(places.sum())]
    places[rest] += 1
    return places
