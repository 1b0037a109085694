"""What each training stage buys: base, PSI, PSI + CRE, its two halves, all three, over several seeds.

    python -m studies.ablation --data DATA --base MODEL --recipe tiny-cpu --out runs/ablation

Every seed trains its own models and is measured on its own held-out people and queries, beside what
needs no training: chance, a Bradley-Terry fit that knows no person, the teacher, and the best that
any predictor could do from the same past choices (`bayes`). A comparison counts with the probability
that the person chooses what was predicted, which the simulation knows (`evaluate.expected_accuracy`): the same
mean as with one drawn choice, and less noise. Running the same command again goes on where it stopped:
stages that have ended are not trained again, comparisons not asked again. Seeds and test people can be more
by then (GROWING).

A folder holds seed-N/STAGE (the stages' runs), seed-N/STAGE/records-H.jsonl (comparisons with H past
choices), report.json and report.md.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from pydantic import Field

import pgenrm_agent.training.bundled.source  # noqa: F401  (registers simulated-train:)
from pgenrm_agent.engines.protocol import Engine
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.datasets.readers import Example, PreferenceRow, examples, load_rows
from pgenrm_agent.files import replacing, write_json, write_text
from pgenrm_agent.machine import describe_machine
from pgenrm_agent.model_files import format_of, refuse_without_model
from pgenrm_agent.run_folder import refuse_other_settings, weights_of
from pgenrm_agent.schema import Message, Model
from pgenrm_agent.training.bundled.chains import write_examples
from pgenrm_agent.training.bundled.evaluate import (
    Case,
    ChoiceRecord,
    as_asked,
    baseline_margins,
    draw_cases,
    expected_accuracy,
    expected_accuracy_of_one,
    judge_choices,
)
from pgenrm_agent.training.bundled.simulation import VERSION, Answers, World, load_answers
from pgenrm_agent.training.chain_dataset import DATASET, ChainRow
from pgenrm_agent.training.grpo import Stage, train_grpo
from pgenrm_agent.training.grpo_recipe import GrpoRecipe
from pgenrm_agent.training.rewards import RuleRater
from pgenrm_agent.training.sft import train_sft
from studies.ablation.recipe import AblationRecipe
from studies.limits.bayes import MOST_PAST_CHOICES, IdealPredictor

__all__ = [
    "AblationReport",
    "Measured",
    "columns",
    "held_out_cases",
    "markdown",
    "rows_of_table",
    "run_ablation",
]

BASE, PSI, CRE = "base", "PSI", "PSI + CRE"
NO_PROCESS, NO_OUTCOME = "PSI + CRE, alpha = 0", "PSI + CRE, beta = 0"
ALL = "PSI + CRE + curriculum"
STAGES = (BASE, PSI, CRE, NO_PROCESS, NO_OUTCOME, ALL)
BEST = "best possible from the same past choices"
BASELINES = ("chance", "Bradley-Terry, not personal", "teacher")
COMPARED = (*BASELINES, BEST)
GROWING = ("seeds", "people", "history_people")
"""What may be another number when a folder is used again: only what is missing is done."""
REPORT, TABLE, SETTINGS = "report.json", "report.md", "settings.json"


class Measured(Model):
    """Accuracy over the seeds, 0-1."""

    mean: float
    standard_error: float | None = Field(description="over the seeds; null for a single one")
    by_seed: tuple[float, ...]

    @classmethod
    def of(cls, by_seed: Sequence[float]) -> Measured:
        """From one accuracy a seed."""
        values = np.asarray(by_seed, dtype=np.float64)
        error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
        return cls(mean=float(values.mean()), standard_error=error, by_seed=tuple(values.tolist()))


class AblationReport(Model):
    """The table: `stages` were trained, `compared` need no training.

    stages: accuracy of the recipe's number of samples together. one_sample: of one alone, the mean over them.
    gains, one_sample_gains: by stage, accuracy minus that of PSI, paired by seed.
    by_history: by name, accuracy with 0, 1, ... 6 past choices; empty when it was not measured.
    unreadable: by stage, share of sampled texts that were no chain; another was sampled instead.
    not_scored: by stage, comparisons in which no chain could be read; they count as wrong.
    """

    recipe: AblationRecipe
    base: str
    psi: str | None
    simulation: str
    engine: str
    machine: str
    stages: dict[str, Measured]
    gains: dict[str, Measured]
    one_sample: dict[str, Measured]
    one_sample_gains: dict[str, Measured]
    compared: dict[str, Measured]
    by_history: dict[str, tuple[Measured, ...]]
    unreadable: dict[str, Measured]
    not_scored: dict[str, int]


def run_ablation(
    recipe: AblationRecipe,
    data: Path,
    base: Path,
    out: Path,
    *,
    open_engine: Callable[[Path], Engine],
    psi: Path | None = None,
    only: Sequence[int] = (),
    say: Callable[[str], None] = lambda text: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> AblationReport | None:
    """Train what is missing, measure what is missing, and write the report.

    Args:
        data: folder with train.jsonl.gz and val.jsonl.gz.
        base: folder of the model that stage 1 starts from: untrained, or one that knows the format.
        open_engine: an engine for the evaluation of a model's folder; closed after use.
        psi: a stage-1 model to take instead of training one, such as a `pgenrm train psi` run's; the
            seeds then differ in the later stages and the test people.
        only: seeds to work on, for several processes or machines at once; nothing is reported then.
        say: called with what begins. progress: comparisons of a measurement, done and in all.

    Raises:
        ConfigurationError: the data or a given model is missing, `out` holds an ablation with other
            settings, or `only` names a seed that is none of the recipe's.
    """
    unknown = sorted(set(only) - set(recipe.seeds))
    if unknown:
        raise ConfigurationError(
            f"seed {unknown[0]} is none of recipe {recipe.name}: {', '.join(map(str, recipe.seeds))}"
        )
    settings = {
        "recipe": recipe.model_dump(mode="json", exclude=set(GROWING)),
        "base": weights_of(base),
        "psi": None if psi is None else weights_of(psi),
        "simulation": VERSION,
    }
    for model in (base, psi):
        if model is not None:
            refuse_without_model(model)
    refuse_other_settings(out / SETTINGS, settings, what="an ablation")
    bench = _Bench(recipe, data, open_engine, say, progress)
    for seed in only or recipe.seeds:
        folder = out / f"seed-{seed}"
        models = {BASE: base, PSI: psi or bench.train_psi(base, seed, folder / "psi")}
        models[CRE] = bench.reinforce("cre", models[PSI], seed, folder / "cre")
        models[NO_PROCESS] = bench.reinforce(
            "cre", models[PSI], seed, folder / "cre-alpha-0", alpha=0.0
        )
        models[NO_OUTCOME] = bench.reinforce(
            "cre", models[PSI], seed, folder / "cre-beta-0", beta=0.0
        )
        models[ALL] = bench.reinforce("curriculum", models[CRE], seed, folder / "curriculum")
        for name, model in models.items():
            place = folder / "measured" / name.replace(" ", "").replace(",", "-")
            bench.measure(name, model, seed, place)
        bench.compare(seed)
    if only:
        return None
    report = AblationReport(
        recipe=recipe,
        base=base.name,
        psi=None if psi is None else psi.name,
        simulation=VERSION,
        engine=bench.engine_name,
        machine=describe_machine(),
        stages={name: Measured.of(bench.found[name]) for name in STAGES},
        gains=_over_psi(bench.found),
        one_sample={name: Measured.of(bench.one_sample[name]) for name in STAGES},
        one_sample_gains=_over_psi(bench.one_sample),
        compared={name: Measured.of(bench.found[name]) for name in COMPARED},
        by_history={
            name: tuple(
                Measured.of(bench.by_history[name, shown]) for shown in range(MOST_PAST_CHOICES + 1)
            )
            for name in ((PSI, ALL, BEST) if recipe.history_people else ())
        },
        unreadable={name: Measured.of(bench.unreadable[name]) for name in STAGES},
        not_scored=bench.not_scored,
    )
    write_json(out / REPORT, report.model_dump(mode="json"))
    write_text(out / TABLE, markdown(report))
    return report


def held_out_cases(
    world: World, answers: Answers, seed: int, *, people: int, history: int
) -> list[Case]:
    """The comparisons that a seed measures: people of its own, over the queries that all seeds share."""
    split = f"ablation-test-{seed}"
    return draw_cases(world, answers, split=split, count=people, history=history, seed=seed)


def _unreadable(records: Sequence[ChoiceRecord]) -> float:
    failed = sum(row.failed for row in records)
    return failed / max(1, failed + sum(len(row.chains) for row in records))


def _over_psi(by_seed: Mapping[str, Sequence[float]]) -> dict[str, Measured]:
    return {
        name: Measured.of(np.subtract(by_seed[name], by_seed[PSI]).tolist())
        for name in STAGES[STAGES.index(PSI) + 1 :]
    }


def rows_of_table(report: AblationReport) -> list[list[str]]:
    """The main table's rows: a name, then mean and standard error of each of COLUMNS; "-" where none."""
    found = []
    for name in (*report.stages, *report.compared):
        cells = [
            of.get(name)
            for of in (
                report.one_sample,
                report.one_sample_gains,
                {**report.stages, **report.compared},
                report.gains,
                report.unreadable,
            )
        ]
        found.append([name, *(_with_error(one) for one in cells)])
    return found


