"""Bring what a model wrote about marks to a plain form: no case, one kind of space, tables as lines."""

from __future__ import annotations

import re

from pgenrm_agent.chain.numbers import scale_in
from pgenrm_agent.chain.words import RESPONSES, unwide

# "bullet_points" and "bullet-points" name the criterion "Bullet points", too.
_PLAIN = str.maketrans("_-\t\n\r\xa0", "      ")
_HALF = re.compile(r"(\d) (?:and (?:a|one) half\b|1/2(?![\d/]))")
_SLASH = re.compile(r"(?<=\d)\s?(?:\\/|⁄)(?=\s?\d)")
_TOPS = {"five": "5", "ten": "10", "twenty": "20", "a hundred": "100", "one hundred": "100"}
_TOP_WORDS = "|".join(_TOPS)
# "out of five", "from one to ten", "a ten-point scale"
_TOP = re.compile(
    rf"\b(?P<before>out of |one to |maximum of )(?P<top>{_TOP_WORDS})\b"
    rf"|\b(?P<points>{_TOP_WORDS})(?=[ -]point\b)"
)
_POSSIBLE = re.compile(r"\b(?:out )?of (?:a |the )?(?:possible|maximum|max\.?)(?: of)? (?=\d)")
_SPACES = re.compile(r"[ \t\xa0]{2,}")
_TABLE_RULE = re.compile(r"^(?=[^\n]*\|)[ \t|:-]*---[ \t|:-]*$", re.MULTILINE)


def folded(text: str) -> str:
    """`text` for comparisons: no case, ASCII forms of full-width signs, single spaces."""
    text = text.casefold()
    if not text.isascii():
        text = unwide(text)
    if "  " in text or "\t" in text or "\xa0" in text:
        text = _SPACES.sub(" ", text)
    if " half" in text or " 1/2" in text:
        text = _HALF.sub(r"\1.5", text)
    if "\\/" in text or "⁄" in text:
        text = _SLASH.sub("/", text)
    if any(top in text for top in ("five", "ten", "twenty", "hundred")):
        text = _TOP.sub(_in_digits, text)
    if "possible" in text or "max" in text:
        text = _POSSIBLE.sub("out of ", text)
    return text


def _in_digits(match: re.Match[str]) -> str:
    before = (match["before"] or "").replace("one to ", "1 to ")
    return before + _TOPS[match["top"] or match["points"]]


def plain(text: str) -> str:
    """`text`, folded already, with every kind of space, hyphen and underscore as one space."""
    return text.translate(_PLAIN)


def plain_words(text: str) -> str:
    """`text` folded and plain."""
    return plain(folded(text))


def untabled(text: str) -> str:
    """Each row of a Markdown table as a line: "clarity: response 1: 8 ; response 2: 6"."""
    ruled = _TABLE_RULE.search(text) is not None
    lines: list[str] = []
    header: list[str] | None = None
    for line in text.split("\n"):
        bare = line.strip()
        if not (bare.startswith("|") or (ruled and "|" in bare)):
            header = None
            lines.append(line)
            continue
        cells = [cell.strip() for cell in bare.strip("|").split("|")]
        if header is None:
            header = cells
            if scale_in(cells[0]) is not None:
                lines.append(cells[0])
        elif not _TABLE_RULE.fullmatch(line):
            pairs = zip(header[1:], cells[1:], strict=False)
            row = cells[0].strip("*_#. ")
            if row.isdecimal() and header[0].startswith(RESPONSES):
                row = f"response {row}"
            lines.append(f"{row}: {' ; '.join(f'{head}: {cell}' for head, cell in pairs)}")
    return "\n".join(lines)
