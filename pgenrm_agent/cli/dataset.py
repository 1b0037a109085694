"""`pgenrm score-dataset`: score the rows of a Parquet file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgenrm_agent.cli.costs import cost_line, open_ledger, prices_of, print_estimate
from pgenrm_agent.cli.engine_choice import EngineChoice, chooses_engine
from pgenrm_agent.cli.options import (
    BudgetOption,
    ConcurrencyOption,
    DryRunOption,
    EmbedderOption,
    FixedSeedOption,
    IndividualOption,
    JsonOption,
    MemoryOption,
    ModelOption,
    PastChoicesOption,
    PricesOption,
    PrototypeOption,
)
from pgenrm_agent.cli.output import print_json
from pgenrm_agent.cli.resources import (
    figures_follow_from,
    open_embedder,
    open_reward_model,
    scaling_of,
)
from pgenrm_agent.extras import require
from pgenrm_agent.files import is_address
from pgenrm_agent.progress import counting, waiting

if TYPE_CHECKING:
    from pgenrm_agent.integrations.dataset_scoring import Summary


@chooses_engine
def score_dataset(
    source: Annotated[Path, typer.Argument(help="Parquet file: user_id, query, candidates, ...")],
    target: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    *,
    individual: IndividualOption,
    prototype: PrototypeOption,
    history: PastChoicesOption,
    seed: FixedSeedOption,
    concurrency: ConcurrencyOption = 16,
    ray_workers: Annotated[
        int | None, typer.Option("--ray", min=1, help="Ray workers, each with its own model.")
    ] = None,
    gpus: Annotated[float, typer.Option(min=0.0, help="GPUs a Ray worker.")] = 0.0,
    memory: MemoryOption,
    model: ModelOption,
    engine: EngineChoice,
    embedder: EmbedderOption,
    prices: PricesOption,
    budget: BudgetOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Score every row of a Parquet file into another one; started again, it goes on."""
    require("pgenrm score-dataset", "pyarrow", *(["ray"] if ray_workers else []))
    from pgenrm_agent.integrations.dataset_estimate import estimate_dataset
    from pgenrm_agent.integrations.dataset_scoring import DatasetJob, in_process
    from pgenrm_agent.integrations.dataset_scoring import score_dataset as score_all
    from pgenrm_agent.model_files import bundled_model
    from pgenrm_agent.reward_model import PGenRM
    from pgenrm_agent.run_folder import label_of

    # Ray's workers cannot share an embedded memory, nor the similar users in it.
    shared = prototype if not ray_workers or is_address(memory) else 0
    job = DatasetJob(
        model=label_of(model or bundled_model()),
        engine=engine.name or "transformers",
        scaling=scaling_of(individual, shared, history=history),
        seed=seed,
        embedder=embedder,
        asked_with=figures_follow_from(engine, model, memory, similar=shared > 0),
    )
    priced = prices_of(prices, budget)
    opened = partial(open_reward_model, memory, model, engine, embedder=embedder, prices=priced)
    silent = engine.counting()
    with (
        waiting("estimating the cost"),
        PGenRM(
            engine=silent,
            memory=memory,
            chain_format=engine.format_for(model),
            persona_embedder=open_embedder(embedder),
        ) as outlined,
    ):
        estimate = estimate_dataset(source, target, job, outlined, silent, priced)
    if dry_run:
        print_estimate(estimate, as_json=as_json)
        return
    ledger = open_ledger(estimate, priced, budget)
    with counting("rows") as progress:
        if ray_workers is not None:
            from pgenrm_agent.integrations.ray_scoring import on_ray

            run = on_ray(
                opened,
                workers=ray_workers,
                gpus=gpus,
                batch=concurrency,
                at_once=None if budget is None else 4 * ray_workers * concurrency,
            )
            summary = score_all(source, target, job, run, progress=progress, ledger=ledger)
        else:
            with opened() as reward_model:
                run = in_process(reward_model, concurrency=concurrency)
                summary = score_all(source, target, job, run, progress=progress, ledger=ledger)
    if as_json:
        print_json({**summary.model_dump(mode="json"), "estimate": estimate})
    else:
        _print(summary, target)


def _print(summary: Summary, target: Path) -> None:
    resumed = f", {summary.resumed} of them by an earlier start" if summary.resumed else ""
    typer.echo(f"{summary.rows} rows{resumed}: {summary.scored} scored, {target}")
    if line := cost_line(summary.usage):
        typer.echo(line)
    for reason, count in summary.reasons.items():
        typer.echo(f"{count} not scored in full: {reason}", err=True)
