"""Read an evaluation chain: persona, rubric, marks and totals, from what models really write.

Only what the model wrote is read; the prompt never is. Marks and weights are read per criterion and
the totals are recomputed from them (paper Eq. 2: s = Extract(S)); the model's own totals are kept
beside them. Nothing is guessed: a number that cannot be placed, or that is out of range, is left
out and noted in `repairs`.

Which JSON object counts, when there are several: the last one that follows a <JSON_START>; without
that marker, the last one that mentions "better_response".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence

from pgenrm_agent.chain.sections import JSON_START, split_sections
from pgenrm_agent.errors import ChainError
from pgenrm_agent.schema import Criterion, Model, Persona, Rubric

__all__ = ["ParsedChain", "parse_chain"]

JSON_END = "<JSON_END>"
MARK_LOW, MARK_HIGH = 1.0, 10.0
TOTAL_LOW, TOTAL_HIGH = 0.0, 10.0
MOST_CRITERIA = 64
LONGEST_NAME = 120
LONGEST_RATIONALE = 200_000
DEEPEST = 6

_OBJECT_START = re.compile(r"\{")
_TOTALS_KEY = re.compile(r"['\"“]?better[_ ]response['\"”]?\s{0,5}:\s{0,5}", re.I)
_RATIONALE_KEY = re.compile(r"['\"“]?rationale['\"”]?\s{0,5}:\s{0,5}['\"“]?", re.I)
_TOTAL = re.compile(
    r"['\"“]?response[ _-]{0,2}(\d{1,3})['\"”]?\s{0,5}:\s{0,5}['\"“]?(-?\d{1,6}(?:\.\d{1,12})?)"
    r"(?=\s{0,5}(?:/\s{0,3}10\b)?['\"”]?\s{0,20}[,}\n\r])",
    re.I,
)
_NUMBER = re.compile(r"\s*(-?\d{1,6}(?:\.\d{1,30})?)\s*(?:/\s*10(?:\.0{1,3})?)?\s*")
_RESPONSE_KEY = re.compile(r"(?:response)?\s?(\d{1,3})")

_PERCENT = re.compile(r"(\d{1,4}(?:\.\d{1,6})?)\s{0,3}%")
_NAME_EDGES = " \t\r\n*_#`\"'“”()[]{}:;,.=–—-•>|+~"
_BULLET = re.compile(r"\s{0,20}(?:[-*•+]|\(?\d{1,3}[.)]|[A-Za-z][.)])\s{1,5}")
_WEIGHT_WORD = re.compile(
    r"[\s(:–—-]{0,5}\b(?:weight(?:ed)?|importance)(?:\s(?:of|at))?[\s:=]{0,5}$", re.I
)
_PART_A = re.compile(r"(?:^|(?<=[\s\"'*(]))A[.):](?=[\s*])")
_PART_B = re.compile(r"(?:^|(?<=[\s\"'*(.;]))B[.):](?=[\s*])")
_SEGMENT_END = re.compile(r"[,;\n]|\.(?=\s)")

_RESPONSE = re.compile(r"\bresponse[ _#-]{0,2}(\d{1,3})\b", re.I)
# A mark stands alone: no percentage, no part of a larger number, no weight in a product.
_MARK = re.compile(
    r"(?<![\w.%])(?<![\d]/)(-?\d{1,4}(?:\.\d{1,6})?)(?![\d%]|\.\d|\s{0,2}%|[A-Za-z_])"
)
_SCALE = re.compile(r"\s{0,3}(?:/|out of)\s{0,3}10\b")
_NUMBER_FIRST = re.compile(
    r"\s{0,3}(?:/\s{0,3}10|points?|out of 10)?\s{1,3}(?:on|for|in)\s{1,3}[\"'*]{0,3}", re.I
)

_NOTES = re.compile(r"\s{0,10}(?:\[|Pair \d|Tally:|Stated:)")


class ParsedChain(Model):
    """What a chain says. Keys are candidate ids; see `EvaluationChain` for the other fields.

    missing: candidates without a total.
    """

    persona: Persona
    rubric: Rubric | None
    marks: dict[str, tuple[float | None, ...]]
    reported: dict[str, float]
    totals: dict[str, float]
    totals_from: str
    repairs: tuple[str, ...]
    missing: tuple[str, ...]


def parse_chain(text: str, candidate_ids: Sequence[str]) -> ParsedChain:
    """Read one chain.

    Args:
        text: what the model wrote.
        candidate_ids: ids in the order in which the prompt showed the candidates.

    Raises:
        ChainError: with reason "empty" (no text), "no_persona" (no analysis before the scores),
            "no_scores" (nothing that looks like scores) or "no_totals" (scores, but none that is
            readable, in range and of a candidate).
    """
    if not text.strip():
        raise ChainError("the model wrote nothing", reason="empty")
    repairs: dict[str, None] = {}
    body, tail = _scores_text(text, repairs)
    if body is None:
        raise ChainError(
            'there are no scores: no JSON object with "better_response" follows the analysis',
            reason="no_scores",
        )
    sections = split_sections(text[: len(text) - len(tail)])
    persona = _persona(sections.persona or sections.rubric or "")
    rationale, totals = _fields(body, repairs)
    names, rubric = _rubric(sections.rubric, rationale, repairs)
    reported = _reported(totals, candidate_ids, repairs)
    marks = _marks(rationale, names, candidate_ids, repairs) if rubric else {}
    computed = _totals(marks, rubric, repairs)
    if computed:
        totals_from, final = "marks", computed
    else:
        totals_from, final = (
            "reported",
            {one: value for one, value in reported.items() if value >= MARK_LOW},
        )
        if len(final) < len(reported):
            repairs["total_out_of_range"] = None
        marks = {}
    if not final:
        raise ChainError(
            "the scores cannot be read: no mark or total from 1 to 10 belongs to a candidate",
            reason="no_totals",
        )
    return ParsedChain(
        persona=persona,
        rubric=rubric,
        marks=marks,
        reported=reported,
        totals=final,
        totals_from=totals_from,
        repairs=tuple(repairs),
        missing=tuple(one for one in candidate_ids if one not in final),
    )


# --- the JSON object ---


def _scores_text(text: str, repairs: dict[str, None]) -> tuple[str | None, str]:
    """The text of the JSON object, and everything of `text` from where it begins."""
    start = text.rfind(JSON_START)
    if start >= 0 and "{" not in text[start:]:
        # A model that repeats the opening marker after it is done.
        repairs["repeated_marker"] = None
        start = text.rfind(JSON_START, 0, start)
    if start >= 0:
        if text.find(JSON_START) != start:
            repairs["repeated_marker"] = None
        tail = text[start:]
        end = tail.find(JSON_END)
        if end < 0:
            repairs["no_end_marker"] = None
        return tail[len(JSON_START) : end if end >= 0 else len(tail)], tail
    keys = [match.start() for match in _TOTALS_KEY.finditer(text)]
    if not keys:
        return None, ""
    repairs["no_start_marker"] = None
    rationale = [match.start() for match in _RATIONALE_KEY.finditer(text, 0, keys[-1])]
    begin = text.rfind("{", 0, rationale[-1] if rationale else keys[-1])
    begin = begin if begin >= 0 else rationale[-1] if rationale else keys[-1]
    end = text.find(JSON_END, keys[-1])
    return text[begin : end if end >= 0 else len(text)], text[begin:]


def _fields(body: str, repairs: dict[str, None]) -> tuple[str, dict[str, object]]:
    """Rationale (with any other fields, as text) and totals of the JSON object, mended or not."""
    start = _OBJECT_START.search(body)
    if start is not None:
        try:
            # strict=False: models write real line breaks inside strings.
            found, _ = json.JSONDecoder(strict=False).raw_decode(body, start.start())
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            totals: object = None
            parts: list[str] = []
            for key, value in found.items():
                if _TOTALS_KEY.match(f"{key}:"):
                    totals = value
                else:
                    parts.extend(_flatten(value))
            if isinstance(totals, dict):
                return "\n".join(parts)[:LONGEST_RATIONALE], totals
            if parts:
                return "\n".join(parts)[:LONGEST_RATIONALE], {}
    repairs["broken_json"] = None
    keys = list(_TOTALS_KEY.finditer(body))
    key = keys[-1] if keys else None
    totals_text = body[key.end() :] if key else ""
    rationale_key = _RATIONALE_KEY.search(body)
    begin = rationale_key.end() if rationale_key else 0
    rationale = body[begin : key.start() if key and key.start() > begin else len(body)]
    closing = totals_text.find("}")
    if key is not None and closing < 0:
        repairs["truncated"] = None
    region = totals_text if closing < 0 else totals_text[: closing + 1]
    return (
        rationale.replace("\\n", "\n")[:LONGEST_RATIONALE],
        {f"response_{m[1]}": m[2] for m in _TOTAL.finditer(region)},
    )


def _flatten(value: object, depth: int = 0) -> Iterator[str]:
    """A JSON value as lines of text: a nested breakdown reads like a written one."""
    if isinstance(value, dict) and depth < DEEPEST:
        for key, inner in value.items():
            yield f"{key}: {' ; '.join(_flatten(inner, depth + 1))}"
    elif isinstance(value, list) and depth < DEEPEST:
        for inner in value:
            yield from _flatten(inner, depth + 1)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield str(value)


def _reported(
    totals: dict[str, object], ids: Sequence[str], repairs: dict[str, None]
) -> dict[str, float]:
    """The model's own totals, 0-10, of the candidates that there are."""
    found: dict[str, float] = {}
    for key, value in totals.items():
        match = _RESPONSE_KEY.fullmatch(
            key.casefold().replace("_", " ").replace("-", " ").strip()[:40]
        )
        if match is None:
            repairs["unknown_key"] = None
            continue
        place = int(match[1]) - 1
        if not 0 <= place < len(ids):
            repairs["extra_candidate"] = None
            continue
        number = _number(value)
        if number is None or not TOTAL_LOW <= number <= TOTAL_HIGH:
            repairs["total_out_of_range"] = None
            continue
        if isinstance(value, str):
            repairs["number_as_text"] = None
        found.setdefault(ids[place], number)
    return found


