"""Find the three sections of a chain: persona, rubric, scores."""

from __future__ import annotations

import re
from typing import Literal

from pgenrm_agent.schema import Model

__all__ = ["JSON_START", "Section", "Sections", "split_sections"]

Section = Literal["persona", "rubric", "scores"]
JSON_START = "<JSON_START>"

# A heading is a short line of its own: its marks (#, *, numbering, colon) are stripped first.
_LINE = re.compile(r"^[^\n]{1,120}$", re.MULTILINE)
_NUMBERING = re.compile(r"(?:\(?[0-9a-z]{1,3}[.)]\s{1,4})?")
_PART_ONE = re.compile(r"part\s{0,3}(?:1|i|one)\b(?!.*\bpart\s{0,3}(?:2|ii|two)\b)")
_PART_TWO = re.compile(r"part\s{0,3}(?:2|ii|two)\b")
_PERSONA = re.compile(r"(?:the )?(?:user(?:'s)? )?persona(?: analysis| derivation)?")
_RUBRIC = re.compile(
    r"(?:the )?(?:weighted |evaluation |scoring |personali[sz]ed )*(?:criteria|rubric)"
    r"(?: and weights| with weights)?"
)
_SCORES = re.compile(r"(?:the )?(?:scoring|scores|score breakdown)")


class Sections(Model):
    """Texts of the sections, headings left out; None for one that is not there.

    spans: [start, end) of each text in the whole, by section.
    """

    persona: str | None
    rubric: str | None
    scores: str | None
    spans: dict[Section, tuple[int, int]]


def _kind(line: str) -> str | None:
    """Which heading a line is, if it is one."""
    marked = line.lstrip()[:1] in ("#", "*", "_") or line.rstrip().endswith(":")
    bare = line.strip(" \t\r#*_:>-=").casefold()
    if _PART_TWO.match(bare):
        return "scores"
    if _PART_ONE.match(bare):
        return "opening"
    if not marked:
        return None
    bare = bare[_NUMBERING.match(bare).end() :].strip(" *_:")  # type: ignore[union-attr]
    if _PERSONA.fullmatch(bare):
        return "persona"
    if _RUBRIC.fullmatch(bare):
        return "rubric"
    if _SCORES.fullmatch(bare):
        return "scores"
    return None


def split_sections(text: str) -> Sections:
    """Read a chain's headings, the first of each kind in order.

    A text without headings is all persona up to its JSON, and scores from there.
    """
    headings: dict[str, tuple[int, int]] = {}
    for match in _LINE.finditer(text):
        kind = _kind(match[0])
        if kind is None or kind in headings:
            continue
        if kind in ("opening", "persona") and ("rubric" in headings or "scores" in headings):
            continue
        if kind == "rubric" and "scores" in headings:
            continue
        headings[kind] = match.span()
    opening = text.find(JSON_START)
    start = max(
        (headings[kind][1] for kind in ("opening", "persona") if kind in headings), default=0
    )
    spans: dict[Section, tuple[int, int]] = {}
    if "scores" in headings:
        spans["scores"] = (headings["scores"][1], len(text))
    elif opening >= 0:
        spans["scores"] = (opening, len(text))
    ends = headings["scores"][0] if "scores" in headings else opening if opening >= 0 else len(text)
    if "rubric" in headings:
        spans["rubric"] = (headings["rubric"][1], max(headings["rubric"][1], ends))
        ends = headings["rubric"][0]
    if start < ends:
        spans["persona"] = (start, ends)

    def body(section: Section) -> str | None:
        return text[slice(*spans[section])].strip("\n") if section in spans else None

    return Sections(
        persona=body("persona"), rubric=body("rubric"), scores=body("scores"), spans=spans
    )
