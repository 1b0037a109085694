"""Find the JSON object with the scores in what a model wrote, whole, broken or cut off.

Which object counts, when there are several: the last complete one after the heading of part 2; where
none is complete, the last one from which a number can be read. Text inside a JSON string is never an
object of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pgenrm_agent.chain.decoder import DECODER
from pgenrm_agent.chain.parsed import MARK_HIGH, MARK_LOW
from pgenrm_agent.chain.response_names import numbered, response_key
from pgenrm_agent.chain.sections import JSON_MARKER
from pgenrm_agent.chain.totals import read_total
from pgenrm_agent.chain.words import RESPONSES, SCORES, TOTALS
from pgenrm_agent.errors import ChainError
from pgenrm_agent.fields import whole_characters

# What a chain of a few thousand tokens never exceeds; together they bound the time for any text.
MOST_OBJECTS = 8
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
    rf"(?<!\\){_QUOTE}?(?:{'|'.join(RESPONSES)})[ _-]{{0,2}}(\d{{1,3}}){_QUOTE}?\s{{0,5}}:\s{{0,5}}{_QUOTE}?"
    r"(-?\d{1,6}(?:[.,]\d{1,30})?(?:\s{0,3}(?:/|out of)\s{0,3}\d{1,3}\b)?)"
    rf"(?={_QUOTE}?\s{{0,20}}[,}}\n\r])",
    re.I,
)
_VERDICT = re.compile(rf"{_QUOTE}?([^{{}}\"'“”,:\n]{{1,40}}){_QUOTE}?\s{{0,20}}(?=[,}}\n\r]|$)")
_LABEL_KEYS = ("criterion", "name", "response", "candidate")
_NAMES_OF_TOTALS = (*RESPONSES, *SCORES, *TOTALS)


@dataclass(frozen=True)
class ScoresObject:
    """The JSON object of a chain.

    begin: where it, or its opening marker, begins in the text.
    totals: what stands in its place for totals, by key, unread. verdicts: what stands in its other
        places, of which one may name the best response.
    cut: the text ends inside it. notes: codes of what was mended.
    """

    begin: int
    rationale: str
    totals: Mapping[str, object]
    verdicts: Mapping[str, object] = field(default_factory=dict)
    cut: bool = False
    notes: tuple[str, ...] = ()


class _Block(NamedTuple):
    """A stretch of text that may hold the JSON object.

    From a start marker (at `begin`; what follows it is at `body`) to the last end marker before the
    next start; without a start marker, from the brace before the first of the object's keys.
    """

    begin: int
    body: int
    end: int


def scores_object(text: str, after_heading: int) -> ScoresObject:
    """The JSON object that counts: see the module's docstring.

    after_heading: where part 2 begins.

    Raises ChainError "no_scores" when there is none.
    """
    low = text.casefold()
    starts = (after_heading, 0) if any(word in low for word in ("better", *RESPONSES)) else ()
    for start in dict.fromkeys(starts):
        blocks, notes = _blocks(text, start)
        if answer := _decoded(text, blocks):
            return replace(answer, notes=notes)
        mended: ScoresObject | None = None
        for block in reversed(blocks):
            answer = _mended(text, block)
            if answer and (mended is None or (answer.totals and not mended.totals)):
                mended = answer
        if mended:
            cut = ("truncated",) if mended.cut else ()
            return replace(mended, notes=(*notes, "broken_json", *cut))
    raise ChainError(
        'there are no scores: no JSON object with "better_response" follows the analysis',
        reason="no_scores",
    )


def last_scores(text: str) -> Mapping[str, object]:
    """The last JSON object in `text` that gives responses scores, by key, unread; empty without one."""
    place = text.rfind("{", 0, text.rfind("}") + 1)
    for _ in range(MOST_OBJECTS):
        if place < 0:
            break
        try:
            value, _ = DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = text.find("}", place)
            scores = _TOTAL.finditer(numbered(text[place : end + 1].casefold()))
            value = {f"response_{score[1]}": score[2] for score in scores}
        if isinstance(value, dict) and any(response_key(key) is not None for key in value):
            return value
        place = text.rfind("{", 0, place)
    return {}


def _blocks(text: str, start: int) -> tuple[list[_Block], tuple[str, ...]]:
    """Where the object may be, in order, and what had to be mended; see _Block."""
    notes: list[str] = []
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
            notes.append("repeated_marker")
        if markers[-1][1].casefold() == "start":
            notes.append("no_end_marker")
        return blocks[-MOST_OBJECTS:], tuple(notes)
    key = _TOTALS_KEY.search(text, start)
    if key is None:
        return [], ()
    rationale = _RATIONALE_KEY.search(text, start, key.start())
    first = min(key.start(), rationale.start()) if rationale else key.start()
    brace = text.rfind("{", start, first + 1)
    begin = brace if brace >= 0 else first
    ends = (marker.start() for marker in reversed(markers) if marker.start() > key.start())
    return [_Block(begin, begin, next(ends, len(text)))], ("no_start_marker",)


def _decoded(text: str, blocks: Sequence[_Block]) -> ScoresObject | None:
    """The last complete JSON object that has totals."""
    answer: ScoresObject | None = None
    reached = 0
    for block in blocks:
        # A start marker inside a string of the object before is text.
        place = text.find("{", block.body, block.end) if block.begin >= reached else -1
        for _ in range(MOST_OBJECTS):
            if place < 0:
                break
            try:
                value, reached = DECODER.raw_decode(text, place)
            except (ValueError, RecursionError):
                break
            answer = _of_object(value, block.begin) or answer
            place = text.find("{", reached, block.end)
    return answer


def _of_object(value: object, begin: int) -> ScoresObject | None:
    if not isinstance(value, dict):
        return None
    key_of_totals = _key_of_totals(value)
    totals: object = None
    parts: list[str] = []
    for key, inner in value.items():
        if key == key_of_totals:
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
    rationale = whole_characters("\n".join(parts))[:LONGEST_RATIONALE]
    written = totals if isinstance(totals, dict) else {}
    return ScoresObject(begin, rationale, written, {**value, **written})


def _key_of_totals(value: Mapping[str, object]) -> str | None:
    """The key under which the totals stand: "better_response", or what a model made of it."""
    alike: list[str] = []
    for key, inner in value.items():
        name = key.strip().casefold().replace(" ", "_")
        if name == "better_response":
            return key
        if (
            isinstance(inner, dict)
            and inner
            and any(word in name for word in _NAMES_OF_TOTALS)
            and all(
                response_key(k) is not None and read_total(v) is not None for k, v in inner.items()
            )
        ):
            alike.append(key)
    return alike[0] if len(alike) == 1 else None


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


def _mended(text: str, block: _Block) -> ScoresObject | None:
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
    for total in _TOTAL.finditer(numbered(region.casefold())):
        totals.setdefault(f"response_{total[1]}", read_total(total[2]))
    verdict = _VERDICT.match(region)
    verdicts = {"better_response": verdict[1]} if verdict else {}
    return ScoresObject(block.begin, rationale[:LONGEST_RATIONALE], totals, verdicts, cut)


class Reported(NamedTuple):
    """Totals that a model wrote, by candidate id.

    off_scale: a number that is no total from 1 to 10, so that the others may not be either.
    """

    totals: dict[str, float]
    notes: tuple[str, ...]
    off_scale: float | None


def read_totals(written: Mapping[str, object], ids: Sequence[str]) -> Reported:
    """The totals, 1-10, of the candidates that there are, in the order in which they were shown.

    Raises ChainError "no_totals" where the responses are numbered from 0.
    """
    totals: dict[str, float] = {}
    notes: dict[str, None] = {}
    off_scale: float | None = None
    for key, value in written.items():
        place = response_key(key)
        if place is None:
            notes["unknown_key"] = None
        elif place < 0:
            raise ChainError(
                f"the responses are numbered from 0 ({key!r:.40}), and the prompt's from 1: whose the"
                " totals are is not sure",
                reason="no_totals",
            )
        elif place >= len(ids):
            notes["extra_candidate"] = None
        else:
            number = read_total(value)
            if number is None or not MARK_LOW <= number <= MARK_HIGH:
                notes["total_refused"] = None
                off_scale = number if off_scale is None else off_scale
                continue
            if isinstance(value, str):
                notes["number_as_text"] = None
            totals.setdefault(ids[place], number)
    return Reported(totals, tuple(notes), off_scale)
