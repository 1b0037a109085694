"""`pgenrm eval`: how often is a model right about users? And `pgenrm eval compare`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pgenrm_agent.cli.costs import cost_line, prices_of, print_estimate
from pgenrm_agent.cli.engine_choice import EngineChoice, chooses_engine
from pgenrm_agent.cli.eval_people import people
from pgenrm_agent.cli.evaluation_run import ModelRun, Part
from pgenrm_agent.cli.options import (
    BudgetOption,
    ConcurrencyOption,
    DryRunOption,
    EmbedderOption,
    FixedSeedOption,
    IndividualOption,
    JsonOption,
    LimitOption,
    MemoryOption,
    ModelOption,
    PastChoicesOption,
    PricesOption,
    SimilarOption,
    TemperatureOption,
)
from pgenrm_agent.cli.output import print_json
from pgenrm_agent.cli.resources import open_embedder
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.lineup import (
    JUDGES,
    judge_names,
    judges_for,
    make_baselines,
    make_judge,
)
from pgenrm_agent.extras import require

if TYPE_CHECKING:
    from pgenrm_agent.costs import Estimate
    from pgenrm_agent.engines import Engine
    from pgenrm_agent.evaluation.datasets.questions import QuestionSet
    from pgenrm_agent.evaluation.judges import Judge
    from pgenrm_agent.evaluation.records import Record
    from pgenrm_agent.reward_model import PGenRM
    from pgenrm_agent.schema import Scaling, Usage

app = typer.Typer(
    invoke_without_command=True,
    subcommand_metavar="[compare A B | people FOLDER]",
    help="Measure how often a model is right about users, beside its baselines.",
)
app.command()(people)
RESULTS = "results.parquet"
SUMMARY = "summary.json"
OBVIOUS_RUNS = 5
"""Runs over the obvious cases unless told otherwise: a judge that draws is right by luck once."""
COSTS = ("tokens read", "tokens written", "seconds a question")


@app.callback()
@chooses_engine
def evaluate(
    context: typer.Context,
    *,
    data: Annotated[
        str | None,
        typer.Option(
            help="JSONL file of choices or questions, or a dataset, such as people:FILE; sample: invented"
            " users, to try it out; obvious: is a judge fit?"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the results; a run there continues.",
            show_default="one in the data folder",
        ),
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(help=f"What to measure; repeat for several, or: all. {', '.join(JUDGES)}."),
    ] = None,
    model: ModelOption,
    engine: EngineChoice,
    split: Annotated[str, typer.Option(help="Split that the questions come from.")] = "test",
    limit: LimitOption = None,
    history: PastChoicesOption,
    individual: IndividualOption,
    prototype: SimilarOption = 0,
    temperature: TemperatureOption = 1.0,
    runs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Independent runs.", show_default=f"1, for obvious {OBVIOUS_RUNS}"
        ),
    ] = None,
    seed: FixedSeedOption,
    memory: MemoryOption,
    embedder: EmbedderOption,
    concurrency: ConcurrencyOption = 16,
    prices: PricesOption,
    budget: BudgetOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure how often a model is right about users, beside its baselines.

    With --data obvious, say whether it is fit: anybody would name the right answer of these cases.

    Writes records.jsonl (continues there after a stop), results.parquet, summary.json and
    report.html into the folder.
    """
    if context.invoked_subcommand is not None:
        return
    obvious = data is not None and data.partition(":")[0] == "obvious"
    if data is None:
        raise typer.BadParameter("--data is needed: see pgenrm eval --help")
    require("pgenrm eval", "matplotlib", "pyarrow", "scipy", extra="evaluation")
    import pgenrm_agent.training.bundled.source  # noqa: F401  (registers simulated:)
    from pgenrm_agent.evaluation.datasets.questions import read_source
    from pgenrm_agent.schema import Scaling

    names = judge_names(judge or ())
    if prototype > 0 and memory is None:
        raise ConfigurationError(
            f"--prototype {prototype} samples with similar users' choices: name the memory that"
            " has them with --memory"
        )
    questions = read_source(data, split=split, history=history, seed=seed, limit=limit)
    if questions.told:
        typer.echo(questions.told, err=True)
    if judge == ["all"]:
        names = judges_for(questions)
    # What needs no model is made first: what is missing for it is told before one is loaded.
    encoder = open_embedder(embedder)
    baselines = make_baselines(names, questions, encoder)
    model_run = ModelRun(
        model=model,
        engine=engine,
        scaling=Scaling(
            individual=individual, prototype=prototype, history=history, temperature=temperature
        ),
        memory=memory,
        finds_similar=encoder if prototype > 0 else None,
        seed=seed,
        runs=runs or (OBVIOUS_RUNS if obvious else 1),
        concurrency=concurrency,
        prices=prices_of(prices, budget),
    )

    def judges_of(reward_model: PGenRM, runner: Engine, wanted: Scaling) -> list[Judge]:
        return [
            baselines.get(name)
            or make_judge(name, reward_model, runner, questions, wanted, embedder=embedder)
            for name in names
        ]

    part = Part(
        source=Path(data).name,
        questions=questions.questions,
        judges=judges_of,
        out=out or _folder_of(data, split, model_run),
    )
    estimate = model_run.estimate(part)
    if dry_run:
        print_estimate(estimate, as_json=as_json)
        return
    (records,), usage = model_run.run([part], estimate, budget)
    _finish(records, questions, part.out, estimate, usage, as_json=as_json)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="Folder, or results.parquet, of one evaluation.")],
    second: Annotated[Path, typer.Argument(help="Of another; the same, for two judges of it.")],
    *,
    judge: Annotated[
        str | None, typer.Option(help="Judge of the first; needed where it has several.")
    ] = None,
    other_judge: Annotated[
        str | None, typer.Option(help="Judge of the second; that of the first if not given.")
    ] = None,
    seed: FixedSeedOption,
    as_json: JsonOption = False,
) -> None:
    """What one result gains over another on the same questions, with a p-value."""
    from pgenrm_agent.evaluation.summary import compare as compare_records

    left = _records_of_judge(first, judge)
    right = _records_of_judge(second, other_judge or judge)
    comparison = compare_records(left, right, seed=seed)
    if as_json:
        print_json(comparison)
        return
    names = [
        f"{path.stem if path.is_file() else path.name}: {records[0].judge}"
        for path, records in ((first, left), (second, right))
    ]
    table = Table("", "strict", title="Paired comparison", title_justify="left")
    table.add_row(names[0], f"{100 * comparison.first:.1f} %")
    table.add_row(names[1], f"{100 * comparison.second:.1f} %")
    within = (
        f" (95 % interval {100 * comparison.interval.low:+.1f} to {100 * comparison.interval.high:+.1f})"
        if comparison.interval
        else ""
    )
    table.add_row("difference", f"{100 * comparison.difference:+.1f} points{within}")
    table.add_row("p-value", f"{comparison.p_value:.4f}")
    table.add_row("on", f"{comparison.comparisons} comparisons of {comparison.users} users")
    Console().print(table)


