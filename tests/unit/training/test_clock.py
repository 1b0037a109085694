"""The clock of a run: measuring takes none of its time."""

from __future__ import annotations

import pytest

from pgenrm_agent.training.clock import Clock


def test_what_is_heard_while_the_clock_is_paused_was_there_when_the_pause_began() -> None:
    seconds = 0.0
    clock = Clock(10, enough=0.9, latest=0.5, warmup_steps=1, weights=[1, 1], now=lambda: seconds)
    seconds = 60.0
    with clock.paused():
        seconds = 240.0  # measuring took three minutes
        assert clock.seconds == 60
        clock.heard(0.95)
    assert clock.read_at == pytest.approx(0.1)
    seconds = 300.0
    assert clock.seconds == 120
    assert clock.phase() == 1
