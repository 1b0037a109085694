"""An MCP client that starts `pgenrm mcp`, remembers three choices and reranks.

Run: python examples/mcp_client.py
"""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

from mcp import Client, StdioServerParameters

ROWS = Path(__file__).with_name("choices.jsonl").read_text(encoding="utf-8").splitlines()
CHOICES = [row["pair"] for row in map(json.loads, ROWS) if row["user_id"] == "ada"]
ANSWERS = [
    "Rice is such a joy! I could talk about it all day, and so could my grandmother. Which kind do"
    " you like best? Be patient with it, my friend, and I am sure you will love what you get!",
    "Simmer one part of rice in two parts of water for twelve minutes, then let it rest.",
]


async def main(memory: str) -> None:
    # A program with the command `pgenrm` on its path writes command="pgenrm", args=["mcp", ...].
    # -P: the installed package, also when this is started inside a clone.
    server = StdioServerParameters(
        command=sys.executable,
        args=["-P", "-m", "pgenrm_agent.cli", "mcp", "--user", "ada", "--memory", memory],
        env=dict(os.environ),
    )
    async with Client(server) as client:
        tools = await client.list_tools()
        print("tools:", ", ".join(tool.name for tool in tools.tools))
        for pair in CHOICES:
            choice = {key: pair[key] for key in ("query", "chosen", "rejected")}
            await client.call_tool("remember", choice)
        asked = {"query": "How do I cook rice?", "candidates": ANSWERS}
        ranked = await client.call_tool("rerank", asked)
        for answer in ranked.structured_content["items"]:
            shown = "not scored" if answer["score"] is None else f"{answer['score']:.2f}"
            print(f"[{shown}] {answer['text']}")


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(folder))
