"""Read an evaluation chain: persona, rubric, marks and totals, from what models really write.

Only what the model wrote is read; the prompt never is. Marks and weights are read per criterion and
the totals are recomputed from them (paper Eq. 2: s = Extract(S)); the model's own totals are kept
beside them. Nothing is guessed: a number that cannot be placed, or that is out of range, is left
out and noted in `repairs`.

Which JSON object counts, when there are several: the last complete one after the heading of part 2;
where none is complete, the last one from which a number can be read. Text inside a JSON string is
never an object of its own. docs/chain-format.md lists what is repaired and what is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Literal, NamedTuple

from pgenrm_agent.chain.parsed import ParsedChain
from pgenrm_agent.chain.sections import JSON_MARKER, split_reasoning, split_sections
from pgenrm_agent.errors import ChainError
from pgenrm_agent.schema import Criterion, Persona, Rubric

__all__ = ["answer_in", "parse_chain", "read_persona"]

MARK_LOW, MARK_HIGH = 1.0, 10.0
TOTAL_LOW, TOTAL_HIGH = 0.0, 10.0
SMALLEST_SHARE = 0.5
"""Least share of the rubric's weight that must be marked for a total to be recomputed."""

# What a chain of a few thousand tokens never exceeds; together they bound the time for any text.
MOST_OBJECTS = 8
MOST_CRITERIA = 24
LONGEST_NAME = 80
LONGEST_LINE = 2_000
LONGEST_RATIONALE = 60_000
DEEPEST = 6

_QUOTE = r"[\"'“”]"
# Each pattern begins with a character class, which the search is fast with, and then looks back. A
# key inside a JSON string is escaped (\"...\"), and no key.
_TOTALS_KEY = re.compile(
    rf"[bB](?<![\w\\].)(?<!\\{_QUOTE}.)(?i:etter(?:_response{_QUOTE}?| response{_QUOTE}))"
    r"\s{0,5}:\s{0,5}"
)
_RATIONALE_KEY = re.compile(
    rf"[rR](?<!\\{_QUOTE}.)(?:(?<={_QUOTE}.)(?i:ationale){_QUOTE}|(?<=[{{,\n].)ationale)"
    rf"\s{{0,5}}:\s{{0,5}}{_QUOTE}?"
)
# A number is complete when something follows it: the last one of a cut text may lack digits.
_TOTAL = re.compile(
    rf"(?<!\\){_QUOTE}?response[ _-]{{0,2}}(\d{{1,3}}){_QUOTE}?\s{{0,5}}:\s{{0,5}}{_QUOTE}?"
    r"(-?\d{1,6}(?:\.\d{1,30})?(?:\s{0,3}/\s{0,3}10\b)?)"
    rf"(?={_QUOTE}?\s{{0,20}}[,}}\n\r])",
    re.I,
)
_NUMBER = re.compile(r"\s*([+-]?\d{1,6}(?:\.\d{1,30})?)\s*(?:(?:/|out of)\s*10(?:\.0{1,3})?)?\s*")
_RESPONSE_KEY = re.compile(r"(?:response\s{0,2})?(\d{1,3})")
_LABEL_KEYS = ("criterion", "name", "response", "candidate")

_WEIGHT = re.compile(
    r"(\d{1,4}(?:\.\d{1,6})?)\s{0,3}(?:%|per ?cent\b)"
    r"|\bweight\s{0,3}[:=]?\s{0,3}(\d{1,3}(?:\.\d{1,6})?)(?![\d.]{0,8}\s{0,3}(?:%|per ?cent\b))",
    re.I,
)
_EDGES = " \t\r\n\xa0*_#`\"'“”()[]{}:;,.=–—-•>|+~"
_BULLET = re.compile(r"\s{0,20}(?:[-*•+|]|\(?\d{1,3}[.)]|[A-Za-z][.)])\s{1,5}")
_WEIGHT_WORD = re.compile(
    r"[\s(:–—,-]{0,5}\b(?:weight(?:ed|ing)?|importance)(?:\s(?:of|at|is))?[\s:=]{0,5}$", re.I
)
_NAME_END = re.compile(r"[:(\[]|\s[–—-]\s")
_LIST_LABEL = re.compile(r"\W{0,10}(?:criteria|rubric|weights|criteria and weights)\s{0,2}:", re.I)
_SEPARATOR = re.compile(r"[,;\n]|\.(?=\s)")
# "Clarity 70% and Depth 30%": an "and" next to a number parts two names; inside one it is a word.
_AND_BEFORE = re.compile(r"\W{0,10}and\b", re.I)
_AND_AFTER = re.compile(r"\band\W{0,10}$", re.I)
_PART_A = re.compile(r"(?:^|(?<=[\s\"'*(]))A\*{0,2}[.):](?=[\s*])")
_PART_B = re.compile(r"(?:^|[.;,\n\"'*(%])\s{0,3}\*{0,2}B\*{0,2}[.):](?=[\s*])")

