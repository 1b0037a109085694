"""What somebody who waits is told."""

from __future__ import annotations

import time

import pytest
import rich.progress  # noqa: F401  keeps the clock that it finds, so before a test replaces it

from pgenrm_agent import progress
from pgenrm_agent.progress import counting, counting_tasks, waiting


def test_lines_have_a_rate_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with counting("rows") as tell:
        tell(4, 104)  # by an earlier start
        now = 20.0
        tell(14, 104)
        now = 40.0
        tell(24, 104)
        now = 45.0
        tell(34, 104)
        now = 80.0
        tell(84, 104)
    assert capsys.readouterr().err.splitlines() == [
        "24 of 104 rows, 0.50 a second, 160 s left",
        "84 of 104 rows, 1.00 a second, 20 s left",
    ]


def test_every_task_has_its_own_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with counting_tasks() as tell:
        tell("personas", 0, 10)
        now = 40.0
        tell("personas", 10, 10)
        tell("epochs", 0, 8)
        now = 80.0
        tell("epochs", 2, 8)
    assert capsys.readouterr().err.splitlines() == [
        "10 of 10 personas, 0.25 a second, 0 s left",
        "2 of 8 epochs, 0.05 a second, 120 s left",
    ]


def test_nothing_is_told_where_nothing_is_to_be_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with counting("rows", shown=False) as tell:
        tell(0, 4)
        now = 60.0
        tell(2, 4)
    assert capsys.readouterr().err == ""


def test_a_bar_has_a_rate_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with counting("rows") as tell:
        tell(0, 4)
        for done in (1, 2, 3):
            time.sleep(0.05)
            tell(done, 4)
    shown = capsys.readouterr().err
    assert "3/4" in shown
    assert "a second" in shown
    assert "0:00:0" in shown


def test_a_wait_without_a_count_is_told_in_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.05)
    with waiting("sampling") as show:
        time.sleep(0.12)
        show("reading")
        time.sleep(0.12)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "sampling, for 0 s"
    assert lines[-1] == "reading, for 0 s"
    time.sleep(0.12)
    assert capsys.readouterr().err == ""


def test_a_short_wait_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with waiting("sampling"):
        pass
    with waiting("sampling", shown=False):
        pass
    assert capsys.readouterr().err == ""


def test_results_that_are_printed_beside_a_spinner_are_on_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with waiting("writing"):
        print("a row")
        time.sleep(0.15)
    shown = capsys.readouterr()
    assert shown.out == "a row\n"
    assert "writing" in shown.err
