"""The HTTP server: `create_app` for a program, `pgenrm serve` for a shell. Needs extra `server`."""

from __future__ import annotations

from pgenrm_agent.integrations.keys import IssuedKey, KeyRing
from pgenrm_agent.integrations.server.admission import Limits
from pgenrm_agent.integrations.server.app import create_app

__all__ = ["IssuedKey", "KeyRing", "Limits", "create_app"]
