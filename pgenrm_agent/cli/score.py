"""`pgenrm demo`, `score` and `rerank`: which answers a user would like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgenrm_agent.cli.engine_choice import EngineChoice, chooses_engine
from pgenrm_agent.cli.options import (
    CandidatesArgument,
    EmbedderOption,
    FixedSeedOption,
    IndividualOption,
    JsonOption,
    MemoryOption,
    ModelOption,
    PrototypeOption,
    QueryOption,
    SeedOption,
    SureOption,
    UserOption,
)
from pgenrm_agent.cli.output import print_json, print_notice, waiting
from pgenrm_agent.cli.resources import open_reward_model, read_text, scaling_of, valid_input

if TYPE_CHECKING:
    from pgenrm_agent.schema import Candidate

__all__ = ["demo", "read_candidates", "rerank", "score", "text_or_file"]


def demo(
    *,
    individual: IndividualOption,
    seed: FixedSeedOption = 7,
    memory: Annotated[
        Path | None, typer.Option(help="Keep the demo's memory in this folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score the same three answers for three different users."""
    import tempfile

    from pgenrm_agent.demo import run_demo

    with waiting("sampling evaluation chains"), tempfile.TemporaryDirectory() as scratch:
        result = run_demo(memory or Path(scratch), scaling=scaling_of(individual, seed=seed))
    if as_json:
        print_json(result)
        return
    from pgenrm_agent.cli.tables import print_evaluation

    print_notice()
    for user in result.users:
        print_evaluation(user.evaluation, title=f"{user.id}, {user.about}")


@chooses_engine
def score(
    *,
    user: UserOption,
    query: QueryOption,
    candidates: CandidatesArgument,
    individual: IndividualOption,
    prototype: PrototypeOption,
    sure: SureOption,
    seed: SeedOption,
    memory: MemoryOption,
    model: ModelOption,
    engine: EngineChoice,
    embedder: EmbedderOption,
    as_json: JsonOption = False,
) -> None:
    """Score candidate answers for one user, and show why."""
    scaling = scaling_of(individual, prototype, sure=sure, seed=seed)
    answers = read_candidates(candidates)
    with (
        open_reward_model(memory, model, engine, embedder=embedder) as reward_model,
        waiting("sampling evaluation chains"),
    ):
        evaluation = reward_model.score(user, query, answers, scaling=scaling)
    if as_json:
        print_json(evaluation)
        return
    from pgenrm_agent.cli.tables import print_evaluation

    if model is None:
        print_notice()
    print_evaluation(evaluation, title=user)


@chooses_engine
def rerank(
    *,
    user: UserOption,
    query: QueryOption,
    candidates: CandidatesArgument,
    individual: IndividualOption,
    prototype: PrototypeOption,
    sure: SureOption,
    seed: SeedOption,
    memory: MemoryOption,
    model: ModelOption,
    engine: EngineChoice,
    embedder: EmbedderOption,
    as_json: JsonOption = False,
) -> None:
    """Order candidate answers by how much one user would like them."""
    scaling = scaling_of(individual, prototype, sure=sure, seed=seed)
    answers = read_candidates(candidates)
    with (
        open_reward_model(memory, model, engine, embedder=embedder) as reward_model,
        waiting("sampling evaluation chains"),
    ):
        ranking = reward_model.rerank(user, query, answers, scaling=scaling)
    if as_json:
        print_json(ranking)
        return
    from pgenrm_agent.cli.tables import print_ranking

    if model is None:
        print_notice()
    print_ranking(ranking.evaluation)


def text_or_file(argument: str) -> str:
    """Return the argument itself, or the text of the file that @FILE names."""
    return read_text(Path(argument[1:])) if argument.startswith("@") else argument


def read_candidates(arguments: list[str]) -> list[str | Candidate]:
    """Return the candidate answers that the arguments name, in order."""
    candidates: list[str | Candidate] = []
    for argument in arguments:
        if argument.startswith("@") and argument.endswith(".jsonl"):
            lines = text_or_file(argument).splitlines()
            candidates += [
                _candidate(line, where=f"{argument[1:]}, line {number}")
                for number, line in enumerate(lines, start=1)
                if line.strip()
            ]
        else:
            candidates.append(text_or_file(argument))
    return candidates


def _candidate(line: str, *, where: str) -> str | Candidate:
    """Read one line of a JSONL file of answers."""
    from pgenrm_agent.schema import Candidate

    try:
        row = json.loads(line)
    except ValueError as error:
        raise typer.BadParameter(f"{where}: not JSON: {error}") from error
    if isinstance(row, str):
        return row
    with valid_input(where):
        return Candidate.model_validate(row)
