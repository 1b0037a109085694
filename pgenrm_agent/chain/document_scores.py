"""Read the scores of a chain that is one JSON object, also where nothing held the model to its schema.

A server that knows no schemas, or only JSON objects, lets a model write marks under the names of their
criteria, on a scale that it states beside them, or with totals of its own. All of that counts as it
was meant, or the chain is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from pgenrm_agent.chain.numbers import scale_in
from pgenrm_agent.chain.parsed import MARK_HIGH, MARK_LOW
from pgenrm_agent.chain.response_names import is_winner_key, response_key, winner_in
from pgenrm_agent.chain.totals import read_total, stated_top
from pgenrm_agent.errors import ChainError

Row: TypeAlias = tuple[float | None, ...]

TEN = 10.0
ROUNDING = 0.051
_TOTAL_KEY = re.compile(
    r"(?:(?:weighted|overall|final)_?)?(?:total|score|mark|result|average)s?|overall|sum"
)
_SCALE_KEY = re.compile(r"(?:(?:mark|score|rating|scoring)s?_)?(?:scale|range)|out_of")
_MOST_KEY = re.compile(r"max(?:imum)?(?:_(?:mark|score|point|rating|value|possible)s?)?")
_MARK_KEYS = ("mark", "score", "value", "rating", "points")
_NAME_KEYS = ("criterion", "name", "criterion_name", "criteria")
_RESPONSE_KEYS = ("response", "candidate", "label", "id", "name", "response_id")
_SPACES = str.maketrans("_-", "  ")


class Scores(NamedTuple):
    """Marks, aligned with the criteria, and reasons, by candidate id.

    reported: totals that the model wrote although nobody asked. winner: the candidate that it says is
    the best one, where it does.
    """

    marks: dict[str, Row]
    reasons: dict[str, str]
    reported: dict[str, float]
    winner: str | None


class _Mark(NamedTuple):
    """A number, and the top of its scale where that is stated."""

    value: float
    top: float | None = None


def is_beside_scores(key: str) -> bool:
    """Whether a key of the whole object says something about the scores: their scale, or totals."""
    name = _plain(key).replace(" ", "_")
    patterns = (_TOTAL_KEY, _SCALE_KEY, _MOST_KEY)
    return is_winner_key(key) or any(pattern.fullmatch(name) for pattern in patterns)


def read_scores(
    document: Mapping[str, object],
    names: Sequence[str],
    rows: Sequence[object],
    candidate_ids: Sequence[str],
) -> Scores:
    """Return the scores in a chain's object.

    names, rows: the criteria's names, and what is written of each, where its scale may stand, too. A
    candidate whose marks cannot be told apart has none.

    Raises ChainError "no_scores" where there are none, "no_totals" where their scale is unknown or the
    responses are numbered from 0.
    """
    written = _by_response(document.get("scores"))
    top = _top_in(document) or _top_in(document.get("scores"))
    tops = [_top_in(row, of_one=True) or top for row in rows]
    called = set(map(_plain, names))
    reading = Scores({}, {}, {}, None)
    marked: dict[str, list[_Mark | None]] = {}
    for place, candidate_id in enumerate(candidate_ids):
        score = written.get(place)
        own = score if isinstance(score, Mapping) else {}
        given = own.get("marks", own) if own else score
        # A criterion may be called "Range".
        own_top = _top_in({key: own[key] for key in own if _plain(key) not in called})
        row = _row(given, names, tops if own_top is None else [own_top] * len(names))
        if row is not None:
            marked[candidate_id] = row
        total = _own_total(own, row)
        if total is not None:
            reading.reported[candidate_id] = total
        if isinstance(why := own.get("why"), str) and why.strip():
            reading.reasons[candidate_id] = why.strip()
    reading.marks.update(_on_one_scale(marked))
    return _with_what_stands_beside(reading, document, candidate_ids, marked)


def _by_response(scores: object) -> dict[int, object]:
    """What is written for each response, from 0; None where two things are."""
    pairs: list[tuple[str, object]] = []
    if isinstance(scores, Mapping):
        pairs = [(str(key), value) for key, value in scores.items()]
    elif isinstance(scores, list):
        for entry in scores:
            label = _label_in(entry, _RESPONSE_KEYS)
            if label is None:
                raise ChainError("there are no scores by response", reason="no_scores")
            pairs.append((label, entry))
    if not isinstance(scores, Mapping | list):
        raise ChainError("there are no scores", reason="no_scores")
    written: dict[int, object] = {}
    for key, value in pairs:
        place = response_key(key)
        if place is None:
            continue
        if place < 0:
            raise ChainError(
                f"the responses are numbered from 0 ({key!r}), and the prompt's from 1: whose the"
                " marks are is not sure",
                reason="no_totals",
            )
        written[place] = value if written.setdefault(place, value) == value else None
    return written


def _label_in(entry: object, keys: Sequence[str]) -> str | None:
    if not isinstance(entry, Mapping):
        return None
    labels = [entry[key] for key in keys if isinstance(entry.get(key), str | int)]
    return str(labels[0]) if labels else None


def _row(
    given: object, names: Sequence[str], tops: Sequence[float | None]
) -> list[_Mark | None] | None:
    """One mark a criterion; None where it cannot be told which mark is whose."""
    if isinstance(given, list) and len(given) == len(names):
        values: Sequence[object] = given
        named = [_named_mark(value) for value in given]
        if any(pair is not None for pair in named):
            given = dict(pair for pair in named if pair is not None)
            if len(given) < len(names):
                return None
    if isinstance(given, Mapping):
        plain_names = [_plain(name) for name in names]
        by_name: dict[str, object] = {}
        for key, value in given.items():
            by_name.setdefault(_plain(str(key)), value)
        if len(set(plain_names)) < len(names) or not set(plain_names) & set(by_name):
            return None
        values = [by_name.get(name) for name in plain_names]
    elif not isinstance(given, list) or len(given) != len(names):
        return None
    return [_mark(value, top) for value, top in zip(values, tops, strict=True)]


def _named_mark(value: object) -> tuple[str, object] | None:
    """The criterion's name in {"criterion": "Clarity", "score": 8} or {"Clarity": 8}, and the mark."""
    if not isinstance(value, Mapping):
        return None
    name = _label_in(value, _NAME_KEYS)
    if name is not None:
        return name, value
    if len(value) == 1 and not set(value) & set(_MARK_KEYS):
        return next((str(key), mark) for key, mark in value.items())
    return None


