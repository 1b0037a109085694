"""`pgenrm train ...`: train a model in three stages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgenrm_agent.cli.options import (
    AnswersOption,
    DryRunOption,
    JsonOption,
    ModelFolderOption,
    OutOption,
    RecipeOption,
)
from pgenrm_agent.cli.output import print_summary
from pgenrm_agent.cli.resources import open_embedder
from pgenrm_agent.cli.train_chains import chains
from pgenrm_agent.cli.train_pretrained import join, tokens
from pgenrm_agent.cli.train_sft import merge, sft
from pgenrm_agent.progress import waiting

if TYPE_CHECKING:
    from pgenrm_agent.training.grpo import Stage
    from pgenrm_agent.training.recipe import GrpoRecipe, PsiRecipe
    from pgenrm_agent.training.rewards import Rater

app = typer.Typer(no_args_is_help=True, help="Train a model in three stages.")
for command in (chains, sft, merge, tokens, join):
    app.command()(command)


@app.command()
def answers(
    checkout: Annotated[
        Path, typer.Argument(help="Folder of a clone of the repository tatsu-lab/alpaca_eval.")
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the answers, for --data of the stages.")],
    as_json: JsonOption = False,
) -> None:
    """Collect the answers that the bundled model is trained on, from AlpacaEval's model outputs."""
    from pgenrm_agent.training.bundled.answers import collect_answers

    with waiting("reading"):
        collected = collect_answers(checkout.expanduser(), out.expanduser())
    summary = {**collected.model_dump(mode="json"), "folder": str(out)}
    print_summary(summary, "answers", as_json=as_json)


