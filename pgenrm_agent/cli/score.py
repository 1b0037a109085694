"""`pgenrm demo`, `score` and `rerank`: which answers a user would like."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgenrm_agent.cli.costs import cost_line, prices_of
from pgenrm_agent.cli.engine_choice import EngineChoice, chooses_engine
from pgenrm_agent.cli.options import (
    MAX_SEED,
    CacheOption,
    CandidatesArgument,
    EmbedderOption,
    IndividualOption,
    JsonOption,
    MemoryOption,
    ModelOption,
    PastChoicesOption,
    PricesOption,
    PrototypeOption,
    QueryOption,
    SeedOption,
    ServerOption,
    SureOption,
    TimeoutOption,
    UserOption,
    from_setting,
)
from pgenrm_agent.cli.output import print_notice, show
from pgenrm_agent.cli.resources import (
    check_server,
    open_cache,
    open_judge,
    read_text,
    scaling_of,
    valid_input,
)
from pgenrm_agent.progress import waiting

if TYPE_CHECKING:
    from pgenrm_agent.demo import DemoResult
    from pgenrm_agent.schema import Candidate, Evaluation


def demo(
    *,
    individual: IndividualOption,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=MAX_SEED, help="Seed of the samples.", **from_setting("seed", "1", 1)
        ),
    ],
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
    show(result, as_json, _print_demo)


def _print_demo(result: DemoResult) -> None:
    from pgenrm_agent.cli.tables import print_evaluation

    print_notice()
    for user in result.users:
        print_evaluation(user.evaluation, title=f"{user.id}, {user.about}")


def _scoring(
    name: str, about: str, show_result: Callable[[Evaluation, bool], None]
) -> Callable[..., None]:
    """Make a command that scores answers for one user; `show_result` prints what it found, as JSON or not.

    `score` and `rerank` are two of these: an option added here is on both.
    """

    def command(
        context: typer.Context,
        *,
        user: UserOption,
        query: QueryOption,
        candidates: CandidatesArgument,
        individual: IndividualOption,
        prototype: PrototypeOption,
        history: PastChoicesOption,
        sure: SureOption,
        seed: SeedOption,
        memory: MemoryOption,
        model: ModelOption,
        engine: EngineChoice,
        embedder: EmbedderOption,
        prices: PricesOption,
        cache: CacheOption,
        server: ServerOption,
        timeout: TimeoutOption = None,
        as_json: JsonOption = False,
    ) -> None:
        check_server(context, server)
        scaling = scaling_of(individual, prototype, history=history, sure=sure, seed=seed)
        answers = read_candidates(candidates)
        with (
            open_cache(None if server else cache) as kept,
            open_judge(
                server,
                memory,
                model,
                engine,
                embedder=embedder,
                prices=prices_of(prices),
                cache=kept,
            ) as judge,
            waiting("sampling evaluation chains"),
        ):
            evaluation = judge.score(user, query, answers, scaling=scaling, timeout=timeout)
        if model is None and server is None and not as_json:
            print_notice()
        show_result(evaluation, as_json)
        line = cost_line(evaluation.usage)
        if line and not as_json:
            typer.echo(line)

    command.__name__, command.__doc__ = name, about
    return chooses_engine(command)


def _show_evaluation(evaluation: Evaluation, as_json: bool) -> None:
    from pgenrm_agent.cli.tables import print_evaluation

    show(evaluation, as_json, print_evaluation)


def _show_ranking(evaluation: Evaluation, as_json: bool) -> None:
    from pgenrm_agent.cli.tables import print_ranking
    from pgenrm_agent.ranking import ranking_of

    show(ranking_of(evaluation), as_json, lambda ranking: print_ranking(ranking.evaluation))


score = _scoring("score", "Score candidate answers for one user, and show why.", _show_evaluation)
rerank = _scoring(
    "rerank", "Order candidate answers by how much one user would like them.", _show_ranking
)


def text_or_file(argument: str) -> str:
    """Return the argument itself, or the text of the file that @FILE names."""
    return read_text(Path(argument[1:])) if argument.startswith("@") else argument


def read_candidates(arguments: list[str]) -> list[str | Candidate]:
    """Return the candidate answers that the arguments name, in order."""
    candidates: list[str | Candidate] = []
    for argument in arguments:
        if argument.startswith("@") and argument.endswith((".jsonl", ".jsonl.gz")):
            lines = text_or_file(argument).split("\n")  # a text may hold other ends of lines
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
