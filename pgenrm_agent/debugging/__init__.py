"""Step through a run: look, edit, resume, rewind, fork.

from pgenrm_agent.debugging import DebugSession

with DebugSession("runs.sqlite") as session:
    run = session.start(request)
    session.run_to(run, after="derive_persona")
    session.edit_persona(run, "A nurse on night shift who reads on their phone.")
    print(session.resume(run).checkpoint.ranking)
"""

from __future__ import annotations

from pgenrm_agent.debugging.breakpoints import Breakpoint
from pgenrm_agent.debugging.session import DebugSession
from pgenrm_agent.debugging.views import (
    Checkpoint,
    Comparison,
    Difference,
    Replay,
    RunSummary,
    Stop,
)

__all__ = [
    "Breakpoint",
    "Checkpoint",
    "Comparison",
    "DebugSession",
    "Difference",
    "Replay",
    "RunSummary",
    "Stop",
]
