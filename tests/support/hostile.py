"""Checkpoints that a stranger wrote: reading one of them would make a folder."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
from collections.abc import Callable
from pathlib import Path

import ormsgpack
from langgraph.checkpoint.serde.jsonplus import (
    EXT_CONSTRUCTOR_KW_ARGS,
    EXT_CONSTRUCTOR_POS_ARGS,
    EXT_CONSTRUCTOR_SINGLE_ARG,
    EXT_DELTA_SNAPSHOT,
    EXT_METHOD_SINGLE_ARG,
    EXT_PYDANTIC_V1,
    EXT_PYDANTIC_V2,
)

Payload = tuple[str, bytes]


class _Pickled:
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self._folder,)


def _extension(code: int, *parts: object) -> Callable[[str], Payload]:
    """An extension of a map's value; {"path": None}, [] and None stand for where the folder comes in."""

    def with_folder(part: object, folder: str) -> object:
        if isinstance(part, dict):
            return dict.fromkeys(part, folder)
        if part == []:
            return [folder]
        return folder if part is None else part

    def make(folder: str) -> Payload:
        filled = [with_folder(part, folder) for part in parts]
        return "msgpack", ormsgpack.packb({"v": [ormsgpack.Ext(code, ormsgpack.packb(filled))]})

    return make


def _within(folder: str) -> Payload:
    """A call inside the one extension that LangGraph needs."""
    _, inner = RUNS_CODE["one argument"](folder)
    return "msgpack", ormsgpack.packb(ormsgpack.Ext(EXT_DELTA_SNAPSHOT, inner))


def _json(folder: str) -> Payload:
    call = {"lc": 2, "type": "constructor", "id": ["os", "mkdir"], "args": [folder]}
    return "json", json.dumps({"v": call}).encode()


# A folder's path -> what to store. LangGraph's own serializer makes the folder from each of these.
RUNS_CODE: dict[str, Callable[[str], Payload]] = {
    "one argument": _extension(EXT_CONSTRUCTOR_SINGLE_ARG, "os", "mkdir", None),
    "positional arguments": _extension(EXT_CONSTRUCTOR_POS_ARGS, "os", "mkdir", []),
    "keyword arguments": _extension(EXT_CONSTRUCTOR_KW_ARGS, "os", "mkdir", {"path": None}),
    "pydantic 1": _extension(EXT_PYDANTIC_V1, "os", "mkdir", {"path": None}),
    "pydantic 2": _extension(EXT_PYDANTIC_V2, "os", "mkdir", {"path": None}, "validate"),
    "within a snapshot": _within,
    "pickle": lambda folder: ("pickle", pickle.dumps(_Pickled(folder))),
    "json": _json,
}
# What LangGraph builds only where it is told to, or always, or not at all: objects all the same.
BUILDS_OBJECTS: dict[str, Callable[[str], Payload]] = {
    "method": _extension(EXT_METHOD_SINGLE_ARG, "shutil", "os", None, "mkdir"),
    "a pattern": _extension(EXT_CONSTRUCTOR_POS_ARGS, "re", "compile", []),
    "a path": _extension(EXT_CONSTRUCTOR_SINGLE_ARG, "pathlib", "Path", None),
    "an unknown extension": _extension(99, "os", "mkdir", None),
    "json of langchain": lambda folder: (
        "json",
        json.dumps(
            {
                "lc": 1,
                "type": "constructor",
                "id": ["langchain_core", "prompts", "prompt", "PromptTemplate"],
                "kwargs": {"template": folder, "input_variables": []},
            }
        ).encode(),
    ),
    "json of nothing": lambda folder: ("json", b"{}"),
    "an unknown type": lambda folder: ("\x1b[2Jeval", folder.encode()),
    "no msgpack": lambda folder: ("msgpack", b"\xc1" + folder.encode()),
    "nothing": lambda folder: ("msgpack", b""),
}
REFUSED = {**RUNS_CODE, **BUILDS_OBJECTS}


def poison(store: Path, run: str, payload: Payload, place: str) -> None:
    """Put a payload into a run: as its "checkpoints", in the "state" of each, or as a "write"."""
    with sqlite3.connect(store) as opened:
        if place == "checkpoints":
            opened.execute(
                "UPDATE checkpoints SET type = ?, checkpoint = ? WHERE thread_id = ?",
                (*payload, run),
            )
        elif place == "state":
            kind, packed = payload
            assert kind == "msgpack"
            rows = opened.execute(
                "SELECT checkpoint_id, checkpoint FROM checkpoints WHERE thread_id = ?", (run,)
            ).fetchall()
            for name, kept in rows:
                # Put in as bytes: packed anew, an extension would be unpacked first.
                checkpoint = ormsgpack.unpackb(kept)
                checkpoint["channel_values"] = None
                whole = ormsgpack.packb(checkpoint)
                empty = ormsgpack.packb("channel_values") + ormsgpack.packb(None)
                assert whole.count(empty) == 1
                changed = whole.replace(empty, ormsgpack.packb("channel_values") + packed)
                opened.execute(
                    "UPDATE checkpoints SET checkpoint = ? WHERE thread_id = ? AND checkpoint_id = ?",
                    (changed, run, name),
                )
        else:
            newest = "SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = ?"
            opened.execute(
                "INSERT INTO writes (thread_id, checkpoint_id, task_id, idx, channel, type, value)"
                f" VALUES (?, ({newest}), 'task', 0, 'chains', ?, ?)",
                (run, run, *payload),
            )
    opened.close()
