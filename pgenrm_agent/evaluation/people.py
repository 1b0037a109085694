"""Judges on real people's choices, beside the baselines that matter: who is asked, and the table.

Chance is not what a judge has to beat here. Others' choices between the same texts, the length of an
answer, and a fit on embeddings say a great deal of what somebody will choose; what is personal shows
in the choices against the crowd, and in what past choices and statements add.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np

from pgenrm_agent.evaluation.comparisons import credits_of
from pgenrm_agent.evaluation.datasets.people import PEOPLE_SETS
from pgenrm_agent.evaluation.judges import Judge, ShownLess
from pgenrm_agent.evaluation.lineup import JUDGES, READS_PAST, READS_STATED
from pgenrm_agent.evaluation.metrics import Difference, Interval
from pgenrm_agent.evaluation.records import Record
from pgenrm_agent.evaluation.summary import compare, strict_interval
from pgenrm_agent.fields import Model

HeldOut = Literal["users", "prompts"]
HELD_OUT: tuple[HeldOut, ...] = get_args(HeldOut)

PEOPLE_BASELINES = (
    "crowd",
    "longest",
    "shortest",
    "bradley-terry",
    "bradley-terry-personal",
    "own-words",
)
"""What every judge is shown beside, in the order of the table."""

UNSTATED = "unstated"
LENGTHS = ("longest", "shortest")
BETTER_LENGTH = "better length"
GAINS_OVER = ("crowd", "longest", "shortest", BETTER_LENGTH, "bradley-terry", "no past")
"""What a judge is compared with, in the order of the table; of the two lengths, the better one."""
ALL_SETS = "all sets"


class StrictShare(Model):
    """How often a judge is right, strictly, 0-1; the interval resamples users."""

    right: float
    interval: Interval | None
    comparisons: int


class PeopleRow(Model):
    """One judge on one set, or on `ALL_SETS`.

    held_out: "users": people whom nothing was fitted on. "prompts": such people on prompts that
        nothing was fitted on either; the crowd alone knows what others chose there.
    model: the model behind the judge; None for a baseline.
    coverage: share of the comparisons that it scored.
    against: over the choices of which others chose the contrary more often. None without any.
    by_past: over all, by the number of past choices shown, at most; of a judge that reads them.
    unstated: over all, with the user's statements withheld; of a judge that reads them.
    gains: over all, paired, by what it gains over: baselines, and "no past", itself without any.
    """

    data: str
    held_out: HeldOut
    judge: str
    model: str | None
    users: int
    every: StrictShare
    coverage: float
    against: StrictShare | None
    by_past: dict[int, float]
    unstated: float | None
    gains: dict[str, Difference]


class PeopleTable(Model):
    """Rows by what is held out, set and judge."""

    rows: tuple[PeopleRow, ...]


def shown_less(judge: Judge, *, history: int, pasts: Iterable[int], stated: bool) -> list[Judge]:
    """Return a judge that is shown `history` past choices, and the same with fewer or more of them.

    pasts: other numbers of past choices. stated: whether the users stated anything, so that it is
        asked with that withheld, too. A judge that reads neither stands alone.
    """
    judges: list[Judge] = [ShownLess(judge.name, judge, past=history)]
    if judge.name in READS_PAST:
        judges += [
            ShownLess(f"{judge.name}/{past}", judge, past=past)
            for past in sorted(set(pasts) - {history})
        ]
    if stated and judge.name in READS_STATED:
        name = f"{judge.name}/{UNSTATED}"
        judges.append(ShownLess(name, judge, past=history, stated=False))
    return judges


@dataclass(frozen=True)
class Measured:
    """Records of one set by the baselines, or by the judges that ask one model.

    model: its name; None for the baselines. history: past choices shown, where a judge's name says
        nothing else.
    """

    model: str | None
    records: Sequence[Record]
    history: int


def people_rows(
    data: str, held_out: HeldOut, baselines: Measured, judged: Iterable[Measured]
) -> list[PeopleRow]:
    """Return the rows of one set: the baselines, then each model's judges."""
    beside = _Beside.of(_by_judge(baselines.records))
    order = (*PEOPLE_BASELINES, *JUDGES)
    rows = []
    for measured in (baselines, *judged):
        by_judge = _by_judge(measured.records)
        for judge in sorted((name for name in by_judge if "/" not in name), key=order.index):
            rows.append(_row(data, held_out, judge, measured, by_judge, beside))
    return rows