def _number(value: object) -> float | None:
    """A finite number, also from text such as "7.5" or "7/10" or {"score": 7}; None for others."""
    if isinstance(value, dict):
        inner = [
            value[key] for key in ("score", "total", "weighted_total", "overall") if key in value
        ]
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


def _persona(section: str) -> Persona:
    lines = [line.strip() for line in section.splitlines()]
    prose = " ".join(line for line in lines if line and not _NOTES.match(line))
    words = prose or " ".join(line for line in lines if line)
    if not words.strip():
        raise ChainError(
            "there is no persona: nothing is written before the scores", reason="no_persona"
        )
    return Persona(text=words)


def _rubric(
    section: str | None, rationale: str, repairs: dict[str, None]
) -> tuple[tuple[str, ...], Rubric | None]:
    """Criteria from the rubric section, else from the rationale's part A."""
    criteria = list(_criteria(section.splitlines())) if section else []
    if not criteria:
        part = _part(rationale, _PART_A, _PART_B) or rationale
        criteria = list(_criteria(_percent_segments(part)))
        if criteria:
            repairs["rubric_from_rationale"] = None
    unique: dict[str, Criterion] = {}
    for criterion in criteria[:MOST_CRITERIA]:
        key = criterion.name.casefold()
        if key in unique:
            repairs["repeated_criterion"] = None
        else:
            unique[key] = criterion
    if not unique:
        return (), None
    total = sum(criterion.weight for criterion in unique.values())
    if abs(total - 100) > 0.5:
        repairs["weights_normalised"] = None
    return tuple(unique), Rubric.normalised(tuple(unique.values()))


