"""`python -m studies.scaling`: what more chains and similar users buy, and what they cost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pgenrm_agent.cli.app import run
from pgenrm_agent.cli.options import AnswersOption, EngineOption, JsonOption, OutOption
from pgenrm_agent.cli.output import print_json

if TYPE_CHECKING:
    from pgenrm_agent.engine_names import EngineName
    from pgenrm_agent.training.bundled.simulation import Answers
    from studies.scaling.pool import Study
    from studies.scaling.tables import ScalingReport

app = typer.Typer()

REPORT, PLOT = "report.json", "accuracy-by-chains.svg"


@app.command()
def scaling(
    *,
    data: AnswersOption,
    out: OutOption = Path("runs/scaling"),
    users: Annotated[int, typer.Option(min=2, help="Test users of each seed.")] = 40,
    newcomers: Annotated[
        int, typer.Option(min=2, help="How many are asked for with nothing known, of each seed.")
    ] = 60,
    seeds: Annotated[int, typer.Option(min=1, help="Populations, each with its own users.")] = 5,
    members: Annotated[int, typer.Option(min=8, help="Who agreed to take part, by seed.")] = 160,
    k: Annotated[
        list[int] | None,
        typer.Option("-k", min=1, help="Number of prototypes to compare; repeat. 1, 3, 6, 24."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Model folder; the bundled model if not given.")
    ] = None,
    engine: EngineOption,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="Sample this seed only, of 0 to SEEDS - 1: several processes, one folder."
        ),
    ] = None,
    sampling: Annotated[
        bool, typer.Option(help="--no-sampling reports what an unfinished study has so far.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Accuracy by chains, similar users, known choices and prototypes, on simulated users.

    Samples a pool of chains for each test user once, and reads every table off it. Writes
    records.jsonl and agreement.jsonl of each seed, report.json and a plot into the folder. With
    --seed it only samples, but for the evaluations that are timed: these run alone, without it.
    """
    from pgenrm_agent.files import write_json
    from pgenrm_agent.model_files import bundled_model
    from pgenrm_agent.training.bundled.simulation import load_answers
    from studies.scaling.pool import Study, read_study
    from studies.scaling.tables import report

    if seed is not None and not (seed < seeds and sampling):
        raise typer.BadParameter("--seed samples one of the --seeds, from 0 on")
    study = Study(
        users=users,
        newcomers=newcomers,
        seeds=seeds,
        members=members,
        **({"ks": tuple(k)} if k else {}),
    )
    answers = load_answers(data / "val.jsonl.gz")
    if sampling:
        _sample(study, answers, model or bundled_model(), engine, out, seed)
    if seed is not None:
        return
    records, agreements = read_study(study, answers, out)
    study_report = report(records, agreements)
    write_json(out / REPORT, study_report.model_dump(mode="json"))
    _draw(study_report, out / PLOT)
    if as_json:
        print_json(study_report)
    else:
        _print(study_report)


def _sample(
    study: Study,
    answers: Answers,
    model: Path,
    engine: EngineName | None,
    out: Path,
    seed: int | None,
) -> None:
    from pgenrm_agent.embedding import ModelTokensEmbedder
    from pgenrm_agent.engines import load_engine
    from pgenrm_agent.model_files import format_of
    from pgenrm_agent.progress import counting_tasks
    from pgenrm_agent.run_folder import digest, refuse_other_settings, weights_of
    from studies.scaling.pool import sample_study

    settings = {
        "model": weights_of(model),
        "answers": digest(answers.texts),
        "members": study.members,
        "history": study.history,
        "known": study.known,
    }
    refuse_other_settings(out, settings, what="a study")
    runner = load_engine(engine or "transformers", model)

    async def sample() -> None:
        async with aclosing(runner):
            with counting_tasks() as progress:
                await sample_study(
                    study,
                    runner,
                    format_of(model),
                    ModelTokensEmbedder(model),
                    answers,
                    out,
                    only=seed,
                    progress=progress,
                )

    asyncio.run(sample())


