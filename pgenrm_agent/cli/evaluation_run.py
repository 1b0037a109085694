"""What `pgenrm eval` and `pgenrm eval people` share: a model, asked about one set or several."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pgenrm_agent.cli.costs import open_ledger
from pgenrm_agent.cli.resources import figures_follow_from
from pgenrm_agent.progress import counting, waiting

if TYPE_CHECKING:
    from pgenrm_agent.cli.engine_choice import EngineChoice
    from pgenrm_agent.costs import CostLedger, Estimate
    from pgenrm_agent.embedding import Embedder
    from pgenrm_agent.engines import Engine
    from pgenrm_agent.evaluation.judges import Judge
    from pgenrm_agent.evaluation.questions import Question
    from pgenrm_agent.evaluation.records import Record
    from pgenrm_agent.reward_model import PGenRM
    from pgenrm_agent.schema import Prices, Scaling, Usage

JudgesOf = Callable[["PGenRM", "Engine", "Scaling"], "list[Judge]"]
"""The judges on an engine, with so many samples."""


@dataclass(frozen=True)
class Part:
    """A set of questions, who judges it, and the folder of the records."""

    source: str
    questions: Sequence[Question]
    judges: JudgesOf
    out: Path


@dataclass(frozen=True)
class ModelRun:
    """A model and everything it is asked with; the options of both commands.

    model: as given; None for the bundled one.
    """

    model: str | None
    engine: EngineChoice
    scaling: Scaling
    memory: str | None
    finds_similar: Embedder | None
    seed: int
    runs: int
    concurrency: int
    prices: Prices | None

    @property
    def folder(self) -> Path:
        """The model's folder, or its name as a path."""
        from pgenrm_agent.model_files import bundled_model

        return Path(self.model or bundled_model())

    @property
    def label(self) -> str:
        """The model as records name it: with a hash of the weights, and the format that was asked for."""
        from pgenrm_agent.run_folder import label_of

        label = label_of(self.folder)
        format_ = self.engine.chain_format
        return label if format_ is None else f"{label}, {format_}"

    @cached_property
    def asked_with(self) -> dict[str, str | None]:
        """What figures depend on beside the model, its engine, the scaling and the seed."""
        similar = self.scaling.prototype > 0
        return figures_follow_from(self.engine, self.folder, self.memory, similar=similar)

    def estimate(self, part: Part) -> Estimate:
        """Return what the records that a part lacks would cost. Nothing is sent."""
        from pgenrm_agent.evaluation.estimate import estimate_evaluation

        async def outline() -> Estimate:
            silent = self.engine.counting()
            once = self.scaling.model_copy(update={"resamples": 0})
            async with aclosing(self._reward_model(silent)) as reward_model:
                return await estimate_evaluation(
                    part.questions,
                    part.judges(reward_model, silent, once),
                    silent,
                    part.out,
                    runs=self.runs,
                    rounds=1 + self.scaling.resamples,
                    prices=self.prices,
                )

        with waiting("estimating the cost"):
            return asyncio.run(outline())

    def run(
        self, parts: Sequence[Part], estimate: Estimate, budget: float | None
    ) -> tuple[list[list[Record]], Usage]:
        """Return each part's records, kept ones included, and what all cost. The model is loaded once.

        estimate: of all parts together. Raises as `evaluation.running.evaluate`.
        """
        from pgenrm_agent.evaluation.running import enter_kept

        ledger = open_ledger(estimate, self.prices, budget)
        with waiting("loading the model"):
            runner = self.engine.open(self.model or self.folder)

        async def every() -> list[list[Record]]:
            async with aclosing(runner), aclosing(self._reward_model(runner)) as reward_model:
                asked = [(part, part.judges(reward_model, runner, self.scaling)) for part in parts]
                for part, judges in asked:
                    enter_kept(ledger, part.questions, judges, part.out, runs=self.runs)
                return [await self._run_part(part, judges, ledger) for part, judges in asked]

        return asyncio.run(every()), ledger.usage

    async def _run_part(
        self, part: Part, judges: Sequence[Judge], ledger: CostLedger
    ) -> list[Record]:
        from pgenrm_agent.evaluation.running import RunDescription, evaluate
        from pgenrm_agent.machine import describe_machine

        description = RunDescription(
            source=part.source,
            questions=len(part.questions),
            engine=self.engine.name or "transformers",
            model=self.label,
            seed=self.seed,
            machine=describe_machine(),
            bundled_model=self.model is None,
            asked_with=self.asked_with,
        )
        with counting("verdicts") as progress:
            return await evaluate(
                part.questions,
                judges,
                part.out,
                description,
                runs=self.runs,
                concurrency=self.concurrency,
                progress=progress,
                ledger=ledger,
            )

    def _reward_model(self, runner: Engine) -> PGenRM:
        from pgenrm_agent.reward_model import PGenRM

        return PGenRM(
            engine=runner,
            chain_format=self.engine.format_for(self.folder),  # else by what the engine can
            memory=self.memory,
            persona_embedder=self.finds_similar,
        )
