"""Names say what they hold: no variable, argument or target is called one, found, other or thing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("pgenrm_agent", "graphs", "training", "studies", "examples", "tests")
EMPTY_NAMES = {"one", "found", "other", "thing"}


def bound_names(tree: ast.AST) -> list[tuple[str, int]]:
    """Every name that is bound in a module, with its line."""
    names: list[tuple[str | None, int]] = []
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                names.append((name, node.lineno))
            case ast.Attribute(attr=name, ctx=ast.Store()):
                names.append((name, node.lineno))
            case ast.arg(arg=name):
                names.append((name, node.lineno))
            case ast.ExceptHandler(name=name) | ast.MatchAs(name=name) | ast.MatchStar(name=name):
                names.append((name, node.lineno))
            case ast.MatchMapping(rest=name):
                names.append((name, node.lineno))
            case ast.alias(asname=name):
                names.append((name, node.lineno))
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.append((node.name, node.lineno))
            case ast.Global(names=several) | ast.Nonlocal(names=several):
                names += [(name, node.lineno) for name in several]
    return [(name, line) for name, line in names if name is not None]


@pytest.mark.parametrize("room", ROOMS)
def test_names_say_what_they_hold(room: str) -> None:
    empty = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for name, line in bound_names(ast.parse(path.read_text(encoding="utf-8")))
        if name in EMPTY_NAMES
    ]
    assert empty == []


def test_templates_say_what_they_hold() -> None:
    named = re.compile(
        r"{%-? (?:for|set) (?:\w+, )*(one|found|other|thing)\b|{{ (one|found|other)\b"
    )
    empty = [
        str(path.relative_to(ROOT))
        for pattern in ("*.html", "*.j2")
        for path in (ROOT / "pgenrm_agent").rglob(pattern)
        if named.search(path.read_text(encoding="utf-8"))
    ]
    assert empty == []


@pytest.mark.parametrize(
    "code",
    [
        "one = 1",
        "self.found: list[int] = []",
        "for other in (): ...",
        "[found for found in ()]",
        "def f(*, thing): ...",
        "lambda one: 0",
        "with open('x') as found: ...",
        "import os as other",
        "try: ...\nexcept OSError as thing: ...",
        "match 1:\n    case [*one]: ...",
        "match 1:\n    case {**found}: ...",
        "(other := 2)",
    ],
)
def test_every_way_to_bind_a_name_is_seen(code: str) -> None:
    assert {name for name, _ in bound_names(ast.parse(code))} & EMPTY_NAMES
