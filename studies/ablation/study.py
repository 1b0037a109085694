"""What each training stage buys: base, PSI, PSI + CRE, its two halves, all three, over several seeds.

    python -m studies.ablation --data DATA --base MODEL --recipe tiny-cpu --out runs/ablation

Every seed trains its own models and is measured on its own held-out users and queries, beside what
needs no training: a Bradley-Terry fit that knows no user, the teacher, and the best that any predictor
could do from the same past choices (`bayes`). A comparison counts with the probability that the user
chooses what was predicted, which the simulation knows (`evaluate.expected_accuracy`): the same mean as
with a drawn choice, and less noise. Figures are strict (`evaluation.metrics`). Running the same command
again goes on where it stopped: stages that have ended are not trained again, comparisons not asked
again. Seeds and test users can be more by then (GROWING).

A folder holds seed-N/STAGE (the stages' runs), seed-N/measured/STAGE/all and history-H (comparisons, and those
with H past choices), report.json and report.md.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

import pgenrm_agent.training.bundled.source  # noqa: F401  (registers simulated-train:)
from pgenrm_agent.engines.protocol import Engine
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation.comparisons import credits_of
from pgenrm_agent.evaluation.datasets.rows import Example, PreferenceRow, examples
from pgenrm_agent.evaluation.datasets.sources import load_rows
from pgenrm_agent.evaluation.metrics import (
    CHANCE,
    Accuracy,
    MeanError,
    credit,
    mean_error,
    plus_minus,
)
from pgenrm_agent.evaluation.records import Record
from pgenrm_agent.fields import Model
from pgenrm_agent.files import replacing, write_json, write_text
from pgenrm_agent.machine import describe_machine
from pgenrm_agent.model_files import format_of, refuse_without_model
from pgenrm_agent.run_folder import refuse_other_settings, weights_of
from pgenrm_agent.schema import Message
from pgenrm_agent.training.bundled.examples import write_examples
from pgenrm_agent.training.bundled.simulation import VERSION, Answers, World, load_answers
from pgenrm_agent.training.chain_dataset import DATASET, ChainRow
from pgenrm_agent.training.grpo import Stage, train_grpo
from pgenrm_agent.training.recipe import GrpoRecipe
from pgenrm_agent.training.rewards import RuleRater
from pgenrm_agent.training.sft import train_sft
from studies.ablation.recipe import AblationRecipe
from studies.bundled.evaluate import (
    Case,
    baseline_margins,
    draw_cases,
    expected_accuracy,
    expected_accuracy_of_one_sample,
    judge_cases,
)
from studies.limits.bayes import MOST_PAST_CHOICES, IdealPredictor

BASE, PSI, CRE = "base", "PSI", "PSI + CRE"
NO_PROCESS, NO_OUTCOME = "PSI + CRE, alpha = 0", "PSI + CRE, beta = 0"
ALL = "PSI + CRE + curriculum"
STAGES = (BASE, PSI, CRE, NO_PROCESS, NO_OUTCOME, ALL)
BEST = "best possible from the same past choices"
BASELINES = ("Bradley-Terry, not personal", "teacher")
COMPARED = (*BASELINES, BEST)
GROWING = ("seeds", "users", "history_users")
"""What may be another number when a folder is used again: only what is missing is done."""
REPORT, TABLE = "report.json", "report.md"


class AblationReport(Model):
    """The table: `stages` were trained, `compared` need no training; means and errors over seeds.

    stages: accuracy of the recipe's number of samples together. one_sample: of one alone.
    gains, one_sample_gains: by stage, strict accuracy minus that of PSI, paired by seed.
    by_history: by name, strict accuracy with 0, 1, ... 6 past choices; empty when not measured.
    by_seed, one_sample_by_seed: by name, strict accuracy of each seed.
    unreadable: by stage, share of sampled texts that were no chain; another was sampled instead.
    """

    recipe: AblationRecipe
    base: str
    psi: str | None
    simulation: str
    engine: str
    machine: str
    stages: dict[str, Accuracy]
    gains: dict[str, MeanError]
    one_sample: dict[str, Accuracy]
    one_sample_gains: dict[str, MeanError]
    compared: dict[str, Accuracy]
    by_history: dict[str, tuple[MeanError, ...]]
    by_seed: dict[str, tuple[float, ...]]
    one_sample_by_seed: dict[str, tuple[float, ...]]
    unreadable: dict[str, MeanError]


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

    data: folder with train.jsonl.gz and val.jsonl.gz.
    base: folder of the model that stage 1 starts from: untrained, or one that knows the format.
    open_engine: an engine for the evaluation of a model's folder; closed after use.
    psi: a stage-1 model to take instead of training one, such as a `pgenrm train psi` run's; the
        seeds then differ in the later stages and the test users.
    only: seeds to work on, for several processes or machines at once; nothing is reported then.
    say: called with what begins. progress: comparisons of a measurement, done and in all.

    Raises ConfigurationError: the data or a given model is missing, `out` holds an ablation with
    other settings, or `only` names a seed that is none of the recipe's.
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
    refuse_other_settings(out, settings, what="an ablation")
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
    by_seed, one_sample_by_seed = _strict(bench.measured), _strict(bench.one_sample)
    report = AblationReport(
        recipe=recipe,
        base=base.name,
        psi=None if psi is None else psi.name,
        simulation=VERSION,
        engine=bench.engine_name,
        machine=describe_machine(),
        stages={name: Accuracy.over(bench.measured[name]) for name in STAGES},
        gains=_over_psi(by_seed),
        one_sample={name: Accuracy.over(bench.one_sample[name]) for name in STAGES},
        one_sample_gains=_over_psi(one_sample_by_seed),
        compared={name: Accuracy.over(bench.measured[name]) for name in COMPARED},
        by_history={
            name: tuple(
                Accuracy.over(bench.by_history[name, shown]).strict
                for shown in range(MOST_PAST_CHOICES + 1)
            )
            for name in ((PSI, ALL, BEST) if recipe.history_users else ())
        },
        by_seed=by_seed,
        one_sample_by_seed=one_sample_by_seed,
        unreadable={name: mean_error(bench.unreadable[name]) for name in STAGES},
    )
    write_json(out / REPORT, report.model_dump(mode="json"))
    write_text(out / TABLE, markdown(report))
    return report


def held_out_cases(
    world: World, answers: Answers, seed: int, *, users: int, history: int
) -> list[Case]:
    """Return what a seed measures: users of its own, over the queries that all seeds share."""
    split = f"ablation-test-{seed}"
    return draw_cases(world, answers, split=split, count=users, history=history, seed=seed)


def _unreadable(records: Sequence[Record]) -> float:
    failed = sum(sum(record.verdict.failures.values()) for record in records)
    return failed / max(1, failed + sum(len(record.verdict.totals) for record in records))


def _strict(measured: Mapping[str, Sequence[Accuracy]]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(part.strict.mean for part in by_seed) for name, by_seed in measured.items()}


def _over_psi(by_seed: Mapping[str, Sequence[float]]) -> dict[str, MeanError]:
    return {
        name: mean_error(np.subtract(by_seed[name], by_seed[PSI]).tolist())
        for name in STAGES[STAGES.index(PSI) + 1 :]
    }


def rows_of_table(report: AblationReport) -> list[list[str]]:
    """Return the main table's rows: a name, then a cell for each of `columns`; "-" where none."""
    rows = []
    for name in (*report.stages, *report.compared):
        together = (report.stages | report.compared)[name]
        alone = report.one_sample.get(name)
        rows.append(
            [
                name,
                plus_minus(alone.strict if alone else None),
                plus_minus(report.one_sample_gains.get(name), form="+.1f"),
                plus_minus(together.strict),
                plus_minus(report.gains.get(name), form="+.1f"),
                plus_minus(together.accuracy),
                f"{100 * together.coverage:.1f}",
                plus_minus(report.unreadable.get(name)),
            ]
        )
    return rows


