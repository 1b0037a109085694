"""Take quotations out of what a model wrote: what it quotes of an answer is no mark of its own."""

from __future__ import annotations

import re

from pgenrm_agent.chain.words import RESPONSES

# Opening and closing marks; a straight one opens before a word and closes behind one.
_CLOSING = {
    **{'"': '"', "'": "'", "`": "`", "“": "”", "„": "“”", "‟": "”", "‘": "’", "‚": "‘’"},
    **{
        "”": "”",
        "«": "»",
        "»": "«",
        "‹": "›",
        "「": "」",
        "『": "』",
        "《": "》",
        "〝": "〞",
        "＂": "＂",
    },
}
_OPENING = re.compile(
    r"[\"'`＂»”„‟‘‚“«‹「『《〝]"
    r"(?:(?<=[„‟‘‚“«‹「『《〝])|(?<!\w.)(?<!\w\\.)(?=[^\s,.;:!?)\]}\\\"']))"
)
_MARKUP = re.compile(r"<(q|blockquote)>.{0,600}?</\1>", re.IGNORECASE | re.DOTALL)
_QUOTED_LINES = re.compile(r"^[ \t]{0,8}>[^\n]*$", re.MULTILINE)
_LABEL = re.compile(
    rf"\W{{0,4}}(?:{'|'.join(RESPONSES)})[ _#-]{{0,2}}\d{{1,3}}\W{{0,4}}", re.IGNORECASE
)
_DIGIT = re.compile(r"\d")
LONGEST = 600
"""Characters of a quotation: an opening mark without a closing one in that distance is none."""


def without_quotations(text: str) -> str:
    """`text` with every quotation that holds a number replaced by an ellipsis.

    A quoted name stays, and so does a quoted label such as "response_1". Where a quotation in double
    marks never closes, what follows it in its line may all be quoted, and goes.
    """
    if not _OPENING.search(text) and "<" not in text and ">" not in text:
        return text
    if "<" in text:
        text = _MARKUP.sub("…", text)
    if ">" in text:
        text = _QUOTED_LINES.sub("…", text)
    parts: list[str] = []
    kept, place = 0, 0
    while opening := _OPENING.search(text, place):
        mark = opening[0]
        begin = opening.end()
        end = _close(text, begin, mark)
        if end < 0:
            if mark in "'`‘‚»‹":  # an apostrophe, or a mark of another use
                place = begin
                continue
            line = text.find("\n", begin)
            end = len(text) if line < 0 else line
        inside = text[begin:end]
        if _DIGIT.search(inside) and not _LABEL.fullmatch(inside):
            parts += [text[kept : opening.start()], "…"]
            kept = min(end + 1, len(text))
        place = min(end + 1, len(text))
    return "".join([*parts, text[kept:]]) if parts else text


def _close(text: str, begin: int, mark: str) -> int:
    """Where the quotation that opens before `begin` closes; -1 where it does not."""
    limit = min(len(text), begin + LONGEST)
    closing = _CLOSING[mark]
    if mark not in "\"'`":
        return min((p for c in closing if (p := text.find(c, begin, limit)) >= 0), default=-1)
    place = text.find(mark, begin, limit)
    while place >= 0 and text[place + 1 : place + 2].isalnum():
        place = text.find(mark, place + 1, limit)
    return place
