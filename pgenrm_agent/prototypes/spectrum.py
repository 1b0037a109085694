"""Along how many directions personas differ, and how much along each. Pure NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pgenrm_agent.embedding import Vectors

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum:
    """The singular values of n centered rows of d dimensions, and the directions that they belong to.

    center: (d,). values: (min(n, d),), largest first. axes: (d, min(n, d)), a direction a column.
    """

    center: Floats
    values: Floats
    axes: Floats

    @property
    def retained(self) -> Floats:
        """The share of the values' sum that the first 1, 2, ... directions keep; all of it without any."""
        total = self.values.sum()
        return np.cumsum(self.values) / total if total > 0 else np.ones_like(self.values)


def spectrum(vectors: Vectors) -> Spectrum:
    """Return the spectrum of rows (n, d), n at least 1.

    The (d, d) scatter has the squares of the singular values, and is cheap for any number of rows; for
    few rows of many dimensions the rows themselves are.
    """
    center = vectors.mean(0, dtype=np.float64)
    centered = vectors.astype(np.float64) - center
    if len(vectors) < vectors.shape[1]:
        _, values, directions = np.linalg.svd(centered, full_matrices=False)
        return Spectrum(center, values, directions.T)
    squares, axes = np.linalg.eigh(centered.T @ centered)
    values = np.sqrt(np.clip(squares[::-1], 0.0, None))
    return Spectrum(center, values, axes[:, ::-1])
