"""`pgenrm` in this process, for tests of what commands print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from typer import testing
from typer.main import get_command
from typer.testing import CliRunner

from pgenrm_agent.cli.app import STOPPED, app
from pgenrm_agent.errors import BudgetReached, PGenRMError

# Half a second for each call of a command otherwise: what is put together does not change.
testing._get_command = cache(get_command)


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def complaint(self) -> str:
        """What stands on standard error, without the frame and the line breaks of a terminal."""
        return " ".join(self.stderr.replace("│", " ").split())


def pgenrm(
    *arguments: object, env: Mapping[str, str | None] | None = None, obj: object = None
) -> Done:
    """Run `pgenrm` with `arguments`.

    Errors end it as `pgenrm_agent.cli.app.run` has it; what nobody raised on purpose is raised here.
    env: variables to set, or to unset with None. obj: what the commands find as their context.
    """
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env=env, obj=obj)
    if isinstance(done.exception, BudgetReached):
        return Done(STOPPED, done.stdout, f"{done.stderr}{done.exception}\n")
    if isinstance(done.exception, PGenRMError):
        return Done(1, done.stdout, f"{done.stderr}error: {done.exception}\n")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(done.exit_code, done.stdout, done.stderr)
