"""Results as tables for people; numbers and texts come from the results alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pgenrm_agent.aggregation import typical_chain
from pgenrm_agent.schema import CandidateScore, Evaluation, UserSignals

if TYPE_CHECKING:
    from pgenrm_agent.benchmarks.speed import SpeedReport
    from pgenrm_agent.doctor import DoctorReport
    from pgenrm_agent.memory import UserSummary

__all__ = [
    "print_doctor",
    "print_evaluation",
    "print_notice",
    "print_ranking",
    "print_signals",
    "print_speed",
    "print_users",
]

NOTICE = (
    "The bundled model is small and was trained from scratch on simulated people: it knows four styles"
    " of English answers, and nothing of the world or of you. Its card says how often it is right."
)


def print_notice() -> None:
    Console(stderr=True).print(NOTICE, style="dim")


def print_evaluation(evaluation: Evaluation, *, title: str) -> None:
    """Ranking, and persona, rubric and marks of one chain."""
    console = Console()
    console.rule(escape(title))
    print_ranking(evaluation)
    chain = typical_chain(evaluation)
    console.print("[bold]Persona[/bold] ", end="")
    console.print(chain.persona.text, markup=False)
    if chain.rubric is not None:
        shown = [one for one in evaluation.ranking if one in chain.totals]
        marks = Table(
            "criterion", "weight", *(escape(one) for one in shown),
            title="Marks of a typical chain (1-10)", title_justify="left",
        )  # fmt: skip
        for index, criterion in enumerate(chain.rubric.criteria):
            given = [chain.marks.get(one, ())[index : index + 1] for one in shown]
            marks.add_row(
                escape(criterion.name),
                f"{criterion.weight:.0f}%",
                *("-" if not cell or cell[0] is None else f"{cell[0]:g}" for cell in given),
            )
        marks.add_section()
        marks.add_row(
            "weighted total" if chain.totals_from == "marks" else "total as the model wrote it",
            "100%",
            *(f"{chain.totals[one]:.1f}" for one in shown),
        )
        console.print(marks)
    usage = evaluation.usage
    console.print(
        f"{len(evaluation.chains)} chains, {len(evaluation.failures)} unreadable,"
        f" {usage.completion_tokens} tokens, {evaluation.timings.get('total', 0.0):.1f} s,"
        f" seed {evaluation.seed}",
        style="dim",
    )


def print_ranking(evaluation: Evaluation) -> None:
    """The candidates, best first; those not scored come last, with the reason."""
    by_id = {score.candidate_id: score for score in evaluation.scores}
    texts = {candidate.id: candidate.text for candidate in evaluation.request.candidates}
    table = Table(
        "", "candidate", "reward", "P(best)", "answer", title="Ranking", title_justify="left"
    )
    for place, one in enumerate(evaluation.ranking, start=1):
        score = by_id[one]
        table.add_row(
            str(place),
            escape(one),
            _reward(score),
            f"{score.probability_best:.0%}",
            escape(_start(texts[one])),
        )
    for score in evaluation.scores:
        if score.outcome == "not_scored":
            table.add_row(
                "-", escape(score.candidate_id), "not scored", "", escape(score.reason or "")
            )
    Console().print(table)


def print_users(found: Sequence[UserSummary]) -> None:
    table = Table("user", "choices", "statements", "consent")
    for one in found:
        table.add_row(
            escape(one.user_id), str(one.pairs), str(one.stated), "yes" if one.consent else "no"
        )
    Console().print(table)


def print_signals(signals: UserSignals) -> None:
    console = Console()
    if not signals.history and not signals.stated:
        console.print(f"Nothing is remembered of {signals.user_id}.", markup=False)
        return
    if signals.stated:
        stated = Table("kind", "says", title="Stated", title_justify="left")
        for one in signals.stated:
            stated.add_row(one.kind, escape(one.text))
        console.print(stated)
    if signals.history:
        history = Table("query", "chosen", "rejected", title="Choices", title_justify="left")
        for pair in signals.history:
            history.add_row(
                *(escape(_start(text)) for text in (pair.query, pair.chosen, pair.rejected))
            )
        console.print(history)


def print_doctor(report: DoctorReport) -> None:
    console = Console()
    table = Table("package", "version", "needed for")
    for package in report.packages:
        table.add_row(package.name, package.version or "[red]missing[/red]", package.needed_for)
    console.print(table)
    engines = Table("engine", "works here", "")
    for engine in report.engines:
        engines.add_row(engine.name, "yes" if engine.works else "no", escape(engine.detail))
    console.print(engines)
    console.print(f"device   {report.device}", markup=False)
    console.print(f"threads  {report.threads}", markup=False)
    console.print(f"model    {report.model}", markup=False)
    console.print(f"memory   {report.memory}", markup=False)


def print_speed(report: SpeedReport) -> None:
    console = Console()
    table = Table("figure", "measured", "goal", title=report.machine, title_justify="left")
    for row in report.figures:
        table.add_row(row.name, row.shown, row.goal)
    console.print(table)


def _reward(score: CandidateScore) -> str:
    error = "" if score.standard_error is None else f" ± {score.standard_error:.2f}"
    return f"{score.mean:.2f}{error}"


def _start(text: str, length: int = 60) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else f"{flat[: length - 3]}..."