# These, too, begin with a letter or a class and then look back: see _TOTALS_KEY.
_RESPONSE = re.compile(r"r(?<!\w.)esponse[ _#-]{0,2}(\d{1,3})\b")
# A mark stands alone: no percentage, no part of a larger number or of a word.
_MARK = re.compile(
    r"[\d-](?<![\w.%/].)(?:(?<=-)\d{1,4}|(?<=\d)\d{0,3})(?:\.\d{1,6})?(?![\w%]|\.\d|\s{0,2}%)"
)
_SCALE = re.compile(r"\s{0,3}(?:/|out of)\s{0,3}10\b")
_WEIGHT_BEFORE = re.compile(r"\bweight(?:ed|ing)?(?:\s(?:of|at|is))?[\s:=(*\"']{0,4}$")
_FACTOR_AFTER = re.compile(r"\s{0,2}[*×x·]\s{0,2}\d")
_MARK_FIRST = re.compile(r"\s{0,3}(?:points?\s)?\s{0,3}(?:on|for|in)\s{1,3}[\"'*]{0,3}")
# What may stand between a criterion and its colon where the criterion heads a list of responses.
_HEADER = re.compile(r"[\s*\"'_]{0,4}(?:\([^()\n]{0,60}\))?[\s*\"'_]{0,4}(?:[:=–—]|-\s)")
_SENTENCE_END = re.compile(r"[.;!?\n](?=\s|$)|\n")
_SPACES = re.compile(r"[ \t\xa0]{2,}")
# "bullet_points" and "bullet-points" name the criterion "Bullet points", too.
_PLAIN = str.maketrans("_-\t\n\r\xa0", "      ")
_TABLE_RULE = re.compile(r"^(?=[^\n]*\|)[ \t|:-]*---[ \t|:-]*$", re.MULTILINE)
_TOTALED = re.compile(r"\b(?:weighted |final )?(?:total|overall|average|sum)\b")

_DECODER = json.JSONDecoder(strict=False)  # models write real line breaks inside strings
_NOTES = re.compile(r"\s{0,10}(?:\[|Pair \d|Tally:|Stated:|Strength:)")


class _Repairs(dict[str, None]):
    """Codes of what was mended, each once, in order."""

    def note(self, code: str) -> None:
        self[code] = None


@dataclass(frozen=True)
class _Answer:
    """The JSON object of a chain.

    begin: where it, or its opening marker, begins in the text.
    cut: the text ends inside it.
    """

    begin: int
    rationale: str
    totals: Mapping[str, object]
    cut: bool = False


class _Block(NamedTuple):
    """A stretch of text that may hold the JSON object.

    From a start marker (at `begin`; what follows it is at `body`) to the last end marker before the
    next start; without a start marker, from the brace before the first of the object's keys.
    """

    begin: int
    body: int
    end: int


