"""`pgenrm users entries`, `correct` and `forget --entry`; and `pgenrm train answers`, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import pgenrm

CHOICE = ("--query", "How?", "--chosen", "So.", "--rejected", "Thus.")


def entries(memory: Path) -> list[dict[str, object]]:
    done = pgenrm("users", "entries", "ada", "--memory", memory, "--json")
    assert done.returncode == 0, done.stderr
    listed: list[dict[str, object]] = json.loads(done.stdout)
    return listed


def test_entries_are_listed_corrected_and_forgotten(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    place = ("--memory", memory)
    choice = pgenrm("users", "remember", "ada", *CHOICE, *place).stdout.strip()
    old = pgenrm("users", "state", "ada", "Short answers, please.", *place).stdout.strip()
    new = pgenrm("users", "state", "ada", "I want long answers", *place).stdout.strip()
    assert [entry["id"] for entry in entries(memory)] == [choice, old, new]
    assert [entry["overruled_by"] for entry in entries(memory)] == [None, new, None]
    shown = " ".join(pgenrm("users", "entries", "ada", *place).stdout.split())
    assert "So. over Thus." in shown

    answer = tmp_path / "answer.txt"
    answer.write_text("Otherwise.", encoding="utf-8-sig")
    done = pgenrm("users", "correct", "ada", choice, "--chosen", f"@{answer}", *place)
    choice = done.stdout.strip()
    assert entries(memory)[0]["id"] == choice
    pair = entries(memory)[0]["pair"]
    assert isinstance(pair, dict)
    assert (pair["query"], pair["chosen"], pair["rejected"]) == ("How?", "Otherwise.", "Thus.")
    changed = pgenrm("users", "correct", "ada", new, "one sentence", *place).stdout.strip()
    assert [entry["overruled_by"] for entry in entries(memory)] == [None, None, None]

    for arguments, complaint in (
        (("correct", "ada", "nowhere", "text"), "nothing with the id 'nowhere'"),
        (("correct", "ada", choice, "text"), "is a choice"),
        (("correct", "ada", changed), "is a statement"),
        (("correct", "ada", choice, "--rejected", "Otherwise."), "same text"),
        (("forget", "ada", "--entry", "nowhere", "--yes"), "nothing with the id 'nowhere'"),
        (("forget", "bob", "--entry", choice, "--yes"), "nothing with the id"),
    ):
        refused = pgenrm("users", *arguments, *place)
        assert refused.returncode != 0
        assert complaint in refused.complaint
    assert pgenrm("users", "forget", "ada", "--entry", choice, "--yes", *place).returncode == 0
    assert [entry["id"] for entry in entries(memory)] == [old, changed]


def test_a_folder_that_is_no_checkout_is_one_line(tmp_path: Path) -> None:
    for folder, complaint in ((tmp_path, "holds no results/"), (tmp_path / "x", "no such folder")):
        done = pgenrm("train", "answers", folder, "--out", tmp_path / "out")
        assert done.returncode == 1
        assert complaint in done.complaint
        assert not (tmp_path / "out").exists()
    done = pgenrm("train", "psi", "--data", tmp_path, "--out", tmp_path / "run")
    assert done.returncode == 1
    assert "train.jsonl.gz: no such file" in done.complaint


@pytest.mark.parametrize(
    "command",
    [
        ("users", "list"),
        ("users", "show", "ada"),
        ("users", "entries", "ada"),
        ("users", "forget", "ada", "--yes"),
        ("users", "export"),
        ("prototypes", "status"),
    ],
    ids=" ".join,
)
def test_a_mistyped_memory_is_not_an_empty_one(command: tuple[str, ...], tmp_path: Path) -> None:
    done = pgenrm(*command, "--memory", tmp_path / "mistyped")
    assert done.returncode == 1
    assert "there is no memory in" in done.complaint
    assert not (tmp_path / "mistyped").exists()
