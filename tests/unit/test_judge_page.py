"""The page of judges shows what was tried: its tables are made of the corpora that the tests play."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable

from import_graph import ROOT
from readings import CORPUS, Reading, readings
from server_behaviors import BEHAVIORS

PAGE = ROOT / "docs" / "notebook" / "judges-tried.md"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [list(head)]
    cells += [["---"] * len(cells[0]), *map(list, rows)]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |\n"
        for row in cells
    )


def outcome(reading: Reading) -> str:
    totals = reading["totals"]
    if totals is None:
        reason = str(reading.get("reason") or "no chain").replace("_", " ")
        return f"refused: {reason}"
    assert isinstance(totals, dict)
    notes = reading.get("repairs") or []
    assert isinstance(notes, list)
    shown = ", ".join(f"{name} {total:g}" for name, total in totals.items())
    return f"read: {shown}" + (f" ({', '.join(map(str, notes))})" if notes else "")


def drawn() -> str:
    servers = table(
        ("a server that", "what comes of it", "engines"),
        ((row.behavior, row.outcome, ", ".join(row.engines)) for row in BEHAVIORS),
    )
    texts = table(
        ("a chain with", "read or refused"),
        ((str(row["name"]), outcome(row)) for row in readings(CORPUS)),
    )
    return (
        f"## Servers\n\n{len(BEHAVIORS)} behaviors, played over a socket.\n\n{servers}\n"
        f"## Texts\n\n{len(readings(CORPUS))} model outputs.\n\n{texts}"
    )


def test_the_tables_are_those_of_the_corpora() -> None:
    """PGENRM_DRAW=1 writes them anew."""
    assert len(BEHAVIORS) >= 25
    assert len(readings(CORPUS)) >= 60
    page = PAGE.read_text(encoding="utf-8")
    if os.environ.get("PGENRM_DRAW"):
        head = page.split("## Servers")[0]
        page = head + drawn()
        PAGE.write_text(page, encoding="utf-8")
    assert drawn() in page, "the corpora changed: run this test with PGENRM_DRAW=1"


def test_every_shared_case_is_of_the_corpus_shape() -> None:
    """Names are what a reader of the table sees: none twice, none empty."""
    names = [json.dumps(row["name"]) for row in readings(CORPUS)]
    assert len(set(names)) == len(names)
    assert all(
        re.search(r"\w", row.behavior) and re.search(r"\w", row.outcome) for row in BEHAVIORS
    )