def _folder_of(data: str, split: str, model_run: ModelRun) -> Path:
    """Return where the results of these settings are kept, so that the same command goes on there."""
    from pgenrm_agent.run_folder import digest
    from pgenrm_agent.settings import data_folder

    kind = data.partition(":")[0] if ":" in data else ""
    file = Path(data.rpartition(":")[2])
    # A file that has changed is another dataset: its questions are others.
    content = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else data
    settings = {
        "engine": model_run.engine.name,
        **model_run.asked_with,
        "model": model_run.label,
        "seed": str(model_run.seed),
        "data": content,
        "split": split,
    }
    name = digest([json.dumps(settings, sort_keys=True), model_run.scaling.model_dump_json()])
    shown = "-".join(part for part in (kind, file.name.partition(".")[0]) if part)
    return data_folder() / "evaluations" / f"{shown}-{name[:12]}"


def _finish(
    records: Sequence[Record],
    questions: QuestionSet,
    out: Path,
    estimate: Estimate,
    usage: Usage,
    *,
    as_json: bool,
) -> None:
    """Write results, summary and report, and print the table; of obvious cases, the verdict."""
    from pgenrm_agent.evaluation.comparisons import failures_of
    from pgenrm_agent.evaluation.fitness import assess_fitness
    from pgenrm_agent.evaluation.records import write_parquet
    from pgenrm_agent.evaluation.report import (
        REPORT,
        accuracy_in_words,
        cells,
        failures_in_words,
        fitness_cells,
        fitness_in_words,
        write_report,
    )
    from pgenrm_agent.evaluation.running import RUN, RunDescription
    from pgenrm_agent.evaluation.summary import summarize
    from pgenrm_agent.files import write_json

    rows = summarize(records)
    fitness = assess_fitness(records, questions.obvious) if questions.obvious else []
    verdicts = [fitness_in_words(judged) for judged in fitness]
    described = RunDescription.model_validate_json((out / RUN).read_text(encoding="utf-8"))
    write_parquet(records, out / RESULTS)
    summary = {
        "run": described.model_dump(mode="json"),
        "judges": [row.model_dump(mode="json") for row in rows],
        "failures": failures_of(records),
    }
    if questions.told:
        summary["data"] = questions.told
    if fitness:
        summary["fitness"] = [judged.model_dump(mode="json") for judged in fitness]
    write_json(out / SUMMARY, summary)
    write_report(rows, described, out / REPORT, verdicts=verdicts)
    if as_json:
        print_json({**summary, "usage": usage, "estimate": estimate})
        return
    columns = {row.judge: cells(row) for row in rows}
    for judged in fitness:
        spent = columns[judged.judge]
        columns[judged.judge] = {**fitness_cells(judged), **{name: spent[name] for name in COSTS}}
    table = Table("", *columns, title=described.source, title_justify="left")
    for name in next(iter(columns.values())):
        if any(column[name] != "-" for column in columns.values()):
            table.add_row(name, *(column[name] for column in columns.values()))
    console = Console()
    console.print(table)
    for sentence in (*(verdicts or map(accuracy_in_words, rows)), failures_in_words(rows)):
        if sentence:
            console.print(sentence, markup=False)
    if line := cost_line(usage):
        console.print(line, markup=False)
    Console(stderr=True).print(f"report: {out / REPORT}", markup=False)


def _records_of_judge(path: Path, judge: str | None) -> list[Record]:
    """The records of one judge of a results file, or of the folder that holds it."""
    from pgenrm_agent.evaluation.records import read_parquet

    records = read_parquet(path / RESULTS if path.is_dir() else path)
    known = sorted({record.judge for record in records})
    if judge is None:
        judge = known[0] if len(known) == 1 else "p-genrm"
    if judge not in known:
        raise ConfigurationError(
            f"{path} has results of {', '.join(known)}: name one of them with --judge"
        )
    return [record for record in records if record.judge == judge]
