"""Step through a run: look, edit, resume, rewind, fork.

    from pgenrm_agent.debugging import DebugSession

    with DebugSession("runs.sqlite") as session:
        run = session.start(request)
        session.run_to(run, after="derive_persona")
        session.edit_persona(run, "A nurse on night shift who reads on their phone.")
        print(session.resume(run).checkpoint.ranking)

Names load on first use: LangGraph is heavy, and the command line imports this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = {"Breakpoint": "breakpoints", "DebugSession": "session"}.get(name, "views")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
