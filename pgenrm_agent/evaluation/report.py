"""The report of an evaluation: one HTML file with everything in it, for a desk and for a phone."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from pgenrm_agent.evaluation.fitness import FIT, Fitness, RightShare
from pgenrm_agent.evaluation.metrics import Interval, plus_minus
from pgenrm_agent.evaluation.plots import (
    plot_accuracy,
    plot_bars,
    plot_position,
    plot_reliability,
    plot_samples,
)
from pgenrm_agent.evaluation.questions import FEWEST_USERS
from pgenrm_agent.evaluation.running import RunDescription
from pgenrm_agent.evaluation.summary import JudgeSummary
from pgenrm_agent.files import write_text

REPORT = "report.html"
MOST_GROUPS = 24
VERDICTS = {
    "better": "better than chance",
    "no better": "no better than chance",
    "worse": "worse than chance",
    "unknown": f"too few users to say, fewer than {FEWEST_USERS}",
}


def accuracy_in_words(row: JudgeSummary) -> str:
    """Return how often a judge is right, how sure that is, and what chance would do.

    Strictly: ties and comparisons that were not scored are wrong. Where there are any, a second
    sentence says how right the judge is without them.
    """
    if row.accuracy is None:
        return (
            f"{row.judge} scored nothing: none of its {row.comparisons} comparisons was readable."
        )
    within = f", 95 % interval {_interval(row.interval)}" if row.interval else ""
    sentence = (
        f"{row.judge} is right in {100 * row.strict.mean:.1f} % of comparisons{within}:"
        f" {VERDICTS[row.against_chance]}."
    )
    if not row.ties and not row.not_scored:
        return sentence
    return (
        f"{sentence} It scored {100 * row.coverage:.1f} % of them; of these it is right in"
        f" {100 * row.accuracy.mean:.1f} %, a tie counted as one half."
    )


def failures_in_words(rows: Sequence[JudgeSummary]) -> str:
    """Return how many samples of all judges could not be used, and why; empty where all could."""
    by_reason: Counter[str] = Counter()
    for row in rows:
        by_reason.update(row.failed_samples)
    listed = ", ".join(f"{count} {reason}" for reason, count in by_reason.most_common())
    return f"{by_reason.total()} samples could not be used: {listed}." if listed else ""


def cells(row: JudgeSummary) -> dict[str, str]:
    """Return the figures of one judge as they are shown, by name and in their order."""
    failed = sum(row.failed_samples.values())
    return {
        "strict, %": plus_minus(row.strict),
        "95 % interval": _interval(row.interval),
        "against chance": VERDICTS[row.against_chance].removesuffix(" than chance"),
        "accuracy, %": plus_minus(row.accuracy),
        "coverage, %": _share(row.coverage),
        "per user, %": plus_minus(row.macro_user),
        "per group, %": plus_minus(row.macro_group),
        "per prototype, %": plus_minus(row.macro_prototype),
        "ties": str(row.ties),
        "not scored": f"{row.not_scored} of {row.comparisons}",
        "unreadable samples": f"{failed} of {failed + row.samples}",
        "contradictory, %": _share(row.contradictory),
        "unchecked, %": _share(row.unchecked),
        "one sample, %": _share(row.one_sample),
        "Kendall": plus_minus(row.kendall, form=".3f", scale=1),
        "NDCG": plus_minus(row.ndcg, form=".3f", scale=1),
        "Spearman": plus_minus(row.spearman, form=".3f", scale=1),
        "Spearman of systems": plus_minus(row.system_spearman, form=".3f", scale=1),
        "ECE": "-" if row.calibration is None else f"{row.calibration.ece:.3f}",
        "first shown preferred, %": _share(row.position.prefers_first),
        "slips, %": _share(row.slips),
        "tokens read": f"{row.prompt_tokens:,}",
        "tokens written": f"{row.completion_tokens:,}",
        "seconds a question": f"{row.seconds / max(1, row.questions * row.runs):.2f}",
    }


def fitness_in_words(fitness: Fitness) -> str:
    """Return the verdict on a judge, and the figures that it rests on."""
    verdict = {
        "fit": f"{fitness.judge} is fit",
        "not fit": f"{fitness.judge} is not fit",
        "unsure": f"It cannot be said for sure whether {fitness.judge} is fit",
    }[fitness.verdict]
    every = fitness.every
    return (
        f"{verdict}: it is right in {100 * every.right:.1f} % of {every.cases} obvious cases, 95 %"
        f" interval {_interval(every.interval)}, where {100 * FIT:.0f} % is asked for and chance"
        f" reaches {100 * fitness.chance:.0f} %."
    )


def fitness_cells(fitness: Fitness) -> dict[str, str]:
    """Return what a judge makes of the obvious cases as it is shown, by name and in its order."""
    return {
        f"right, % of {fitness.every.cases} cases (95 % interval)": _right(fitness.every),
        **{f"{name} ({share.cases})": _right(share) for name, share in fitness.splits.items()},
        "first place shared, %": _share(fitness.tied),
        "not scored, %": _share(fitness.not_scored),
        "unreadable samples, %": _share(fitness.unreadable),
        "contradictory, %": _share(fitness.contradictory),
        "first shown preferred, %": _share(fitness.prefers_first),
        "cases always missed": str(len(fitness.always_missed)),
    }


def write_report(
    rows: Sequence[JudgeSummary], run: RunDescription, path: Path, *, verdicts: Sequence[str] = ()
) -> None:
    """Write the report; replaces the file in one step. verdicts: sentences to begin with."""
    table = [(row, cells(row)) for row in rows]
    # A line in which nobody has anything to show only takes room.
    used = [name for name in cells(rows[0]) if any(shown[name] != "-" for _, shown in table)]
    environment = Environment(
        loader=PackageLoader("pgenrm_agent.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("report.html.j2").render(
        run=run,
        rows=rows,
        sentences=[*verdicts, *map(accuracy_in_words, rows)],
        failures=failures_in_words(rows),
        columns=used,
        table=table,
        plots=_plots(rows),
        settings=run.model_dump_json(indent=2),
    )
    write_text(path, text)


def _plots(rows: Sequence[JudgeSummary]) -> list[dict[str, str]]:
    """Return each plot with its title, what it is about, and the image as a data URI."""
    plots = [
        _plot(
            "Accuracy, strict",
            "Mean over runs; the line is the 95 % interval from resampling users. Ties and"
            " comparisons that were not scored are wrong.",
            plot_accuracy(rows),
        )
    ]
    if any(row.by_samples for row in rows):
        plots.append(
            _plot(
                "Accuracy by number of samples",
                "The mean of the first samples of the same evaluations.",
                plot_samples(rows),
            )
        )
    if any(row.position.samples for row in rows):
        plots.append(
            _plot(
                "Position bias",
                "Single samples, two answers at a time. Without bias a judge's bars are equally long.",
                plot_position(rows),
            )
        )
    plots += [
        _plot(
            f"Calibration of {row.judge}",
            "On the dashed line, told probabilities come true. Figures: how many questions."
            f" ECE {row.calibration.ece:.3f}.",
            plot_reliability(row.calibration),
        )
        for row in rows
        if row.calibration is not None
    ]
    plots += [
        _plot(
            f"{row.judge} by group",
            "Accuracy within each group, all runs together"
            + (
                f"; the first {MOST_GROUPS} of {len(row.groups)}."
                if len(row.groups) > MOST_GROUPS
                else "."
            ),
            plot_bars(
                {name: 100 * value for name, value in list(row.groups.items())[:MOST_GROUPS]},
                "accuracy, %",
            ),
        )
        for row in rows[:1]
        if row.groups
    ]
    return plots


def _plot(title: str, about: str, svg: str) -> dict[str, str]:
    encoded = base64.b64encode(svg.encode("utf-8")).decode("ascii")
    return {"title": title, "about": about, "image": f"data:image/svg+xml;base64,{encoded}"}


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


def _right(share: RightShare) -> str:
    low, high = 100 * share.interval.low, 100 * share.interval.high
    return f"{100 * share.right:.1f} ({low:.0f} to {high:.0f})"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