def markdown(report: AblationReport) -> str:
    """The report's tables, for a document."""
    recipe = report.recipe
    lines = [
        f"Recipe {recipe.name}: {len(recipe.seeds)} seeds, {recipe.people} held-out people each,"
        f" {recipe.history} past choices, {recipe.chains} samples; {report.engine}, {report.machine}.",
        "",
        f"| | {' | '.join(columns(recipe.chains))} |",
        "|---" * 6 + "|",
    ]
    lines += [f"| {' | '.join(row)} |" for row in rows_of_table(report)]
    if report.by_history:
        shown = range(MOST_PAST_CHOICES + 1)
        lines += [
            "",
            f"| past choices | {' | '.join(map(str, shown))} |",
            "|---" * (len(shown) + 1) + "|",
        ]
        lines += [
            f"| {name} | {' | '.join(_percent(one.mean) for one in row)} |"
            for name, row in report.by_history.items()
        ]
    return "\n".join(lines) + "\n"


def columns(chains: int) -> tuple[str, ...]:
    """Of the main table, after the name; `chains` is the recipe's number of samples."""
    return ("one sample", "over PSI", f"{chains} samples", "over PSI", "unreadable")


def _with_error(measured: Measured | None) -> str:
    if measured is None:
        return "-"
    if measured.standard_error is None:
        return _percent(measured.mean)
    return f"{_percent(measured.mean)} ± {100 * measured.standard_error:.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


