"""The Model Context Protocol: a server over stdio or HTTP. Needs the extra `mcp`."""
