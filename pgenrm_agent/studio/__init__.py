"""`pgenrm studio`: runs of `DebugSession` in a local web page.

    with DebugSession("runs.sqlite") as session:
        uvicorn.run(create_studio(session, token="..."), host="127.0.0.1", port=8090)

The page shows what a session knows and asks it to act; what a run is, and what an edit does, is the
session's business alone. Needs the extra `studio`.
"""

from __future__ import annotations

from pgenrm_agent.extras import require

require("the studio", "fastapi", extra="studio")

from pgenrm_agent.studio.app import create_studio  # noqa: E402

__all__ = ["create_studio"]
