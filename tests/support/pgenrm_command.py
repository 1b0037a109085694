"""The command line in this process: a process of its own would import everything again, for seconds."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from subprocess import CompletedProcess
from unittest.mock import patch

from typer.main import get_command

from pgenrm_agent.cli import app

__all__ = ["pgenrm"]


@cache
def _command_line() -> Callable[[], object]:
    """What `main` puts together; made once, since that takes half a second."""
    with patch.object(app, "run") as run:
        app.main()
    return get_command(run.call_args.args[0])


def pgenrm(*arguments: object) -> CompletedProcess[str]:
    """Run `pgenrm ARGUMENTS...`: exit code, standard output and error. What would be a traceback is raised."""
    command = list(map(str, arguments))
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        patch.object(sys, "argv", ["pgenrm", *command]),
    ):
        try:
            app.run(_command_line())  # type: ignore[arg-type]
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return CompletedProcess(command, code, out.getvalue(), err.getvalue())
