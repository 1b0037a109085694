"""An MCP client that starts `pgenrm mcp`, remembers a choice and reranks.

Run: python examples/mcp_client.py
"""

import asyncio
import os
import sys

from mcp import Client, StdioServerParameters

# A program with the command `pgenrm` on its path writes command="pgenrm", args=["mcp", ...].
# -P: the installed package, also when this is started inside a clone.
server = StdioServerParameters(
    command=sys.executable,
    args=["-P", "-m", "pgenrm_agent.cli", "mcp", "--user", "ada", *sys.argv[1:]],
    env=dict(os.environ),
)


async def main() -> None:
    async with Client(server) as client:
        tools = await client.list_tools()
        print("tools:", ", ".join(tool.name for tool in tools.tools))
        choice = {
            "query": "How do I boil an egg?",
            "chosen": "Eight minutes.",
            "rejected": "Oh, eggs! I love them. It depends on how you like yours...",
        }
        await client.call_tool("remember", choice)
        asked = {
            "query": "How do I cook rice?",
            "candidates": [
                "Rice is such a joy! Let me tell you about my favourite kinds...",
                "One part rice, two parts water, 12 minutes.",
            ],
        }
        ranked = await client.call_tool("rerank", asked)
        for answer in ranked.structured_content["items"]:
            shown = "not scored" if answer["score"] is None else f"{answer['score']:.2f}"
            print(f"[{shown}] {answer['text']}")


asyncio.run(main())
