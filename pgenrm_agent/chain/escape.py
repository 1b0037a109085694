"""Make untrusted text unable to act as a marker of the chain format.

Histories, queries and candidates are data. A marker inside one of them is changed visibly and as
little as possible: square brackets become parentheses, angle brackets become single guillemets, a
label's colon becomes a dash, a heading's marks become a section sign. Markers are recognized
through disguises too: case, spacing, invisible characters, compatibility forms (full width, ...)
and the Cyrillic and Greek letters that look like Latin ones.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

__all__ = ["escape"]

_OPEN, _CLOSE = "[［【⟦〔❲〚⁅﹝", "]］】⟧〕❳〛⁆﹞"
_BRACKET = re.compile(f"[{re.escape(_OPEN + _CLOSE)}]")
_OPENED = re.compile(rf"[{re.escape(_OPEN)}](?=[^\w{re.escape(_OPEN)}]{{0,8}}\w)")
_LESS, _GREATER = "<＜﹤‹〈⟨❮❰《◁", ">＞﹥›〉⟩❯❱》▷"
_ANGLE = re.compile(f"[{_LESS}{_GREATER}]")
LONGEST_MARKER = 160
"""Characters between the brackets of what may be a marker: keeps the work linear in the text."""

# A model sees every one of these as a new line, whatever Python's "^" takes for one.
_BREAKS = "\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
_COLONS = ":：﹕︰∶"
_LABEL = re.compile(rf"([{_BREAKS}][^\w{_BREAKS}]{{0,20}}[^{_BREAKS}{_COLONS}]{{1,60}})[{_COLONS}]")
# The bundled tokenizer takes these for markers anywhere, not only at the start of a line.
_EXACT_LABEL = re.compile(r"(User|Chosen|Rejected):")
_HEADING = re.compile(
    f"([{_BREAKS}][ \t]{{0,20}})#{{1,6}}"
    r"(?=[^\w\n]{0,20}(?:part\W{0,5}\w|persona|criteria|rubric|scoring|analysis))",
    re.IGNORECASE,
)

_IN_BRACKETS = re.compile(
    r"the(?:start|end)of.*|\d+(?:chosen|rejected)|response\d+|/?inst|/?sys|/?think"
    r"|/?json_?(?:start|end)",
    re.DOTALL,
)
_IN_ANGLES = re.compile(
    r"/?json_?(?:start|end)|\|.*|.*\||/?s|/?(?:bos|eos|pad|unk|sys|tool_(?:call|response))"
    r"|/?(?:(?:seed:)?think(?:ing)?|thoughts?|reasoning)|(?:start|end)_?of_?(?:turn|text)",
    re.DOTALL,
)
# A dash after the word is what a changed label has.
_IN_LABEL = re.compile(
    r"[\W_]*(?:user|human|assistant|system|chosen|rejected|stated|tally)[^\w-]*_*[^\w-]*"
)

_LOOK_ALIKES = str.maketrans(
    "авеіјкӏмнոорԛѕтսухһсԁԝαεικνορτυχ",
    "abeijklmhnopqstuyxhcdwaeikvoptux",
)
_IGNORED = dict.fromkeys((*range(0x21), 0x7F))


def _skeleton(text: str) -> str:
    """What is left when disguises are taken off: see the module's docstring."""
    if text.isascii():
        return text.translate(_IGNORED).lower()
    folded = unicodedata.normalize("NFKD", text).casefold().translate(_LOOK_ALIKES)
    return "".join(
        char
        for char in folded
        if not char.isspace() and unicodedata.category(char) not in ("Cf", "Mn", "Me", "Cc")
    )


def _pairs(text: str, bracket: re.Pattern[str], opening: str) -> Iterator[tuple[int, int]]:
    """Places of the brackets that belong together, inner pairs first, and not too far apart."""
    opened: list[int] = []
    for match in bracket.finditer(text):
        if match[0] in opening:
            opened.append(match.start())
        elif opened:
            start = opened.pop()
            if match.start() - start <= LONGEST_MARKER:
                yield start, match.start()


def _unbracketed(text: str) -> str:
    chars: list[str] | None = None
    for start, end in _pairs(text, _BRACKET, _OPEN):
        if _IN_BRACKETS.fullmatch(_skeleton(text[start + 1 : end])):
            chars = chars or list(text)
            chars[start], chars[end] = "()"
    # A block marker is understood without its closing bracket, too.
    for match in _OPENED.finditer(text):
        if _skeleton(text[match.end() : match.end() + 40]).startswith(("thestartof", "theendof")):
            chars = chars or list(text)
            chars[match.start()] = "("
    return "".join(chars) if chars else text


def _unangled(text: str) -> str:
    chars: list[str] | None = None
    for start, end in _pairs(text, _ANGLE, _LESS):
        if _IN_ANGLES.fullmatch(_skeleton(text[start + 1 : end])):
            chars = chars or list(text)
            # Inner bars would still spell a chat template's token to a lenient reader.
            inner = ["¦" if char == "|" else char for char in chars[start + 1 : end]]
            chars[start : end + 1] = ["‹", *inner, "›"]
    return "".join(chars) if chars else text


def _label(match: re.Match[str]) -> str:
    return f"{match[1]} -" if _IN_LABEL.fullmatch(_skeleton(match[1])) else match[0]


def escape(text: str) -> str:
    """`text` with every marker disarmed; text without markers is returned unchanged.

    Linear in the length of the text, and idempotent.
    """
    text = _unangled(_unbracketed(text))
    # A line is recognized by the break before it (a search for that is fast), so give it one.
    text = _LABEL.sub(_label, f"\n{text}")
    text = _HEADING.sub(r"\1§", text)[1:]
    return _EXACT_LABEL.sub(r"\1 -", text)
