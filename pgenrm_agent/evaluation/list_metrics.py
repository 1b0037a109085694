"""How well the order of a list agrees with its grades: Kendall's tau-b, Spearman's rho, NDCG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from pgenrm_agent.evaluation.metrics import Scores

Floats = npt.NDArray[np.float64]


def kendall(scores: Scores, grades: Sequence[float]) -> float | None:
    """Return Kendall's tau-b between scores and grades, -1 to 1.

    None where a candidate was not scored, or all scores or all grades are equal.
    """
    values = _complete(scores, grades)
    return None if values is None else float(stats.kendalltau(values, grades).statistic)


def spearman(scores: Scores, grades: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, -1 to 1; None as for `kendall`. LaMP-QA's figure."""
    values = _complete(scores, grades)
    return None if values is None else float(stats.spearmanr(values, grades).statistic)


def ndcg(scores: Scores, grades: Sequence[float]) -> float | None:
    """Return the normalized discounted cumulative gain of the list, 0-1; gains are the grades (>= 0).

    Candidates with equal scores share the mean discount of their places, so that the order in which
    they were listed does not count. None where a candidate was not scored or all grades are 0.
    """
    if any(score is None for score in scores) or not any(grades):
        return None
    gains = np.asarray(grades, dtype=np.float64)
    discounts = 1 / np.log2(np.arange(2, gains.size + 2))
    ideal = float(np.sort(gains)[::-1] @ discounts)
    # "min" ranks are the first place of a group of equals, "max" its last one.
    first = stats.rankdata(-np.asarray(scores, dtype=np.float64), method="min").astype(int)
    last = stats.rankdata(-np.asarray(scores, dtype=np.float64), method="max").astype(int)
    reached = np.concatenate([[0.0], np.cumsum(discounts)])
    shared = (reached[last] - reached[first - 1]) / (last - first + 1)
    return float(gains @ shared / ideal)


def _complete(scores: Scores, grades: Sequence[float]) -> Floats | None:
    if any(score is None for score in scores):
        return None
    values = np.asarray(scores, dtype=np.float64)
    constant = bool(np.all(values == values[:1])) or len(set(grades)) < 2
    return None if constant else values