class _Bench:
    """Trains, measures and keeps the figures of one ablation."""

    def __init__(
        self,
        recipe: AblationRecipe,
        data: Path,
        open_engine: Callable[[Path], Engine],
        say: Callable[[str], None],
        progress: Callable[[int, int], None],
    ) -> None:
        self._recipe = recipe
        self._data = data
        self._open_engine = open_engine
        self._say = say
        self._progress = progress
        self._world = World()
        self._training = load_answers(data / "train.jsonl.gz")
        self._test = load_answers(data / "val.jsonl.gz")
        self.engine_name = ""
        self.found: defaultdict[str, list[float]] = defaultdict(list)
        self.one_sample: defaultdict[str, list[float]] = defaultdict(list)
        self.unreadable: defaultdict[str, list[float]] = defaultdict(list)
        self.by_history: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
        self.not_scored: dict[str, int] = {}

    # --- training ---

    def train_psi(self, base: Path, seed: int, out: Path) -> Path:
        self._say(f"seed {seed}: {PSI}")
        dataset = out / DATASET
        if not dataset.is_file():
            _write_dataset(
                self._world, self._training, base, dataset, self._recipe.psi_chains, seed
            )
        recipe = self._recipe.psi.model_copy(update={"seed": seed})
        return train_sft(recipe, base, dataset, out).folder

    def reinforce(self, stage: Stage, start: Path, seed: int, out: Path, **weights: float) -> Path:
        self._say(f"seed {seed}: {out.name}")
        recipe: GrpoRecipe = getattr(self._recipe, stage)
        recipe = recipe.model_copy(update={"seed": seed, **weights})
        rater = RuleRater() if stage == "cre" else None
        return train_grpo(stage, recipe, start, self._choices(recipe), out, rater=rater).folder

    def _choices(self, recipe: GrpoRecipe) -> list[Example]:
        """Other choices for every seed, the same for all stages of a seed."""
        found = examples(self._rows, split="train", history=recipe.history, seed=recipe.seed)
        every = list(found)
        random.Random(recipe.seed).shuffle(every)
        return every[: recipe.choices]

    @cached_property
    def _rows(self) -> list[PreferenceRow]:
        """The same for every stage and seed: measuring every answer takes a while."""
        return load_rows(f"simulated-train:{self._data}:{self._recipe.training_people}")

    # --- measuring ---

    def measure(self, name: str, model: Path, seed: int, folder: Path) -> None:
        self._say(f"seed {seed}: accuracy of {name}")
        recipe = self._recipe
        with self._engine(model) as engine:

            def records(cases: Sequence[Case], shown: int) -> list[ChoiceRecord]:
                return asyncio.run(
                    judge_choices(
                        engine,
                        format_of(model),
                        [as_asked(self._test, case) for case in cases],
                        chains=recipe.chains,
                        temperature=recipe.temperature,
                        records=folder / f"records-{shown}.jsonl",
                        progress=self._progress,
                    )
                )

            def accuracy(cases: Sequence[Case], rows: Sequence[ChoiceRecord]) -> float:
                return expected_accuracy(self._test, cases, [row.margin for row in rows]).mean

            cases = self._cases(seed, recipe.people, recipe.history)
            rows = records(cases, recipe.history)
            self.found[name].append(accuracy(cases, rows))
            self.unreadable[name].append(_unreadable(rows))
            missing = sum(row.margin is None for row in rows)
            self.not_scored[name] = self.not_scored.get(name, 0) + missing
            self.one_sample[name].append(expected_accuracy_of_one(self._test, cases, rows).mean)
            if name in (PSI, ALL):
                for shown, some in self._cases_by_history(seed):
                    self.by_history[name, shown].append(accuracy(some, records(some, shown)))

    def compare(self, seed: int) -> None:
        """What needs no training, on the same comparisons."""
        self._say(f"seed {seed}: what needs no training")
        ideal = IdealPredictor(self._world, seed=seed)

        def best(cases: Sequence[Case]) -> float:
            found = [ideal.predict(self._test, one.shown, one.asked)[0] for one in cases]
            return expected_accuracy(self._test, cases, [one - 0.5 for one in found]).mean

        cases = self._cases(seed, self._recipe.people, self._recipe.history)
        margins = baseline_margins(self._world, self._training, self._test, cases, seed)
        for name in BASELINES:
            self.found[name].append(expected_accuracy(self._test, cases, margins[name]).mean)
        self.found[BEST].append(best(cases))
        for shown, some in self._cases_by_history(seed):
            self.by_history[BEST, shown].append(best(some))

    def _cases(self, seed: int, people: int, shown: int) -> list[Case]:
        return held_out_cases(self._world, self._test, seed, people=people, history=shown)

    def _cases_by_history(self, seed: int) -> Iterator[tuple[int, list[Case]]]:
        people = self._recipe.history_people
        for shown in range(MOST_PAST_CHOICES + 1) if people else ():
            yield shown, self._cases(seed, people, shown)

    @contextmanager
    def _engine(self, model: Path) -> Iterator[Engine]:
        engine = self._open_engine(model)
        self.engine_name = engine.name.partition(":")[0]
        try:
            yield engine
        finally:
            asyncio.run(engine.aclose())


def _write_dataset(
    world: World, answers: Answers, model: Path, path: Path, count: int, seed: int
) -> None:
    """Chains of the rule-based teacher about simulated people, as a dataset for stage 1."""
    stream = write_examples(
        "chain", world, answers, format_of(model), split=f"ablation-{seed}", seed=seed
    )
    with replacing(path) as beside, beside.open("w", encoding="utf-8") as out:
        for number, example in enumerate(islice(stream, count)):
            answer = Message(role="assistant", content=example.target)
            row = ChainRow(
                user_id=f"ablation-{number}", prompt=example.messages, completion=(answer,)
            )
            out.write(row.model_dump_json() + "\n")
