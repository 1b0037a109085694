"""The plots of a report: SVG texts, sized for a phone, drawn from a summary alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pgenrm_agent.evaluation.metrics import Reliability
from pgenrm_agent.evaluation.summary import JudgeSummary
from pgenrm_agent.figures import svg_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches of 96 CSS pixels: what a phone has room for, so that a browser there does not shrink the text.
WIDTH = 3.5
LONGEST_NAME = 24
INK, BLUE, ORANGE, GRAY = "#1f2328", "#1d5fa8", "#c4620f", "#8a929a"


def plot_accuracy(rows: Sequence[JudgeSummary]) -> str:
    """Strict accuracy with its 95 % interval by judge, beside the line of chance."""
    shown = list(reversed(rows))
    figure, axes = _axes(0.9 + 0.42 * max(1, len(shown)))
    for place, row in enumerate(shown):
        mean = 100 * row.strict.mean
        if row.interval is not None:
            axes.plot(
                [100 * row.interval.low, 100 * row.interval.high], [place, place], color=BLUE, lw=2
            )
        axes.plot(mean, place, "o", color=BLUE)
        _note(axes, f"{mean:.1f}", (mean, place), (0, 5), ha="center", fontsize=9)
    axes.axvline(50, color=ORANGE, ls="--", lw=1)
    axes.set_yticks(range(len(shown)), [row.judge for row in shown])
    axes.set_ylim(-0.6, len(shown) - 0.3)
    axes.set_xlabel("strict accuracy, % (dashed: chance)")
    return svg_text(figure)


def plot_reliability(reliability: Reliability) -> str:
    """How often the model was right where it was so sure; on the diagonal it is calibrated."""
    figure, axes = _axes(3.4)
    axes.plot([0, 1], [0, 1], color=GRAY, ls="--", lw=1)
    bins = reliability.bins
    most = max(part.count for part in bins)
    axes.scatter(
        [part.confidence for part in bins],
        [part.accuracy for part in bins],
        s=[20 + 180 * part.count / most for part in bins],
        color=BLUE,
        alpha=0.8,
    )
    for part in bins:
        point = part.confidence, part.accuracy
        _note(axes, str(part.count), point, (0, 9), ha="center", fontsize=8, color=GRAY)
    axes.set_xlim(0, 1.05)
    axes.set_ylim(-0.05, 1.15)
    axes.set_xlabel("probability of being best, as told")
    axes.set_ylabel("share that was best")
    return svg_text(figure)


def plot_position(rows: Sequence[JudgeSummary]) -> str:
    """Accuracy of single samples by whether the better answer was shown first."""
    shown = [row for row in reversed(rows) if row.position.samples]
    figure, axes = _axes(1.1 + 0.5 * max(1, len(shown)))
    for place, row in enumerate(shown):
        for value, offset, color, label in (
            (row.position.better_first, 0.18, BLUE, "better answer earlier"),
            (row.position.better_later, -0.18, ORANGE, "better answer later"),
        ):
            if value is not None:
                axes.barh(
                    place + offset,
                    100 * value,
                    height=0.34,
                    color=color,
                    label=label if place == 0 else None,
                )
    axes.axvline(50, color=GRAY, ls="--", lw=1)
    axes.set_yticks(range(len(shown)), [row.judge for row in shown])
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy of single samples, %")
    figure.legend(loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    return svg_text(figure)


def plot_samples(rows: Sequence[JudgeSummary]) -> str:
    """Accuracy by number of samples, from first parts of the same evaluations."""
    figure, axes = _axes(2.8 + 0.1 * len(rows))
    sizes: set[int] = set()
    for row in rows:
        if row.by_samples:
            sizes |= row.by_samples.keys()
            axes.plot(
                list(row.by_samples),
                [100 * accuracy for accuracy in row.by_samples.values()],
                "o-",
                label=row.judge,
            )
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(sizes), [str(size) for size in sorted(sizes)])
    axes.minorticks_off()
    axes.set_xlabel("samples")
    axes.set_ylabel("accuracy, %")
    figure.legend(loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    return svg_text(figure)


def plot_bars(values: dict[str, float], label: str) -> str:
    """Horizontal bars, the first one on top."""
    figure, axes = _axes(0.8 + 0.3 * max(1, len(values)))
    names = list(values)[::-1]
    axes.barh(range(len(names)), [values[name] for name in names], color=BLUE, height=0.6)
    for place, name in enumerate(names):
        point = values[name], place
        _note(axes, f"{values[name]:,.3g}", point, (3, 0), va="center", fontsize=8)
    axes.set_yticks(range(len(names)), [_fitting(name) for name in names])
    axes.margins(x=0.18)
    axes.set_xlabel(label)
    return svg_text(figure)


def _note(
    axes: Axes, text: str, point: tuple[float, float], beside: tuple[int, int], **look: Any
) -> None:
    """Write at a point of the data; beside: so many points of the page away."""
    axes.annotate(text, point, xytext=beside, textcoords="offset points", **look)


def _fitting(name: str) -> str:
    """A name that leaves room for its bar: what it begins and what it ends with."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 13]}…{name[-12:]}"


def _axes(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(labelsize=9, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
