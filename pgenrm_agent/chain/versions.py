"""Tell which of several versions counts: one that is written for somebody else, or as an example, does not.

A model that has written its criteria may go on: "If they had been a beginner, I would weigh ...".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pgenrm_agent.chain.words import CORRECTED

HYPOTHETICAL = re.compile(
    r"\b(?:if|had|were|suppos\w+|imagine) (?:i|they|he|she|it|some\w+|an? \w+|(?:the|this|that)(?: \w+){0,2})"
    r"(?:['’]d)? (?:were|was|had|been|an?|not|instead)\b"
    r"|\b(?:hypothe|counterfact|illustrat|for (?:comparison|contrast|example|instance)\b|e\.g\."
    r"|(?:c|w)ould look|an? example|examples?:|template)"
    r"|\b(?:typical|average|other|another|different|most|generic)"
    r" (?:users?|readers?|persons?|people|askers?|raters?)\b"
    r"|\b(?:wenn|falls|wäre|hätte|beispiel|exemple|ejemplo|esempio|exemplo|bijvoorbeeld|s['’]il|était"
    r"|fuera|fuese|fosse|zou|если|например)\b|如果|假如|例如|もし|例えば|만약|예를",
)
"""In the words, case folded, before what is meant for somebody else, or only shows a form."""
_MEANT = re.compile(
    r"\b(?:this|these|here|now|but|actual\w*|real|final\w*|mine|my|evaluation|answer)\b"
)
_FINAL = re.compile(rf"\bfinal|{CORRECTED.pattern}")
_NUMBERING = re.compile(r"(?m)\b\d{1,2}[.)](?=\s)|^\s*```\w*$")
_SENTENCE_END = re.compile(r"[.!?。！？\n]+\s*")
LONGEST_INTRODUCTION = 2_000


def which_counts(introductions: Sequence[str]) -> int | None:
    """Return the place of the version that counts; None where the words before each do not tell."""
    shown = [_plain(words) for words in introductions]
    meant: list[int] = []
    for place, words in enumerate(shown):
        last = _SENTENCE_END.split(words)[-1]
        if not HYPOTHETICAL.search(words):
            meant.append(place)
        elif not HYPOTHETICAL.search(last) or _FINAL.search(last):
            return None  # "That was for most users. This one: ..." may be meant.
    if not meant:
        return None
    words = shown[meant[-1]]
    if len(meant) > 1:
        return meant[-1] if _FINAL.search(words) else None
    told = meant[-1] == 0 or _FINAL.search(words) or _MEANT.search(words)
    return meant[-1] if told else None


def is_aside(words: str) -> bool:
    """Return whether what these words introduce is meant for somebody else, or an example."""
    return which_counts(["", words]) == 0


def _plain(words: str) -> str:
    words = _NUMBERING.sub("", words[-LONGEST_INTRODUCTION:].casefold())
    return words.strip(" \t\r\n:#*_(|-.!?")