def _criteria(lines: Iterable[str]) -> Iterator[Criterion]:
    """A criterion from each line that holds a name and a percentage."""
    for line in lines:
        match = _PERCENT.search(line)
        if match is None:
            continue
        head = line[: match.start()]
        bullet = _BULLET.match(head)
        head = _WEIGHT_WORD.sub("", head[bullet.end() if bullet else 0 :][-4 * LONGEST_NAME :])
        # "**Clarity**: they asked for it (weight: 30%)": the name ends at the first colon.
        name = head.split(":", 1)[0].strip(_NAME_EDGES)
        weight = float(match[1])
        if name and len(name) <= LONGEST_NAME and weight <= 100:
            reason = (head.split(":", 1)[1] if ":" in head else "") + line[match.end() :]
            yield Criterion(
                name=name,
                weight=weight,
                reason=reason.strip(_NAME_EDGES.replace("+", "").replace("-", "")),
            )


def _percent_segments(text: str) -> Iterator[str]:
    """Pieces of running text that each end with a percentage: "Clarity 30%", "Depth (70%"."""
    position = 0
    for match in _PERCENT.finditer(text):
        piece = text[position : match.start()]
        cut = 0
        # The name is what follows the last separator before the number, unless nothing does.
        for separator in _SEGMENT_END.finditer(piece):
            if piece[separator.end() :].strip(_NAME_EDGES):
                cut = separator.end()
        label = _PART_A.search(piece[cut:])
        yield (piece[cut + label.end() :] if label else piece[cut:]) + match[0]
        position = match.end()