def parse_chain(text: str, candidate_ids: Sequence[str]) -> ParsedChain:
    """Read one chain.

    Args:
        text: what the model wrote.
        candidate_ids: ids in the order in which the prompt showed the candidates.

    Raises:
        ChainError: with reason "empty" (no text), "unfinished_reasoning" (the model thought and
            never answered), "no_scores" (nothing that looks like scores), "no_persona" (no analysis
            before the scores) or "no_totals" (scores, but none that is readable, in range and of a
            candidate).
    """
    text = answer_in(_encodable(text))
    if not text or text.isspace():
        raise ChainError("the model wrote nothing", reason="empty")
    repairs = _Repairs()
    sections = split_sections(text)
    answer = _answer(text, sections.spans.get("scores", (0, 0))[0], repairs)
    if answer.begin < sections.spans.get("scores", (len(text), 0))[0]:
        # An object without a heading or marker before it: what precedes it is the analysis.
        sections = split_sections(text[: answer.begin])
    persona = _persona(sections.persona or "")
    rubric = _rubric(sections.rubric, answer.rationale, repairs)
    reported = _reported(answer.totals, candidate_ids, repairs)
    marks: dict[str, tuple[float | None, ...]] = {}
    if rubric is not None:
        names = [criterion.name for criterion in rubric.criteria]
        breakdown = _part_b(answer.rationale)
        marks = _marks(breakdown, names, candidate_ids, repairs, cut=answer.cut)
        if not marks and "scores" in sections.spans:
            before = text[sections.spans["scores"][0] : answer.begin]
            prose = "\n".join(line for line in before.splitlines() if not _NOTES.match(line))
            marks = _marks(prose[:LONGEST_RATIONALE], names, candidate_ids, repairs, cut=False)
            if marks:
                repairs.note("marks_from_prose")
    computed = _computed(marks, rubric, repairs, cut=answer.cut)
    # One basis for all candidates of a chain, so that they stay comparable.
    from_marks = bool(computed) and (
        len(computed) >= len(reported) or not set(computed) <= set(reported)
    )
    if computed and not from_marks:
        repairs.note("marks_incomplete")
    totals = computed if from_marks else reported
    if not totals:
        raise ChainError(
            "the scores cannot be read: no mark from 1 to 10 and no total from 0 to 10 belongs to"
            " a candidate",
            reason="no_totals",
        )
    return ParsedChain(
        persona=persona,
        rubric=rubric,
        marks=marks,
        reported=reported,
        totals=totals,
        totals_from="marks" if from_marks else "reported",
        repairs=tuple(repairs),
        missing=tuple(candidate_id for candidate_id in candidate_ids if candidate_id not in totals),
    )


def answer_in(text: str) -> str:
    """`text` without what a reasoning model thought before its answer.

    Raises ChainError "unfinished_reasoning" when it never came to an answer.
    """
    _, answer, finished = split_reasoning(text)
    if not finished:
        raise ChainError(
            "the model's reasoning never ends, so there is no answer: its tokens ran out, or it wrote"
            " a chain's end marker in it; turn its reasoning off or down, or allow more tokens"
            " (max_tokens in the chain format's format.json)",
            reason="unfinished_reasoning",
        )
    return answer


