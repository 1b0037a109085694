"""Find the three sections of a chain: persona, rubric, scores; and what a model thought before it."""

from __future__ import annotations

import json
import re
from typing import Literal, NamedTuple

from pgenrm_agent.chain.versions import leads_aside
from pgenrm_agent.chain.words import (
    CONJUNCTIONS,
    FILLERS,
    MODELS,
    PART_ONE,
    PART_STARTS,
    PART_TWO,
    PERCENT,
    PERSONA,
    RUBRIC,
    SCORES,
    WIDE_FILLERS,
    is_wide,
)
from pgenrm_agent.fields import Model

Section = Literal["persona", "rubric", "scores"]
_Heading = Literal["opening", "persona", "rubric", "scores", "aside"]

# <JSON_START> or <JSON_END>, also as [JSON_START], <json start>, \<JSON\_START\>. The group tells
# which of the two.
JSON_MARKER = re.compile(r"[<\[]\s?json\\?[_ ](start|end)\s?\\?[>\]]", re.IGNORECASE)

# <think> and its kin, as models and their chat templates write them. The group is there in marks that
# end the thinking.
_NAMES_OF_THOUGHT = (
    r"(?:seed:)?(?:think(?:ing)?(?:[ _]process)?|(?:inner[ _])?(?:thoughts?|monologue)|reasoning"
    r"|reflection|scratch[ _]?pad)"
)
# A pattern that begins with a class of characters is searched for fast, so it looks back behind them.
THOUGHT_MARK = re.compile(
    rf"[<\[◁Hh](?:(?<=<)(?:"
    rf"\s?(?P<slash>/)?\s?(?i:{_NAMES_OF_THOUGHT})\s?>"
    rf"|\|(?P<piped>/)?(?i:{_NAMES_OF_THOUGHT})\|>"
    r"|\|?(?i:(?:start|begin|(?P<end>end))_(?:of_)?(?:thoughts?|think(?:ing)?|reasoning))\|?>"
    r"|\|channel\|>(?:analysis|commentary|(?P<final>final))\s?(?:<\|constrain\|>\w{1,10})?<\|message\|>)"
    r"|(?<=\[)(?P<square>/)?THINK\]|(?<=◁)(?P<triangle>/)?think▷"
    r"|(?<=[Hh])(?<![^\n].)ere(?:'s| is) my (?P<said>response):)"
)
_OBJECT = re.compile(r"\s{0,20}\{")
_BEGUN = re.compile(r"\{\s{0,20}\"")
# What an answer that is a JSON object begins with, in a fence or not.
_ANSWERED = re.compile(rf"[\s\ufeff]{{0,20}}(?:```\w{{0,10}}\s{{0,20}})?(?={_BEGUN.pattern})")
_DECODER = json.JSONDecoder(strict=False)
MOST_OBJECTS = 64
_QUOTES = "\"'`“”‘’"
LONGEST_INDENT = 40

