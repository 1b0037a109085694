"""`python -m studies.limits`: what nobody can beat in the simulated world."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pgenrm_agent.cli.app import run
from pgenrm_agent.cli.options import AnswersOption, FixedSeedOption, JsonOption
from pgenrm_agent.cli.output import print_json

app = typer.Typer()


@app.command()
def bayes(
    *,
    data: AnswersOption,
    users: Annotated[int, typer.Option(min=2, help="Test users, one comparison each.")] = 2000,
    seed: FixedSeedOption,
    rules: Annotated[
        bool,
        typer.Option(
            "--rules",
            help="What rules of the teacher's form could reach from --history past choices.",
        ),
    ] = False,
    newcomers: Annotated[
        bool,
        typer.Option("--newcomers", help="What others' chains could do for somebody unknown."),
    ] = False,
    history: Annotated[
        int, typer.Option(min=0, max=6, help="Past choices, of --rules and --newcomers.")
    ] = 3,
    as_json: JsonOption = False,
) -> None:
    """The best that any predictor could do in the simulated world, by 0 to 6 past choices."""
    from pgenrm_agent.evaluation.metrics import plus_minus
    from pgenrm_agent.training.bundled.simulation import World, load_answers
    from studies.limits.bayes import bayes_by_history
    from studies.limits.newcomers import newcomer_limits
    from studies.limits.rules import rule_limits

    test = load_answers(data / "val.jsonl.gz")
    if rules:
        training = load_answers(data / "train.jsonl.gz")
        limits = rule_limits(World(), training, test, users=users, history=history, seed=seed)
        if as_json:
            print_json(limits)
            return
        table = Table(
            "rule",
            "strict, %",
            "choices to tell it from the teacher",
            title=f"{users} comparisons, {history} past choices",
        )
        for name, limit in limits.items():
            needed = limit.choices_to_tell
            table.add_row(
                name,
                plus_minus(limit.accuracy.strict),
                "-" if needed is None else f"{needed:,}",
            )
        Console().print(table)
        return
    if newcomers:
        by_size = newcomer_limits(World(), test, newcomers=users, history=history, seed=seed)
        if as_json:
            print_json(by_size)
            return
        table = Table(
            "similar users",
            "knows them, %",
            f"teacher, {history} choices of each, %",
            title=f"{users} newcomers in each of ten populations",
        )
        for size, reached in by_size.items():
            table.add_row(str(size), plus_minus(reached.ideal), plus_minus(reached.teacher))
        Console().print(table)
        return
    reports = bayes_by_history(World(), test, users=users, seed=seed)
    if as_json:
        print_json(reports)
        return
    table = Table("past choices", "strict, %", "expected, %", title=f"{users} comparisons")
    for shown, report in reports.items():
        table.add_row(
            str(shown), plus_minus(report.accuracy.strict), f"{100 * report.expected:.1f}"
        )
    Console().print(table)


if __name__ == "__main__":
    run(app)