def _encodable(text: str) -> str:
    """`text` without lone surrogates, which no result could be written out with."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


# --- the JSON object ---


def _answer(text: str, after_heading: int, repairs: _Repairs) -> _Answer:
    """The JSON object that counts: see the module's docstring.

    after_heading: where part 2 begins.

    Raises ChainError "no_scores" when there is none.
    """
    folded = text.casefold()
    starts = (after_heading, 0) if "better" in folded or "response" in folded else ()
    for start in dict.fromkeys(starts):
        mended: _Answer | None = None
        needed = _Repairs()
        blocks = _blocks(text, start, needed)
        if answer := _decoded(text, blocks):
            repairs.update(needed)
            return answer
        for block in reversed(blocks):
            answer = _mended(text, block)
            if answer and (mended is None or (answer.totals and not mended.totals)):
                mended = answer
        if mended:
            repairs.update(needed)
            repairs.note("broken_json")
            if mended.cut:
                repairs.note("truncated")
            return mended
    raise ChainError(
        'there are no scores: no JSON object with "better_response" follows the analysis',
        reason="no_scores",
    )


def _blocks(text: str, start: int, repairs: _Repairs) -> list[_Block]:
    """Where the object may be, in order; see _Block."""
    markers = list(JSON_MARKER.finditer(text, start))
    starts = [place for place, marker in enumerate(markers) if marker[1].casefold() == "start"]
    blocks: list[_Block] = []
    for place, following in zip(starts, [*starts, len(markers)][1:], strict=True):
        body = markers[place].end()
        limit = markers[following].start() if following < len(markers) else len(text)
        # A rationale may quote an end marker, so the last one before the next start is the end.
        end = markers[following - 1].start() if following - place > 1 else limit
        if text.find("{", body, limit) >= 0 or _TOTALS_KEY.search(text, body, limit):
            blocks.append(_Block(markers[place].start(), body, end))
    if blocks:
        if len(markers) > 2:
            repairs.note("repeated_marker")
        if markers[-1][1].casefold() == "start":
            repairs.note("no_end_marker")
        return blocks[-MOST_OBJECTS:]
    key = _TOTALS_KEY.search(text, start)
    if key is None:
        return []
    repairs.note("no_start_marker")
    rationale = _RATIONALE_KEY.search(text, start, key.start())
    first = min(key.start(), rationale.start()) if rationale else key.start()
    brace = text.rfind("{", start, first + 1)
    begin = brace if brace >= 0 else first
    ends = (marker.start() for marker in reversed(markers) if marker.start() > key.start())
    return [_Block(begin, begin, next(ends, len(text)))]


def _decoded(text: str, blocks: Sequence[_Block]) -> _Answer | None:
    """The last complete JSON object that has totals."""
    answer: _Answer | None = None
    reached = 0
    for block in blocks:
        # A start marker inside a string of the object before is text.
        place = text.find("{", block.body, block.end) if block.begin >= reached else -1
        for _ in range(MOST_OBJECTS):
            if place < 0:
                break
            try:
                value, reached = _DECODER.raw_decode(text, place)
            except (ValueError, RecursionError):
                break
            answer = _of_object(value, block.begin) or answer
            place = text.find("{", reached, block.end)
    return answer


def _of_object(value: object, begin: int) -> _Answer | None:
    if not isinstance(value, dict):
        return None
    totals: object = None
    parts: list[str] = []
    for key, inner in value.items():
        if key.strip().casefold().replace(" ", "_") == "better_response":
            totals = inner
        elif key.casefold() == "rationale":
            parts.extend(_lines(inner))
        else:
            parts.extend(_lines({key: inner}))
    if isinstance(totals, dict):
        # {"response_1": {"Clarity": 8, "total": 7.5}} holds marks, too.
        parts.extend(
            line
            for key, inner in totals.items()
            if isinstance(inner, dict)
            for line in _lines({key: inner})
        )
    elif totals is None:
        return None
    rationale = _encodable("\n".join(parts))[:LONGEST_RATIONALE]
    return _Answer(begin, rationale, totals if isinstance(totals, dict) else {})


def _lines(value: object, depth: int = 0) -> Iterator[str]:
    """A JSON value as lines of text: a nested breakdown then reads like a written one."""
    if depth > DEEPEST:
        return
    if isinstance(value, dict):
        label = next((key for key in _LABEL_KEYS if isinstance(value.get(key), str | int)), None)
        if label is not None:
            head = value[label]
            value = {key: inner for key, inner in value.items() if key != label}
            named = f"response {head}" if isinstance(head, int) else head
            yield f"{named}: {' ; '.join(_lines(value, depth + 1))}"
            return
        for key, inner in value.items():
            yield f"{key}: {' ; '.join(_lines(inner, depth + 1))}"
    elif isinstance(value, list):
        for inner in value:
            yield from _lines(inner, depth + 1)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**6):
        yield str(value)


def _mended(text: str, block: _Block) -> _Answer | None:
    """Rationale and totals of an object that is not JSON: quotes inside strings, a cut end, ..."""
    body = text[block.body : block.end]
    keys = list(_TOTALS_KEY.finditer(body))
    opening = _RATIONALE_KEY.search(body)
    if not keys and opening is None:
        return None
    key = keys[-1] if keys else None
    start = opening.end() if opening else 0
    stop = key.start() if key and key.start() > start else len(body)
    rationale = body[start:stop].replace("\\n", "\n").replace('\\"', '"')
    region = body[key.end() :] if key else ""
    closing = region.find("}")
    cut = closing < 0 and block.end == len(text)
    region = region if closing < 0 else region[: closing + 1]
    totals: dict[str, object] = {}
    for total in _TOTAL.finditer(region):
        totals.setdefault(f"response_{total[1]}", _number(total[2]))
    return _Answer(block.begin, rationale[:LONGEST_RATIONALE], totals, cut)


def _reported(
    totals: Mapping[str, object], ids: Sequence[str], repairs: _Repairs
) -> dict[str, float]:
    """The model's own totals, 0-10, of the candidates that there are."""
    reported: dict[str, float] = {}
    for key, value in totals.items():
        words = key[:40].casefold().replace("_", " ").replace("-", " ").strip()
        match = _RESPONSE_KEY.fullmatch(words)
        if match is None:
            repairs.note("unknown_key")
            continue
        place = int(match[1]) - 1
        if not 0 <= place < len(ids):
            repairs.note("extra_candidate")
            continue
        number = _number(value)
        if number is None or not TOTAL_LOW <= number <= TOTAL_HIGH:
            repairs.note("total_refused")
            continue
        if isinstance(value, str):
            repairs.note("number_as_text")
        reported.setdefault(ids[place], number)
    return reported