LONGEST_HEADING = 120
LONGEST_ANALYSIS = 60_000
MOST_WORDS = 8
# What a heading is set off by: a hash, bold type, a box, a bullet that is no list's.
_MARKED = re.compile(
    r"\s*(?:\(?\w{1,3}[.)]\s{1,4}|[一二三四五六七八九十\d]{1,3}[、.．]\s?)?[#*_【■●◆]"
)
_SET_OFF = re.compile(r"\s*(?:#|.*[*_】]:?\s*$|[■●◆])")
_NUMBERING = re.compile(r"\(?[0-9a-z]{1,3}[.)]\s{1,4}|[一二三四五六七八九十\d]{1,3}[、.．]\s?")
_WORD = re.compile(r"[^\W_]+")
_PARTS: tuple[tuple[re.Pattern[str], _Heading], ...] = (
    (PART_TWO, "scores"),
    (PART_ONE, "opening"),
)
_STEMS: tuple[tuple[Section, tuple[str, ...]], ...] = (
    ("rubric", RUBRIC),
    ("persona", PERSONA),
    ("scores", SCORES),
)
_EDGES = " \t\r\n#*_:：>-=~`【】■●◆「」"
_AFTER_PART = re.compile(r"[\s*_#】]*(?:$|[:：.()（–—-])")
_SHARE = re.compile(rf"\d\s{{0,3}}{PERCENT}", re.IGNORECASE)
# A line of a rubric, in any language: a bullet or bold type, a name and a share.
_CRITERION = re.compile(
    rf"\s{{0,20}}(?:[-*•+|#]|\(?\d{{1,3}}[.)、]|[A-Za-z][.)])[^\n]{{1,160}}?"
    rf"(\d{{1,3}})(?:[.,]\d{{1,4}})?\s{{0,3}}{PERCENT}",
    re.IGNORECASE,
)


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
    many chat templates write it into the prompt. A mark in quotation marks, in a JSON object, or in
    the object with the scores, is something said about an answer and splits nothing.
    """
    if not THOUGHT_MARK.search(text):
        return SplitReasoning("", text)
    objects = [
        (
            marker.start(),
            bool(marker[1].casefold() == "start" and _OBJECT.match(text, marker.end())),
        )
        for marker in JSON_MARKER.finditer(text)
    ]
    last_object = max((place for place, opens in objects if opens), default=-1)
    quoting = _json_objects(text)
    begun = _ANSWERED.match(text)
    end, thinking, in_object, passed = 0, False, False, 0
    for mark in THOUGHT_MARK.finditer(text):
        while passed < len(objects) and objects[passed][0] < mark.start():
            in_object = objects[passed][1]
            passed += 1
        if _is_quoted(mark) or any(start < mark.start() < stop for start, stop in quoting):
            continue
        answered = _ANSWERED.match(text, mark.end()) if mark.lastgroup else None
        # An object that is cut off or malformed, and none behind the mark: it is said in it.
        if begun and not answered and begun.end() not in dict(quoting):
            continue
        if mark.lastgroup is None:
            thinking = thinking or (not in_object and _begins_line(mark, end))
        # An object that was only tried out is followed by the real one.
        elif thinking or not in_object or mark.start() < last_object:
            end, thinking, in_object, begun = mark.end(), False, False, answered
    if thinking:
        return SplitReasoning(text, "", finished=False)
    return SplitReasoning(text[:end], text[end:])


def _json_objects(text: str) -> list[tuple[int, int]]:
    """[start, end) of the whole JSON objects in a text, of the first ones where there are many."""
    spans: list[tuple[int, int]] = []
    place = 0
    for _ in range(MOST_OBJECTS):
        begun = _BEGUN.search(text, place)
        if begun is None:
            break
        try:
            place = _DECODER.raw_decode(text, begun.start())[1]
        except (ValueError, RecursionError):
            place = begun.end()
        else:
            spans.append((begun.start(), place))
    return spans


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
    aside = headings.get("aside", (end, end))[0]
    if "scores" in headings:
        end, body = headings["scores"]
        spans["scores"] = (body, aside if aside > end else len(text))
    elif marker := JSON_MARKER.search(text, start):
        end = marker.start()
        spans["scores"] = (end, len(text))
    end = min(end, aside)
    rubric = headings.get("rubric") or _unnamed_rubric(text, start, end)
    if rubric and rubric[0] < end:
        heading, body = rubric
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


def _unnamed_rubric(text: str, start: int, end: int) -> tuple[int, int] | None:
    """[start, end) of the heading, in whatever language, over a list of shares that sum to 100."""
    if end - start > LONGEST_ANALYSIS or len(_SHARE.findall(text, start, end)) < 2:
        return None
    places: list[int] = []
    shares = 0
    before, begin = start, start
    while begin < end:
        stop = text.find("\n", begin, end)
        stop = end if stop < 0 else stop
        match = _CRITERION.match(text, begin, stop)
        if match:
            places.append(before)
            shares += int(match[1])
        if text[begin:stop].strip():
            before = begin
        begin = stop + 1
    if len(places) < 2 or not 90 <= shares <= 110:
        return None
    heading = places[0]
    stop = text.find("\n", heading, end)
    line = text[heading:stop]
    if heading > start or _is_short(line):
        titled = _is_short(line) and (_SET_OFF.match(line) or not line.rstrip().endswith("."))
        return (heading, stop + 1) if titled else (stop + 1, stop + 1)
    return None


def _is_short(line: str) -> bool:
    return len(line) <= LONGEST_HEADING // 2 and not _SHARE.search(line)


def _headings(text: str) -> dict[_Heading, tuple[int, int]]:
    """[start, end) of the first heading of each kind, out-of-order ones left out.

    Of a chain that is begun anew, with persona, rubric and scores, the last version counts, but for one
    that is for somebody else, or an example: "aside" is where that begins.
    """
    headings: dict[_Heading, tuple[int, int]] = {}
    again: dict[_Heading, tuple[int, int]] = {}
    start, before = 0, ""
    behind = 0  # where the last heading ended
    described = opened = (
        False  # whether a persona precedes the criteria, and an object follows the scores
    )
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        shown = text[start : min(end, start + LONGEST_HEADING)]
        kind, length = _kind(shown, end - start <= LONGEST_HEADING)
        start, begun = end + 1, start
        above, before = before, text[begun:end] if shown.strip() else before
        opened = opened or "{" in text[begun:end]
        if kind is None:
            continue
        place = begun, begun + length
        if kind == "rubric":
            described = bool(text[behind:begun].strip())
        if kind == "scores" and ("rubric" in again or kind not in headings):
            opened = False
        behind = place[1]
        if kind in ("opening", "persona") and "rubric" in headings:
            if "aside" in headings:
                continue
            is_over = described and (opened or "scores" not in headings)
            if is_over and (leads_aside(above) or leads_aside(shown[:length])):
                headings["aside"] = place
                continue
        if kind == "scores" and "rubric" in again:
            headings, again = {**again, kind: place}, {}
        elif kind in ("opening", "persona") and "rubric" in headings:
            # "Part 1" begins an analysis for good, and what stood before it was a draft.
            again = {kind: place} if "rubric" in again or kind == "opening" else again
            again.setdefault(kind, place)
        elif kind == "rubric" and again:
            again.setdefault(kind, place)
        elif "scores" not in headings:
            headings.setdefault(kind, place)
    if "rubric" in again:
        markers = JSON_MARKER.finditer(text, again["rubric"][1])
        if any(marker[1].casefold() == "start" for marker in markers):
            return again
    return headings


def _kind(line: str, whole: bool) -> tuple[_Heading | None, int]:
    """Which heading a line is or begins with, and how much of the line is the heading.

    whole: False where the line goes on after LONGEST_HEADING characters.
    """
    colon = _colon_in(line)
    marked = _MARKED.match(line) is not None
    if not marked and colon < 0 and len(line) > LONGEST_HEADING // 2:
        return None, 0
    if whole:
        bare = _bare(line)
        if bare.startswith(PART_STARTS):
            for pattern, kind in _PARTS:
                part = pattern.match(bare)
                # "Part 2 of their history ..." is prose.
                if part and (marked or _AFTER_PART.match(bare, part.end())):
                    return kind, len(line)
        if marked or colon < 0 or line.rstrip()[-1:] in (":", "："):
            set_off = marked and _SET_OFF.match(line) is not None
            section = _section(bare, strict=not set_off)
            if section:
                return section, len(line)
    if colon < 0:
        return None, 0
    # "**Persona:** She likes lists." opens its section, and so does "Criteria: Clarity (100%)".
    section = _section(_bare(line[:colon]), strict=True)
    # "**Scoring**: 30%" is a criterion.
    if section and (section != "scores" or (marked and not _SHARE.search(line))):
        rest = line[colon + 1 :]
        return section, len(line) - len(rest.lstrip("*_"))
    return None, 0


def _colon_in(line: str) -> int:
    colon = line.find(":")
    wide = line.find("：")
    return max(colon, wide) if colon < 0 or wide < 0 else min(colon, wide)


def _bare(line: str) -> str:
    """A heading's words: no marks, no numbering, no case."""
    words = line.strip(_EDGES).casefold()
    numbering = _NUMBERING.match(words)
    return words[numbering.end() :].strip(_EDGES) if numbering else words


