"""The routes, by what they are about."""

from __future__ import annotations

from pgenrm_agent.integrations.server.routes.evaluations import router as evaluations
from pgenrm_agent.integrations.server.routes.memory import router as memory
from pgenrm_agent.integrations.server.routes.operation import router as operation

__all__ = ["evaluations", "memory", "operation"]
