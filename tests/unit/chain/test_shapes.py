"""Layouts of a breakdown, every combination of their parts: read right, or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product

import pytest
from readings import Reading, text_of

from pgenrm_agent.chain import parse_chain
from pgenrm_agent.errors import ChainError

IDS = ("a", "b")
NAMES = ("Clarity", "Depth", "Warmth")
WEIGHTS = (50, 30, 20)
MARKS = ((8, 3, 7), (3, 9, 3))
TOTALS = {"a": 6.3, "b": 4.8}
SEPARATORS = ("\n- ", "\n* ", "\n", "; ", ", ", " + ", " / ", " | ", " and ")


def marked_by_response() -> Iterator[str]:
    """Numbers before the criteria, with what they come to behind the last one or before the first."""
    items = (
        *("{n} {c}", "[{n}] {c}", "({n}) {c}", "{n}: {c}", "{n} - {c}", "{n}/10 {c}", "{n} ({c})"),
        *("{n} for {c}", "**{n}** {c}", "{n} points {c}", "{n} x {c}", "{c} {n}", "{c}: {n}"),
        *("{i}. {c}: {n}", "({i}) {c} {n}", "Criterion {i} ({c}): {n}", "{i}: {c} = {n}"),
        *("C{i} {c}: {n}", "#{i} {c}: {n}", "[{i}] {c}: {n}"),
    )
    totals = ("", " = {t}", "\n= {t}", "\nTotal: {t}", " -> {t}", " ({t})")
    for separator, item, total in product(SEPARATORS, items, totals):
        lines = []
        for number, (marks, shown) in enumerate(zip(MARKS, TOTALS.values(), strict=True), 1):
            row = separator.join(
                item.format(i=i, c=name, n=mark)
                for i, (name, mark) in enumerate(zip(NAMES, marks, strict=True), 1)
            )
            opening = separator if separator.startswith("\n") else " "
            lines.append(f"Response {number}:{opening}{row}{total.format(t=shown)}")
        yield "\n".join(lines)
    for separator, item, total in product(
        ("\n- ", ", "), ("{c} {n}", "{c} ({n})"), ("{t} ", "{t}: ", "({t})\n", "total {t}; ")
    ):
        yield "\n".join(
            f"Response {number}: {total.format(t=shown)}"
            + separator.join(
                item.format(c=name, n=mark) for name, mark in zip(NAMES, marks, strict=True)
            )
            for number, (marks, shown) in enumerate(zip(MARKS, TOTALS.values(), strict=True), 1)
        )


def marked_by_criterion() -> Iterator[str]:
    """The criteria in turn, each over the marks of both responses."""
    heads = (
        *("{c}: ", "{c}\n", "**{c}**\n", "### {c} (weight)\n", "1. {c}\n", "On {c}, "),
        "{c} ({w}%): ",
    )
    items = (
        *("Response {k}: {n}", "Response {k} gets {n}", "Response {k} ({n})", "R{k} {n}"),
        *("{n} for Response {k}", "{n} (Response {k})", "{n} - Response {k}", "{n} Response {k}"),
        *("Response {k}: {n}/10", "Response {k}: {n} – it has 3 steps", "{n} to Response {k}"),
    )
    for head, separator, item in product(heads, (*SEPARATORS, " vs. ", " > "), items):
        yield "".join(
            head.format(c=name, w=weight)
            + ("- " if separator == "\n- " and head.endswith("\n") else "")
            + separator.join(item.format(k=k, n=mark) for k, mark in enumerate(marks, 1))
            + ("\n" if "\n" in head + separator else ". ")
            for name, weight, marks in zip(NAMES, WEIGHTS, zip(*MARKS, strict=True), strict=True)
        )


@pytest.mark.parametrize(
    ("layouts", "most_unread"),
    [(marked_by_response, 0.4), (marked_by_criterion, 0.3)],
    ids=["by-response", "by-criterion"],
)
def test_no_layout_of_a_breakdown_is_read_wrong(layouts, most_unread: float) -> None:  # type: ignore[no-untyped-def]
    criteria = "\n".join(
        f"{i}. {name} ({weight}%): so"
        for i, (name, weight) in enumerate(zip(NAMES, WEIGHTS, strict=True), 1)
    )
    outcomes: Counter[str] = Counter()
    for breakdown in layouts():
        reading: Reading = {
            "criteria": criteria,
            "rationale": f"A. Clarity 50%, Depth 30%, Warmth 20%. B. {breakdown}",
        }
        try:
            chain = parse_chain(text_of(reading), IDS)
        except ChainError:
            outcomes["refused"] += 1
            continue
        if chain.incomplete is not None:
            outcomes["incomplete"] += 1
            continue
        assert chain.totals == pytest.approx(TOTALS), breakdown
        outcomes["read"] += 1
    assert outcomes["read"] > (1 - most_unread) * outcomes.total(), outcomes
