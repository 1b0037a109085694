"""Where things stand in the page's two drawings; the templates write them as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgenrm_agent.debugging.views import ChainView, Checkpoint

__all__ = ["Node", "Plot", "Row", "nodes_of", "plot_of"]

LEFT, RIGHT, ROW = 12.0, 328.0, 46.0
LOWEST, HIGHEST = 1.0, 10.0
"""The scale of marks, and so of totals."""


@dataclass(frozen=True)
class Node:
    """A node of the graph: its top edge, and whether it is done, next, running or to come."""

    name: str
    words: str
    top: float
    state: str


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    level: str
    words: str


@dataclass(frozen=True)
class Row:
    """One candidate: a dot for each chain, and a line at their mean."""

    candidate: str
    line: float
    dots: tuple[Dot, ...]
    mean: float | None
    mean_x: float


@dataclass(frozen=True)
class Plot:
    rows: tuple[Row, ...]
    ticks: tuple[tuple[int, float], ...]
    height: float


def nodes_of(names: Sequence[str], at: Checkpoint, running: bool) -> tuple[Node, ...]:
    """The graph's nodes in order, the one that the run stands before lit."""
    coming = at.next[0] if at.next else None
    reached = names.index(coming) if coming in names else len(names) if at.finished else 0
    return tuple(
        Node(
            name=name,
            words=name.replace("_", " "),
            top=4 + place * 50,
            state="done"
            if place < reached
            else "later"
            if place > reached
            else "running"
            if running
            else "next",
        )
        for place, name in enumerate(names)
    )


def plot_of(
    candidates: Sequence[str], chains: Sequence[ChainView], means: Mapping[str, float]
) -> Plot | None:
    """Each chain's total for each candidate, by level; None while no chain has any."""
    if not any(chain.totals for chain in chains):
        return None
    rows = []
    for place, candidate in enumerate(candidates):
        line = 26 + ROW * place
        taken: dict[tuple[str, float], int] = {}
        dots = []
        for chain in chains:
            if candidate not in chain.totals:
                continue
            total = chain.totals[candidate]
            # Equal totals are set beside each other, not on top.
            same = (chain.level, round(total, 1))
            beside = taken[same] = taken.get(same, -1) + 1
            below = 5 if chain.level == "prototype" else -5
            dots.append(
                Dot(
                    x=_x(total) + 3.5 * ((beside + 1) // 2) * (1 if beside % 2 else -1),
                    y=line + below,
                    level=chain.level,
                    words=f"chain {chain.index}, {chain.level}: {total:.2f}",
                )
            )
        mean = means.get(candidate)
        rows.append(
            Row(
                candidate=candidate,
                line=line,
                dots=tuple(dots),
                mean=mean,
                mean_x=0.0 if mean is None else _x(mean),
            )
        )
    ticks = tuple((mark, _x(mark)) for mark in range(1, 11))
    return Plot(rows=tuple(rows), ticks=ticks, height=ROW * len(rows) + 26)


def _x(score: float) -> float:
    return LEFT + (RIGHT - LEFT) * (score - LOWEST) / (HIGHEST - LOWEST)
