"""The same memory on a real Chroma server, shared by several objects and processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pgenrm_agent.embedding import HashingEmbedder
from pgenrm_agent.errors import MemoryStoreError
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.schema import PreferencePair, StatedPreference

pytestmark = pytest.mark.long

RANK = """
import json, os, re, sys
from pgenrm_agent import PGenRM, PreferencePair, Scaling, as_reward_func
from pgenrm_agent.testing import ScriptedEngine, write_chain

def judge(prompt, _=0):
    text = prompt.messages[-1].content
    marks = [int(mark) for mark in re.findall(r"(\\d)\\s*\\[The End of Response", text)]
    return write_chain(marks)

url, rank = sys.argv[1], os.environ["RANK"]
with PGenRM(engine=ScriptedEngine(judge), memory=url, scaling=Scaling(individual=2, seed=1)) as rm:
    for step in range(3):
        pair = PreferencePair(id=f"{rank}-{step}", query="How?", chosen="So.", rejected="Not so.")
        rm.remember("dora", pair)
        rewards = as_reward_func(rm)(
            prompts=["How?"] * 2, completions=["So. 3", "Thus. 8"], user_id=["dora"] * 2
        )
    print(json.dumps(rewards))
"""


def pair(query: str, id: str) -> PreferencePair:
    return PreferencePair(query=query, chosen="good", rejected="bad", id=id)


def test_what_one_client_remembers_another_recalls(chroma_server: str) -> None:
    with UserMemory(url=chroma_server) as first, UserMemory(url=chroma_server) as second:
        first.remember_many(
            "ann", [pair("How do I bake bread?", "1"), pair("How is the tax?", "2")]
        )
        first.state("ann", StatedPreference(text="short answers"))
        first.set_consent("ann", True)
        signals = second.recall("ann", query="baking bread", selection="similar", limit=1)
        assert [pair.id for pair in signals.history] == ["1"]
        assert [stated.text for stated in signals.stated] == ["short answers"]
        assert second.consent("ann")
        rows = list(second.export("ann"))
        assert second.forget("ann") == 4
        assert first.recall("ann").history == ()
        assert first.import_(rows) == 4
        assert list(second.export("ann")) == rows
        assert first.forget("ann") == 4


def test_two_clients_cannot_give_one_id_two_contents(chroma_server: str) -> None:
    clients = [UserMemory(url=chroma_server) for _ in range(4)]

    def remember(number: int) -> str:
        try:
            clients[number].remember("ben", pair(f"question {number}", "same"))
        except MemoryStoreError as error:
            return str(error)
        return "stored"

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(remember, range(4)))
    stored = clients[0].history("ben")
    assert len(stored) == 1
    winner = int(stored[0].query.split()[-1])
    assert outcomes[winner] == "stored"
    for number, outcome in enumerate(outcomes):
        assert number == winner or "another content" in outcome
    for client in clients:
        client.close()


def test_another_embedder_is_refused_by_the_server_too(chroma_server: str) -> None:
    UserMemory(url=chroma_server).close()
    with pytest.raises(MemoryStoreError, match="'hashing-1-256', not of 'hashing-1-64'"):
        UserMemory(url=chroma_server, embedder=HashingEmbedder(64))


def test_a_newer_or_foreign_collection_is_refused(chroma_server: str) -> None:
    from chromadb import HttpClient

    UserMemory(url=chroma_server).close()
    client = HttpClient(host="127.0.0.1", port=int(chroma_server.rsplit(":", 1)[1]))
    users = client.get_collection("users")
    before = dict(users.metadata or {})
    try:
        users.modify(metadata={"pgenrm_schema_version": 99})
        with pytest.raises(MemoryStoreError, match=r"schema version 99.*upgrade"):
            UserMemory(url=chroma_server)
        users.modify(metadata={"color": "blue"})
        with pytest.raises(MemoryStoreError, match=r"'users' .* not made by pgenrm-agent"):
            UserMemory(url=chroma_server)
    finally:
        users.modify(metadata=before)
        client.close()
    UserMemory(url=chroma_server).close()


def test_keys_of_another_memory_are_refused(chroma_server: str, tmp_path: Path) -> None:
    UserMemory(url=chroma_server).close()
    with pytest.raises(MemoryStoreError, match="are not those that sealed the memory"):
        UserMemory(url=chroma_server, vault=tmp_path / "vault.sqlite3")


def test_forgetting_leaves_collections_of_other_programs_alone(chroma_server: str) -> None:
    from chromadb import HttpClient

    client = HttpClient(host="127.0.0.1", port=int(chroma_server.rsplit(":", 1)[1]))
    foreign = client.get_or_create_collection("foreign", embedding_function=None)
    foreign.add(ids=["1"], embeddings=[[1.0, 0.0]], metadatas=[{"user_id": "cleo"}])
    with UserMemory(url=chroma_server) as memory:
        memory.remember("cleo", pair("a question", "1"))
        assert memory.forget("cleo") == 1
    assert foreign.count() == 1
    client.close()


def test_a_server_that_is_not_there_is_one_clear_line(
    free_port: Callable[[], int], tmp_path: Path
) -> None:
    with pytest.raises(MemoryStoreError) as refused:
        UserMemory(url=f"http://127.0.0.1:{free_port()}", vault=tmp_path / "vault.sqlite3")
    assert "cannot reach the Chroma server at http://127.0.0.1:" in str(refused.value)
    assert "chroma run" in str(refused.value)


def test_several_ranks_of_a_training_run_share_a_memory(chroma_server: str) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", RANK, chroma_server],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank in ranks:
        told, _ = rank.communicate(timeout=300)
        assert rank.returncode == 0
        assert json.loads(told.splitlines()[-1]) == [3.0, 8.0]
    with UserMemory(url=chroma_server) as memory:
        ids = {pair.id for pair in memory.history("dora")}
        assert ids == {f"{rank}-{step}" for rank in range(2) for step in range(3)}
        memory.forget("dora")
