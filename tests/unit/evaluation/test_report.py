"""The report as a file, and as a browser shows it on a phone."""

from __future__ import annotations

import html
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgenrm_agent.evaluation.lineup import JUDGES
from pgenrm_agent.evaluation.plots import plot_accuracy, plot_bars
from pgenrm_agent.evaluation.records import Record, Verdict
from pgenrm_agent.evaluation.report import accuracy_in_words, cells, write_report
from pgenrm_agent.evaluation.running import RunDescription
from pgenrm_agent.evaluation.summary import JudgeSummary, summarize

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def records(judge: str, right: Callable[[int], bool]) -> list[Record]:
    judged = []
    for number in range(40):
        first, second = (8.0, 3.0) if right(number) else (3.0, 8.0)
        judged.append(
            Record(
                judge=judge,
                run=number % 2,
                question=f"q{number // 2}",
                user_id=f"user-{number // 2}",
                group=f"topic {number % 3}",
                grades=(1.0, 0.0),
                candidates=("chosen", "rejected"),
                seed=1,
                seconds=0.5,
                verdict=Verdict(
                    scores=(first, second),
                    probability_best=(first / 11, second / 11),
                    orders=((0, 1), (1, 0)),
                    totals=((first, second), (first, second)),
                    compared=4,
                ),
            )
        )
    return judged


@pytest.mark.parametrize("name", ["$x^{$", "$\\frac$ & <b>", "costs $5 or $6", "a\\b_{"])
def test_a_name_is_no_formula(name: str) -> None:
    drawn = plot_bars({name: 1.0, "plain": 2.0}, name)
    assert drawn.count(html.escape(name, quote=False)) == 2
    judged = summarize(records(name, lambda number: number % 2 == 0))
    assert html.escape(name, quote=False) in plot_accuracy(judged)


@pytest.fixture
def rows() -> list[JudgeSummary]:
    return summarize(
        records("p-genrm", lambda number: number % 5 != 0)
        + records("<judge> & co", lambda number: number % 2 == 0)
    )


def lists_of_all_judges() -> list[JudgeSummary]:
    """The widest report that there is: all judges, lists, several runs, long names."""
    draw = random.Random(1)
    judged = []
    for judge in JUDGES:
        for number in range(24):
            samples = [tuple(grade + draw.gauss(3, 1) for grade in range(4)) for _ in range(4)]
            means = tuple(sum(column) / 4 for column in zip(*samples, strict=True))
            judged.append(
                Record(
                    judge=judge,
                    run=number % 2,
                    question=f"q{number // 2}",
                    user_id=f"user-{number // 4}",
                    grades=(0, 1, 2, 3),
                    seed=1,
                    seconds=12.5,
                    group=f"is-it-right-that-{'-'.join(['everybody'] * 6)}-talks_side-{number % 5}",
                    candidates=("a", "b", "c", "d"),
                    verdict=Verdict(
                        scores=means,
                        probability_best=tuple(mean / sum(means) for mean in means),
                        orders=tuple(tuple(draw.sample(range(4), 4)) for _ in samples),
                        totals=tuple(samples),
                        compared=16,
                        slips=3,
                        prompt_tokens=1_234_567,
                        completion_tokens=7_654_321,
                        prototype=f"prototype-{number % 3}",
                    ),
                )
            )
    return summarize(judged)


RUN = RunDescription(
    source="people.jsonl",
    questions=20,
    fingerprint="f",
    engine="scripted",
    model="a model",
    seed=7,
    machine="2 CPU cores",
    bundled_model=True,
)


