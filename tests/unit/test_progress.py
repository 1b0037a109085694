"""What somebody who waits is told."""

from __future__ import annotations

import time

import pytest

from pgenrm_agent.progress import counting


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
