"""Every figure of the model card, each part by itself and none of them twice.

    python -m studies.bundled measure --model MODEL --data FOLDER --out FOLDER

    test         accuracy on users and queries that training never saw, beside the baselines
    obvious      the obvious cases that ship with the package, five runs; pages: the documentation's, ten
    reasons      whether what chains say of the shown choices is true, by counting
    calibration  what a probability of being best is worth, and the chains' noise
    speed        seconds of one evaluation alone

A part that was cut off goes on; a part that is there stays until its folder is removed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from pydantic import Field, JsonValue

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.engines.protocol import Engine
from pgenrm_agent.evaluation.datasets.obvious import read_obvious
from pgenrm_agent.evaluation.fitness import Fitness, assess_fitness
from pgenrm_agent.evaluation.judges import ChainJudge
from pgenrm_agent.evaluation.running import RunDescription, evaluate
from pgenrm_agent.fields import Model
from pgenrm_agent.files import write_json
from pgenrm_agent.jsonl import RecordLog
from pgenrm_agent.machine import describe_machine
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.run_folder import refuse_other_settings
from pgenrm_agent.schema import Scaling, UserSignals
from pgenrm_agent.training.bundled.simulation import Answers, World, load_answers
from studies.bundled.calibration import Calibration, calibrate, sampled_of
from studies.bundled.evaluate import (
    EvaluationReport,
    chance,
    draw_cases,
    evaluate_model,
    judge_cases,
    question_of,
)
from studies.bundled.reasons import ReasonCheck, check_reasons

Part: TypeAlias = Literal["test", "obvious", "pages", "reasons", "calibration", "speed"]
PARTS: tuple[Part, ...] = get_args(Part)
MEASURED = "measured.json"
RUNS = {"obvious": 5, "pages": 10}
MOST_SHOWN = 6
TIMED = 7
Progress: TypeAlias = Callable[[int, int], None]


class Sizes(Model):
    """How much is measured. users: of the test; validation: of calibration and, half as many, reasons."""

    users: int = 1000
    validation: int = 400
    history: int = Field(default=3, description="past choices shown, 0 to 6")
    chains: int = Field(default=8, description="samples an evaluation")
    seed: int = 0


class Speed(Model):
    """Seconds of one evaluation that runs alone, with the model loaded and warm."""

    median: float
    least: float
    most: float
    chains: int
    candidates: int
    history: int
    engine: str
    machine: str


class Measured(Model):
    """What was measured of one model; None: not yet."""

    test: EvaluationReport | None = None
    obvious: Fitness | None = None
    pages: Fitness | None = None
    reasons: ReasonCheck | None = None
    calibration: Calibration | None = None
    speed: Speed | None = None


class _Checked(Model):
    case: int
    check: ReasonCheck


async def measure(
    engine: Engine,
    chain_format: ChainFormat,
    model: str,
    data: Path,
    out: Path,
    *,
    parts: Sequence[Part] = PARTS,
    sizes: Sizes | None = None,
    progress: Callable[[str, int, int], None] = lambda part, done, total: None,
) -> Measured:
    """Measure what is not in `out`/measured.json yet, and write it there part by part.

    model: a name that says which weights these are (`run_folder.weights_of`).
    data: folder of train.jsonl.gz and val.jsonl.gz.

    Raises:
        ConfigurationError: the folder's figures are of another model or other sizes.
    """
    sizes = sizes or Sizes()
    settings: dict[str, JsonValue] = {"model": model, **sizes.model_dump(mode="json")}
    refuse_other_settings(out, settings, what="an evaluation")
    path = out / MEASURED
    measured = (
        Measured.model_validate_json(path.read_text(encoding="utf-8"))
        if path.is_file()
        else Measured()
    )
    bench = _Bench(engine, chain_format, model, data, out, sizes)
    for part in parts:
        if getattr(measured, part) is None:
            result = await getattr(bench, part)(partial(progress, part))
            measured = measured.model_copy(update={part: result})
            write_json(path, measured.model_dump(mode="json"))
    return measured


class _Bench:
    """One engine, and what each part asks of it."""

    def __init__(
        self,
        engine: Engine,
        chain_format: ChainFormat,
        model: str,
        data: Path,
        out: Path,
        sizes: Sizes,
    ) -> None:
        self._engine, self._format, self._model = engine, chain_format, model
        self._data, self._out, self._sizes = data, out, sizes

    def _answers(self, name: str) -> Answers:
        return load_answers(self._data / f"{name}.jsonl.gz")

    def _reward_model(self, **scaling: int) -> PGenRM:
        settings = {"individual": self._sizes.chains, "prototype": 0, **scaling}
        return PGenRM(
            engine=self._engine,
            chain_format=self._format,
            scaling=Scaling.model_validate(settings),
        )

    async def test(self, progress: Progress) -> EvaluationReport:
        return await evaluate_model(
            self._engine,
            self._format,
            World(),
            self._answers("train"),
            self._answers("val"),
            self._out / "test",
            users=self._sizes.users,
            history=self._sizes.history,
            chains=self._sizes.chains,
            seed=self._sizes.seed,
            progress=progress,
        )

    async def obvious(self, progress: Progress) -> Fitness:
        return await self._fitness("", "obvious", progress)

    async def pages(self, progress: Progress) -> Fitness:
        return await self._fitness("pages", "pages", progress)

    async def _fitness(self, group: str, name: str, progress: Progress) -> Fitness:
        cases = read_obvious(group)
        judged = self._reward_model()
        records = await evaluate(
            [case.question for case in cases],
            [ChainJudge("p-genrm", judged, judged.scaling)],
            self._out / name,
            RunDescription(
                source=name,
                questions=len(cases),
                engine=self._engine.name,
                model=self._model,
                seed=self._sizes.seed,
                machine=describe_machine(),
            ),
            runs=RUNS[name],
            progress=progress,
        )
        (fitness,) = assess_fitness(records, cases)
        return fitness

    async def reasons(self, progress: Progress) -> ReasonCheck:
        """Check chains that were shown one to six choices, as many evaluations of each."""
        answers, seed = self._answers("val"), self._sizes.seed + 1
        count = max(MOST_SHOWN, self._sizes.validation // 2)
        cases = draw_cases(
            World(), answers, split="validation", count=count, history=MOST_SHOWN, seed=seed
        )
        model = self._reward_model(history=MOST_SHOWN)
        with RecordLog(self._out / "reasons.jsonl", _Checked) as log:
            checked = {record.case: record for record in log.records}
            for at, case in enumerate(cases):
                if at not in checked:
                    question = question_of(answers, case)
                    history = question.history[: 1 + at % MOST_SHOWN]
                    evaluation = await model.ascore(
                        question.user_id,
                        question.query,
                        question.candidates,
                        signals=UserSignals(user_id=question.user_id, history=history),
                        scaling=model.scaling.model_copy(update={"seed": case.seed}),
                    )
                    checked[at] = _Checked(case=at, check=check_reasons(evaluation.chains, history))
                    log.append(checked[at])
                progress(at + 1, count)
        first, *rest = [checked[at].check for at in range(count)]
        return sum(rest, first)

    async def calibration(self, progress: Progress) -> Calibration:
        answers, sizes = self._answers("val"), self._sizes
        cases = draw_cases(
            World(),
            answers,
            split="validation",
            count=sizes.validation,
            history=sizes.history,
            seed=sizes.seed,
        )
        records = await judge_cases(
            self._engine,
            self._format,
            answers,
            cases,
            self._out / "calibration",
            chains=sizes.chains,
            temperature=1.0,
            seed=sizes.seed,
            progress=progress,
        )
        return calibrate(sampled_of(records, [chance(case, answers) for case in cases]))

    async def speed(self, progress: Progress) -> Speed:
        """Time the documentation's examples of three choices and three candidates, one at a time."""
        cases = [
            case for case in read_obvious("pages") if len(case.history) == len(case.candidates) == 3
        ]
        model = self._reward_model()
        seconds = []
        for turn in range(TIMED + 1):
            question = cases[turn % len(cases)].question
            signals = UserSignals(user_id=question.user_id, history=question.history)
            started = time.perf_counter()
            await model.ascore(
                question.user_id,
                question.query,
                question.candidates,
                signals=signals,
                scaling=model.scaling.model_copy(update={"seed": turn}),
            )
            seconds.append(time.perf_counter() - started)
            progress(turn + 1, TIMED + 1)
        warm = seconds[1:]
        return Speed(
            median=statistics.median(warm),
            least=min(warm),
            most=max(warm),
            chains=self._sizes.chains,
            candidates=3,
            history=3,
            engine=self._engine.name,
            machine=describe_machine(),
        )
