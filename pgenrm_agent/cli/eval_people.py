"""`pgenrm eval people`: judges on real people's choices, beside the baselines that matter."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgenrm_agent.cli.costs import cost_line, prices_of, print_estimate
from pgenrm_agent.cli.engine_choice import EngineChoice, chooses_engine
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
    ModelOption,
    PastChoicesOption,
    PricesOption,
    TemperatureOption,
)
from pgenrm_agent.cli.output import print_json
from pgenrm_agent.cli.resources import open_embedder
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.lineup import JUDGES, judge_names, make_baselines, make_judge
from pgenrm_agent.extras import require
from pgenrm_agent.progress import counting, waiting

if TYPE_CHECKING:
    from pgenrm_agent.embedding import RememberingEmbedder
    from pgenrm_agent.engines import Engine
    from pgenrm_agent.evaluation.datasets.questions import QuestionSet
    from pgenrm_agent.evaluation.judges import Judge
    from pgenrm_agent.evaluation.people import HeldOut, Measured, PeopleRow
    from pgenrm_agent.reward_model import PGenRM
    from pgenrm_agent.schema import Scaling

PAGE = "people.md"
TABLE = "people.json"
BASELINES = "baselines"
PASTS = (0, 1, 8)
MOST_DRAWN = 8
"""Past choices that each question brings, however few are shown."""


@dataclass(frozen=True)
class _Part:
    """A set with a part of its people, or its people and prompts, held out."""

    data: str
    held_out: HeldOut
    questions: QuestionSet
    out: Path

    @property
    def source(self) -> str:
        """As `load_rows` names it."""
        return self.data if self.held_out == "users" else f"{self.data}-prompts"

    @property
    def texts(self) -> list[str]:
        """Every text that a baseline embeds."""
        from pgenrm_agent.evaluation.embedding_judges import own_words

        asked = self.questions.questions
        texts = [candidate.text for question in asked for candidate in question.candidates]
        past = [pair for question in asked for pair in question.history]
        for pair in [*past, *(row.pair for row in self.questions.training)]:
            texts += pair.chosen, pair.rejected
        stated = [question.stated for question in asked]
        for said in [*stated, *(row.stated for row in self.questions.training)]:
            texts += own_words(said)
        return texts

    @property
    def stated(self) -> bool:
        """Whether its people stated anything."""
        return any(question.stated for question in self.questions.questions)


@chooses_engine
def people(
    folder: Annotated[
        Path, typer.Argument(help="Folder with NAME.jsonl or NAME.jsonl.gz for the sets.")
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the results; a run there continues.")],
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="Set to ask about; repeat. All that are in the folder."),
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option(
            "--held-out", help="users: people are new. prompts: prompts, too. Both if not given."
        ),
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(help="What asks the model; repeat for several. p-genrm if not given."),
    ] = None,
    baselines_only: Annotated[
        bool, typer.Option("--baselines-only", help="Ask no model: the baselines alone.")
    ] = False,
    model: ModelOption,
    engine: EngineChoice,
    limit: LimitOption = None,
    history: PastChoicesOption,
    past: Annotated[
        list[int] | None,
        typer.Option(
            min=0, max=64, help="Other numbers of past choices; repeat. 0, 1 and 8 if not given."
        ),
    ] = None,
    individual: IndividualOption,
    temperature: TemperatureOption = 1.0,
    seed: FixedSeedOption,
    embedder: EmbedderOption,
    concurrency: ConcurrencyOption = 16,
    prices: PricesOption,
    budget: BudgetOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure judges on seven sets of real people's choices, beside what needs no model.

    Writes people.md and people.json, and a folder of records for each set and model, into the
    folder; models that were measured there before stay in the table.
    """
    require("pgenrm eval people", "pyarrow", "scipy", extra="evaluation")
    from pgenrm_agent.costs import add_estimates
    from pgenrm_agent.embedding import HashingEmbedder, RememberingEmbedder
    from pgenrm_agent.evaluation.lineup import HASHED_WORDS
    from pgenrm_agent.evaluation.people import (
        PEOPLE_BASELINES,
        PeopleTable,
        people_page,
        shown_less,
    )
    from pgenrm_agent.files import write_json, write_text
    from pgenrm_agent.schema import Scaling

    names = [] if baselines_only else judge_names(judge or ())
    if wrong := [name for name in names if name in PEOPLE_BASELINES or name == "static-persona"]:
        asking = ", ".join(
            name for name in JUDGES if name not in (*PEOPLE_BASELINES, "static-persona")
        )
        raise typer.BadParameter(
            f"--judge {wrong[0]}: the baselines are always there; the judges that ask a model are"
            f" {asking}"
        )
    pasts = {*(PASTS if past is None else past), history}
    # At least as many as ever, so that fewer of them stay the same ones.
    drawn = max(*pasts, MOST_DRAWN)
    encoder = RememberingEmbedder(
        open_embedder(embedder) or HashingEmbedder(HASHED_WORDS), out / "embeddings.npz"
    )
    parts = _read(folder, sets or (), held_out or (), out, drawn=drawn, seed=seed)
    model_run = ModelRun(
        model=model,
        engine=engine,
        # Each question brings as many past choices as `ShownLess` lets through.
        scaling=Scaling(individual=individual, prototype=0, history=drawn, temperature=temperature),
        memory=None,
        finds_similar=None,
        seed=seed,
        runs=1,
        concurrency=concurrency,
        prices=prices_of(prices, budget),
    )

    def asked(part: _Part) -> Part:
        def judges_of(reward_model: PGenRM, runner: Engine, wanted: Scaling) -> list[Judge]:
            return [
                less
                for name in names
                for less in shown_less(
                    make_judge(name, reward_model, runner, part.questions, wanted),
                    history=history,
                    pasts=pasts,
                    stated=part.stated,
                )
            ]

        return Part(
            source=part.source,
            questions=part.questions.questions[:limit],
            judges=judges_of,
            out=part.out / _folder_name(model_run.label),
        )

    usage = None
    if names:
        models_parts = [asked(part) for part in parts]
        estimate = add_estimates(
            [model_run.estimate(part) for part in models_parts], model_run.prices
        )
        if dry_run:
            print_estimate(estimate, as_json=as_json)
            return
    elif dry_run:
        raise typer.BadParameter("--baselines-only asks no model: there is nothing to estimate")
    for part in parts:
        _measure_baselines(part, encoder, history=history, pasts=pasts, seed=seed)
    if names:
        _, usage = model_run.run(models_parts, estimate, budget)
    table = PeopleTable(rows=tuple(_rows(out)))
    write_json(out / TABLE, table.model_dump(mode="json"))
    write_text(out / PAGE, people_page(table))
    if as_json:
        print_json(table)
        return
    typer.echo(people_page(table))
    if usage is not None and (line := cost_line(usage)):
        typer.echo(line)


