"""Who is similar: from personas, or from nothing but a query, to users whose signals may help."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pgenrm_agent.embedding import Embedder, embedded
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.memory.seal import Seal
from pgenrm_agent.prototypes.store import PrototypeStore
from pgenrm_agent.prototypes.version import PrototypeSet

NEAR_QUERIES = 256
"""How many remembered choices on the most similar queries are looked at for the prior over prototypes."""
NEAR_USERS = 32
"""How many of those who made them speak for it."""
MOST_OF_A_USER = 1 / 16
"""What each of them moves of the prior at most, however many such choices they have made."""


@dataclass(frozen=True)
class Match:
    """prototype: its name in this version, None when nobody's persona was there to match.

    neighbors: ids of similar users, most similar first. names: their opaque names, as results
    show them; they say nothing about who it is, and change with every build.
    """

    prototype: str | None
    neighbors: tuple[str, ...]
    names: tuple[str, ...]


class Neighbors:
    """Finds similar users, with their consent.

    Args:
        memory: Whose users, and where their prototypes are kept.
        embedder: What embedded the personas that were clustered. A version made with another one is
            refused with ConfigurationError, since distances between their vectors mean nothing.
        joining: Whether somebody who is matched, and agreed, joins their prototype. Off where personas
            may be invented, as in debugging.
    """

    def __init__(self, memory: UserMemory, embedder: Embedder, *, joining: bool = True) -> None:
        self.memory = memory
        self.joining = joining
        self.embedder = embedder
        self.store = PrototypeStore(memory)
        self._seal = Seal(memory)

    def without_joining(self) -> Neighbors:
        """Return the same similar users, whom nobody joins."""
        watching = copy.copy(self)
        watching.joining = False
        return watching

    def version(self) -> str | None:
        """Return the name of the version that counts now; None without any."""
        version = self._version()
        return None if version is None else version.version

    def match(self, user_id: str, personas: Sequence[str], query: str, count: int) -> Match | None:
        """Return the `count` most similar users of the prototype nearest to the personas (4.2.2).

        Several personas are one: the mean of their embeddings. Without any, the prior over
        prototypes decides: how many users each has, and how many of those who chose between
        answers to similar queries. A user who has agreed to take part joins their prototype.
        None where there is no version.
        """
        version = self._version()
        if version is None:
            return None
        if personas:
            vector = mean_direction(embedded(self.embedder, personas))
            nearest = int(version.nearest(vector)[0])
            similar = version.similar(
                vector, count, exclude=user_id, allowed=self.memory.consenting
            )
            if self.joining and user_id not in version.homes and self.memory.consent(user_id):
                self.store.join(user_id, vector)
                if not self.memory.consent(user_id):  # withdrawn, or forgotten, in that moment
                    self.store.leave(user_id)
        else:
            nearest = None
            similar = version.representatives(
                self.prior(version, query), count, exclude=user_id, allowed=self.memory.consenting
            )
        return Match(
            prototype=None if nearest is None else str(nearest),
            neighbors=tuple(similar),
            names=tuple(opaque(version.salt, user_id) for user_id in similar),
        )

    def seal(self, user_id: str, text: str) -> str:
        """Return a text of a similar user, sealed: see `Seal`."""
        return self._seal.seal(user_id, text)

    def seal_beside(self, sealed: str, text: str) -> str:
        """Return a text, sealed as one of the user whose `sealed` is."""
        return self._seal.seal_beside(sealed, text)

    def unseal(self, sealed: Iterable[str]) -> dict[str, str]:
        """Return the texts by what was sealed; those of users who no longer take part are missing."""
        return self._seal.unseal(sealed)

    def prior(self, version: PrototypeSet, query: str) -> npt.NDArray[np.float64]:
        """(k,) weights that sum to 1: the share of users, and of those near the query, in equal parts.

        Where few are near the query, they have less than half (`MOST_OF_A_USER` each).
        """
        size = version.sizes / max(1, version.sizes.sum())
        near = self.memory.users_who_were_asked(query, limit=NEAR_QUERIES)
        homes = [version.homes[user] for user in near if user in version.homes][:NEAR_USERS]
        if not homes:
            return np.asarray(size, dtype=np.float64)
        part = min(0.5, len(homes) * MOST_OF_A_USER)
        shares = [np.bincount(own, minlength=version.k) / len(own) for own in homes]
        return np.asarray((1 - part) * size + part * np.mean(shares, axis=0), dtype=np.float64)

    def _version(self) -> PrototypeSet | None:
        version = self.store.current()
        if version is not None and version.embedder != self.embedder.name:
            raise ConfigurationError(
                f"the prototypes were built with the embedder {version.embedder!r}, and this is "
                f"{self.embedder.name!r}: use that one, or run `pgenrm prototypes build` again"
            )
        return version


def mean_direction(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the unit vector (d,) along the mean of rows (n, d); the first row where they cancel."""
    mean = vectors.mean(axis=0)
    length = float(np.linalg.norm(mean))
    return np.asarray(mean / length if length > 1e-9 else vectors[0], dtype=np.float32)


def opaque(salt: str, user_id: str) -> str:
    """Return a name that tells nothing of whose it is."""
    key = hashlib.blake2b(user_id.encode(), key=salt.encode(), digest_size=6)
    return f"neighbor-{key.hexdigest()}"