@app.command()
def psi(
    *,
    data: AnswersOption,
    out: OutOption = Path("runs/psi"),
    recipe: RecipeOption = "tiny-cpu",
    start_from: Annotated[
        Path | None, typer.Option(help="Folder of an earlier run whose weights are taken over.")
    ] = None,
    stop_after: Annotated[
        int | None,
        typer.Option(min=1, help="End after this step, and save the model as it is then."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Folder of the checkpoint that a recipe with a `start` begins with; what it names if"
            " not given."
        ),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Stage 1: supervised on the teacher's chains. Resumes where it stopped.

    From scratch, or, by a recipe with a `start`, from a pretrained checkpoint and the folder that
    `pgenrm train tokens` made (--data): by the clock, without resuming.
    """
    from pgenrm_agent.errors import ConfigurationError
    from pgenrm_agent.training.recipe import PsiRecipe

    loaded = PsiRecipe.load(recipe)
    if loaded.start is not None:
        if start_from is not None or stop_after is not None:
            raise ConfigurationError(
                f"recipe {loaded.name} runs by the clock from a checkpoint (--model): leave"
                " --start-from and --stop-after out"
            )
        _from_checkpoint(loaded, data, out, model, dry_run=dry_run, as_json=as_json)
        return
    if model is not None or dry_run:
        raise ConfigurationError(
            f"recipe {loaded.name} trains from scratch: --model and --dry-run are for recipes with a"
            " start, such as smollm2-gpu"
        )
    from pgenrm_agent.training.psi import train_psi

    result = train_psi(loaded, data, out, start_from=start_from, stop_after=stop_after)
    summary = {
        "model": str(result.folder),
        "steps": result.steps,
        "padded_tokens": result.tokens,
        "seconds": round(result.seconds, 1),
        "mean_loss": round(result.final_loss, 4),
        "chains": result.chains,
    }
    print_summary(summary, f"stage 1 (PSI), {recipe}", as_json=as_json)


def _from_checkpoint(
    recipe: PsiRecipe, data: Path, out: Path, model: str | None, *, dry_run: bool, as_json: bool
) -> None:
    from pgenrm_agent.training.pretrained import train_pretrained
    from pgenrm_agent.training.pretrained_plan import plan_pretrained

    assert recipe.start is not None
    if dry_run:
        plan = plan_pretrained(recipe, data, model or recipe.start.model)
        print_summary(plan, f"stage 1 (PSI), {recipe.name}, dry run", as_json=as_json)
        return
    result = train_pretrained(recipe, data, out, model=model)
    summary = {
        "adapter": str(result.folder),
        "steps": result.steps,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 1),
        "reading": round(result.reading, 4),
        "reading_of_adapter": round(result.reading_of_adapter, 4),
        "reading_at": result.reading_at,
        "kept": round(result.kept, 4),
    }
    print_summary(summary, f"stage 1 (PSI), {recipe.name}", as_json=as_json)


SourceOption = Annotated[
    str,
    typer.Option(
        "--data",
        help="Choices to train on: simulated-train:FOLDER, prb:PATH, people:FILE, people-topics:FILE "
        "or a JSONL file.",
    ),
]


@app.command()
def cre(
    data: SourceOption,
    model: ModelFolderOption,
    out: OutOption = Path("runs/cre"),
    recipe: RecipeOption = "tiny-cpu",
    rater: Annotated[
        str,
        typer.Option(
            help="Of the process reward: rule (simulated users), similarity (of meaning; "
            "similarity:ENCODER for a sentence-transformers model), a model's folder, or none."
        ),
    ] = "rule",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Stage 2: GRPO on outcome and process, stated criteria withheld from the policy."""
    _reinforce("cre", data, model, out, recipe, rater, dry_run=dry_run, as_json=as_json)


@app.command()
def curriculum(
    data: SourceOption,
    model: ModelFolderOption,
    out: OutOption = Path("runs/curriculum"),
    recipe: RecipeOption = "tiny-cpu",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Stage 3: GRPO on the outcome alone, with a growing share of hard choices."""
    _reinforce("curriculum", data, model, out, recipe, "none", dry_run=dry_run, as_json=as_json)


def _reinforce(
    stage: Stage,
    data: str,
    model: Path,
    out: Path,
    recipe_name: str,
    rater_name: str,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    import pgenrm_agent.training.bundled.source  # noqa: F401  (registers simulated:)
    from pgenrm_agent.evaluation.datasets.rows import examples
    from pgenrm_agent.evaluation.datasets.sources import load_rows
    from pgenrm_agent.model_files import refuse_without_model
    from pgenrm_agent.training.choices import drawn
    from pgenrm_agent.training.grpo import train_grpo
    from pgenrm_agent.training.recipe import GrpoRecipe
    from pgenrm_agent.training.run import is_main_process

    recipe = GrpoRecipe.load(recipe_name)
    refuse_without_model(model)
    rows = load_rows(data)
    every = examples(rows, split="train", history=recipe.history, seed=recipe.seed)
    choices = drawn(every, recipe.choices, seed=recipe.seed)
    if dry_run:
        print_summary(
            _plan_of(stage, recipe, model, len(choices)), f"{stage}, dry run", as_json=as_json
        )
        return
    with _rater(rater_name) as rater:
        result = train_grpo(stage, recipe, model, choices, out, rater=rater, source=data)
    if not is_main_process():
        return
    summary = {
        "model": str(result.folder),
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "mean_reward": round(result.reward, 4),
    }
    print_summary(summary, f"{stage}, {recipe.name}", as_json=as_json)


def _plan_of(stage: str, recipe: GrpoRecipe, model: Path, choices: int) -> dict[str, object]:
    """Return what a run would do and take; a prompt counts as many tokens as a chain at most."""
    from pgenrm_agent.model_files import format_of
    from pgenrm_agent.training.memory_estimate import estimate_memory

    chains = recipe.steps * recipe.choices_per_step * recipe.samples
    return {
        "stage": stage,
        "model": str(model),
        "chain_format": format_of(model).name,
        "choices": choices,
        "steps": recipe.steps,
        "chains_to_sample": chains,
        "tokens_at_most": chains * recipe.max_tokens,
        **estimate_memory(model, recipe, tokens=recipe.rows_at_once * 2 * recipe.max_tokens),
        **{f"recipe.{key}": value for key, value in recipe.model_dump().items()},
    }


@contextmanager
def _rater(name: str) -> Iterator[Rater | None]:
    from pgenrm_agent.training.rewards import EngineRater, RuleRater, SimilarityRater

    kind, _, encoder = name.partition(":")
    if name == "none":
        yield None
    elif name == "rule":
        yield RuleRater()
    elif kind == "similarity":
        from pgenrm_agent.opening import default_persona_embedder

        yield SimilarityRater(open_embedder(encoder or None) or default_persona_embedder())
    else:
        from pgenrm_agent.engines import load_engine
        from pgenrm_agent.training.run import own_device

        engine = load_engine("transformers", name, device=own_device())
        rating = EngineRater(engine)
        try:
            yield rating
        finally:
            rating.close()
            asyncio.run(engine.aclose())