def _number(value: object) -> float | None:
    """A finite number, also from text such as "7.5" or "7/10" or {"score": 7}; None for others."""
    if isinstance(value, dict):
        names = ("score", "total", "weighted_total", "weighted_score", "overall")
        inner = [value[name] for name in names if name in value]
        return _number(inner[0]) if len(inner) == 1 and not isinstance(inner[0], dict) else None
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value[:60])
        return float(match[1]) if match else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


# --- persona and rubric ---


def read_persona(text: str) -> str | None:
    """The persona that a chain, whole or only begun, opens with; None where there is none.

    Working notes by themselves are none: whoever is compared by their persona would be compared by them.
    """
    return _prose(split_sections(text).persona or "") or None


def _persona(section: str) -> Persona:
    """The prose of the section; its working notes only where there is nothing else."""
    words = _prose(section) or " ".join(section.split())
    if not words:
        raise ChainError(
            "there is no persona: nothing is written before the criteria and scores",
            reason="no_persona",
        )
    return Persona(text=words)


def _prose(section: str) -> str:
    lines = (line.strip() for line in section.splitlines())
    return " ".join(line for line in lines if line and not _NOTES.match(line))


def _rubric(section: str | None, rationale: str, repairs: _Repairs) -> Rubric | None:
    """Criteria from the rubric section, else from the rationale's part A."""
    most = 4 * MOST_CRITERIA
    criteria = list(islice(_criteria(section.splitlines()), most)) if section else []
    if not criteria:
        begin = _PART_A.search(rationale)
        end = _PART_B.search(rationale, begin.end() if begin else 0)
        part = rationale[begin.end() if begin else 0 : end.start() + 1 if end else len(rationale)]
        # Without its labels, a rationale is read only where each line names one criterion.
        listed = _listed(part) if begin else _criteria(part.splitlines())
        criteria = list(islice(listed, most))
        if criteria:
            repairs.note("rubric_from_rationale")
    unique: dict[str, Criterion] = {}
    for criterion in criteria:
        if unique.setdefault(criterion.name.casefold(), criterion) is not criterion:
            repairs.note("repeated_criterion")
    kept = tuple(unique.values())[:MOST_CRITERIA]
    if not kept:
        return None
    if abs(sum(criterion.weight for criterion in kept) - 100) > 0.5:
        repairs.note("weights_normalized")
    return Rubric.normalized(kept)


def _criteria(lines: Iterable[str]) -> Iterator[Criterion]:
    """The criterion of each line that holds a name and a weight; several from a line of several."""
    for line in lines:
        line = line[:LONGEST_LINE]
        match = _WEIGHT.search(line)
        if match is None:
            continue
        bullet = _BULLET.match(line)
        if bullet is None and len(_WEIGHT.findall(line)) > 1:
            listed = list(_listed(line))
            # A second percentage may also belong to the reason of one criterion.
            if abs(sum(criterion.weight for criterion in listed) - 100) <= 10:
                yield from listed
                continue
        begin = min(bullet.end() if bullet else 0, match.start())
        head, tail = line[begin : match.start()], line[match.end() :]
        name, about = _name_of(_WEIGHT_WORD.sub("", head))
        if not name:
            name, about = _name_of(tail.lstrip(_EDGES))
            tail = ""
        reason = f"{about.rstrip(' ([')} {tail.lstrip(' )]:*,–—')}"
        criterion = _criterion(name, match, reason)
        if criterion:
            yield criterion


