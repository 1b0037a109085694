"""The table of judges on real people's choices: over all, against the crowd, and what adds what."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pgenrm_agent.evaluation.judges import ShownLess
from pgenrm_agent.evaluation.people import (
    Measured,
    PeopleRow,
    PeopleTable,
    people_page,
    people_rows,
    pooled_rows,
    shown_less,
)
from pgenrm_agent.evaluation.records import Record, Verdict

PEOPLE, EACH = 6, 4


def records(judge: str, right: Callable[[int, int], float | None]) -> list[Record]:
    """A record of every choice of every user; `right` gives the credit: 1, 0, 1/2 or None."""
    verdicts = {
        1.0: Verdict(scores=(2.0, 1.0)),
        0.0: Verdict(scores=(1.0, 2.0)),
        0.5: Verdict(scores=(1.0, 1.0)),
        None: Verdict(scores=(None, None), reason="unreadable"),
    }
    return [
        Record(
            judge=judge,
            run=0,
            question=f"{user}-{number}",
            user_id=f"user-{user}",
            group=None,
            grades=(1.0, 0.0),
            candidates=("chosen", "rejected"),
            seed=0,
            seconds=0.1,
            verdict=verdicts[right(user, number)],
        )
        for user in range(PEOPLE)
        for number in range(EACH)
    ]


BASELINES = [
    # Users 0 and 1 went against the crowd in all but one choice, which nobody else met.
    *records("crowd", lambda user, number: None if number == 3 else float(user > 1)),
    *records("longest", lambda user, number: 0.0),
    *records("shortest", lambda user, number: 1.0 if number else 0.0),
    *records("bradley-terry", lambda user, number: 1.0 if user > 1 else 0.0),
    *records("bradley-terry-personal", lambda user, number: 1.0 if user else 0.0),
    *records("bradley-terry-personal/0", lambda user, number: 1.0 if user > 1 else 0.0),
    *records("bradley-terry-personal/8", lambda user, number: 1.0),
]
JUDGED = [
    *records("p-genrm", lambda user, number: 0.5 if user == 5 else 1.0),
    *records("p-genrm/unstated", lambda user, number: 1.0 if number else None),
]


def rows_of(judged: list[Record]) -> list[PeopleRow]:
    baselines = Measured(model=None, records=BASELINES, history=3)
    return people_rows("llmfao", "users", baselines, [Measured("tiny", judged, history=3)])


@pytest.fixture(scope="module")
def table() -> PeopleTable:
    return PeopleTable(rows=tuple(rows_of(JUDGED)))


def test_a_tie_and_what_was_not_scored_are_wrong(table: PeopleTable) -> None:
    rows = {row.judge: row for row in table.rows}
    assert list(rows) == [
        *("crowd", "longest", "shortest", "bradley-terry", "bradley-terry-personal", "p-genrm")
    ]
    assert (rows["crowd"].users, rows["crowd"].every.comparisons) == (6, 24)
    assert rows["crowd"].every.right == pytest.approx(12 / 24)
    assert rows["crowd"].coverage == pytest.approx(18 / 24)
    assert rows["p-genrm"].every.right == pytest.approx(20 / 24)
    assert rows["p-genrm"].coverage == 1
    assert (rows["crowd"].model, rows["p-genrm"].model) == (None, "tiny")


def test_the_choices_against_the_crowd_are_those_that_it_gets_wrong(table: PeopleTable) -> None:
    rows = {row.judge: row for row in table.rows}
    against = {name: row.against for name, row in rows.items()}
    assert all(share is not None and share.comparisons == 6 for share in against.values())
    assert {name: share.right for name, share in against.items() if share} == {
        "crowd": 0,
        "longest": 0,
        "shortest": pytest.approx(4 / 6),
        "bradley-terry": 0,
        "bradley-terry-personal": pytest.approx(3 / 6),
        "p-genrm": 1,
    }


def test_fewer_past_choices_and_nothing_stated_stand_beside(table: PeopleTable) -> None:
    rows = {row.judge: row for row in table.rows}
    personal = rows["bradley-terry-personal"]
    assert personal.by_past == pytest.approx({0: 16 / 24, 3: 20 / 24, 8: 1.0})
    assert personal.gains["no past"].difference == pytest.approx(4 / 24)
    assert personal.unstated is None
    assert rows["p-genrm"].unstated == pytest.approx(18 / 24)
    assert rows["p-genrm"].by_past == {}
    assert rows["bradley-terry"].by_past == {}


def test_gains_are_over_what_matters_and_paired(table: PeopleTable) -> None:
    rows = {row.judge: row for row in table.rows}
    # Of the two lengths, the one that is right more often on this set.
    assert set(rows["p-genrm"].gains) == {"crowd", "shortest", "bradley-terry"}
    assert set(rows["longest"].gains) == {"crowd", "shortest", "bradley-terry"}
    assert set(rows["crowd"].gains) == {"shortest", "bradley-terry"}
    gain = rows["p-genrm"].gains["bradley-terry"]
    assert gain.difference == pytest.approx(4 / 24)
    assert (gain.users, gain.comparisons) == (6, 24)


def test_a_model_that_was_asked_less_is_compared_on_what_it_was_asked() -> None:
    first = [record for record in JUDGED if record.user_id in ("user-0", "user-1", "user-2")]
    rows = rows_of(first)
    (row,) = (row for row in rows if row.model)
    assert (row.users, row.every.comparisons) == (3, 12)
    assert row.gains["crowd"].comparisons == 12
    assert row.gains["crowd"].second == pytest.approx(3 / 12)
    page = people_page(PeopleTable(rows=tuple(rows)))
    assert "| p-genrm (tiny), on 12 |" in page
    assert "| crowd |" in page


def test_the_page_says_who_and_how_many_and_leaves_out_empty_columns(table: PeopleTable) -> None:
    page = people_page(table)
    assert page.startswith("## People who were held out\n\n| judge | llmfao |\n")
    assert "24 choices of 6 people, 6 of them against the crowd. Source: LLMFAO" in page
    (head,) = (line for line in page.splitlines() if line.startswith("| judge | right"))
    assert head.count("|") == page.splitlines()[page.splitlines().index(head) + 1].count("|")
    for title in ("0 past", "3 past", "8 past", "nothing stated", "minus crowd", "minus no past"):
        assert f"| {title} |" in head
    without = [row for row in table.rows if row.judge in ("crowd", "longest")]
    short = people_page(table.model_copy(update={"rows": tuple(without)}))
    assert "past |" not in short
    assert "nothing stated" not in short


def test_all_sets_together_count_what_the_model_was_asked(table: PeopleTable) -> None:
    baselines = Measured(model=None, records=BASELINES, history=3)
    half = [record for record in JUDGED if record.user_id < "user-3"]
    sets = {
        "llmfao": (baselines, [Measured("tiny", JUDGED, history=3), Measured("other", half, 3)]),
        "polis": (baselines, [Measured("tiny", half, history=3)]),
    }
    (row,) = pooled_rows("users", sets)
    assert (row.data, row.judge, row.model) == ("all sets", "p-genrm", "tiny")
    assert (row.every.comparisons, row.users) == (36, 9)
    # Of llmfao 20 of 24 are right, of polis 12 of 12; `shortest` is right in three of four.
    assert row.every.right == pytest.approx(32 / 36)
    assert row.gains["better length"].second == pytest.approx(27 / 36)
    assert row.gains["crowd"].second == pytest.approx((3 * 4 + 3) / 36)
    assert row.unstated is None
    page = people_page(PeopleTable(rows=(*table.rows, row)))
    assert "| judge | llmfao |\n" in page
    assert "### all sets\n\nThe 36 choices of 9 people that the model was asked about." in page
    assert "(%): crowd 41.7, better length 75.0, bradley-terry" in page


def test_a_judge_is_asked_with_less_where_it_reads_that() -> None:
    class Named:
        settings: dict[str, object] = {}  # noqa: RUF012

        def __init__(self, name: str) -> None:
            self.name = name

    def names(name: str, *, stated: bool) -> list[str]:
        judges = shown_less(Named(name), history=3, pasts=(8, 0, 3), stated=stated)  # type: ignore[arg-type]
        assert all(isinstance(judge, ShownLess) for judge in judges)
        return [judge.name for judge in judges]

    assert names("crowd", stated=True) == ["crowd"]
    assert names("own-words", stated=True) == ["own-words"]
    assert names("p-genrm", stated=False) == ["p-genrm", "p-genrm/0", "p-genrm/8"]
    assert names("p-genrm", stated=True)[-1] == "p-genrm/unstated"
