"""Blocks of the documentation compile, know every name that they use, and say why if nobody runs them.

The Python blocks of a page are read in order, as a reader would paste them: a name may come from an
earlier block. tests/system/test_printed_pages.py runs them.
"""

from __future__ import annotations

import ast
import codeop
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import pgenrm_agent
from studies.printed.pages import RUN, blocks_of, pages, printed_of

ROOT = Path(__file__).parents[2]
PAGES = {name: path.read_text(encoding="utf-8") for name, path in pages().items()}
COMMANDS = r"(?:\S*/)?(?:pgenrm|python3?|pip|make|curl|chroma) "
INDENTED = re.compile(rf"(?:^\n|\A)    (?:from \S+ import |import \w|{COMMANDS}).*", re.MULTILINE)
MARK = re.compile(r"<!--(?! picture:)")


def script(text: str) -> str:
    """The Python blocks of a page as one program, each on the lines where the page has it."""
    lines = [""] * (text.count("\n") + 1)
    for block in blocks_of(text):
        if block.language == "python":
            code = block.text.splitlines()
            lines[block.line - 1 : block.line - 1 + len(code)] = code
    return "\n".join(lines) + "\n"


SCRIPTS = {page: code for page, text in PAGES.items() if (code := script(text)).strip()}


def faults(scripts: dict[str, str], folder: Path) -> list[str]:
    """What ruff has against programs: names that nothing defines, and what is no Python at all."""
    names = {}
    for number, (page, code) in enumerate(scripts.items()):
        file = folder / f"page_{number}.py"
        file.write_text(code, encoding="utf-8")
        names[file.name] = page
    options = ["--isolated", "--no-cache", "--select", "F63,F7,F82", "--output-format", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *options, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return [
        f"{names[Path(fault['filename']).name]}:{fault['location']['row']}: {fault['message']}"
        for fault in json.loads(done.stdout)
    ]


def imported_names(code: str) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pgenrm_agent"):
            for alias in node.names:
                yield node.module or "", alias.name


def unmarked(text: str) -> list[str]:
    """What of a page nobody runs, without saying so: commands that stand in no block of their language."""
    loose = list(INDENTED.findall(text))
    for block in blocks_of(text):
        language = block.language
        commands = re.findall(rf"^(?:\$ )?{COMMANDS}.*|^from pgenrm_agent.*", block.text, re.M)
        if commands and (language not in (*RUN, "mermaid") and not language.startswith("{")):
            loose += commands
        if block.marks.get("not run") == "":
            loose.append(f"line {block.line} does not say why it is not run")
    return loose


def test_every_name_is_defined(tmp_path: Path) -> None:
    assert faults(SCRIPTS, tmp_path) == []


@pytest.mark.parametrize("page", SCRIPTS)
def test_blocks_compile_and_what_they_import_exists(page: str) -> None:
    compile(SCRIPTS[page], page, "exec")
    missing = [
        f"{module} has no {name}"
        for module, name in imported_names(SCRIPTS[page])
        if not hasattr(import_module(module), name)
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_what_can_be_run_stands_in_blocks_that_are_run(page: str) -> None:
    assert unmarked(PAGES[page]) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_output_has_its_command(page: str) -> None:
    assert all(printed.shown.text.strip() for printed in printed_of(blocks_of(PAGES[page])))


@pytest.mark.parametrize("page", PAGES)
def test_every_mark_is_one_of_a_block(page: str) -> None:
    """A mark with a slip in its name, or with no block behind it, would be passed over."""
    used = sum(len(block.marks) for block in blocks_of(PAGES[page]))
    assert len(MARK.findall(PAGES[page])) == used


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```python\nprint(rm)\n```\n", "Undefined name `rm`"),
        (
            "```python\nrm = 1\n```\n\n```python\nrm.score(answers)\n```\n",
            "Undefined name `answers`",
        ),
        ("```python\nprint(later)\n```\n\n```python\nlater = 1\n```\n", "Undefined name `later`"),
        ("```python\nfor item in:\n    pass\n```\n", "Expected"),
        ("```python\nawait rm\n```\n", "`await` statement outside"),
    ],
)
def test_a_faulty_page_is_noticed(text: str, fault: str, tmp_path: Path) -> None:
    assert any(fault in message for message in faults({"page": script(text)}, tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "Then:\n\n    pgenrm score -u ada\n",
        "Then:\n\n    from pgenrm_agent import PGenRM\n",
        "```py\nfrom pgenrm_agent import PGenRM\n```\n",
        "```\npython examples/score.py\n```\n",
        "```text\n$ pgenrm doctor\n```\n",
        "<!-- not run -->\n```sh\npgenrm doctor\n```\n",
    ],
)
def test_a_command_that_nobody_runs_is_noticed(text: str) -> None:
    assert len(unmarked(text)) == 1


def test_a_name_of_an_earlier_block_is_known(tmp_path: Path) -> None:
    text = "```python\nrm = 1\n```\n\nThen:\n\n```python\nprint(rm)\n```\n"
    assert faults({"page": script(text)}, tmp_path) == []
    assert script(text).splitlines()[7] == "print(rm)"


def test_the_reference_has_every_public_name() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\.\. auto\w+:: (\w+)$", page, re.MULTILINE))
    assert listed == set(pgenrm_agent.__all__) - {"__version__"}


def test_the_tutorial_can_be_pasted_into_python() -> None:
    """Line by line, as the prompt of Python 3.11 takes it: a line behind an indented block is blank."""
    for block in blocks_of(PAGES["docs/tutorial.md"]):
        if block.language != "python":
            continue
        waiting: list[str] = []
        for line in block.text.splitlines():
            waiting.append(line)
            code = "\n".join(waiting)
            if codeop.compile_command(code, symbol="single") is not None:
                waiting.clear()
        assert not "".join(waiting), (
            f"line {block.line}: Python waits for more behind {waiting[-1]!r}"
        )
