"""The MCP server, met by the official SDK's client: in process, over stdio's framing, over HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from awkward_ids import UNUSABLE, USABLE
from httpx2 import AsyncClient, ReadError
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import Context
from starlette.types import ASGIApp

from pgenrm_agent.client import Client as PGenRMClient
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.integrations.keys import KeyRing
from pgenrm_agent.integrations.mcp.http import MOST_BYTES, create_mcp_app
from pgenrm_agent.integrations.mcp.server import (
    LOAD_AFTER_S,
    create_mcp_server,
    load_when_met,
)
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Evaluation

ASKED = {"query": "How?", "candidates": ["So. 3", "Thus. 8"]}


@pytest.fixture(scope="module")
def address(rm: PGenRM) -> Iterator[str]:
    """A server for everybody, over streamable HTTP on a socket."""
    with listening_to(create_mcp_app(create_mcp_server(rm))) as url:
        yield url


@pytest.mark.parametrize("listens_on", ["127.0.0.1", "127.0.0.2", "0.0.0.0"])
async def test_without_keys_other_sites_reach_nothing_over_http(
    rm: PGenRM, listens_on: str
) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    with listening_to(create_mcp_app(create_mcp_server(rm), host=listens_on)) as url:
        async with AsyncClient() as http:
            for host in (
                "evil.example",
                "127.0.0.1:80@evil.example",
                "127.0.0.1.nip.io",
                "0.0.0.0",
            ):
                answer = await http.post(url, json=call, headers={"Host": host})
                assert answer.status_code == 421, host
            for origin in ("https://evil.example", "null", "http://127.0.0.1:80@evil.example"):
                answer = await http.post(url, json=call, headers={"Origin": origin})
                assert answer.status_code == 403, origin
        async with Client(streamable_http_client(url)) as client:
            assert len((await client.list_tools()).tools) == 8


@contextmanager
def listening_to(app: ASGIApp) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()


def text(result: Any) -> str:
    return "\n".join(block.text for block in result.content)


async def test_the_tools_are_listed_with_their_output(address: str) -> None:
    async with Client(address) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == {
        "score",
        "rerank",
        "remember",
        "state_preference",
        "list_remembered",
        "correct",
        "forget_entry",
        "forget",
    }
    assert all(tool.output_schema for tool in tools.values())
    assert tools["forget"].annotations.destructive_hint
    assert "ctx" not in tools["score"].input_schema["properties"]


async def test_score_gives_structure_for_programs_and_text_for_people(address: str) -> None:
    async with Client(address) as client:
        result = await client.call_tool("score", {**ASKED, "user_id": "ada"})
    assert not result.is_error, text(result)
    assert result.structured_content["ranking"] == ["answer-2", "answer-1"]
    assert [score["mean"] for score in result.structured_content["scores"]] == [3.0, 8.0]
    told = text(result)
    assert "Persona: This person wants a useful answer." in told
    assert "- Usefulness, 100 %" in told
    assert result.structured_content["usage"]["chains_sampled"] == 2
    assert result.structured_content["evidence"]["choices"] == 0


async def test_progress_of_another_server_is_told_in_this_one(
    rm: PGenRM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of `pgenrm serve` works on a loop of its own; the MCP session belongs to this one."""
    told: list[tuple[int, str]] = []

    class Elsewhere(PGenRMClient):
        async def ascore(self, *given: Any, **options: Any) -> Evaluation:
            return await self._loop.run(lambda: rm.ascore(*given, **options))

    async def note(done: float, total: float | None, message: str | None) -> None:
        told.append((threading.get_ident(), str(message)))

    report = Context.report_progress

    async def slow(self: Any, *given: Any) -> None:
        reporting = threading.get_ident()
        await asyncio.sleep(0.01)
        assert reporting == threading.get_ident() == here
        await report(self, *given)

    here = threading.get_ident()
    monkeypatch.setattr(Context, "report_progress", slow)
    with Elsewhere("http://127.0.0.1:9") as elsewhere:
        async with Client(create_mcp_server(elsewhere, user_id="ada")) as client:
            result = await client.call_tool("score", ASKED, progress_callback=note)
    assert not result.is_error, text(result)
    assert [stage for _, stage in told][-1] == "aggregate"
    assert len(told) == 6


async def test_a_mistyped_user_is_told_of(address: str) -> None:
    async with Client(address) as client:
        for tool in ("score", "rerank"):
            result = await client.call_tool(tool, {**ASKED, "user_id": "adda"})
            assert "0 past choices and 0 statements of 'adda'" in text(result)
            warnings = result.structured_content["evidence"]["warnings"]
            assert warnings == ["nothing is known of user 'adda': is the name right?"]


async def test_rerank_keeps_the_original_places(address: str) -> None:
    async with Client(address) as client:
        result = await client.call_tool("rerank", {**ASKED, "user_id": "ada"})
    items = result.structured_content["items"]
    assert [(item["index"], item["id"], item["score"]) for item in items] == [
        (1, "answer-2", 8.0),
        (0, "answer-1", 3.0),
    ]