def _read(
    folder: Path, sets: Sequence[str], held_out: Sequence[str], out: Path, *, drawn: int, seed: int
) -> list[_Part]:
    """Read the sets that are asked for, or all that are there, by what is held out.

    Raises BadParameter for a set that is unknown, and ConfigurationError where none is there.
    """
    from pgenrm_agent.evaluation.datasets.people import PEOPLE_SETS
    from pgenrm_agent.evaluation.datasets.questions import read_source
    from pgenrm_agent.evaluation.people import HELD_OUT

    for option, given, known in (
        ("--set", sets, list(PEOPLE_SETS)),
        ("--held-out", held_out, list(HELD_OUT)),
    ):
        if wrong := [name for name in given if name not in known]:
            raise typer.BadParameter(f"{option} {wrong[0]}: use {', '.join(known)}")
    files = {
        name: file
        for name in PEOPLE_SETS
        for file in (folder / f"{name}.jsonl.gz", folder / f"{name}.jsonl")
        if file.is_file() and (not sets or name in sets)
    }
    missing = [name for name in sets if name not in files]
    if missing or not files:
        raise ConfigurationError(
            f"{folder} has no set {' and '.join(missing) or 'at all'}: it needs NAME.jsonl or"
            f" NAME.jsonl.gz, with NAME one of {', '.join(PEOPLE_SETS)}"
        )
    parts = []
    for wanted in HELD_OUT:
        for name, file in files.items():
            if held_out and wanted not in held_out:
                continue
            source = name if wanted == "users" else f"{name}-prompts"
            with waiting(f"reading {source}"):
                questions = read_source(f"{source}:{file}", split="test", history=drawn, seed=seed)
            parts.append(_Part(name, wanted, questions, out / source))
    return parts


def _measure_baselines(
    part: _Part, encoder: RememberingEmbedder, *, history: int, pasts: Iterable[int], seed: int
) -> None:
    """Let the baselines judge what they have not judged yet."""
    from pgenrm_agent.evaluation.lineup import judges_for
    from pgenrm_agent.evaluation.people import PEOPLE_BASELINES, shown_less
    from pgenrm_agent.evaluation.running import RunDescription, evaluate
    from pgenrm_agent.machine import describe_machine

    with waiting(f"embedding the texts of {part.source}"):
        encoder.embed(part.texts)
        encoder.save()
    possible = judges_for(part.questions)
    names = [name for name in PEOPLE_BASELINES if name in possible]
    judges = [
        less
        for judge in make_baselines(names, part.questions, encoder).values()
        for less in shown_less(judge, history=history, pasts=pasts, stated=part.stated)
    ]
    description = RunDescription(
        source=part.source,
        questions=len(part.questions.questions),
        engine="none",
        model="none",
        seed=seed,
        machine=describe_machine(),
    )
    with counting(f"{part.source}, baselines") as progress:
        asyncio.run(
            evaluate(
                part.questions.questions,
                judges,
                part.out / BASELINES,
                description,
                progress=progress,
            )
        )


def _rows(out: Path) -> Iterator[PeopleRow]:
    """Yield the rows of every set and model that was measured in the folder."""
    from pgenrm_agent.evaluation.datasets.people import PEOPLE_SETS
    from pgenrm_agent.evaluation.people import HELD_OUT, people_rows, pooled_rows
    from pgenrm_agent.evaluation.running import RUN

    for held_out in HELD_OUT:
        sets: dict[str, tuple[Measured, list[Measured]]] = {}
        for name in PEOPLE_SETS:
            source = out / (name if held_out == "users" else f"{name}-prompts")
            measured = {run.parent for run in source.glob(f"*/{RUN}")}
            if (baselines := source / BASELINES) in measured:
                models = [_measured(folder) for folder in sorted(measured - {baselines})]
                sets[name] = _measured(baselines), models
                yield from people_rows(name, held_out, *sets[name])
        yield from pooled_rows(held_out, sets)


def _measured(folder: Path) -> Measured:
    from pgenrm_agent.evaluation.people import Measured
    from pgenrm_agent.evaluation.records import Record
    from pgenrm_agent.evaluation.running import RECORDS, RUN, RunDescription
    from pgenrm_agent.jsonl import read_records

    run = RunDescription.model_validate_json((folder / RUN).read_text(encoding="utf-8"))
    shown = [settings["past"] for name, settings in run.judges.items() if "/" not in name]
    return Measured(
        model=None if folder.name == BASELINES else run.model,
        records=read_records(folder / RECORDS, Record),
        history=int(str(shown[0])),
    )


def _folder_name(model: str) -> str:
    return re.sub(r"[^\w.-]+", "-", model)
