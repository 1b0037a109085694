"""`pgenrm eval`: how often is a model right about users? And `pgenrm eval compare`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pgenrm_agent.cli.options import (
    ConcurrencyOption,
    EngineOption,
    FixedSeedOption,
    IndividualOption,
    JsonOption,
    LimitOption,
    MemoryOption,
    ModelOption,
    PastChoicesOption,
    SimilarOption,
    TemperatureOption,
)
from pgenrm_agent.cli.output import print_json
from pgenrm_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from pgenrm_agent.engines import Engine
    from pgenrm_agent.evaluation.datasets.questions import QuestionSet
    from pgenrm_agent.evaluation.judges import Judge
    from pgenrm_agent.evaluation.records import Record
    from pgenrm_agent.reward_model import PGenRM
    from pgenrm_agent.schema import Scaling

__all__ = ["app"]

app = typer.Typer(
    invoke_without_command=True,
    subcommand_metavar="[compare A B]",
    help="Measure how often a model is right about users, beside its baselines.",
)
RESULTS = "results.parquet"
SUMMARY = "summary.json"
JUDGES = {
    "p-genrm": "evaluation chains with past choices and statements",
    "psi-prompt": "one chain with past choices",
    "blind": "as p-genrm, with nothing known of the user",
    "judge": "scores at once, nothing known",
    "judge-thinking": "thinks before it scores, nothing known",
    "judge-history": "scores at once, past choices shown",
    "judge-stated": "scores at once, statements shown",
    "static-persona": "one persona a user, shown for every question",
    "longest": "the longest answer",
    "shortest": "the shortest answer",
    "bradley-terry": "not personal, on embeddings of the training choices",
}


@app.callback()
def evaluate(
    context: typer.Context,
    *,
    data: Annotated[
        str | None,
        typer.Option(help="Dataset, such as people:FILE, or a JSONL file of questions."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; a run there continues.")
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(help=f"What to measure; repeat for several, or: all. {', '.join(JUDGES)}."),
    ] = None,
    model: ModelOption,
    engine: EngineOption,
    split: Annotated[str, typer.Option(help="Split that the questions come from.")] = "test",
    limit: LimitOption = None,
    history: PastChoicesOption = 3,
    individual: IndividualOption,
    prototype: SimilarOption = 0,
    temperature: TemperatureOption = 1.0,
    runs: Annotated[int, typer.Option(min=1, help="Independent runs.")] = 1,
    seed: FixedSeedOption = 0,
    memory: MemoryOption,
    concurrency: ConcurrencyOption = 16,
    as_json: JsonOption = False,
) -> None:
    """Measure how often a model is right about users, beside its baselines.

    Writes records.jsonl (continues there after a stop), results.parquet, summary.json and
    report.html into the folder.
    """
    if context.invoked_subcommand is not None:
        return
    if data is None or out is None:
        raise typer.BadParameter("--data and --out are needed: see pgenrm eval --help")
    import pgenrm_agent.training.bundled.source  # noqa: F401  (registers simulated:)
    from pgenrm_agent.engines import load_engine
    from pgenrm_agent.evaluation.datasets.questions import read_source
    from pgenrm_agent.evaluation.running import RunDescription
    from pgenrm_agent.machine import describe_machine
    from pgenrm_agent.model_files import bundled_model, format_of
    from pgenrm_agent.schema import Scaling

    names = list(JUDGES) if judge == ["all"] else (judge or ["p-genrm"])
    unknown = [name for name in names if name not in JUDGES]
    if unknown:
        raise ConfigurationError(f"judge {unknown[0]!r} is unknown: use {', '.join(JUDGES)} or all")
    if prototype > 0 and memory is None:
        raise ConfigurationError(
            f"--prototype {prototype} samples with similar users' choices: name the memory that"
            " has them with --memory"
        )
    questions = read_source(data, split=split, history=history, seed=seed, limit=limit)
    if judge == ["all"] and not questions.training:
        names.remove("bradley-terry")
    folder = model or str(bundled_model())
    runner = load_engine(engine or "transformers", folder)
    scaling = Scaling(
        individual=individual, prototype=prototype, history=history, temperature=temperature
    )
    description = RunDescription(
        source=Path(data).name,
        questions=len(questions.questions),
        fingerprint="",
        engine=engine or "transformers",
        model=_model_label(folder),
        seed=seed,
        machine=describe_machine(),
        bundled_model=model is None,
    )

    async def run() -> list[Record]:
        from pgenrm_agent.evaluation.running import evaluate as run_judges
        from pgenrm_agent.progress import counting
        from pgenrm_agent.reward_model import PGenRM

        reward_model = PGenRM(engine=runner, chain_format=format_of(folder), memory=memory)
        try:
            with counting("verdicts") as progress:
                return await run_judges(
                    questions.questions,
                    [_judge(name, reward_model, runner, questions, scaling) for name in names],
                    out,
                    description,
                    runs=runs,
                    concurrency=concurrency,
                    progress=progress,
                )
        finally:
            await reward_model.aclose()
            await runner.aclose()

    records = asyncio.run(run())
    _finish(records, out, as_json=as_json)


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
    seed: FixedSeedOption = 0,
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


def _judge(
    name: str, model: PGenRM, engine: Engine, questions: QuestionSet, scaling: Scaling
) -> Judge:
    from pgenrm_agent.evaluation.baselines import BradleyTerryJudge, LengthJudge
    from pgenrm_agent.evaluation.judges import ChainJudge, PromptJudge, StaticPersonaJudge

    heat, shown = scaling.temperature, scaling.history
    if name == "p-genrm":
        return ChainJudge(name, model, scaling)
    if name == "blind":
        return ChainJudge(name, model, scaling, history=False, stated=False)
    if name == "psi-prompt":
        single = scaling.model_copy(update={"individual": 1, "prototype": 0})
        return ChainJudge(name, model, single, stated=False)
    if name == "judge":
        return PromptJudge(name, engine, temperature=heat)
    if name == "judge-thinking":
        return PromptJudge(name, engine, thinking=True, temperature=heat)
    if name == "judge-history":
        return PromptJudge(name, engine, history=shown, temperature=heat)
    if name == "judge-stated":
        return PromptJudge(name, engine, stated=True, temperature=heat)
    if name == "static-persona":
        return StaticPersonaJudge(
            name, engine, questions.questions, history=shown, temperature=heat
        )
    if name in ("longest", "shortest"):
        return LengthJudge("longest" if name == "longest" else "shortest")
    from pgenrm_agent.embedding import HashingEmbedder

    return BradleyTerryJudge(questions.training, HashingEmbedder(2048))


def _model_label(model: str) -> str:
    """The model's name; for a folder with a hash of its weights, which a new training changes."""
    weights = sorted(Path(model).glob("*.safetensors"))
    if not weights:
        return model
    digest = hashlib.blake2b(digest_size=6)
    for path in weights:
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return f"{Path(model).name} ({digest.hexdigest()})"


