"""`pgenrm studio`: runs of `DebugSession` in a local web page.

    with DebugSession("runs.sqlite") as session:
        uvicorn.run(create_studio(session, token="..."), host="127.0.0.1", port=8090)

The page shows what a session knows and asks it to act; what a run is, and what an edit does, is the
session's business alone. Needs the extra `studio`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgenrm_agent.studio.app import create_studio

__all__ = ["create_studio"]


def __getattr__(name: str) -> object:
    # FastAPI loads on first use: the command line imports this package.
    if name == "create_studio":
        from pgenrm_agent.studio.app import create_studio

        return create_studio
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
