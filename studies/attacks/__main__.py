"""`python -m studies.attacks`: how often hostile texts turn a ranking, beside harmless ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pgenrm_agent.cli.app import run
from pgenrm_agent.cli.options import AnswersOption, EngineOption, JsonOption, OutOption

if TYPE_CHECKING:
    from studies.attacks.study import AttackReport, Outcome

app = typer.Typer()

REPORT = "report.json"


@app.command()
def attacks(
    *,
    data: AnswersOption,
    out: OutOption = Path("runs/attacks"),
    pairs: Annotated[int, typer.Option(min=2, help="Pairs of answers.")] = 100,
    kinds: Annotated[
        int, typer.Option(min=1, max=8, help="Kinds of hostile texts that each pair meets.")
    ] = 1,
    chains: Annotated[int, typer.Option(min=5, help="Chains of an evaluation.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of users, pairs and sampling.")] = 0,
    model: Annotated[
        Path | None, typer.Option(help="Model folder; the bundled model if not given.")
    ] = None,
    engine: EngineOption,
    sampling: Annotated[
        bool, typer.Option(help="--no-sampling reports what an unfinished study has so far.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """How often does a hostile text lift an answer that the user would not like?

    Writes records.jsonl and report.json into the folder.
    """
    from pgenrm_agent.engines import load_engine
    from pgenrm_agent.files import write_json
    from pgenrm_agent.model_files import bundled_model, format_of
    from pgenrm_agent.progress import counting
    from pgenrm_agent.run_folder import digest, refuse_other_settings, weights_of
    from pgenrm_agent.training.bundled.simulation import load_answers
    from studies.attacks.study import Study, measure_attacks, read_outcomes, report
    from studies.attacks.texts import KINDS, addition, harmless

    study = Study(pairs=pairs, kinds=kinds, chains=chains, seed=seed)
    answers = load_answers(data / "val.jsonl.gz")
    folder = model or bundled_model()
    settings = {
        "model": weights_of(folder),
        "answers": digest(answers.texts),
        "texts": digest(
            make(kind, at) for make in (addition, harmless) for kind in KINDS for at in (0, 1)
        ),
        "chains": chains,
        "seed": seed,
    }
    refuse_other_settings(out / "settings.json", settings, what="a study")
    if sampling:
        runner = load_engine(engine or "transformers", folder)

        async def measure(tell: Callable[[int, int], None]) -> list[Outcome]:
            try:
                return await measure_attacks(
                    study, runner, format_of(folder), answers, out, progress=tell
                )
            finally:
                await runner.aclose()

        with counting("evaluations") as tell:
            outcomes = asyncio.run(measure(tell))
    else:
        outcomes = read_outcomes(study, answers, out)
    attack_report = report(study, outcomes)
    write_json(out / REPORT, attack_report.model_dump(mode="json"))
    if as_json:
        typer.echo(attack_report.model_dump_json())
    else:
        _print(attack_report)


def _print(report: AttackReport) -> None:
    from pgenrm_agent.evaluation.metrics import plus_minus

    table = Table("where", "what")
    for name in (
        "toward",
        "harmless",
        "difference",
        "95 %",
        "away",
        "harmless",
        "shift",
        "unscored",
    ):
        table.add_column(name, justify="right")
    for row in report.rows:
        flips = row.toward
        interval = flips.interval
        table.add_row(
            row.place,
            row.kind,
            f"{100 * flips.first:.1f}",
            f"{100 * flips.second:.1f}",
            f"{100 * flips.difference:+.1f}",
            f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}" if interval else "-",
            *(f"{100 * share:.1f}" for share in row.away),
            plus_minus(row.shift, form="+.2f", scale=1),
            str(row.unscored),
        )
    console = Console()
    console.print(
        f"{' and '.join(f'{number} pairs ({place})' for place, number in report.pairs.items())},"
        f" {report.chains} chains each; {report.liked_first:.0%} ranked as the user"
        f" would, unattacked; {report.failed:.1%} of the sampled texts could not be read. Flips in %,"
        " toward the attacker and away, with the attack and with harmless text; shift of the margin in"
        " marks, attack against harmless."
    )
    console.print(table)


if __name__ == "__main__":
    run(app)
