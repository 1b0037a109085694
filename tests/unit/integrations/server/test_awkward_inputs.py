"""One table of awkward inputs, and the same outcome at six doors."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from awkward_inputs import DOORS, ROWS, Row, table
from command_line import pgenrm
from mcp import Client as MCPClient

from pgenrm_agent import as_tool
from pgenrm_agent.client import Client
from pgenrm_agent.errors import PGenRMError
from pgenrm_agent.integrations.mcp.server import create_mcp_server
from pgenrm_agent.schema import Evaluation, PreferencePair

if TYPE_CHECKING:
    from .conftest import Running, Serve

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "inputs.md"
KNOWN = PreferencePair(query="How?", chosen="So.", rejected="Not so.")


@dataclass
class Outcome:
    """What came of an input. not_scored: reasons by place. refused: what the error says."""

    refused: str = ""
    means: tuple[float | None, ...] = ()
    not_scored: dict[int, str] | None = None
    best: str | None = None
    choices: int = 0


@pytest.fixture(scope="module")
def keyless(serve: Serve) -> Iterator[Running]:
    with serve(keyless=True) as running:
        running.reward_model.remember("jos\u00e9", KNOWN)
        yield running


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """The memory of the command line, which is a process of its own elsewhere."""
    choice = ["--query", KNOWN.query, "--chosen", KNOWN.chosen, "--rejected", KNOWN.rejected]
    done = pgenrm("users", "remember", "jos\u00e9", *choice, "--memory", tmp_path / "memory")
    assert done.returncode == 0, done.stderr
    return tmp_path / "memory"


@pytest.mark.parametrize("door", [door for door in DOORS if door != "CLI"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.input)
async def test_the_outcome_is_as_the_table_says(keyless: Running, row: Row, door: str) -> None:
    if door not in row.not_at:
        check(row, await ENTERED[door](keyless, row))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.input)
def test_the_outcome_on_the_command_line_is_as_the_table_says(
    memory: Path, seeded_model: str, row: Row
) -> None:
    if "CLI" not in row.not_at:
        check(row, on_the_command_line(memory, row))


def check(row: Row, outcome: Outcome) -> None:
    if row.outcome == "refused":
        assert outcome.refused, outcome
        assert row.says.replace("candidates", "candidate") in outcome.refused.replace(
            "ANSWER", "candidates"
        )
        assert "\n" not in outcome.refused.strip()
        return
    assert not outcome.refused, outcome.refused
    assert len(outcome.means) == len(row.candidates)
    assert sorted(outcome.not_scored or {}) == list(row.which)
    assert all(row.says in reason for reason in (outcome.not_scored or {}).values())
    for place, mean in enumerate(outcome.means):
        assert (mean is None) == (place in row.which)
    if row.best is None:
        assert outcome.best is None
        assert len(set(outcome.means)) == 1
    if row.choices is not None:
        assert outcome.choices == row.choices


def test_the_page_shows_the_table() -> None:
    """PGENRM_DRAW=1 writes it anew."""
    page = PAGE.read_text(encoding="utf-8")
    if os.environ.get("PGENRM_DRAW"):
        page = re.sub(r"\| What comes in.*\|\n", lambda _: table(), page, flags=re.DOTALL)
        PAGE.write_text(page, encoding="utf-8")
    assert table() in page, "the table changed: run this test with PGENRM_DRAW=1"


# --- the doors ---


def seen(evaluation: Any) -> Outcome:
    """The outcome of what a door returned: an evaluation, or its scores as JSON data."""
    data = evaluation.model_dump(mode="json") if isinstance(evaluation, Evaluation) else evaluation
    scores = data["scores"]
    reasons = {i: score["reason"] for i, score in enumerate(scores) if score["mean"] is None}
    return Outcome(
        means=tuple(score["mean"] for score in scores),
        not_scored=reasons,
        best=data["best"],
        choices=data["evidence"]["choices"],
    )


async def in_the_library(running: Running, row: Row) -> Outcome:
    try:
        return seen(await running.reward_model.ascore(**row.asked))
    except PGenRMError as error:
        return Outcome(refused=str(error))


async def over_http(running: Running, row: Row) -> Outcome:
    async with httpx.AsyncClient(base_url=running.url, timeout=60) as http:
        answer = await http.post(
            "/v1/score",
            content=json.dumps(row.asked).encode(),
            headers={"Content-Type": "application/json"},
        )
    if answer.status_code == 200:
        return seen(answer.json())
    assert answer.status_code == 422, answer.text
    return Outcome(refused=answer.json()["message"])


async def with_the_client(running: Running, row: Row) -> Outcome:
    async with Client(running.url) as client:
        try:
            return seen(await client.ascore(**row.asked))
        except PGenRMError as error:
            return Outcome(refused=str(error))


async def over_mcp(running: Running, row: Row) -> Outcome:
    async with MCPClient(create_mcp_server(running.reward_model)) as client:
        result: Any = await client.call_tool("score", row.asked)
    if result.is_error:
        return Outcome(refused=" ".join(block.text for block in result.content).replace("\n", " "))
    return seen(result.structured_content)


async def as_a_langchain_tool(running: Running, row: Row) -> Outcome:
    call = {"name": "rank", "args": row.asked, "id": "1", "type": "tool_call"}
    try:
        message = await as_tool(running.reward_model).ainvoke(call)
    except ValueError as error:  # arguments of another type, which LangChain itself refuses
        return Outcome(refused=str(error).replace("\n", " "))
    if message.status == "error":
        return Outcome(refused=str(message.content))
    return seen(Evaluation.model_validate(message.artifact))


ENTERED = {
    "library": in_the_library,
    "HTTP": over_http,
    "client": with_the_client,
    "MCP": over_mcp,
    "LangChain": as_a_langchain_tool,
}


def on_the_command_line(memory: Path, row: Row) -> Outcome:
    done = pgenrm(
        *("score", "--json", "--user", row.user_id, "--query", row.query),
        *("--engine", "openai", "--model", "m", "--memory", memory),
        *("--individual", 2, "--prototype", 0, "--seed", 1, "--", *row.candidates),
    )
    return (
        seen(json.loads(done.stdout)) if done.returncode == 0 else Outcome(refused=done.complaint)
    )