def _listed(text: str) -> Iterator[Criterion]:
    """Criteria of running text: "Clarity 30%, Depth (70%)" or "30% clarity and 70% depth"."""
    label = _LIST_LABEL.match(text)
    text = text[label.end() :] if label else text
    matches = list(_WEIGHT.finditer(text))
    if not matches:
        return
    ends = [match.start() for match in matches[1:]] + [len(text)]
    number_first = not text[: matches[0].start()].strip(_EDGES)
    position = 0
    for match, end in zip(matches, ends, strict=True):
        if number_first:
            piece = _AND_AFTER.sub("", text[match.end() : end].lstrip(_EDGES)[:LONGEST_LINE])
            separator = _SEPARATOR.search(piece)
            piece = piece[: separator.start()] if separator else piece
        else:
            piece = text[position : match.start()][-LONGEST_LINE:]
            opening = _AND_BEFORE.match(piece)
            piece = piece[opening.end() :] if opening else piece
            # The name is what follows the last separator, unless nothing does.
            for separator in reversed(list(_SEPARATOR.finditer(piece))):
                if piece[separator.end() :].strip(_EDGES):
                    piece = piece[separator.end() :]
                    break
        position = match.end()
        name, _ = _name_of(_WEIGHT_WORD.sub("", piece))
        criterion = _criterion(name, match, "")
        if criterion:
            yield criterion


def _name_of(text: str) -> tuple[str, str]:
    """A criterion's name, and what is said about it behind a colon, bracket or dash."""
    text = text.lstrip(_EDGES)
    end = _NAME_END.search(text)
    if end is None:
        return text.strip(_EDGES), ""
    about = text[end.end() :]
    return text[: end.start()].strip(_EDGES), about.replace(")", "", 1) if end[0] == "(" else about


def _criterion(name: str, weight: re.Match[str], reason: str) -> Criterion | None:
    percent = float(weight[1] or weight[2])
    if not name.strip() or len(name) > LONGEST_NAME or percent > 100:
        return None
    reason = reason.strip(" \t\r\n*_:;,()–—")
    return Criterion(name=name, weight=percent, reason=reason, reported_weight=percent)


# --- marks ---


def _part_b(rationale: str) -> str:
    """The rationale's score breakdown; the whole of it where that is not labeled."""
    begin = _PART_A.search(rationale)
    part = _PART_B.search(rationale, begin.end() if begin else 0)
    return rationale[part.end() :] if part else rationale


class _Event(NamedTuple):
    """Something that matters in a score breakdown, at [start, end).

    number: which response (from 0), which criterion (-1: a total, not a criterion), or the mark.
    """

    start: int
    end: int
    kind: Literal["response", "criterion", "mark"]
    number: float
    scaled: bool = False


_START, _END = itemgetter(0), itemgetter(1)


def _marks(
    breakdown: str, names: Sequence[str], ids: Sequence[str], repairs: _Repairs, *, cut: bool
) -> dict[str, tuple[float | None, ...]]:
    """Marks by candidate, aligned with `names`; only candidates with at least one mark.

    Reads "Response 1: Clarity 8, Depth 7" as well as "Clarity: Response 1 = 8, Response 2 = 6" and
    "Response 1: 8 on Clarity", and tables of either orientation.

    cut: the text ends too early, so that a number at its very end may lack digits.
    """
    text = breakdown.casefold()
    if "  " in text or "\t" in text or "\xa0" in text:
        text = _SPACES.sub(" ", text)
    if "|" in text:
        text = _untabled(text)
    events = _events(text, names, cut=cut)
    may_be_scaled = "/" in text or "out of" in text
    marks: dict[str, list[float | None]] = {}
    response: int | None = None
    criterion: int | None = None
    newest = "response"
    named_at = 0
    used = -1
    for place, event in enumerate(events):
        if event.kind == "response":
            if newest == "criterion" and not _heads(text, named_at, event.start):
                criterion = None
            response, newest = int(event.number), "response"
            continue
        if event.kind == "criterion":
            if place != used:
                criterion = int(event.number) if event.number >= 0 else None
                newest, named_at = "criterion", event.end
            continue
        target = criterion
        if newest == "response":
            following = events[place + 1] if place + 1 < len(events) else None
            link = _MARK_FIRST.match(text, event.end)
            if (
                link
                and following
                and following.kind == "criterion"
                and following.number >= 0
                and link.end() == following.start
            ):
                target, used = int(following.number), place + 1
        if target is None or response is None:
            continue
        if may_be_scaled and _better_follows(events, place):
            continue
        if not 0 <= response < len(ids):
            repairs.note("extra_candidate")
        elif not MARK_LOW <= event.number <= MARK_HIGH:
            repairs.note("mark_refused")
        else:
            row = marks.setdefault(ids[response], [None] * len(names))
            if row[target] is None:
                row[target] = event.number
        # A number is used once: the next one needs a new criterion, or a new response.
        if used == place + 1:
            continue
        if newest == "response":
            response = None
        else:
            criterion = None
    return {candidate_id: tuple(row) for candidate_id, row in marks.items()}


