"""Tell which of several versions counts: one that is written for somebody else, or as an example, does not.

A model that has written its criteria may go on: "If they had been a beginner, I would weigh ...".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_ANYBODY = (
    r"(?:(?:generic|default|base(?:line)?|starting|initial|equal|usual|standard)"
    r" (?:rubrics?|weights?|weighting|criteria)"
    r"|(?:typical|average|another|different|most|generic)"
    r" (?:users?|readers?|persons?|people|askers?|raters?))\b"
)
_FOR_ANYBODY = re.compile(
    rf"\b{_ANYBODY}|^(?:my |an? |the )?(?:draft|first (?:thought|guess|draft|pass)"
    r"|generic|default|base(?:line)?|typical|average|usual|standard)(?=:|$|\n)"
)
HYPOTHETICAL = re.compile(
    r"\b(?:if|had|were|suppos\w+|imagine) (?:i|they|he|she|it|some\w+|an? \w+|(?:the|this|that)(?: \w+){0,2})"
    r"(?:['’]d)? (?:were|was|had|been|an?|not|instead)\b"
    r"|\b(?:hypothe|counterfact|illustrat|for (?:comparison|contrast|example|instance)\b"
    r"|(?:c|w)ould look|an? example|examples?:|template)"
    rf"|{_FOR_ANYBODY.pattern}|\bother (?:users?|readers?|persons?|people|askers?|raters?)\b"
    r"|\b(?:rather than|instead of|as opposed to|compared (?:with|to)) [^,;:.]{1,40}(?:[:(][^,;:.]{0,80})?$"
    r"|\b(?:wenn|falls|wäre|hätte|beispiel|exemple|ejemplo|esempio|exemplo|bijvoorbeeld|s['’]il|était"
    r"|fuera|fuese|fosse|zou|если|например)\b|如果|假如|例如|もし|例えば|만약|예를",
)
"""In the words, case folded, before what is meant for somebody else, or only shows a form."""
# "Unlike most users, they ..." is about them, and "unlike most users (Clarity 50%" is not yet.
_COMPARED = re.compile(
    rf"\b(?:unlike|than|like|(?<!starting )from|beyond) (?:the |an? )?{_ANYBODY}(?!\s*\([^)]*$)"
)
_SO = re.compile(r"\b(?:but(?! not)|so|yet)\b|\bfor (?:this|our|them)\b")
_MEANT = re.compile(
    r"\b(?:this|these|here|now|but|our|actual\w*|real|final\w*|mine|my|evaluation|answer)\b"
)
_OWN = re.compile(
    r"\b(?:mine|my own|now (?:the|my|for this)|my (?:answer|evaluation)|the (?:actual|real))\b"
)
_BETTER = (
    r"(?:final|correct(?:ed|ion)|revis(?:ed|ion)|reconsidered|adjusted|updated|improved|rewritten"
    r"|personali[sz]ed|adapted|korrig\w*|corrig\w*)"
)
_VERSION = (
    r"(?:weights?|weighting|rubric|criteria|list|version|scor\w+|object|json|chain|answer"
    r"|evaluation|analysis|persona)"
)
# What says of the second version that it replaces the first, and not of some text that it is better.
_FINAL = re.compile(
    rf"(?:^|[.!?:;,\n]\s*)(?:and |but |so )*{_BETTER}(?=[:,\n]|$| (?:to|for|by|with|after|given)\b)"
    rf"|\b{_BETTER} (?:\w+ )?{_VERSION}(?=[^\w ]|$| (?:for|with|in|below|are|as|after|given|of|by|would)\b)"
    rf"|\b{_BETTER}$"
    r"|\bi(?:['’]ll| will| would rather| should| must| have to)? (?:now |therefore |thus )?"
    r"(?:shift|adjust|adapt|revise|correct|reconsider|misread|misjudged|redo|rewrite|change|move)\b"
    r"|\blet me (?:\w+ )?(?:redo|rewrite|revise|correct|adjust|reconsider|fix|start over|try again)\b"
    r"|(?:^|[.!?\n]\s*|\b(?:but|or) )(?:instead|actually|rather)(?=\s?[,:—–-]|$)"
    r"|\bwait(?=\s?[,.!:…—–-]|$)|\bsorry\b|\boops\b|\bnope\b|\bhmm+\b|\bscratch (?:that|this)\b"
    r"|\bsecond thoughts?\b|\b(?:look|read)ing again\b|\bon reflection\b|\btoo (?:low|high)\b"
    r"|\b(?:no|nein|non|não|nee|нет)(?=[,;:.!…–—])|\b(?:corrijo|en fait|вернее|точнее)\b"
    r"|不对|不對|应该|應該|更正|いや|訂正|やはり|아니"
)
# "I would judge otherwise if they were a beginner."
_I_WOULD = re.compile(
    r"\bi(?:['’]d| would)\b.{0,80}\b(?:if|had|were)\b|\b(?:if|had|were)\b.{0,80}\bi(?:['’]d| would)\b"
    r"|\bich würde\b"
)
_MARKUP = " \t\r\n#*_`"
_LISTED = re.compile(r"\s*(?:[-*•+|]|\(?\d{1,3}[.)])\s")
_NUMBERING = re.compile(r"(?m)(?:^|(?<=[:,;]))[ \t]{0,20}\d{1,2}[.)](?=\s)|^[ \t]{0,20}```\w*$")
_SENTENCE_END = re.compile(r"[.!?。！？\n]+\s*")
LONGEST_INTRODUCTION = 2_000


def which_counts(introductions: Sequence[str]) -> int | None:
    """Return the place of the version that counts; None where the words before each do not tell."""
    shown = [_plain(words) for words in introductions]
    meant: list[int] = []
    for place, words in enumerate(shown):
        last = _last(words)
        is_led = HYPOTHETICAL.search(last) and not (_FINAL.search(last) or _is_contrast(last))
        if place == 0:
            # A whole sentence before the first version may well be about most users, or give an example.
            is_led = is_led and not _is_sentence(introductions[0])
        elif not is_led and HYPOTHETICAL.search(words):
            return None  # "That was for most users. This one: ..." may be meant.
        if not is_led:
            meant.append(place)
    if not meant:
        return None
    words = shown[meant[-1]]
    told = meant[-1] == 0 or _FINAL.search(words)
    if len(meant) > 1:
        told = told or (HYPOTHETICAL.search(shown[0]) and _OWN.search(words))
    else:
        # Behind what is said to be for anybody, another version is for this person.
        told = told or _MEANT.search(words) or _FOR_ANYBODY.search(_last(shown[0]))
    return meant[-1] if told else None


def is_aside(words: str) -> bool:
    """Return whether what these words introduce is meant for somebody else, or an example."""
    return which_counts(["", words]) == 0


def leads_aside(line: str) -> bool:
    """Return whether a line above an analysis, or its heading, says that it is an aside.

    A criterion, or a whole sentence, may well be about most users, or give an example.
    """
    is_lead = line.rstrip(_MARKUP).endswith((":", "：")) or not (
        _is_sentence(line) or _LISTED.match(line)
    )
    return bool(is_lead or _I_WOULD.search(line[-LONGEST_INTRODUCTION:].casefold())) and is_aside(
        line
    )


def _is_sentence(words: str) -> bool:
    ended = _NUMBERING.sub("", words[-LONGEST_INTRODUCTION:]).rstrip(_MARKUP)
    return ended.endswith((".", "!", "?", "。"))


def _is_contrast(sentence: str) -> bool:
    """Whether it tells from anybody whom the words behind it are for: "Most users like both, so ..."."""
    anybody = _FOR_ANYBODY.search(sentence)
    return anybody is not None and _SO.search(sentence, anybody.end()) is not None


def _last(words: str) -> str:
    return _SENTENCE_END.split(words)[-1]


def _plain(words: str) -> str:
    words = words[-LONGEST_INTRODUCTION:].casefold().replace("e.g.", "for example")
    words = _COMPARED.sub("", _NUMBERING.sub("", words).rstrip(" \t\r\n:#*_|-.!?"))
    return words.strip(" \t\r\n:#*_(|-.!?")
