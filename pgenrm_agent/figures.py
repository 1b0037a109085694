"""Figures of matplotlib, saved with every label as it stands.

Labels hold what people and models write: names of judges, words of personas. "$" would begin a formula
there, and a character that XML has no place for would end an SVG file.
"""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNSEEN = "\N{REPLACEMENT CHARACTER}"


def literally(figure: Figure) -> AbstractContextManager[None]:
    """Return a context in which the figure is drawn with its labels as text, and never as markup."""
    import matplotlib
    from matplotlib.text import Text

    for words in figure.findobj(Text):
        words.set_parse_math(False)
        words.set_text(_printable(words.get_text()))
    # Text stays text: it is smaller, and sharp at any size. The salt makes equal plots equal files.
    settings = {"svg.fonttype": "none", "svg.hashsalt": "pgenrm", "text.parse_math": False}
    return matplotlib.rc_context(settings)


def svg_text(figure: Figure) -> str:
    """Return a figure as SVG, the same file for the same plot."""
    text = io.StringIO()
    with literally(figure):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _printable(text: str) -> str:
    return "".join(
        char if char.isprintable() or char == "\n" else " " if char.isspace() else UNSEEN
        for char in text
    )
