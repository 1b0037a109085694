"""The Model Context Protocol: a server over stdio or HTTP. Needs the extra `mcp`."""

from __future__ import annotations

from pgenrm_agent.extras import require

require("the MCP server", "mcp")
