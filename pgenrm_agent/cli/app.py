"""`pgenrm`: the groups of commands, put together.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 failed,
2 wrong usage, 3 stopped at its budget. Heavy packages load inside the commands, so that
`pgenrm --help` is quick.
"""

from __future__ import annotations

from typing import Annotated

import typer

from pgenrm_agent.cli.bench import bench
from pgenrm_agent.cli.dataset import score_dataset
from pgenrm_agent.cli.debug import app as debug
from pgenrm_agent.cli.doctor import doctor
from pgenrm_agent.cli.eval import app as evaluation
from pgenrm_agent.cli.keys import app as keys
from pgenrm_agent.cli.prototypes import app as prototypes
from pgenrm_agent.cli.score import demo, rerank, score
from pgenrm_agent.cli.serve import mcp, serve
from pgenrm_agent.cli.studio import studio
from pgenrm_agent.cli.train import app as train
from pgenrm_agent.cli.users import app as users
from pgenrm_agent.errors import BudgetReached, PGenRMError
from pgenrm_agent.extras import extra_of

STOPPED = 3
"""The exit code of a job that has spent its budget: what it has done is kept, and it can go on."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="How much would one particular user like each candidate answer?",
)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"pgenrm-agent {version('pgenrm-agent')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


app.command()(demo)
app.command()(score)
app.command()(rerank)
app.add_typer(users, name="users")
app.add_typer(prototypes, name="prototypes")
app.add_typer(debug, name="debug")
app.command()(studio)
app.command()(serve)
app.command()(mcp)
app.add_typer(keys, name="keys")
app.add_typer(evaluation, name="eval")
app.command("score-dataset")(score_dataset)
app.add_typer(train, name="train")
app.command()(bench)
app.command()(doctor)


def main() -> None:
    """Run `pgenrm`."""
    run(app)


def run(commands: typer.Typer) -> None:
    """Run a command line; errors raised on purpose become one line and exit code 1."""
    try:
        commands()
    except BudgetReached as stop:
        typer.echo(str(stop), err=True)
        raise SystemExit(STOPPED) from stop
    except PGenRMError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from error
    except ModuleNotFoundError as error:
        extra = extra_of(error.name or "")
        if extra is None:
            raise
        typer.echo(
            f"error: this needs {error.name}, which is not installed:"
            f" pip install 'pgenrm-agent[{extra}]'",
            err=True,
        )
        raise SystemExit(1) from error
