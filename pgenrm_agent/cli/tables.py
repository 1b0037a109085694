"""Results of the library as tables; numbers and texts come from the results alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pgenrm_agent.aggregation import typical_chain
from pgenrm_agent.cli.output import beginning
from pgenrm_agent.ranking import rests_on
from pgenrm_agent.schema import CandidateScore, Evaluation, EvaluationChain, UserSignals
from pgenrm_agent.wording import counted

if TYPE_CHECKING:
    from pgenrm_agent.memory import Entry, UserSummary


def print_evaluation(evaluation: Evaluation, title: str | None = None) -> None:
    """Print the ranking, and persona, rubric and marks of one chain, under the user's id or a title."""
    console = Console()
    console.rule(escape(title or evaluation.request.user_id))
    print_ranking(evaluation)
    if evaluation.chains:  # none where no answer can be judged
        chain = typical_chain(evaluation)
        console.print("[bold]Persona[/bold] ", end="")
        console.print(chain.persona.text, markup=False)
        if chain.rubric is not None:
            names = [name for name in evaluation.ranking if name in chain.totals]
            console.print(_marks(chain, names))
            own = chain.level == "individual"
            for line in _reasons(chain, evaluation.evidence.choice_ids if own else ()):
                console.print(line, markup=False, highlight=False)
    usage = evaluation.usage
    console.print(
        f"{counted(len(evaluation.chains), 'chain')}, {len(evaluation.failures)} unreadable,"
        f" {counted(usage.completion_tokens, 'token')}, {evaluation.timings.get('total', 0.0):.1f} s,"
        f" seed {evaluation.seed}",
        style="dim",
    )


def print_ranking(evaluation: Evaluation) -> None:
    """Print the candidates, best first, those not scored last; and what they were judged by."""
    by_id = {score.candidate_id: score for score in evaluation.scores}
    texts = {candidate.id: candidate.text for candidate in evaluation.request.candidates}
    table = Table(
        "", "candidate", "reward", "P(best)", "answer", title="Ranking", title_justify="left"
    )
    for place, name in enumerate(evaluation.ranking, start=1):
        score = by_id[name]
        table.add_row(
            str(place),
            escape(name),
            _reward(score),
            "-" if score.probability_best is None else f"{score.probability_best:.0%}",
            escape(beginning(texts[name])),
        )
    for score in evaluation.scores:
        if score.outcome == "not_scored":
            table.add_row(
                "-", escape(score.candidate_id), "not scored", "", escape(score.reason or "")
            )
    console = Console()
    console.print(table)
    line = rests_on(evaluation)
    console.print(line, markup=False, highlight=False)


def print_users(users: Sequence[UserSummary]) -> None:
    """Print how much is remembered of each user."""
    if not users:
        Console().print("Nobody is remembered yet: pgenrm users remember --help")
        return
    table = Table("user", "choices", "statements", "consent")
    for user in users:
        table.add_row(
            escape(user.user_id), str(user.pairs), str(user.stated), "yes" if user.consent else "no"
        )
    Console().print(table)


def print_signals(signals: UserSignals) -> None:
    """Print what is remembered of one user."""
    console = Console()
    if not signals.history and not signals.stated:
        console.print(f"Nothing is remembered of {signals.user_id}.", markup=False)
        return
    if signals.stated:
        stated = Table("kind", "says", title="Stated", title_justify="left")
        for statement in signals.stated:
            stated.add_row(statement.kind, escape(statement.text))
        console.print(stated)
    if signals.history:
        history = Table("query", "chosen", "rejected", title="Choices", title_justify="left")
        for pair in signals.history:
            history.add_row(
                *(escape(beginning(text)) for text in (pair.query, pair.chosen, pair.rejected))
            )
        console.print(history)


def print_entries(entries: Sequence[Entry]) -> None:
    """Print choices and statements with their ids, and which newer entry counts in their place."""
    console = Console()
    if not entries:
        console.print("Nothing is remembered of this user.")
        return
    for entry in entries:
        if entry.pair is not None:
            pair = entry.pair
            chosen, rejected = beginning(pair.chosen, 40), beginning(pair.rejected, 40)
            says = f"{beginning(pair.query, 40)}: {chosen} over {rejected}"
        else:
            says = beginning(entry.stated.text if entry.stated else "", 120)
        # An id on a line of its own can be copied.
        console.print(entry.id, markup=False, highlight=False, soft_wrap=True)
        console.print(f"  {entry.created_at:%Y-%m-%d}  {says}", markup=False, highlight=False)
        if entry.overruled_by is not None:
            overruled = f"  overruled by {entry.overruled_by}"
            console.print(overruled, markup=False, highlight=False, soft_wrap=True)


def _marks(chain: EvaluationChain, names: Sequence[str]) -> Table:
    """Return the marks that a chain gave the candidates `names`, by criterion."""
    table = Table(
        "criterion",
        "weight",
        *map(escape, names),
        title="Marks of a typical chain (1-10)",
        title_justify="left",
    )
    for index, criterion in enumerate(chain.rubric.criteria if chain.rubric else ()):
        given = [chain.marks.get(name, ())[index : index + 1] for name in names]
        table.add_row(
            escape(criterion.name),
            f"{criterion.weight:.0f}%",
            *("-" if not cell or cell[0] is None else f"{cell[0]:g}" for cell in given),
        )
    table.add_section()
    table.add_row(
        "weighted total" if chain.totals_from == "marks" else "total as the model wrote it",
        "100%",
        *(f"{chain.totals[name]:.1f}" for name in names),
    )
    return table


def _reasons(chain: EvaluationChain, choice_ids: Sequence[str]) -> Iterator[str]:
    """Say why the criteria matter, and which choices are meant by their numbers."""
    reasons = [
        f"{criterion.name}: {criterion.reason}"
        for criterion in (chain.rubric.criteria if chain.rubric else ())
        if criterion.reason
    ]
    yield from reasons
    cited = {number for reason in reasons for number in _numbers_cited(reason)}
    named = [
        f"{number} is {name}" for number, name in enumerate(choice_ids, 1) if str(number) in cited
    ]
    if named:
        yield f"choice {', '.join(named)}"


def _numbers_cited(reason: str) -> list[str]:
    lists = re.findall(r"\bchoices? (\d+(?:, \d+)*(?:,? and \d+)?)", reason)
    return [number for cited in lists for number in re.findall(r"\d+", cited)]


def _reward(score: CandidateScore) -> str:
    error = "" if score.standard_error is None else f" ± {score.standard_error:.2f}"
    return f"{score.mean:.2f}{error}"
