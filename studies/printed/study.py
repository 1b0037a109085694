"""A page with what its blocks print today, and the evaluation that the README's picture shows."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pgenrm_agent.files import write_text
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Evaluation, Scaling
from studies.printed.pages import Block, blocks_of, pages, put
from studies.printed.picture import alternative_text, draw
from studies.printed.rules import same
from studies.printed.run import SEED, outputs

QUESTION = "How do I cook rice?"
KNOWN = "What is known of Ada: three times before, they chose a plain answer over a chatty one."
_PICTURE = re.compile(r"^<!-- picture: (\S+) -->\n(?:!\[[^\]]*\]\(([^)\s]*)\)\n)?", re.MULTILINE)


@dataclass(frozen=True)
class Renewed:
    """A page's text with its outputs made anew; how many these are, and how many are news.

    pictures: what the blocks drew, by path in the repository.
    """

    text: str
    outputs: int
    changed: int
    pictures: dict[str, bytes]


def renew(
    page: str, *, slow: bool = True, progress: Callable[[Block], None] = lambda block: None
) -> Renewed:
    """Run a page's blocks and return it with what they print.

    An output in which only ids and times are new stays as it is. slow, progress: see `outputs`.

    Raises:
        BlockError: A block did not run to its end.
    """
    before = {block.start: block.text for block in blocks_of(page)}
    printed = outputs(page, slow=slow, progress=progress)
    news = {start: text for start, text in printed.texts.items() if not same(before[start], text)}
    return Renewed(put(page, news), len(printed.texts), len(news), printed.pictures)


def evaluation_of(page: str) -> Evaluation:
    """Score once more what a page's first Python block ranks, from its names `choices` and `answers`."""
    block = next(block for block in blocks_of(page) if block.language == "python")
    names: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(block.text, "README.md", "exec"), names)
    scaling = Scaling(seed=SEED)
    with tempfile.TemporaryDirectory() as memory, PGenRM(memory=memory, scaling=scaling) as rm:
        for choice in names["choices"]:
            rm.remember("ada", choice)
        return rm.score("ada", QUESTION, names["answers"])


def draw_pictures(evaluation: Evaluation) -> list[str]:
    """Draw the picture of an evaluation wherever a page has the mark `<!-- picture: PATH -->`.

    The image stands in the line below the mark, and is put there if it is missing. A link that is
    there stays as it is. Returns the pages.
    """
    title = f"Ada asks: {evaluation.request.query} Which answer would they like best?"
    picture = draw(evaluation, title, KNOWN)
    words = re.sub(r"[\[\]]", "", alternative_text(evaluation))
    drawn = []
    for name, path in pages().items():
        page = path.read_text(encoding="utf-8")
        mark = _PICTURE.search(page)
        if mark is not None:
            write_text(path.parent / mark[1], picture)
            image = f"<!-- picture: {mark[1]} -->\n![{words}]({mark[2] or mark[1]})\n"
            write_text(path, page[: mark.start()] + image + page[mark.end() :])
            drawn.append(name)
    return drawn
