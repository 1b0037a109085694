"""A training command killed again and again: `python killed_training.py KILLS OUT ARGUMENTS...`.

ARGUMENTS are those of `pgenrm train`. Each start is a fork of this process, which has imported
everything: a process of its own would import for ten seconds. The first is killed before long, each
later one after it has written a checkpoint, and the last one is left alone.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from pgenrm_agent.cli.app import main
from pgenrm_agent.training.run import last_checkpoint

SECONDS = 300


def train_killed(kills: int, out: Path, *arguments: str) -> None:
    """Train into `out` with so many kills on the way."""
    command = [sys.executable, "-P", __file__, str(kills), str(out), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def start(arguments: list[str]) -> int:
    """Fork, and train there; returns the process."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        sys.argv = ["pgenrm", "train", *arguments]
        main()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def kill(child: int, run: Path, before: str | None, *, at_once: bool) -> None:
    """Kill at a random moment, as soon as there is a checkpoint newer than `before` or at once."""
    ended = 0
    while not ended and not at_once and last_checkpoint(run) == before:
        time.sleep(0.01)
        ended, _ = os.waitpid(child, os.WNOHANG)
    time.sleep(random.uniform(0, 0.3))
    assert not ended, "it ended before it could be killed"
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


if __name__ == "__main__":
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import trl  # noqa: F401
    from transformers import Trainer  # noqa: F401

    kills, out = int(sys.argv[1]), Path(sys.argv[2])
    for number in range(kills):
        before = last_checkpoint(out)
        kill(start(sys.argv[3:]), out, before, at_once=number == 0)
        assert not (out / "run.json").exists()
    _, status = os.waitpid(start(sys.argv[3:]), 0)
    sys.exit(os.waitstatus_to_exitcode(status))