def _finish(records: Sequence[Record], out: Path, *, as_json: bool) -> None:
    """Write results, summary and report, and print the table."""
    from pgenrm_agent.evaluation.records import write_parquet
    from pgenrm_agent.evaluation.report import REPORT, accuracy_in_words, cells, write_report
    from pgenrm_agent.evaluation.running import RUN, RunDescription
    from pgenrm_agent.evaluation.summary import summarize
    from pgenrm_agent.files import write_json

    rows = summarize(records)
    described = RunDescription.model_validate_json((out / RUN).read_text(encoding="utf-8"))
    write_parquet(records, out / RESULTS)
    summary = {
        "run": described.model_dump(mode="json"),
        "judges": [row.model_dump(mode="json") for row in rows],
    }
    write_json(out / SUMMARY, summary)
    write_report(rows, described, out / REPORT)
    if as_json:
        print_json(summary)
        return
    table = Table("", *(row.judge for row in rows), title=described.source, title_justify="left")
    for columns in zip(*(cells(row) for row in rows), strict=True):
        if any(cell.shown != "-" for cell in columns):
            table.add_row(columns[0].name, *(cell.shown for cell in columns))
    console = Console()
    console.print(table)
    for row in rows:
        console.print(accuracy_in_words(row), markup=False)
    Console(stderr=True).print(f"report: {out / REPORT}", markup=False)


def _records_of_judge(path: Path, judge: str | None) -> list[Record]:
    """The records of one judge of a results file, or of the folder that holds it."""
    from pgenrm_agent.evaluation.records import read_parquet

    records = read_parquet(path / RESULTS if path.is_dir() else path)
    known = sorted({record.judge for record in records})
    if judge is None and len(known) > 1:
        judge = "p-genrm" if "p-genrm" in known else None
    if judge is None:
        judge = known[0] if len(known) == 1 else judge
    if judge not in known:
        raise ConfigurationError(
            f"{path} has results of {', '.join(known)}: name one of them with --judge"
        )
    return [record for record in records if record.judge == judge]
