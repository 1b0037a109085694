"""Make untrusted text unable to act as a marker of the chain format.

Histories, queries and candidates are data. A marker inside one of them is changed visibly and as
little as possible: brackets become parentheses, angle brackets become guillemets, a label's colon
becomes a dash. What is recognised is recognised through look-alikes too: full-width forms, case,
spacing and invisible characters make no difference.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["neutralise"]

# Bounded repetitions keep every search linear in the text.
_BRACKETED = re.compile(r"([\[［【⟦〔])([^\[\]［］【】⟦⟧〔〕]{1,160})([\]］】⟧〕])")
_ANGLED = re.compile(r"([<＜‹〈⟨])([^<>＜＞‹›〈〉⟨⟩]{1,80})([>＞›〉⟩])")
_LABEL = re.compile(r"^([^\n:：]{1,60})[:：]", re.MULTILINE)
# The bundled tokenizer takes these for markers anywhere, not just at the start of a line.
_EXACT_LABEL = re.compile(r"(User|Chosen|Rejected):")
_HEADING = re.compile(r"^([ \t]{0,20})(#{1,6})(?=[ \t]{0,20}\S)", re.MULTILINE)
_HEADING_WORDS = re.compile(
    r"#{1,6}\W{0,20}(?:part\W{0,5}\w|persona|criteria|rubric|scoring|analysis)", re.I
)

_MARKER = re.compile(
    r"the(?:start|end)of.*|\d+(?:chosen|rejected)|response\d+|/?inst|/?sys", re.DOTALL
)
_SPECIAL = re.compile(
    r"/?json_?(?:start|end)|\|.*\|?|/?s|/?(?:bos|eos|pad|unk)|(?:start|end)_?of_?turn|.*\|",
    re.DOTALL,
)
_LABELS = frozenset({"user", "assistant", "system", "chosen", "rejected", "stated", "tally"})


def _skeleton(text: str) -> str:
    """What is left when case, spacing, invisible characters and compatibility forms are ignored."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(
        char
        for char in folded
        if not char.isspace() and unicodedata.category(char) not in ("Cf", "Mn", "Cc")
    )


def _bracketed(match: re.Match[str]) -> str:
    if _MARKER.fullmatch(_skeleton(match[2])):
        return f"({match[2]})"
    return match[0]


def _angled(match: re.Match[str]) -> str:
    if _SPECIAL.fullmatch(_skeleton(match[2])):
        # Inner bars would still spell a chat template's token to a lenient tokenizer.
        return f"‹{match[2].replace('|', '¦')}›" if match[2].strip("¦") else match[0]
    return match[0]


def _label(match: re.Match[str]) -> str:
    if _skeleton(match[1]).strip("*_->•#[]()") in _LABELS:
        return f"{match[1]} -"
    return match[0]


def _heading(match: re.Match[str]) -> str:
    tail = match.string[match.start(2) : match.start(2) + 60]
    return f"{match[1]}§" if _HEADING_WORDS.match(tail) else match[0]


def neutralise(text: str) -> str:
    """`text` with every marker disarmed; text without markers is returned unchanged.

    Linear in the length of the text, and idempotent.
    """
    text = _BRACKETED.sub(_bracketed, text)
    text = _ANGLED.sub(_angled, text)
    text = _LABEL.sub(_label, text)
    text = _EXACT_LABEL.sub(r"\1 -", text)
    return _HEADING.sub(_heading, text)
