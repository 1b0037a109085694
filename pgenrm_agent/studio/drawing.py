"""Where things stand in the page's two drawings; the templates write them as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgenrm_agent.debugging.views import ChainView, Checkpoint

LEFT, RIGHT = 12.0, 328.0
DOT, STACK = 7.0, 8
"""How wide a dot is, and how many of them stand on each other before they overlap."""
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
    """One chain's total for one candidate: its place, the chain's level, and the words of its tip."""

    x: float
    y: float
    level: str
    words: str


@dataclass(frozen=True)
class Row:
    """One candidate: a dot for each chain, and a line at their mean.

    label, line: where its name stands, and the axis under it.
    """

    candidate: str
    label: float
    line: float
    dots: tuple[Dot, ...]
    mean: float | None
    mean_x: float


@dataclass(frozen=True)
class Plot:
    """The drawing of all totals; ticks: (mark, its x) along the axis, from 1 to 10."""

    rows: tuple[Row, ...]
    ticks: tuple[tuple[int, float], ...]
    height: float


def nodes_of(names: Sequence[str], at: Checkpoint, running: bool) -> tuple[Node, ...]:
    """Return the graph's nodes in order, the one that the run stands before lit."""
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
    """Return each chain's total for each candidate, by level; None while no chain has any."""
    if not any(chain.totals for chain in chains):
        return None
    rows: list[Row] = []
    top = 4.0
    for candidate in candidates:
        stacks: dict[tuple[bool, int], list[ChainView]] = {}
        for chain in chains:
            if candidate not in chain.totals:
                continue
            column = round(_x(chain.totals[candidate]) / DOT)
            stacks.setdefault((chain.level == "prototype", column), []).append(chain)
        above = max((len(stack) for (below, _), stack in stacks.items() if not below), default=0)
        under = max((len(stack) for (below, _), stack in stacks.items() if below), default=0)
        step = DOT * min(1.0, STACK / max(above, under, 1))
        line = top + 18 + max(DOT, step * above)
        mean = means.get(candidate)
        rows.append(
            Row(
                candidate=candidate,
                label=top + 9,
                line=line,
                dots=tuple(
                    Dot(
                        x=_x(chain.totals[candidate]),
                        y=line + (5 + step * place) * (1 if below else -1),
                        level=chain.level,
                        words=f"chain {chain.index}, {chain.level}: {chain.totals[candidate]:.2f}",
                    )
                    for (below, _), stack in stacks.items()
                    for place, chain in enumerate(stack)
                ),
                mean=mean,
                mean_x=0.0 if mean is None else _x(mean),
            )
        )
        top = line + 14 + max(0.0, step * (under - 1))
    ticks = tuple((mark, _x(mark)) for mark in range(1, 11))
    return Plot(rows=tuple(rows), ticks=ticks, height=top + 20)


def _x(score: float) -> float:
    return LEFT + (RIGHT - LEFT) * (score - LOWEST) / (HIGHEST - LOWEST)