def _part(rationale: str, start: re.Pattern[str], end: re.Pattern[str] | None) -> str | None:
    """The rationale's part A or B; None where it is not labelled."""
    begin = start.search(rationale)
    if begin is None:
        return None
    stop = end.search(rationale, begin.end()) if end else None
    return rationale[begin.end() : stop.start() if stop else len(rationale)]


# --- marks ---


def _marks(
    rationale: str, names: Sequence[str], ids: Sequence[str], repairs: dict[str, None]
) -> dict[str, tuple[float | None, ...]]:
    """Marks by candidate, aligned with the rubric; only candidates with at least one mark.

    Reads "Response 1: Clarity 8, Depth 7" as well as "Clarity: Response 1 = 8, Response 2 = 6" and
    "Response 1: 8 on Clarity".
    """
    part = _part(rationale, _PART_B, None)
    text = rationale if part is None else part
    known = re.compile(
        "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)), re.I
    )
    index = {name: place for place, name in enumerate(names)}
    events = sorted(
        [(m.start(), m.end(), "response", m[1]) for m in _RESPONSE.finditer(text)]
        + [(m.start(), m.end(), "name", m[0].casefold()) for m in known.finditer(text)]
        + [(m.start(), m.end(), "mark", m[1]) for m in _MARK.finditer(text)]
    )
    found: dict[str, list[float | None]] = {}
    response: int | None = None
    criterion: int | None = None
    newest = ""
    reached = 0
    for place, (start, end, kind, value) in enumerate(events):
        if start < reached:
            continue  # a number inside a name, such as "Response 1" or "Top 3 picks"
        reached = end
        if kind == "response":
            response, newest = int(value) - 1, "response"
            continue
        if kind == "name":
            if value in index:
                criterion, newest = index[value], "name"
            continue
        if scale := _SCALE.match(text, end):
            reached = scale.end()
        target = criterion
        if criterion is None or newest == "response":
            # "8 on Clarity": the name follows the number.
            follows = events[place + 1] if place + 1 < len(events) else None
            link = _NUMBER_FIRST.match(text, end)
            if link and follows and follows[2] == "name" and link.end() == follows[0]:
                target = index.get(follows[3])
                reached = follows[1]
        if target is None or response is None:
            continue
        if not 0 <= response < len(ids):
            repairs["extra_candidate"] = None
        elif not MARK_LOW <= float(value) <= MARK_HIGH:
            repairs["mark_out_of_range"] = None
        else:
            row = found.setdefault(ids[response], [None] * len(names))
            if row[target] is None:
                row[target] = float(value)
        # A number is used once: the next one needs a new name, or a new response.
        if newest == "response" and target == criterion:
            response = None
        else:
            criterion = None
    return {one: tuple(row) for one, row in found.items()}


def _totals(
    marks: dict[str, tuple[float | None, ...]], rubric: Rubric | None, repairs: dict[str, None]
) -> dict[str, float]:
    """sum(weight * mark) / sum(weight) over each candidate's marked criteria, 1-10."""
    if rubric is None:
        return {}
    weights = [criterion.weight for criterion in rubric.criteria]
    totals: dict[str, float] = {}
    for one, row in marks.items():
        marked = [
            (weight, mark) for weight, mark in zip(weights, row, strict=True) if mark is not None
        ]
        share = sum(weight for weight, _ in marked)
        if share <= 0:
            continue
        if len(marked) < len(row):
            repairs["mark_missing"] = None
        totals[one] = min(
            MARK_HIGH, max(MARK_LOW, sum(weight * mark for weight, mark in marked) / share)
        )
    return totals