def test_the_report_needs_nothing_else(rows: list[JudgeSummary], tmp_path: Path) -> None:
    write_report(rows, RUN, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text
    assert "&lt;judge&gt; &amp; co" in text
    assert "no better than chance" in text
    assert "This is the bundled model" in text
    assert text.count("data:image/svg+xml;base64,") == 6
    assert "Kendall" not in text  # nobody was asked about lists
    write_report(rows, RUN, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == text


@pytest.mark.filterwarnings("error")
def test_long_names_leave_room_for_their_bars() -> None:
    names = [
        f"is-it-right-that-everybody-should-{'-'.join('talk')}-about-it_{side}"
        for side in ("yes", "no")
    ]
    drawn = plot_bars({name * 2: 50.0 for name in names}, "accuracy, %")
    assert "…" in drawn
    assert all(name not in drawn for name in names)
    assert "about-it_yes" in drawn  # what tells the two apart is at the end


def test_lists_have_their_columns_and_prototypes_too(tmp_path: Path) -> None:
    write_report(lists_of_all_judges(), RUN, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for name in ("Kendall", "NDCG", "Spearman", "Spearman of systems", "per prototype, %", "ECE"):
        assert f'<th scope="row">{name}</th>' in text
    for title in ("Position bias", "Calibration of p-genrm", "Accuracy by number of samples"):
        assert f"<h2>{title}</h2>" in text


def test_words_follow_the_figures(rows: list[JudgeSummary]) -> None:
    good, coin = rows
    assert accuracy_in_words(good).startswith("p-genrm is right in 80.0 % of comparisons")
    assert accuracy_in_words(good).endswith(": better than chance.")
    assert accuracy_in_words(coin).endswith(": no better than chance.")
    few = good.model_copy(update={"interval": None, "against_chance": "unknown"})
    assert accuracy_in_words(few).endswith(": too few users to say, fewer than 6.")
    shown = cells(good)
    assert shown["not scored"] == "0 of 40"
    assert shown["slips, %"] == "0.0"
    assert shown["strict, %"] == shown["accuracy, %"] == "80.0 ± 0.0"
    assert shown["coverage, %"] == "100.0"
    assert (shown["contradictory, %"], shown["unchecked, %"]) == ("0.0", "-")
    silent = good.model_copy(update={"accuracy": None, "not_scored": 40})
    assert "scored nothing" in accuracy_in_words(silent)


def test_ties_and_what_was_not_scored_are_told_beside_the_headline() -> None:
    judged = records("p-genrm", lambda number: True)
    for number, scores in enumerate([(None, None)] * 10 + [(5.0, 5.0)] * 10):
        verdict = judged[number].verdict.model_copy(update={"scores": scores})
        judged[number] = judged[number].model_copy(update={"verdict": verdict})
    (row,) = summarize(judged)
    words = accuracy_in_words(row)
    # Of 40: ten not scored, ten tied, twenty right.
    assert words.startswith("p-genrm is right in 50.0 % of comparisons")
    assert words.endswith(
        "It scored 75.0 % of them; of these it is right in 83.3 %, a tie counted as one half."
    )


# Text that a phone's screen shows, in CSS pixels; a plot's text is as much smaller as its image is.
SMALLEST_TEXT = """() => {
    const sizes = [];
    for (const node of document.querySelectorAll('main *'))
        if ([...node.childNodes].some(one => one.nodeType === Node.TEXT_NODE && one.data.trim())
            && node.getClientRects().length)
            sizes.push(parseFloat(getComputedStyle(node).fontSize));
    return Math.min(...sizes);
}"""
LEAST_SCALE = "Math.min(...[...document.images].map(one => one.width / one.naturalWidth))"
BROKEN = "[...document.images].filter(one => !one.complete || !one.naturalWidth).length"
NAMES = "[...document.querySelectorAll('td')].map(one => getComputedStyle(one, '::before').content)"
# What sticks out on the right and does not scroll inside a box of its own.
STICKING_OUT = """() => [...document.querySelectorAll('main *')]
    .filter(one => !one.closest('.scroll') && one.getBoundingClientRect().right > innerWidth + 0.5)
    .map(one => one.outerHTML.slice(0, 80))"""


@pytest.mark.long
@pytest.mark.parametrize("widest", [False, True], ids=["pairs", "lists of all judges"])
def test_a_browser_shows_all_of_it_without_scrolling_sideways(
    widest: bool, rows: list[JudgeSummary], browser: Browser, tmp_path: Path
) -> None:
    write_report(lists_of_all_judges() if widest else rows, RUN, tmp_path / "report.html")
    for width, height in ((390, 844), (320, 568), (1280, 800)):
        phone = width < 700
        page = browser.new_page(viewport={"width": width, "height": height}, is_mobile=phone)
        page.goto((tmp_path / "report.html").as_uri())
        page.click("summary")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        # A phone's browser would rather zoom out than scroll.
        assert page.evaluate("visualViewport.scale") == 1
        assert page.evaluate(STICKING_OUT) == []
        assert page.evaluate(BROKEN) == 0
        assert page.evaluate(SMALLEST_TEXT) >= 12
        if width >= 390:
            assert (
                page.evaluate(LEAST_SCALE) >= 0.98
            )  # plots are drawn at the size they are seen in
        # On a phone the judge's name stands before each figure, by the style sheet.
        shown = str(page.evaluate(NAMES)) if phone else page.inner_text("table")
        assert "p-genrm" in shown
        page.close()
