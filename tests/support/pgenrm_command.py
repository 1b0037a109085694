"""The command line in this process: a process of its own would import everything again, for seconds."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess
from unittest.mock import patch

from pgenrm_agent.cli.app import main

__all__ = ["pgenrm"]


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
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return CompletedProcess(command, code, out.getvalue(), err.getvalue())
