"""Find the three sections of a chain: persona, rubric, scores; and what a model thought before it."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from pgenrm_agent.schema import Model

__all__ = [
    "JSON_MARKER",
    "Section",
    "Sections",
    "SplitReasoning",
    "split_reasoning",
    "split_sections",
]

Section = Literal["persona", "rubric", "scores"]
_Heading = Literal["opening", "persona", "rubric", "scores"]

# <JSON_START> or <JSON_END>, also as [JSON_START], <json start>, \<JSON\_START\>. The group tells
# which of the two.
JSON_MARKER = re.compile(r"[<\[]\s?json\\?[_ ](start|end)\s?\\?[>\]]", re.IGNORECASE)

# <think> and its kin, as models and their chat templates write them.
_THOUGHT = re.compile(
    r"[<\[◁](?:(?<=<)\s?/?\s?(?i:(?:seed:)?(?:think(?:ing)?|thoughts?|reasoning))\s?>"
    r"|(?<=\[)/?THINK\]|(?<=◁)/?think▷)"
)
_OBJECT = re.compile(r"\s{0,20}\{")
_QUOTES = "\"'`“”‘’"
LONGEST_INDENT = 40

LONGEST_HEADING = 120
# The start of a line that may be a heading: its marks, a numbering, and a first word that counts.
_LINE = re.compile(
    r"\n[^a-z0-9\n]{0,12}(?:\w{1,3}[.)][ \t*_]{1,4})?(?:the )?"
    r"(?:part|user|persona|weighted|evaluation|scor|criteri|rubric)"
    rf"[^\n]{{0,{LONGEST_HEADING}}}",
    re.IGNORECASE,
)
_MARKED = re.compile(r"\s*(?:\(?\w{1,3}[.)]\s{1,4})?[#*_]")
_NUMBERING = re.compile(r"\(?[0-9a-z]{1,3}[.)]\s{1,4}")
_PART_ONE = re.compile(r"part\s{0,3}(?:1|i|one)\b(?!.*\bpart\s{0,3}(?:2|ii|two)\b)")
_PART_TWO = re.compile(r"part\s{0,3}(?:2|ii|two)\b")
_AFTER_PART = re.compile(r"[\s*_#]*(?:$|[:.()–—-])")
_PERSONA = re.compile(r"(?:the )?(?:user(?:['’]s)? )?persona(?: analysis| derivation)?")
_RUBRIC = re.compile(
    r"(?:the )?(?:(?:weighted|evaluation|scoring|personali[sz]ed) ){0,3}(?:criteria|rubric)"
    r"(?:(?: and| with)? weights)?"
)
_SCORES = re.compile(r"(?:the )?(?:scoring|scores?(?: breakdown)?)")


class Sections(Model):
    """Texts of the sections, headings left out; None for one that is not there.

    spans: [start, end) of each text in the whole, by section.
    """

    persona: str | None
    rubric: str | None
    scores: str | None
    spans: dict[Section, tuple[int, int]]


class SplitReasoning(NamedTuple):
    """A text in two parts; `reasoning + answer` is the whole.

    reasoning: what stands up to the last closing mark, the mark included; empty without one.
    finished: False where the reasoning never ends, so that there is no answer.
    """

    reasoning: str
    answer: str
    finished: bool = True


def split_reasoning(text: str) -> SplitReasoning:
    """Split off what a reasoning model thought before its answer.

    A closing mark such as `</think>` ends the reasoning; an opening one need not be there, since
    many chat templates write it into the prompt. A mark in quotation marks, or inside the object
    with the scores, is something said about an answer and splits nothing.
    """
    if not _THOUGHT.search(text):
        return SplitReasoning("", text)
    objects = [
        (
            marker.start(),
            bool(marker[1].casefold() == "start" and _OBJECT.match(text, marker.end())),
        )
        for marker in JSON_MARKER.finditer(text)
    ]
    last_object = max((place for place, opens in objects if opens), default=-1)
    end, thinking, in_object, passed = 0, False, False, 0
    for mark in _THOUGHT.finditer(text):
        while passed < len(objects) and objects[passed][0] < mark.start():
            in_object = objects[passed][1]
            passed += 1
        if _is_quoted(mark):
            continue
        if "/" not in mark[0]:
            thinking = thinking or (not in_object and _begins_line(mark, end))
        # An object that was only tried out is followed by the real one.
        elif thinking or not in_object or mark.start() < last_object:
            end, thinking, in_object = mark.end(), False, False
    if thinking:
        return SplitReasoning(text, "", finished=False)
    return SplitReasoning(text[:end], text[end:])


def _is_quoted(mark: re.Match[str]) -> bool:
    before = mark.string[max(0, mark.start() - 1) : mark.start()]
    after = mark.string[mark.end() : mark.end() + 1]
    return bool(before and after) and before in _QUOTES and after in _QUOTES


def _begins_line(mark: re.Match[str], after: int) -> bool:
    """Whether nothing but white space precedes the mark, in its line or behind place `after`."""
    before = mark.string[max(after, mark.start() - LONGEST_INDENT) : mark.start()]
    line = before.rpartition("\n")[2]
    return not line.strip() and len(line) < LONGEST_INDENT


def split_sections(text: str) -> Sections:
    """Read a chain's headings: the first of each kind that comes in order.

    A text without headings is all persona up to its JSON marker, and scores from there. What a
    model thought before its answer belongs to no section.
    """
    reasoning, text, _ = split_reasoning(text)
    ahead = len(reasoning)
    headings = _headings(text)
    start = max(
        (headings[kind][1] for kind in ("opening", "persona") if kind in headings), default=0
    )
    end = len(text)
    spans: dict[Section, tuple[int, int]] = {}
    if "scores" in headings:
        end, body = headings["scores"]
        spans["scores"] = (body, len(text))
    elif marker := JSON_MARKER.search(text, start):
        end = marker.start()
        spans["scores"] = (end, len(text))
    if "rubric" in headings and headings["rubric"][0] < end:
        heading, body = headings["rubric"]
        spans["rubric"] = (body, max(body, end))
        end = heading
    if start < end:
        spans["persona"] = (start, end)

    def part(section: Section) -> str | None:
        return text[slice(*spans[section])].strip("\r\n") if section in spans else None

    return Sections(
        persona=part("persona"),
        rubric=part("rubric"),
        scores=part("scores"),
        spans={name: (begin + ahead, stop + ahead) for name, (begin, stop) in spans.items()},
    )


def _headings(text: str) -> dict[_Heading, tuple[int, int]]:
    """[start, end) of the first heading of each kind, out-of-order ones left out."""
    headings: dict[_Heading, tuple[int, int]] = {}
    # A line is found by the break before it, which is fast; so the text is given one, and a place in
    # it is one less in `text`.
    for match in _LINE.finditer(f"\n{text}"):
        start, end = match.start(), match.end() - 1
        whole = end == len(text) or text[end] == "\n"
        kind, length = _kind(text[start:end], whole)
        if kind is None or kind in headings or "scores" in headings:
            continue
        if kind in ("opening", "persona") and "rubric" in headings:
            continue
        headings[kind] = (start, start + length)
        if kind == "scores":
            break
    return headings


def _kind(line: str, whole: bool) -> tuple[_Heading | None, int]:
    """Which heading a line is or begins with, and how much of the line is the heading.

    whole: False where the line goes on after LONGEST_HEADING characters.
    """
    marked = _MARKED.match(line) is not None
    bare = _bare(line)
    for pattern, kind in ((_PART_TWO, "scores"), (_PART_ONE, "opening")):
        part = pattern.match(bare)
        # "Part 2 of their history ..." is prose.
        if part and whole and (marked or _AFTER_PART.match(bare, part.end())):
            return ("scores" if kind == "scores" else "opening"), len(line)
    if whole and (marked or line.rstrip().endswith(":")):
        section = _section(bare)
        if section:
            return section, len(line)
    head, colon, _ = line.partition(":")
    if not colon:
        return None, 0
    # "**Persona:** She likes lists." opens its section, and so does "Criteria: Clarity (100%)".
    section = _section(_bare(head))
    if section and (marked or section != "scores"):
        rest = line[len(head) + 1 :]
        return section, len(line) - len(rest.lstrip("*_"))
    return None, 0


def _bare(line: str) -> str:
    """A heading's words: no marks, no numbering, no case."""
    words = line.strip(" \t\r#*_:>-=~`").casefold()
    numbering = _NUMBERING.match(words)
    return words[numbering.end() :].strip(" *_:") if numbering else words


def _section(words: str) -> Section | None:
    if _PERSONA.fullmatch(words):
        return "persona"
    if _RUBRIC.fullmatch(words):
        return "rubric"
    return "scores" if _SCORES.fullmatch(words) else None
