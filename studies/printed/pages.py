"""A page of the documentation as the blocks that a reader would run, and what the page says they print.

Blocks are fenced. `python` blocks share one session, `sh` blocks are shell commands, and a `console`
block is a transcript: a command after `$ `, then its output, and so on. The `text` block after a
`python` or `sh` block is what that one prints; so is a `json` block with the mark `fields`. Marks are
HTML comments before a block, which no reader sees:

    <!-- not run: WHY -->             it needs what is not here: a server, a key, a GPU
    <!-- needs VARIABLE: WHY -->      run only where this environment variable is set
    <!-- slow: WHY -->                the study runs it and the tests do not
    <!-- saved as FILE -->            the block is the content of a file that later blocks read
    <!-- goes on running: URL -->     a server; the next block waits until the URL answers
    <!-- fields: a, b -->             of the JSON object that is printed, the page shows these fields
    <!-- draws: FILE as PATH -->      a picture that the block writes, and where the repository keeps it

A line that installs something or enters an environment is not run here either; tests/system has an
empty environment for that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The repository: this file may be a copy beside an installed package.
ROOT = next(
    folder for folder in (Path(__file__).parents[2], Path.cwd()) if (folder / "README.md").is_file()
)
NOTEBOOK = ROOT / "docs" / "notebook"
RUN = ("python", "sh", "console")
MARKS = ("not run", "needs", "slow", "saved as", "goes on running", "fields", "draws")

_BLOCK = re.compile(
    r"(?P<marks>(?:^<!--(?:(?!-->).)*-->\n+)*)"
    r"^```(?P<language>[^\n`]*)\n(?P<text>.*?)^```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_MARK = re.compile(rf"<!-- ({'|'.join(MARKS)})\b:?\s*(.*?)\s*-->", re.DOTALL)
_INSTALLS = re.compile(r"^(?:make |\. |export |(?:\S*/)?python3? -m venv |(?:\S*/)?pip install )")


@dataclass(frozen=True)
class Block:
    """A fenced block. `text` stands at `start` to `end` of the page, from line `line` on."""

    language: str
    text: str
    start: int
    end: int
    line: int
    marks: Mapping[str, str] = field(default_factory=dict)

    @property
    def run(self) -> bool:
        """Whether there is something in it to run here."""
        marked = {"not run", "saved as"} & set(self.marks)
        return self.language in RUN and not marked and bool(self.commands.strip())

    @property
    def commands(self) -> str:
        """The text; of a `sh` block, without the lines that install something."""
        if self.language != "sh":
            return self.text
        lines = self.text.splitlines(keepends=True)
        return "".join(line for line in lines if not _INSTALLS.match(line))


@dataclass(frozen=True)
class Printed:
    """What a page says that a block prints. `shown` is the block itself if that is a transcript."""

    block: Block
    shown: Block


def pages() -> dict[str, Path]:
    """Return the pages by their paths in the repository, without the notebook of the past."""
    return {
        page.relative_to(ROOT).as_posix(): page
        for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
        if NOTEBOOK not in page.parents and "_build" not in page.parts
    }


def blocks_of(page: str) -> list[Block]:
    """Return the fenced blocks of a page's text, in order."""
    return [
        Block(
            match["language"].strip(),
            match["text"],
            *match.span("text"),
            page.count("\n", 0, match.start("text")) + 1,
            dict(_MARK.findall(match["marks"])),
        )
        for match in _BLOCK.finditer(page)
    ]


def printed_of(blocks: list[Block]) -> Iterator[Printed]:
    """Yield the blocks whose output the page shows, and where it does.

    Raises ValueError for an output that no block before it can have printed.
    """
    last: Block | None = None
    for block in blocks:
        if block.language == "console":
            yield Printed(block, block)
        if block.language in RUN:
            last = None if block.language == "console" else block
        elif block.marks.keys() & {"not run", "saved as"}:
            continue
        elif block.language == "text" or "fields" in block.marks:
            if last is None:
                raise ValueError(f"line {block.line}: no block before this output prints it")
            yield Printed(last, block)
            last = None


def put(page: str, texts: Mapping[int, str]) -> str:
    """Return the page with other texts in the blocks that start where the keys say."""
    for block in reversed(blocks_of(page)):
        if block.start in texts:
            page = page[: block.start] + texts[block.start] + page[block.end :]
    return page
