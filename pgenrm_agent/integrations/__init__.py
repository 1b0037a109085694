"""Ways into other programs: LangChain, MCP, HTTP, TRL, whole data sets. None is imported here."""