def _mark(value: object, top: float | None) -> _Mark | None:
    if isinstance(value, Mapping):
        inner = [value[key] for key in _MARK_KEYS if key in value]
        if len(inner) != 1 or isinstance(inner[0], Mapping):
            return None
        return _mark(inner[0], _top_in(value, of_one=True) or top)
    number = read_total(value)
    if number is None:
        return None
    stated = stated_top(value)
    if stated is None and top is not None:
        return _Mark(number * TEN / top, top) if number <= top else None
    return _Mark(number, stated)


def _top_in(fields: object, *, of_one: bool = False) -> float | None:
    """The top of the scale that is stated under a key such as "scale" or "out_of".

    of_one: the fields are of a single mark or criterion, so that "max" is its scale's, and not a total's.

    Raises ChainError "no_totals" where a scale is stated and unknown.
    """
    for key, value in fields.items() if isinstance(fields, Mapping) else ():
        name = _plain(key).replace(" ", "_")
        is_most = _MOST_KEY.fullmatch(name) is not None
        if not is_most and not _SCALE_KEY.fullmatch(name):
            continue
        words = f"scale: {value}".casefold() if isinstance(value, str) else ""
        last = value[-1] if isinstance(value, list) and value else value
        top = scale_in(words) or read_total(last)
        if top is None or top <= 1 or (is_most and not of_one and top != TEN):
            raise ChainError(
                f"the scale of the marks is unknown: {key!r:.40} is {value!r:.40}",
                reason="no_totals",
            )
        return top
    return None


def _on_one_scale(rows: Mapping[str, Sequence[_Mark | None]]) -> dict[str, Row]:
    """The marks from 1 to 10.

    Raises ChainError "no_totals" where one is out of that, or has no scale beside others on another.
    """
    marks = [mark for row in rows.values() for mark in row if mark is not None]
    off_scale = [mark.value for mark in marks if not MARK_LOW <= mark.value <= MARK_HIGH]
    if off_scale:
        raise ChainError(
            f"a mark is {off_scale[0]:g}, and the scale is {MARK_LOW} to {MARK_HIGH}: what the other"
            " marks mean is unknown",
            reason="no_totals",
        )
    if any(mark.top not in (None, TEN) for mark in marks) and any(
        mark.top is None for mark in marks
    ):
        raise ChainError(
            "some marks are on another scale, and the others have none stated", reason="no_totals"
        )
    return {
        candidate_id: tuple(None if mark is None else mark.value for mark in row)
        for candidate_id, row in rows.items()
    }


def _own_total(score: Mapping[str, object], row: Sequence[_Mark | None] | None) -> float | None:
    """The total that a model wrote beside a response's marks; their plain sum or mean is none."""
    if row is None or "marks" not in score:
        return None
    totals = [
        total
        for key, value in score.items()
        if key != "marks"
        and _TOTAL_KEY.fullmatch(_plain(str(key)).replace(" ", "_"))
        and (total := read_total(value)) is not None
    ]
    return totals[0] if len(totals) == 1 and _is_weighted(totals[0], row) else None


def _is_weighted(total: float, row: Sequence[_Mark | None]) -> bool:
    values = [mark.value for mark in row if mark is not None]
    if not values or not MARK_LOW <= total <= MARK_HIGH:
        return False
    return all(abs(total - plain) > ROUNDING for plain in (sum(values), sum(values) / len(values)))


def _with_what_stands_beside(
    reading: Scores,
    document: Mapping[str, object],
    candidate_ids: Sequence[str],
    rows: Mapping[str, Sequence[_Mark | None]],
) -> Scores:
    """Add the totals and the winner that the whole object names, also within its scores."""
    scores = document.get("scores")
    fields = {**document, **(scores if isinstance(scores, Mapping) else {})}
    for key, value in fields.items():
        if key == "scores" or not is_beside_scores(key) or not isinstance(value, Mapping):
            continue
        for label, written in value.items():
            place, total = response_key(str(label)), read_total(written)
            if place is None or total is None or not 0 <= place < len(candidate_ids):
                continue
            candidate_id = candidate_ids[place]
            if _is_weighted(total, rows.get(candidate_id, ())):
                reading.reported.setdefault(candidate_id, total)
    winner = winner_in(fields, len(candidate_ids))
    return reading if winner is None else reading._replace(winner=candidate_ids[winner])


def _plain(name: str) -> str:
    return " ".join(name.casefold().translate(_SPACES).split())