def _print(report: ScalingReport) -> None:
    from pgenrm_agent.evaluation.metrics import plus_minus
    from studies.scaling.tables import MIXED_AND_OWN, STOPPING_BUDGET, budget_name

    console = Console()
    console.print(
        f"{report.seeds} seeds, {report.users} test users, {report.newcomers} with nothing known. In %;"
        " strict but for the accuracy over scored comparisons; ± is the standard error over seeds."
    )
    _table(
        "By setting",
        (
            "",
            "strict",
            "over one chain",
            "accuracy",
            "coverage",
            "as drawn",
            "macro",
            "seconds",
            "tokens",
            "tokens/s",
            "calls",
        ),
        (
            (
                budget_name(row.budget),
                plus_minus(row.accuracy.strict),
                plus_minus(row.over_one, form="+.1f"),
                plus_minus(row.accuracy.accuracy),
                f"{100 * row.accuracy.coverage:.1f}",
                plus_minus(row.drawn),
                f"{100 * row.macro:.1f}",
                _number(row.seconds, ".2f"),
                _number(row.tokens, ".0f"),
                _number(row.tokens_a_second, ".0f"),
                _number(row.engine_calls, ".1f"),
            )
            for row in report.settings
        ),
    )
    mixed, own = map(budget_name, MIXED_AND_OWN)
    console.print(f"{mixed} over {own}: {plus_minus(report.mixed_over_own, form='+.1f')}")
    _table(
        "By known choices",
        ("choices", "own chains", "with similar users'", "gain", "best possible"),
        (
            (
                str(row.history),
                plus_minus(row.alone),
                plus_minus(row.with_others),
                plus_minus(row.gain, form="+.1f"),
                plus_minus(row.best),
            )
            for row in report.by_known
        ),
    )
    _table(
        f"By prototypes, {report.seeds_of_versions} seeds",
        ("prototypes", "k", "their chains alone", "with own", "agreement before", "after"),
        [
            ("none", "0", "-", plus_minus(report.own_chains), "-", "-"),
            *(
                (
                    row.version,
                    row.k,
                    plus_minus(row.others),
                    plus_minus(row.with_own),
                    plus_minus(row.before, form=".2f", scale=1),
                    plus_minus(row.after, form=".2f", scale=1),
                )
                for row in report.versions
            ),
        ],
    )
    _table(
        f"Stop when sure, budget {budget_name(STOPPING_BUDGET)}",
        ("probability", "accuracy", "against the whole budget", "chains sampled"),
        (
            (
                f"{row.threshold:g}",
                plus_minus(row.accuracy),
                plus_minus(row.against_full, form="+.1f"),
                plus_minus(row.chains),
            )
            for row in report.stopping
        ),
    )
    console.print(
        f"chains that prefer the first answer: {_number(report.position_bias, '.1%')}; "
        f"texts that could not be read: {report.failed:.1%}"
    )


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(columns[0], title=title, title_justify="left")
    for name in columns[1:]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _draw(report: ScalingReport, path: Path) -> None:
    """Accuracy against the number of chains: own ones, and with similar users' among them."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    from studies.scaling.tables import budget_name

    figure = Figure(figsize=(6.0, 3.8), layout="constrained")
    axes = figure.add_subplot()
    own = report.by_chains
    axes.errorbar(
        list(own),
        [100 * value.mean for value in own.values()],
        [100 * (value.standard_error or 0.0) for value in own.values()],
        fmt="o-",
        capsize=3,
        label="own chains",
    )
    mixed = sorted((row for row in report.settings if row.budget[1]), key=lambda r: sum(r.budget))
    fewest = sum(mixed[0].budget)
    axes.errorbar(
        [sum(row.budget) for row in mixed],
        [100 * row.accuracy.strict.mean for row in mixed],
        [100 * (row.accuracy.strict.standard_error or 0.0) for row in mixed],
        fmt="s",
        capsize=3,
        label="with similar users'",
    )
    for place, row in enumerate(mixed):
        to_left = sum(row.budget) == fewest
        axes.annotate(
            budget_name(row.budget),
            (sum(row.budget), 100 * row.accuracy.strict.mean),
            textcoords="offset points",
            xytext=(-5 if to_left else 5, 4 if place % 2 else -9),  # names that do not meet
            ha="right" if to_left else "left",
            fontsize=7,
        )
    axes.set_xscale("log", base=2)
    axes.set_xlim(0.8, 80)  # room for the last name
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("chains")
    axes.set_ylabel("strict accuracy, %")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    run(app)