def _section(bare: str, *, strict: bool) -> Section | None:
    """The section that a heading's words name.

    strict: every word has to be one that headings have, so that prose is none.
    """
    share = _SHARE.search(bare)
    if share and "100" not in bare:
        return None
    words = _WORD.findall(bare)
    if not 0 < len(words) <= MOST_WORDS:
        return None
    kinds: set[Section] = set()
    joined = False
    for word in words:
        if is_wide(word[0]):
            rest = word
            for kind, stems in _STEMS:
                for stem in stems:
                    if stem in rest:
                        kinds.add(kind)
                        rest = rest.replace(stem, "")
            joined = joined or any(char in rest for char in "和与及と")
            known = all(char in WIDE_FILLERS for char in rest)
        else:
            kind_of_word = _kind_of(word)
            if kind_of_word:
                kinds.add(kind_of_word)
            joined = joined or word in CONJUNCTIONS
            known = kind_of_word is not None or word in FILLERS or len(word) == 1
        if strict and not known:
            return None
    if "scores" in kinds and any(model in bare for model in MODELS):
        kinds.add("rubric")
    if "persona" in kinds and ("rubric" not in kinds or joined):
        return "persona"
    if "rubric" in kinds:
        return "rubric"
    return "scores" if "scores" in kinds else None


def _kind_of(word: str) -> Section | None:
    if word.startswith("personali"):  # "personalized criteria" are no persona
        return None
    if any(stem in word for stem in RUBRIC):  # "Bewertungskriterien"
        return "rubric"
    return next((kind for kind, stems in _STEMS if word.startswith(stems)), None)
