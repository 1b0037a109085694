"""Memories of before the vault: refused, and converted into a new folder by one command."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from chromadb import PersistentClient
from leftovers import files_holding
from typer.testing import CliRunner

from pgenrm_agent.cli.app import app
from pgenrm_agent.errors import MemoryStoreError
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.memory.store import chroma_settings
from pgenrm_agent.schema import PreferencePair, StatedPreference

PAIR = PreferencePair(query="query-in-the-open", chosen="a", rejected="b", attributes={"wit": 5.0})
STATED = StatedPreference(text="short answers")


def write_old(chroma: Path) -> None:
    """What version 1 wrote of one user, whose consent is among it."""
    client = PersistentClient(chroma, settings=chroma_settings())
    rows: dict[str, list[dict[str, object]]] = {
        "interactions": [{"pair_id": PAIR.id, "pair": PAIR.model_dump_json()}],
        "users": [
            {
                "kind": "stated",
                "stated": STATED.model_dump_json(),
                "created_at": "2026-01-01T00:00:00+00:00",
            },
            {"kind": "profile", "consent": True},
        ],
    }
    for name, contents in rows.items():
        collection = client.create_collection(
            name,
            metadata={"pgenrm_schema_version": 1, "embedder": "hashing-1-256", "dimension": 256},
            embedding_function=None,
        )
        collection.add(
            ids=[hashlib.sha256(json.dumps(row).encode()).hexdigest() for row in contents],
            embeddings=np.ones((len(contents), 4), dtype=np.float32),
            metadatas=[{"user_id": "ann", "schema_version": 1, **row} for row in contents],  # type: ignore[dict-item]
        )
    client.close()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "pgenrm-memory.json").write_text(
        '{"format": "pgenrm-memory", "schema_version": 1, "used": true}'
    )
    write_old(folder / "chroma")
    return folder


def test_an_old_memory_is_refused_with_the_command_that_converts_it(old: Path) -> None:
    new = old.parent / "new"
    with pytest.raises(MemoryStoreError) as refused:
        UserMemory(old)
    assert f"`pgenrm users convert {old} NEW`" in str(refused.value)
    done = CliRunner().invoke(app, ["users", "convert", str(old), str(new)])
    assert done.exit_code == 0, done.output
    assert f"3 entries written to {new}" in done.output
    with UserMemory(new) as memory:
        assert memory.history("ann") == (PAIR,)
        assert memory.recall("ann").stated == (STATED,)
        assert memory.consent("ann")
    assert files_holding(new, ["query-in-the-open"]) == set()
    assert files_holding(old, ["query-in-the-open"])  # is left as it was


def test_the_folder_of_a_chroma_server_is_converted_too(tmp_path: Path) -> None:
    write_old(tmp_path / "served")
    done = CliRunner().invoke(
        app, ["users", "convert", str(tmp_path / "served"), str(tmp_path / "new")]
    )
    assert done.exit_code == 0, done.output
    with UserMemory(tmp_path / "new") as memory:
        assert [user.user_id for user in memory.users()] == ["ann"]


def test_what_is_no_old_memory_is_not_converted(tmp_path: Path) -> None:
    UserMemory(tmp_path / "sealed").close()
    (tmp_path / "empty").mkdir()
    for name, said in (
        ("sealed", "schema version 2"),
        ("empty", "holds no memory"),
        ("gone", "no such"),
    ):
        done = CliRunner().invoke(
            app, ["users", "convert", str(tmp_path / name), str(tmp_path / "new")]
        )
        assert done.exit_code != 0
        assert said in done.output + str(done.exception)
    assert not (tmp_path / "new").exists()