def markdown(report: AblationReport) -> str:
    """Return the report's tables, for a document."""
    recipe = report.recipe
    head = columns(recipe.chains)
    lines = [
        f"Recipe {recipe.name}: {len(recipe.seeds)} seeds, {recipe.users} held-out users each,"
        f" {recipe.history} past choices, {recipe.chains} samples; {report.engine}, {report.machine}."
        " In %, strict but for the accuracy over scored comparisons; a coin reaches 50.",
        "",
        f"| | {' | '.join(head)} |",
        "|---" * (len(head) + 1) + "|",
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
            f"| {name} | {' | '.join(f'{100 * value.mean:.1f}' for value in row)} |"
            for name, row in report.by_history.items()
        ]
    return "\n".join(lines) + "\n"


def columns(chains: int) -> tuple[str, ...]:
    """Return those of the main table, after the name; `chains` is the recipe's number of samples."""
    together = f"{chains} samples"
    return "one sample", "over PSI", together, "over PSI", "accuracy", "coverage", "unreadable"


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
        self.measured: defaultdict[str, list[Accuracy]] = defaultdict(list)
        self.one_sample: defaultdict[str, list[Accuracy]] = defaultdict(list)
        self.unreadable: defaultdict[str, list[float]] = defaultdict(list)
        self.by_history: defaultdict[tuple[str, int], list[Accuracy]] = defaultdict(list)

    # --- training ---

    def train_psi(self, base: Path, seed: int, out: Path) -> Path:
        self._say(f"seed {seed}: {PSI}")
        dataset = out / DATASET
        if not dataset.is_file():
            _write_dataset(self._training, base, dataset, self._recipe.psi_chains, seed)
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
        every = list(examples(self._rows, split="train", history=recipe.history, seed=recipe.seed))
        random.Random(recipe.seed).shuffle(every)
        return every[: recipe.choices]

    @cached_property
    def _rows(self) -> list[PreferenceRow]:
        """The same for every stage and seed: measuring every answer takes a while."""
        return load_rows(f"simulated-train:{self._data}:{self._recipe.training_users}")

    # --- measuring ---

    def measure(self, name: str, model: Path, seed: int, folder: Path) -> None:
        self._say(f"seed {seed}: accuracy of {name}")
        recipe = self._recipe
        with self._engine(model) as engine:

            def records(cases: Sequence[Case], kept_in: str) -> list[Record]:
                return asyncio.run(
                    judge_cases(
                        engine,
                        format_of(model),
                        self._test,
                        cases,
                        folder / kept_in,
                        chains=recipe.chains,
                        temperature=recipe.temperature,
                        seed=seed,
                        progress=self._progress,
                    )
                )

            def accuracy(cases: Sequence[Case], judged: Sequence[Record]) -> Accuracy:
                return expected_accuracy(self._test, cases, credits_of(judged))

            cases = self._cases(seed, recipe.users, recipe.history)
            judged = records(cases, "all")
            self.measured[name].append(accuracy(cases, judged))
            self.unreadable[name].append(_unreadable(judged))
            self.one_sample[name].append(expected_accuracy_of_one_sample(self._test, cases, judged))
            if name in (PSI, ALL):
                for shown, some in self._cases_by_history(seed):
                    self.by_history[name, shown].append(
                        accuracy(some, records(some, f"history-{shown}"))
                    )

    def compare(self, seed: int) -> None:
        """Measure what needs no training, on the same comparisons."""
        self._say(f"seed {seed}: what needs no training")
        ideal = IdealPredictor(self._world, seed=seed)

        def best(cases: Sequence[Case]) -> Accuracy:
            chances = [ideal.predict(self._test, case.shown, case.asked)[0] for case in cases]
            credits = [credit(chance, CHANCE) for chance in chances]
            return expected_accuracy(self._test, cases, credits)

        cases = self._cases(seed, self._recipe.users, self._recipe.history)
        margins = baseline_margins(self._world, self._training, self._test, cases, seed)
        for name in BASELINES:
            credits = [credit(margin) for margin in margins[name]]
            self.measured[name].append(expected_accuracy(self._test, cases, credits))
        self.measured[BEST].append(best(cases))
        for shown, some in self._cases_by_history(seed):
            self.by_history[BEST, shown].append(best(some))

    def _cases(self, seed: int, users: int, shown: int) -> list[Case]:
        return held_out_cases(self._world, self._test, seed, users=users, history=shown)

    def _cases_by_history(self, seed: int) -> Iterator[tuple[int, list[Case]]]:
        users = self._recipe.history_users
        for shown in range(MOST_PAST_CHOICES + 1) if users else ():
            yield shown, self._cases(seed, users, shown)

    @contextmanager
    def _engine(self, model: Path) -> Iterator[Engine]:
        engine = self._open_engine(model)
        self.engine_name = engine.name.partition(":")[0]
        try:
            yield engine
        finally:
            asyncio.run(engine.aclose())


def _write_dataset(answers: Answers, model: Path, path: Path, count: int, seed: int) -> None:
    """Write chains of the rule-based teacher about simulated users, as a dataset for stage 1."""
    stream = write_examples("chain", answers, format_of(model), seed=seed)
    with replacing(path) as beside, beside.open("w", encoding="utf-8") as out:
        for number, example in enumerate(islice(stream, count)):
            answer = Message(role="assistant", content=example.target)
            row = ChainRow(
                user_id=f"ablation-{number}", prompt=example.messages, completion=(answer,)
            )
            out.write(row.model_dump_json() + "\n")
