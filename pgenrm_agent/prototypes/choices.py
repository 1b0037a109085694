"""What a fit of prototypes is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from pgenrm_agent.embedding import Vectors

__all__ = ["Choices", "Fit", "Fitted"]


@dataclass(frozen=True)
class Choices:
    """The choices behind the personas, embedded: n rows, h past choices at most, d dimensions.

    persona: (n, d), unit length. query, chosen, rejected: (n, d). past_query, past_difference:
    (n, h, d). past: (n, h), True where there is one. texts: (n,) personas. users: (n,) whose each
    row is, as numbers; empty where every row is somebody else's.
    """

    persona: Vectors
    query: Vectors
    chosen: Vectors
    rejected: Vectors
    past_query: Vectors
    past_difference: Vectors
    past: npt.NDArray[np.bool_]
    texts: tuple[str, ...]
    users: tuple[int, ...] = ()


class Fitted(Protocol):
    """What a fit gives: prototypes (k, d) of unit length, the prototype of each row, names, why k."""

    @property
    def prototypes(self) -> npt.NDArray[np.float32]: ...
    @property
    def labels(self) -> npt.NDArray[np.int64]: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def reason(self) -> str: ...


Fit: TypeAlias = Callable[[Choices, int | None, int], Fitted]
"""From choices, a wished number of prototypes (None chooses) and a seed."""