def _untabled(text: str) -> str:
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
        elif not _TABLE_RULE.fullmatch(line):
            pairs = zip(header[1:], cells[1:], strict=False)
            lines.append(f"{cells[0]}: {' ; '.join(f'{head}: {cell}' for head, cell in pairs)}")
    return "\n".join(lines)


def _events(text: str, names: Sequence[str], *, cut: bool) -> list[_Event]:
    """Responses, criteria and marks in the order of the text, without overlaps."""
    events = [
        _Event(match.start(), match.end(), "response", int(match[1]) - 1)
        for match in _RESPONSE.finditer(text)
    ]
    plain = text.translate(_PLAIN)
    for place, name in enumerate(names):
        words = " ".join(name.casefold().translate(_PLAIN).split())
        events += [
            _Event(start, start + len(words), "criterion", place) for start in _found(words, plain)
        ]
    # Most texts have no such word, and to look for plain words is many times faster.
    if "total" in text or "overall" in text or "average" in text or "sum" in text:
        events += [
            _Event(match.start(), match.end(), "criterion", -1) for match in _TOTALED.finditer(text)
        ]
    weighted, scaled = "weight" in text, "/" in text or "out of" in text
    for match in _MARK.finditer(text):
        start, end = match.span()
        if cut and end == len(text):
            continue
        value = float(match[0])
        if weighted and _WEIGHT_BEFORE.search(text, max(0, start - 20), start):
            continue
        if value < 1 and _FACTOR_AFTER.match(text, end):
            continue
        scale = _SCALE.match(text, end) if scaled else None
        events.append(
            _Event(start, scale.end() if scale else end, "mark", value, scale is not None)
        )
    # Longest first: "Response 1" and "Top 3 picks" hold numbers that are no marks. Sorts keep order.
    events.sort(key=_END, reverse=True)
    events.sort(key=_START)
    kept: list[_Event] = []
    for event in events:
        if not kept or event.start >= kept[-1].end:
            kept.append(event)
    return kept


def _found(words: str, text: str) -> Iterator[int]:
    """Where `words` stand in `text`, not as a part of other words."""
    # A search by hand: to compile a pattern of the names takes longer than the rest of a parse.
    start = text.find(words)
    while words and start >= 0:
        end = start + len(words)
        if not (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum()):
            yield start
        start = text.find(words, end)


def _heads(text: str, start: int, end: int) -> bool:
    """Whether the criterion that ends at `start` still holds for the response at `end`."""
    return bool(_HEADER.match(text, start, end)) or not _SENTENCE_END.search(text, start, end)


def _better_follows(events: Sequence[_Event], place: int) -> bool:
    """Whether a number is passed over: in "3 good points, 8/10" the one out of ten is the mark."""
    if events[place].scaled:
        return False
    for event in events[place + 1 : place + 5]:
        if event.kind != "mark":
            return False
        if event.scaled:
            return True
    return False


def _computed(
    marks: Mapping[str, tuple[float | None, ...]],
    rubric: Rubric | None,
    repairs: _Repairs,
    *,
    cut: bool,
) -> dict[str, float]:
    """sum(weight * mark) / sum(weight) over each candidate's marked criteria, 1-10.

    A candidate marked on less than SMALLEST_SHARE of the weight gets no total, and neither does one
    with a mark missing in a cut text, which may have gone on about it.
    """
    if rubric is None:
        return {}
    weights = [criterion.weight for criterion in rubric.criteria]
    whole = sum(weights)
    totals: dict[str, float] = {}
    for candidate_id, row in marks.items():
        marked = [
            (weight, mark) for weight, mark in zip(weights, row, strict=True) if mark is not None
        ]
        share = sum(weight for weight, _ in marked)
        if len(marked) < len(row):
            repairs.note("mark_missing")
            if cut or share < SMALLEST_SHARE * whole:
                continue
        if share > 0:
            total = sum(weight * mark for weight, mark in marked) / share
            totals[candidate_id] = min(MARK_HIGH, max(MARK_LOW, total))
    return totals
