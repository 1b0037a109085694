"""The HTTP server: `create_app` for a program, `pgenrm serve` for a shell. Needs extra `server`."""

from __future__ import annotations

from pgenrm_agent.extras import require

require("the HTTP server", "fastapi", "prometheus_client", extra="server")

from pgenrm_agent.integrations.keys import IssuedKey, KeyRing  # noqa: E402
from pgenrm_agent.integrations.server.admission import Limits  # noqa: E402
from pgenrm_agent.integrations.server.app import create_app  # noqa: E402

__all__ = ["IssuedKey", "KeyRing", "Limits", "create_app"]