async def test_what_is_remembered_over_mcp_is_in_the_memory(address: str, rm: PGenRM) -> None:
    choice = {"query": "How?", "chosen": "So.", "rejected": "Not so.", "user_id": "kim"}
    async with Client(address) as client:
        made = await client.call_tool("remember", choice)
        await client.call_tool("state_preference", {"text": "Be brief.", "user_id": "kim"})
        assert rm.memory.recall("kim").history[0].id == made.structured_content["id"]
        refused = await client.call_tool("forget", {"confirmed": False, "user_id": "kim"})
        assert refused.is_error
        done = await client.call_tool("forget", {"confirmed": True, "user_id": "kim"})
    assert done.structured_content == {"forgotten": 2}


async def test_one_entry_is_corrected_and_forgotten(address: str) -> None:
    choice = {"query": "How?", "chosen": "So.", "rejected": "Not so."}
    async with Client(address) as client:

        async def call(tool: str, **arguments: Any) -> Any:
            result = await client.call_tool(tool, {**arguments, "user_id": "pia"})
            assert not result.is_error, text(result)
            return result.structured_content

        kept = (await call("remember", **choice))["id"]
        said = (await call("state_preference", text="Be brief."))["id"]
        kept = (await call("correct", id=kept, chosen="Thus."))["id"]
        said = (await call("correct", id=said, text="Be thorough."))["id"]
        pair, stated = (await call("list_remembered"))["entries"]
        assert (pair["pair"]["chosen"], pair["pair"]["rejected"]) == ("Thus.", "Not so.")
        assert (stated["id"], stated["stated"]["text"]) == (said, "Be thorough.")
        assert await call("forget_entry", id=kept) == {"forgotten": 1}
        assert await call("forget_entry", id=kept) == {"forgotten": 0}
        for wrong in ({"id": kept, "chosen": "x"}, {"id": said}, {"id": said, "query": "x"}):
            refused = await client.call_tool("correct", {**wrong, "user_id": "pia"})
            assert refused.is_error
        await call("forget", confirmed=True)


async def test_progress_is_told_stage_by_stage(address: str) -> None:
    stages: list[str | None] = []

    async def note(done: float, total: float | None, message: str | None) -> None:
        stages.append(message)

    async with Client(address) as client:
        asked = {**ASKED, "user_id": "ada"}
        await client.call_tool("score", asked, progress_callback=note)
    assert stages == [
        "recall",
        "derive_persona",
        "match_prototype",
        "generate_rubric",
        "sample_scores",
        "aggregate",
    ]


@pytest.mark.parametrize(
    ("tool", "arguments", "complaint"),
    [
        ("score", ASKED, "user_id is missing"),
        ("score", {**ASKED, "user_id": None}, "user_id is missing"),
        ("score", {**ASKED, "user_id": 7}, "user_id"),
        ("score", {**ASKED, "user_id": "ada", "query": " "}, "query"),
        ("score", {**ASKED, "user_id": "ada", "timeout_s": 0}, "timeout_s"),
        ("score", {**ASKED, "user_id": "ada", "timeout_s": 1e-6}, "time was over"),
        ("rerank", {**ASKED, "user_id": "ada", "timeout_s": 1e-6}, "time was over"),
        ("score", {**ASKED, "user_id": "ada", "candidates": []}, "candidates"),
        ("forget", {"confirmed": "true", "user_id": "ada"}, "confirmed"),
        ("forget", {"confirmed": 1, "user_id": "ada"}, "confirmed"),
        (
            "remember",
            {"query": "q", "chosen": "x", "rejected": "x", "user_id": "ada"},
            "same text",
        ),
    ],
)
async def test_a_wrong_call_is_a_tool_error_that_says_why(
    address: str, tool: str, arguments: dict[str, Any], complaint: str
) -> None:
    async with Client(address) as client:
        result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert complaint in text(result)


async def test_every_usable_id_is_scored_remembered_and_forgotten(address: str, rm: PGenRM) -> None:
    choice = {"query": "How?", "chosen": "So.", "rejected": "Not so."}
    async with Client(address) as client:
        for user in USABLE:
            for tool, arguments in (
                ("remember", choice),
                ("state_preference", {"text": "Be brief."}),
                ("score", ASKED),
                ("rerank", ASKED),
            ):
                result = await client.call_tool(tool, {**arguments, "user_id": user})
                assert not result.is_error, (user, text(result))
            assert len(rm.memory.history(user)) == 1
            done = await client.call_tool("forget", {"confirmed": True, "user_id": user})
            assert done.structured_content == {"forgotten": 2}


