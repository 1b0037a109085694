"""The report as a file, and as a browser shows it on a phone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pgenrm_agent.evaluation.plots import plot_bars
from pgenrm_agent.evaluation.records import Record, Verdict
from pgenrm_agent.evaluation.report import accuracy_in_words, cells, write_report
from pgenrm_agent.evaluation.running import RunDescription
from pgenrm_agent.evaluation.summary import JudgeSummary, summarise


def records(judge: str, right: Callable[[int], bool]) -> list[Record]:
    found = []
    for number in range(40):
        first, second = (8.0, 3.0) if right(number) else (3.0, 8.0)
        found.append(
            Record(
                judge=judge, run=number % 2, question=f"q{number // 2}",
                user_id=f"user-{number // 2}", group=f"topic {number % 3}", grades=(1.0, 0.0),
                candidates=("chosen", "rejected"), seed=1, seconds=0.5,
                verdict=Verdict(
                    scores=(first, second), probability_best=(first / 11, second / 11),
                    orders=((0, 1), (1, 0)), totals=((first, second), (first, second)), compared=4,
                ),
            )
        )  # fmt: skip
    return found


@pytest.fixture
def rows() -> list[JudgeSummary]:
    return summarise(
        records("p-genrm", lambda number: number % 5 != 0)
        + records("<judge> & co", lambda number: number % 2 == 0)
    )


RUN = RunDescription(
    source="people.jsonl", questions=20, fingerprint="f", engine="scripted", model="a model",
    seed=7, machine="2 CPU cores", bundled_model=True,
)  # fmt: skip


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


def test_words_follow_the_figures(rows: list[JudgeSummary]) -> None:
    good, coin = rows
    assert accuracy_in_words(good).startswith("p-genrm is right in 80.0 % of comparisons")
    assert accuracy_in_words(good).endswith(": better than chance.")
    assert accuracy_in_words(coin).endswith(": no better than chance.")
    shown = {cell.name: cell.shown for cell in cells(good)}
    assert shown["not scored"] == "0 of 40"
    assert shown["slips, %"] == "0.0"
    silent = good.model_copy(update={"accuracy": None, "not_scored": 40})
    assert "scored nothing" in accuracy_in_words(silent)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_runs_out_of_the_screen(
    width: int, rows: list[JudgeSummary], tmp_path: Path
) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    write_report(rows, RUN, tmp_path / "report.html")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.goto((tmp_path / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        broken = "[...document.images].filter(one => !one.complete || !one.naturalWidth).length"
        assert page.evaluate(broken) == 0
        # On a phone the judge's name stands before each figure, by the style sheet.
        named = "[...document.querySelectorAll('td')].map(td => getComputedStyle(td, '::before').content)"
        shown = page.inner_text("table") if width > 400 else str(page.evaluate(named))
        assert "p-genrm" in shown
        browser.close()
