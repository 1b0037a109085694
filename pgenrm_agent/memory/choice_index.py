"""What choosing among very many choices of a user needs, without their texts.

To read, open and compare a hundred thousand choices takes seconds. So of somebody who has made many,
a few numbers a choice are kept in memory: when it was made, a lot, what it is about and on which side
of that, and its vector. From them follows which choices are shown, and only those are read.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pgenrm_agent.embedding import Vectors
from pgenrm_agent.memory.agreement import matter_of, side_of
from pgenrm_agent.memory.selection import Selection, draws_of, lots_of, rounded
from pgenrm_agent.schema import PreferencePair, StatedPreference

MOST_BYTES = 250_000_000
"""What all indexes together may take of the memory."""
BYTES_A_CHOICE = 400
"""What a choice takes beside its vector."""
PART = 1000
"""Vectors that a part has before another one is begun."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Numbers = NDArray[np.uint64]
Stated: TypeAlias = tuple[str, datetime, StatedPreference]
"""The id of its row, when it was stated, and the statement."""


class ChoiceIndex:
    """The choices of one user by the numbers that tell which of them are shown. Thread-safe.

    with_vectors: whether it has what "similar" compares. stated: the user's statements, once they have
    been read: Chroma takes the longer to find them, the more choices of theirs it has.
    """

    def __init__(self, *, with_vectors: bool) -> None:
        self.with_vectors = with_vectors
        self.stated: tuple[Stated, ...] | None = None
        self._lock = threading.Lock()
        self._rows: list[str] = []
        self._ids: list[str] = []
        self._place: dict[str, int] = {}
        self._draws = np.empty(0, dtype=np.uint64)
        self._times = np.empty(0, dtype=np.int64)
        self._matters = np.empty(0, dtype=np.uint64)
        self._sides = np.empty(0, dtype=np.uint64)
        self._standing = np.empty(0, dtype=np.bool_)
        # In parts, of which a new choice copies the last one only.
        self._vectors: list[Vectors] = []

    def __len__(self) -> int:
        return len(self._place)

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        return len(self._rows) * BYTES_A_CHOICE + sum(part.nbytes for part in self._vectors)

    def add(
        self, row_ids: Sequence[str], pairs: Sequence[PreferencePair], vectors: Vectors | None
    ) -> None:
        """Enter choices, each by its row's id; one that is there is replaced."""
        if not row_ids:  # the last page of a memory may be an empty one
            return
        with self._lock:
            replaced = [place for place in map(self._take_out, row_ids) if place is not None]
            start = len(self._rows)
            self._rows += row_ids
            self._ids += [pair.id for pair in pairs]
            self._place |= {row_id: start + number for number, row_id in enumerate(row_ids)}
            matters = np.array([_number(_said(pair)) for pair in pairs], dtype=np.uint64)
            sides = np.array([_number(side_of(pair)) for pair in pairs], dtype=np.uint64)
            times = [(pair.created_at - EPOCH) // timedelta(microseconds=1) for pair in pairs]
            self._draws = np.append(self._draws, draws_of([pair.id for pair in pairs]))
            self._times = np.append(self._times, np.array(times, dtype=np.int64))
            self._matters = np.append(self._matters, matters)
            self._sides = np.append(self._sides, sides)
            self._standing = np.append(self._standing, np.ones(len(pairs), dtype=np.bool_))
            if self.with_vectors and vectors is not None:
                self._enter(vectors)
            self._settle(np.append(self._matters[replaced], matters))

    def remove(self, row_id: str) -> None:
        """Take a choice out, where it is there."""
        with self._lock:
            place = self._take_out(row_id)
            if place is not None:
                self._settle(self._matters[place : place + 1])

    def select(
        self, selection: Selection, limit: int, *, seed: int = 0, vector: Vectors | None = None
    ) -> list[str]:
        """Return the ids of the rows that `selection.select` would choose, in its order.

        limit: at least 1. vector: of the query, for "similar".
        """
        with self._lock:
            standing = np.flatnonzero(self._standing)
            columns: list[NDArray[Any]]
            if selection == "random":
                columns = [~lots_of(self._draws[standing], seed)]
            elif selection == "recent" or vector is None:
                columns = [self._times[standing]]
            else:
                likeness = np.concatenate([part @ vector for part in self._vectors])
                columns = [rounded(likeness[standing]), self._times[standing]]
            return [self._rows[standing[place]] for place in self._first(limit, standing, columns)]

    def _first(
        self, limit: int, standing: NDArray[np.intp], columns: Sequence[NDArray[Any]]
    ) -> list[int]:
        """Return the places of the largest entries, by the first column, then the next, then the id."""
        leading = columns[0]
        near = np.arange(len(leading))
        if len(leading) > limit:
            edge = np.partition(leading, len(leading) - limit)[len(leading) - limit]
            near = np.flatnonzero(leading >= edge)
        sorted_ = near[np.lexsort([column[near] for column in reversed(columns)])[::-1]]
        if len(sorted_) > limit:
            last = sorted_[limit - 1]
            tied = np.all([column[sorted_] == column[last] for column in columns], axis=0)
            sorted_ = sorted_[: max(limit, int(np.flatnonzero(tied)[-1]) + 1)]
        keys = [
            (*(column[place] for column in columns), self._ids[standing[place]], int(place))
            for place in sorted_
        ]
        return [key[-1] for key in sorted(keys, reverse=True)][:limit]

    def _take_out(self, row_id: str) -> int | None:
        place = self._place.pop(row_id, None)
        if place is not None:
            self._standing[place] = False
        return place

    def _enter(self, vectors: Vectors) -> None:
        if self._vectors and len(self._vectors[-1]) < PART:
            vectors = np.concatenate([self._vectors.pop(), vectors])
        self._vectors.append(vectors)

    def _settle(self, matters: Numbers) -> None:
        """Find out which choices on these matters stand, and which are overruled by a newer one."""
        concerned = (
            np.isin(self._matters, matters) if len(matters) > 1 else self._matters == matters
        )
        there = [place for place in np.flatnonzero(concerned) if self._is_there(int(place))]
        if len(there) == 1:
            self._standing[there[0]] = True
            return
        newest: dict[int, tuple[int, str, int]] = {}
        for place in there:
            entry = (int(self._times[place]), self._ids[place], int(place))
            matter = int(self._matters[place])
            newest[matter] = max(newest.get(matter, entry), entry)
        for place in there:
            wins = newest[int(self._matters[place])][2]
            self._standing[place] = self._sides[place] == self._sides[wins]

    def _is_there(self, place: int) -> bool:
        return self._place.get(self._rows[place]) == place


class ChoiceIndexes:
    """The indexes of those users of a memory who have made many choices, the last used ones.

    For a memory whose every writer tells here what they write.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, ChoiceIndex] = OrderedDict()
        self._editions: Counter[str] = Counter()

    def get(self, pseudonym: str, *, with_vectors: bool) -> ChoiceIndex | None:
        """Return a user's index, if there is one that serves."""
        with self._lock:
            index = self._kept.get(pseudonym)
            if index is None or (with_vectors and not index.with_vectors):
                return None
            self._kept.move_to_end(pseudonym)
            return index

    def edition(self, pseudonym: str) -> int:
        """Return a number that changes with every write of this user's choices and statements."""
        with self._lock:
            return self._editions[pseudonym]

    def keep(self, pseudonym: str, edition: int, index: ChoiceIndex) -> None:
        """Keep an index that was made from rows read since `edition`, if nothing was written since."""
        with self._lock:
            if self._editions[pseudonym] != edition or index.bytes > MOST_BYTES:
                return
            self._kept[pseudonym] = index
            self._kept.move_to_end(pseudonym)
            while sum(kept.bytes for kept in self._kept.values()) > MOST_BYTES:
                self._kept.popitem(last=False)

    def stated(self, pseudonym: str) -> tuple[Stated, ...] | None:
        """Return the statements of a user, where they have an index that knows them."""
        with self._lock:
            index = self._kept.get(pseudonym)
            return None if index is None else index.stated

    def keep_stated(self, pseudonym: str, edition: int, stated: tuple[Stated, ...]) -> None:
        """Keep statements that were read since `edition`, where the user has an index, as `keep` does."""
        with self._lock:
            index = self._kept.get(pseudonym)
            if index is not None and self._editions[pseudonym] == edition:
                index.stated = stated

    def drop(self, pseudonym: str) -> None:
        """Keep nothing of a user."""
        with self._lock:
            self._editions[pseudonym] += 1
            self._kept.pop(pseudonym, None)

    @contextmanager
    def writing(self, pseudonyms: Collection[str]) -> Iterator[dict[str, ChoiceIndex]]:
        """Yield the indexes of users of whom something is written now, to be told which choices were.

        Where writing fails, nobody knows what was, and the indexes go.
        """
        with self._lock:
            self._editions.update(pseudonyms)
            concerned = {name: self._kept[name] for name in pseudonyms if name in self._kept}
        try:
            yield concerned
        except BaseException:
            for name in pseudonyms:
                self.drop(name)
            raise
        with self._lock:
            self._editions.update(pseudonyms)
            for name in pseudonyms:
                # One that was made meanwhile may not know what has been written.
                if name in self._kept and self._kept[name] is not concerned.get(name):
                    del self._kept[name]
            for index in concerned.values():
                index.stated = None


def _said(pair: PreferencePair) -> str:
    query, conversation, answers = matter_of(pair)
    turns = [turn.model_dump() for turn in conversation]
    return json.dumps([query, turns, sorted(answers)])


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