@pytest.mark.parametrize("user", [user for user in UNUSABLE if user and user.isascii()], ids=ascii)
async def test_no_tool_takes_another_id(address: str, rm: PGenRM, user: str) -> None:
    async with Client(address) as client:
        for tool, arguments in (("score", ASKED), ("forget", {"confirmed": True})):
            result = await client.call_tool(tool, {**arguments, "user_id": user})
            assert result.is_error
            assert "no usable id" in text(result)
    with pytest.raises(ConfigurationError, match="no usable id"):
        create_mcp_server(rm, user_id=user)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_server_for_one_person_judges_for_nobody_else(rm: PGenRM, mode: Any) -> None:
    async with Client(create_mcp_server(rm, user_id="ada"), mode=mode) as client:
        own = await client.call_tool("score", ASKED)
        assert own.structured_content["best"] == "answer-2"
        for tool in (await client.list_tools()).tools:
            assert "user_id" not in tool.input_schema["properties"], tool.name
            assert tool.output_schema
        refused = await client.call_tool("score", {**ASKED, "user_id": "bob"})
        assert refused.is_error
        assert "one user only" in text(refused)
        same = await client.call_tool("rerank", {**ASKED, "user_id": "ada"})
        assert not same.is_error
        assert "bob" not in json.dumps(own.structured_content)


async def test_the_model_is_loaded_after_the_first_message(
    make_engine: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "a.txt").write_text("no memory")
    for folder, loads in (("memory", True), ("foreign", False)):
        with PGenRM(engine=make_engine(), memory=tmp_path / folder) as reward_model:
            server = create_mcp_server(reward_model, user_id="ada")
            load_when_met(server, reward_model)
            async with Client(server) as client:
                await client.list_tools()
                await asyncio.sleep(LOAD_AFTER_S + 1)
                assert (reward_model._neighbors is not None) is loads
                assert ("nothing can be scored" in caplog.text) is not loads
                result = await client.call_tool("score", ASKED)
                assert result.is_error is not loads


async def test_over_http_only_a_key_of_the_tenant_opens_the_server(
    rm: PGenRM, tmp_path: Path
) -> None:
    ring = KeyRing(tmp_path / "keys.jsonl")
    own, issued = ring.issue("acme")
    foreign, _ = ring.issue("globex")
    guarded = create_mcp_app(create_mcp_server(rm), keys=ring, tenant="acme")
    with listening_to(guarded) as url:
        async with AsyncClient() as http:
            for headers in (
                {},
                {"Authorization": f"Bearer {foreign}"},
                {"Authorization": f"Basic {own}"},
                {"Authorization": "Bearer"},
            ):
                for method in ("POST", "GET", "DELETE", "OPTIONS"):
                    for address in (url, f"{url}/anything", url.removesuffix("/mcp")):
                        answer = await http.request(method, address, headers=headers)
                        assert answer.status_code == 401, (method, address)
                        assert "key of tenant acme" in answer.json()["error"]
        async with AsyncClient(headers={"Authorization": f"Bearer {own}"}) as http:
            async with Client(streamable_http_client(url, http_client=http)) as client:
                assert len((await client.list_tools()).tools) == 8
            for damaged in (b"{}\n", b"no JSON\n", b"\xff\xfe", b'{"id": 1}\n'):
                whole = ring.path.read_bytes()
                ring.path.write_bytes(damaged)
                answer = await http.post(url, json={})
                assert answer.status_code == 503, damaged
                assert str(ring.path) not in answer.text
                ring.path.write_bytes(whole)
            ring.revoke(issued.id)
            assert (await http.post(url, json={})).status_code == 401


async def test_a_body_that_is_slow_or_long_is_given_up(rm: PGenRM) -> None:
    with listening_to(create_mcp_app(create_mcp_server(rm), body_s=0.3)) as url:
        async with AsyncClient() as http:

            async def dripping() -> AsyncIterator[bytes]:
                for _ in range(100):
                    yield b" "
                    await asyncio.sleep(0.05)

            try:
                answer = await http.post(url, content=dripping())
            except ReadError:  # the answer and the end of the connection met a part of the body
                pass
            else:
                assert answer.status_code == 408
                assert "0.3 s" in answer.json()["error"]
            answer = await http.post(url, content=b" " * (MOST_BYTES + 1))
            assert answer.status_code == 413
        async with Client(streamable_http_client(url)) as client:
            assert len((await client.list_tools()).tools) == 8


async def test_clients_are_told_that_a_call_has_to_name_a_user(address: str) -> None:
    async with Client(address) as client:
        tools = (await client.list_tools()).tools
    assert [tool.name for tool in tools if "user_id" not in tool.input_schema["required"]] == []


async def test_wrong_arguments_are_named_in_our_words(address: str) -> None:
    async with Client(address) as client:
        missing = await client.call_tool("score", {"user_id": "ada", "query": "q"})
        empty = await client.call_tool("score", {"user_id": "ada", "query": "q", "candidates": []})
        blank = await client.call_tool("score", {**ASKED, "user_id": "ada", "query": " "})
    said = [result.content[0].text for result in (missing, empty, blank)]  # type: ignore[union-attr]
    assert said == [
        "candidates is missing",
        "candidates: it is empty",
        "query is blank: pass a text",
    ]
