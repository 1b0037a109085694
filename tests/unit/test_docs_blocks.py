"""Every Python block of the tutorial and the guides compiles and knows every name that it uses.

The blocks of a page are read in order, as a reader would paste them: a name may come from an earlier
block. Running them is for the tests in tests/system/test_examples.py.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import pgenrm_agent

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(?:python|py)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    (?:from \S+ import |import \w)", re.MULTILINE)
NOTEBOOK = ROOT / "docs" / "notebook"
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if NOTEBOOK not in page.parents
}


def script(text: str) -> str:
    """The blocks of a page as one program, each on the lines where the page has it."""
    lines = [""] * (text.count("\n") + 1)
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1))
        code = block[1].splitlines()
        lines[first : first + len(code)] = code
    return "\n".join(lines) + "\n"


SCRIPTS = {page: script(text) for page, text in PAGES.items() if BLOCK.search(text)}


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
def test_python_stands_in_blocks_that_say_so(page: str) -> None:
    """An indented block, or one of another language, would not be looked at."""
    outside = BLOCK.sub("", PAGES[page])
    assert INDENTED.findall(outside) == []
    assert (
        re.findall(r"^(?:from pgenrm_agent\S* import .*|import pgenrm_agent.*)", outside, re.M)
        == []
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```python\nprint(rm)\n```\n", "Undefined name `rm`"),
        (
            "```python\nrm = 1\n```\n\n```python\nrm.score(answers)\n```\n",
            "Undefined name `answers`",
        ),
        ("```python\nprint(later)\n```\n\n```python\nlater = 1\n```\n", "Undefined name `later`"),
        ("```py\nfor item in:\n    pass\n```\n", "Expected"),
        ("```python\nawait rm\n```\n", "`await` statement outside"),
    ],
)
def test_a_faulty_page_is_noticed(text: str, fault: str, tmp_path: Path) -> None:
    assert any(fault in message for message in faults({"page": script(text)}, tmp_path))


def test_a_name_of_an_earlier_block_is_known(tmp_path: Path) -> None:
    text = "```python\nrm = 1\n```\n\nThen:\n\n```python\nprint(rm)\n```\n"
    assert faults({"page": script(text)}, tmp_path) == []
    assert script(text).splitlines()[7] == "print(rm)"


def test_the_reference_has_every_public_name() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\.\. auto\w+:: (\w+)$", page, re.MULTILINE))
    assert listed == set(pgenrm_agent.__all__) - {"__version__"}
