"""Every command that the documentation prints is one that the command line knows.

Commands are parsed by the command line's own parser, and not run. What stands for something (FOLDER,
ENCODER, H) is of every type. In running text a command may be named without its arguments.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from typer.main import get_command

from pgenrm_agent.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "Makefile",
    # docs/notebook/log.md is a notebook of the past.
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.name != "log.md"),
    *sorted((ROOT / "examples").glob("*.py")),
]
PROGRAM = r"(?:pgenrm|python -m (?:studies\.\w+|pgenrm_agent\.cli))"
LINE = re.compile(rf"^\s*(?:\$ )?(?:[\w./$()]*/)?({PROGRAM}(?: [^\n]*)?)$", re.MULTILINE)
SPAN = re.compile(rf"(?<!`)`({PROGRAM}(?: [^`]*)?)`(?!`)")
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*|\.\.\.")
STANDS_FOR = {"E": "transformers"}
"""Placeholders for one of several words; the others may be numbers, paths or texts."""


class Printed(NamedTuple):
    """A command where it is printed. whole: on a line of its own, so that nothing may be missing."""

    page: str
    command: str
    whole: bool


def commands_of(page: str, text: str) -> Iterator[Printed]:
    text = re.sub(r"\\\n\s*", "", text)
    for match in LINE.finditer(text):
        yield Printed(page, match[1], whole=True)
    for match in SPAN.finditer(text):
        yield Printed(page, " ".join(match[1].split()), whole=False)


def words_of(command: str) -> list[str]:
    """The words of a command, optional ones in brackets included; what is piped elsewhere is not."""
    words = shlex.split(re.sub(r"(?<= )\[|\](?= |$)", " ", command), comments=True)
    ends = [place for place, word in enumerate(words) if word in ("|", ">", "&", "&&")]
    return words[: ends[0]] if ends else words


def parse(command: str, *, whole: bool) -> None:
    """Parse a command; raises what its parser raises.

    whole: whether arguments that are missing are an error.
    """
    words = [STANDS_FOR.get(word, word) for word in words_of(command)]
    if not whole and words[-1] == "...":
        words = words[:-1]
    words = ["1" if PLACEHOLDER.fullmatch(word) else word for word in words]
    if words[0] == "pgenrm":
        commands, words = get_command(app), words[1:]
    else:
        module = (
            "pgenrm_agent.cli.app" if words[2] == "pgenrm_agent.cli" else f"{words[2]}.__main__"
        )
        main, words = import_module(module), words[3:]
        if hasattr(main, "parser"):  # for machines without typer
            main.parser().parse_args(words)
            return
        commands = get_command(main.app)
    while words and words[0] in getattr(commands, "commands", {}):
        commands, words = commands.commands[words[0]], words[1:]
    if not words and hasattr(commands, "commands"):
        return
    try:
        context = commands.make_context(commands.name, words)
    except typer.Exit:  # --help and --version
        return
    except Exception as error:
        if whole or type(error).__name__ != "MissingParameter":
            raise
    else:
        left = [*context.args, *getattr(context, "_protected_args", ())]
        assert left == [], f"{left[0]!r} is not known here"


PRINTED = sorted(
    {
        printed
        for page in PAGES
        for printed in commands_of(
            page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8")
        )
    }
)


@pytest.mark.parametrize(
    "printed", PRINTED, ids=lambda printed: f"{printed.page}: {printed.command}"
)
def test_a_printed_command_parses(printed: Printed) -> None:
    alternatives = re.search(r"\S+(?:\|\w+)+", printed.command)
    names = alternatives[0].split("|") if alternatives else [""]
    for name in names:
        command = (
            printed.command.replace(alternatives[0], name) if alternatives else printed.command
        )
        parse(command, whole=printed.whole)


def test_commands_are_found_wherever_they_are_printed() -> None:
    text = """
    Say `pgenrm users
    list`, or:

        $ pgenrm score -u ada -q "How?" \\
            "So." # a comment
        .venv/bin/pgenrm bench | tee log
        python -m studies.speed [--part parser]

    A file pgenrm-memory.json is none, and neither is ```pgenrm nonsense```.
    """
    assert [(printed.command, printed.whole) for printed in commands_of("page", text)] == [
        ('pgenrm score -u ada -q "How?" "So." # a comment', True),
        ("pgenrm bench | tee log", True),
        ("python -m studies.speed [--part parser]", True),
        ("pgenrm users list", False),
    ]
    assert {printed.page for printed in PRINTED} >= {
        "README.md",
        "Makefile",
        "docs/notebook/benchmarks.md",
        "docs/notebook/training.md",
    }
    assert len(PRINTED) > 80


@pytest.mark.parametrize(
    "command",
    [
        "pgenrm scor -u ada -q How? A",
        "pgenrm users lst",
        "pgenrm score -u ada -q How?",
        "pgenrm score -q How? A",
        "pgenrm score -u ada -q How? --bogus 3 A",
        "pgenrm score -u ada -q How? --individual many A",
        "pgenrm score -u ada -q How? --engine abacus A",
        "pgenrm bench --members 100",
        "pgenrm doctor now",
        "pgenrm eval --data FILE --out FOLDER compare A",
        "python -m studies.limits --bogus",
    ],
)
def test_a_wrong_command_does_not_parse(command: str) -> None:
    with pytest.raises(Exception, match=r".+"):
        parse(command, whole=True)


@pytest.mark.parametrize(
    "command",
    [
        "pgenrm score -u ada -q How? --individual N --model M @FILE",
        "pgenrm eval --data FILE --out FOLDER [--judge all] [--runs 5]",
        "pgenrm eval compare runs/a runs/b",
        "pgenrm --help",
        "pgenrm train sft --help",
    ],
)
def test_a_right_command_parses(command: str) -> None:
    parse(command, whole=True)
