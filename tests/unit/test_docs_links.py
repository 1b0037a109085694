"""Pages that are named are there: in links, and in what the code says to read.

Sphinx checks the links between pages of the site, anchors included; README and CONTRIBUTING are no
part of it, and neither are comments, error messages and recipes.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")
MENTION = re.compile(r"(?<![\w/])docs/[\w/-]+\.md")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = ("pgenrm_agent", "graphs", "training", "studies", "tests", "examples", "docs")
SOURCES = [
    ROOT / "Makefile",
    *PAGES[:2],
    *(
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        # docs/notebook/log.md is a notebook of the past.
        if path.suffix in (".py", ".yaml", ".j2", ".jsonl", ".md")
        and path.name not in ("log.md", "conf.py")
    ),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_links_to_files_that_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []


def test_pages_that_sources_name_are_there() -> None:
    missing = [
        f"{source.relative_to(ROOT)} names {mention}"
        for source in SOURCES
        for mention in MENTION.findall(source.read_text(encoding="utf-8"))
        if not (ROOT / mention).is_file()
    ]
    assert missing == []


def test_links_and_names_are_noticed() -> None:
    page = "/".join(("docs", "gone.md"))
    text = f"See [a page](gone.md#part), [a site](https://example.org/x.md) and {page}."
    assert LINK.findall(text) == ["gone.md"]
    assert MENTION.findall(text) == [page]