def pooled_rows(
    held_out: HeldOut, sets: Mapping[str, tuple[Measured, Sequence[Measured]]]
) -> list[PeopleRow]:
    """Return the rows of each model's judges over all sets together; none for a model of one set.

    sets: by name, the baselines and the models. Baselines count on the choices that a model was asked
        about; of the two lengths, the better one of each set.
    """
    rows = []
    for model in sorted({str(own.model) for _, judged in sets.values() for own in judged}):
        parts = [
            (data, baselines, own)
            for data, (baselines, judged) in sets.items()
            for own in judged
            if own.model == model
        ]
        if len(parts) < 2:
            continue
        asked: list[Record] = []
        known: defaultdict[str, list[Record]] = defaultdict(list)
        contrary: set[str] = set()
        for data, baselines, own in parts:
            questions = {record.question for record in own.records}
            beside = _Beside.of(_by_judge(baselines.records))
            asked += [
                _of_set(data, record)
                for record in own.records
                if not record.judge.endswith(UNSTATED)  # not in all sets
            ]
            contrary |= {f"{data}/{question}" for question in beside.contrary}
            for name, records in beside.gains_over.items():
                known[BETTER_LENGTH if name in LENGTHS else name] += [
                    _of_set(data, record) for record in records if record.question in questions
                ]
        by_judge, beside = _by_judge(asked), _Beside(dict(known), contrary)
        together = Measured(model, asked, parts[0][2].history)
        rows += [
            _row(ALL_SETS, held_out, judge, together, by_judge, beside)
            for judge in by_judge
            if "/" not in judge
        ]
    return rows


def _of_set(data: str, record: Record) -> Record:
    """Tell questions and users of one set from those of another."""
    return record.model_copy(
        update={"question": f"{data}/{record.question}", "user_id": f"{data}/{record.user_id}"}
    )


@dataclass(frozen=True)
class _Beside:
    """What rows are compared with: records by baseline. contrary: questions the crowd gets wrong."""

    gains_over: dict[str, list[Record]]
    contrary: set[str]

    @classmethod
    def of(cls, known: dict[str, list[Record]]) -> Self:
        # Which length is right more often is a property of the set, whoever is judged.
        lengths = [name for name in LENGTHS if name in known]
        better = max(lengths, key=lambda name: strict_interval(known[name])[0], default="longest")
        return cls(
            gains_over={
                name: known[name] for name in ("crowd", better, "bradley-terry") if name in known
            },
            contrary={
                record.question
                for record in known.get("crowd", [])
                if credits_of([record]) == [0.0]
            },
        )


def _row(
    data: str,
    held_out: HeldOut,
    judge: str,
    measured: Measured,
    by_judge: dict[str, list[Record]],
    beside: _Beside,
) -> PeopleRow:
    records = by_judge[judge]
    every = _share(records)
    few = [record for record in records if record.question in beside.contrary]
    fewer = {
        int(past): strict_interval(shown)[0]
        for name, shown in by_judge.items()
        for base, _, past in [name.partition("/")]
        if base == judge and past.isdigit()
    }
    unstated = by_judge.get(f"{judge}/{UNSTATED}")
    gains_over = {name: those for name, those in beside.gains_over.items() if name != judge}
    if blind := by_judge.get(f"{judge}/0"):
        gains_over["no past"] = blind
    return PeopleRow(
        data=data,
        held_out=held_out,
        judge=judge,
        model=measured.model,
        users=len({record.user_id for record in records}),
        every=every,
        coverage=float(np.mean(~np.isnan(credits_of(records)))),
        against=_share(few) if few else None,
        by_past=dict(sorted({**fewer, measured.history: every.right}.items())) if fewer else {},
        unstated=strict_interval(unstated)[0] if unstated else None,
        gains={name: compare(records, those) for name, those in gains_over.items()},
    )


def _by_judge(records: Iterable[Record]) -> dict[str, list[Record]]:
    by_judge: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_judge[record.judge].append(record)
    return dict(by_judge)


