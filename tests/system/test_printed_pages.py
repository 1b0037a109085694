"""Pages print what they show: their blocks run in order, as a reader would run them.

Numbers and personas depend on the machine and are left out of the comparison; which answer comes first does
not. `python -m studies.printed` writes what was printed into the pages.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from studies.printed.pages import blocks_of, pages, printed_of
from studies.printed.rules import same_shape
from studies.printed.run import outputs

ROOT = Path(__file__).parents[2]
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in pages().items()}
RUN = [name for name, text in TEXTS.items() if any(block.run for block in blocks_of(text))]
IN_A_CLEAN_ROOM = "docs/tutorial.md"
"""test_clean_room.py runs it, from an empty machine on."""
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def shown(page: str) -> list[str]:
    """What a page says that its blocks print, in order."""
    parts = printed_of(blocks_of(TEXTS[page]))
    return [printed.shown.text for printed in parts if "not run" not in printed.shown.marks]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            name,
            marks=[] if name == "README.md" else [pytest.mark.long],
        )
        for name in RUN
        if name != IN_A_CLEAN_ROOM
    ],
)
def test_a_page_prints_what_it_shows(page: str) -> None:
    blocks = {block.start: block for block in blocks_of(TEXTS[page])}
    for start, printed in outputs(TEXTS[page], slow=False).texts.items():
        told = f"{page}, line {blocks[start].line}, prints\n{printed}"
        assert same_shape(blocks[start].text, printed), told


def test_every_page_with_an_output_is_run() -> None:
    assert {page for page in TEXTS if shown(page)} <= set(RUN)
    assert len(RUN) >= 12


def test_the_readme_ranks_the_answer_first_that_its_user_would_choose() -> None:
    first, second = shown("README.md")[0].splitlines()
    assert "Simmer one part of rice" in first
    assert "Rice is such a joy" in second


def test_three_choices_turn_the_order_in_the_tutorial() -> None:
    before, warning, after, *_ = shown("docs/tutorial.md")
    assert "Rice" in before.splitlines()[0]
    assert "is the name right?" in warning
    assert "Simmer" in after.splitlines()[0]


def test_other_choices_turn_the_order_on_the_debugging_page() -> None:
    before, after, *_ = shown("docs/how-to/debugging.md")[0].splitlines()
    assert (before, after) == ("plain > chatty", "chatty > plain")


def test_the_server_page_prefers_the_answer_that_it_says() -> None:
    assert re.search(r'"ranking": \[\s*"answer-2",', shown("docs/how-to/server.md")[0])


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short_and_run_by_a_page(name: str) -> None:
    assert len((ROOT / "examples" / name).read_text().splitlines()) < 70
    commands = [block.text for page in RUN for block in blocks_of(TEXTS[page]) if block.run]
    assert any(f"python examples/{name}" in command for command in commands)
