"""`pgenrm train chains`: have a teacher write the evaluation chains that stage 1 learns from."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgenrm_agent.cli.engine_choice import EngineChoice, chooses_engine
from pgenrm_agent.cli.options import (
    FixedSeedOption,
    JsonOption,
    PastChoicesOption,
    TemperatureOption,
)
from pgenrm_agent.cli.output import print_summary

if TYPE_CHECKING:
    from pgenrm_agent.training.chain_dataset import ChainDatasetReport


@chooses_engine
def chains(
    *,
    data: Annotated[
        str,
        typer.Option(
            help="Choices: simulated-train:FOLDER, prb:PATH, people:FILE or a JSONL file."
        ),
    ],
    teacher: Annotated[
        str, typer.Option(help="Model that writes: a folder, a hub name, or a server's model.")
    ],
    engine: EngineChoice,
    out: Annotated[
        Path, typer.Option(help="Folder of the dataset; what is there is not paid for again.")
    ] = Path("runs/chains"),
    per_choice: Annotated[
        int, typer.Option("--chains", min=1, help="Chains written about each choice.")
    ] = 4,
    history: PastChoicesOption,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many choices, drawn by the seed.")
    ] = None,
    temperature: TemperatureOption = 1.0,
    withhold_stated: Annotated[
        bool, typer.Option(help="Leave what users stated out of the dataset's prompts.")
    ] = False,
    seed: FixedSeedOption,
    as_json: JsonOption = False,
) -> None:
    """Chains of a teacher about users' choices; those that rank as the user did are kept.

    The teacher sees past choices and what the user stated. `pgenrm train sft` learns from the
    folder. The same command goes on where it was stopped, and never pays twice for a chain.
    """
    import pgenrm_agent.training.bundled.source  # noqa: F401  (registers simulated:)
    from pgenrm_agent.evaluation.datasets.rows import examples
    from pgenrm_agent.evaluation.datasets.sources import load_rows
    from pgenrm_agent.model_files import format_of
    from pgenrm_agent.progress import counting
    from pgenrm_agent.training.chain_dataset import sample_chains
    from pgenrm_agent.training.choices import drawn
    from pgenrm_agent.training.format_files import place_told

    every = examples(load_rows(data), split="train", history=history, seed=seed)
    chosen = drawn(every, limit, seed=seed)
    runner = engine.open(teacher)

    async def run() -> ChainDatasetReport:
        async with aclosing(runner):
            with counting("chains") as progress:
                return await sample_chains(
                    runner,
                    engine.format_for(teacher) or format_of(teacher),
                    chosen,
                    out,
                    chains=per_choice,
                    seed=seed,
                    temperature=temperature,
                    withhold_stated=withhold_stated,
                    format_place=engine.chain_format or place_told(teacher),
                    progress=progress,
                )

    report = asyncio.run(run())
    summary = report.model_dump()
    outcomes = summary.pop("outcomes")
    summary["seconds"] = round(report.seconds, 1)
    if as_json:
        summary["outcomes"] = outcomes
    else:
        summary |= {f"outcome: {name}": count for name, count in outcomes.items()}
    print_summary({**summary, "folder": str(out)}, "evaluation chains", as_json=as_json)