def _share(records: Sequence[Record]) -> StrictShare:
    right, interval = strict_interval(records)
    return StrictShare(right=right, interval=interval, comparisons=len(credits_of(records)))


def people_page(table: PeopleTable) -> str:
    """Return the table as Markdown: an overview for each way to hold out, then each set."""
    parts = []
    for held_out, title in (
        ("users", "People who were held out"),
        ("prompts", "People and prompts that were held out"),
    ):
        rows = [row for row in table.rows if row.held_out == held_out]
        if rows:
            parts += [f"## {title}", _overview([row for row in rows if row.data != ALL_SETS])]
            for data in dict.fromkeys(row.data for row in rows):
                about = _all_sets if data == ALL_SETS else _one_set
                own = [row for row in rows if row.data == data]
                parts.append(f"### {data}\n\n{about(own)}\n\n{_lines(own)}")
    return "\n\n".join(parts) + "\n"


def _overview(rows: Sequence[PeopleRow]) -> str:
    sets = list(dict.fromkeys(row.data for row in rows))
    lines = [["judge", *sets], ["---"] * (len(sets) + 1)]
    for judge, model in dict.fromkeys((row.judge, row.model) for row in rows):
        cells = {row.data: row.every for row in rows if (row.judge, row.model) == (judge, model)}
        lines.append([_name(judge, model), *(_right(cells.get(data)) for data in sets)])
    return _markdown(lines)


def _one_set(rows: Sequence[PeopleRow]) -> str:
    described = PEOPLE_SETS[rows[0].data]
    contrary = max((row.against.comparisons for row in rows if row.against), default=0)
    return (
        f"{described.about[0].upper()}{described.about[1:]}. {_most(rows)} choices of"
        f" {max(row.users for row in rows)} people, {contrary} of them against the crowd."
        f" Source: {described.source}."
    )


def _all_sets(rows: Sequence[PeopleRow]) -> str:
    gains = rows[0].gains
    beside = ", ".join(
        f"{base} {_percent(gains[base].second)}" for base in GAINS_OVER[:-1] if base in gains
    )
    return (
        f"The {_most(rows)} choices of {max(row.users for row in rows)} people that the model was asked"
        f" about. On the same choices (%): {beside}."
    )


def _most(rows: Sequence[PeopleRow]) -> int:
    return max(row.every.comparisons for row in rows)


def _lines(rows: Sequence[PeopleRow]) -> str:
    pasts = sorted({past for row in rows for past in row.by_past})
    table = [_cells(row, pasts) for row in rows]
    used = [title for title in table[0] if any(cells[title] != "-" for cells in table)]
    lines = [["judge", *used], ["---"] * (len(used) + 1)]
    for row, cells in zip(rows, table, strict=True):
        asked = row.every.comparisons
        few = "" if asked == _most(rows) else f", on {asked}"
        lines.append([_name(row.judge, row.model) + few, *(cells[title] for title in used)])
    return _markdown(lines)


def _cells(row: PeopleRow, pasts: Iterable[int]) -> dict[str, str]:
    """Return the figures of a row as they are shown, by title and in their order."""
    return {
        "right": _right(row.every),
        "scored": _percent(row.coverage),
        "against the crowd": _right(row.against),
        **{f"{past} past": _percent(row.by_past.get(past)) for past in pasts},
        "nothing stated": _percent(row.unstated),
        **{f"minus {base}": _gain(row.gains.get(base)) for base in GAINS_OVER},
    }


def _markdown(lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _name(judge: str, model: str | None) -> str:
    return judge if model is None else f"{judge} ({model})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _right(share: StrictShare | None) -> str:
    if share is None:
        return "-"
    interval = share.interval
    within = f" ({100 * interval.low:.0f} to {100 * interval.high:.0f})" if interval else ""
    return f"{100 * share.right:.1f}{within}"


def _gain(gain: Difference | None) -> str:
    if gain is None:
        return "-"
    within = (
        f" ({100 * gain.interval.low:+.1f} to {100 * gain.interval.high:+.1f})"
        if gain.interval
        else ""
    )
    return f"{100 * gain.difference:+.1f}{within}"
