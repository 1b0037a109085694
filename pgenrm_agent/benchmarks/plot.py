"""The plot of a speed report: one panel for everything that was varied."""

from __future__ import annotations

from pathlib import Path

from pgenrm_agent.benchmarks.report import Series, SpeedReport
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.figures import svg_text
from pgenrm_agent.files import write_text


def draw_speed(report: SpeedReport, path: Path) -> None:
    """Draw the series of a report into an SVG file.

    Raises ConfigurationError where nothing was varied.
    """
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str], list[Series]] = {}
    for line in report.series:
        panels.setdefault((line.x_label, line.y_label), []).append(line)
    if not panels:
        raise ConfigurationError(
            "there is nothing to plot: measure the part samples or callers, or several sizes of"
            " memory"
        )
    figure = Figure(figsize=(4.4, 2.9 * len(panels)), layout="constrained")
    for place, ((x_label, y_label), lines) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(len(panels), 1, place)
        for line in lines:
            axes.plot(line.x, line.y, "o-", label=line.name)
        axes.set_xscale("log", base=10 if max(lines[0].x) > 1000 else 2)
        ticks = sorted({value for line in lines for value in line.x})
        axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle(report.machine, fontsize=9)
    write_text(path, svg_text(figure))
