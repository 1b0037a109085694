"""`pgenrm bench`: what it compares, on a scripted engine whose own time is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import pgenrm

from pgenrm_agent.benchmarks.load import throughput_by_callers, time_by_samples
from pgenrm_agent.benchmarks.plot import draw_speed
from pgenrm_agent.benchmarks.report import Series, SpeedReport
from pgenrm_agent.benchmarks.speed import measure_overhead, measure_speed
from pgenrm_agent.errors import ChainError, ConfigurationError
from pgenrm_agent.model_files import bundled_model, format_of
from pgenrm_agent.testing import ScriptedEngine, write_chain

FORMAT = format_of(bundled_model())


async def test_only_what_the_engine_did_not_need_counts_as_overhead(tmp_path: Path) -> None:
    engine = ScriptedEngine(write_chain([8, 5, 3]), latency_s=0.2)
    measured = await measure_overhead(engine, FORMAT, tmp_path, 5)
    assert all(seconds >= 0.2 for seconds in measured.engine_times)
    # The goal is 15 ms; other work on the machine only adds to it, here and there.
    assert 0 < min(measured.overheads) < 0.1
    assert len(measured.overheads) == 5
    assert [sum(prompt.n for prompt in prompts) for prompts, _ in engine.calls] == [8] * 6
    rate = {figure.name: figure.value for figure in measured.figures()}[
        "generated tokens a second, 8 samples"
    ]
    assert rate == pytest.approx(measured.tokens / sum(measured.engine_times))


async def test_a_model_that_writes_no_chain_cannot_be_measured(tmp_path: Path) -> None:
    with pytest.raises(ChainError):
        await measure_overhead(ScriptedEngine("no chain"), FORMAT, tmp_path, 1)


@pytest.mark.parametrize(
    ("engine", "parts", "complaint"),
    [("abacus", (), "abacus"), (None, ("overhead", "parser"), "'parser' is unknown")],
)
def test_what_cannot_be_measured_is_refused(
    engine: str | None, parts: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        measure_speed(engine=engine, parts=parts, repeats=1)


async def test_more_callers_get_more_done_where_the_engine_only_waits(tmp_path: Path) -> None:
    engine = ScriptedEngine(write_chain([8, 5, 3]), latency_s=0.3)
    rates = await throughput_by_callers(engine, FORMAT, (1, 8), tmp_path, repeats=2)
    assert rates[1] < 1 / 0.3
    assert rates[8] > 2 * rates[1]


async def test_samples_are_timed_in_one_call_each() -> None:
    engine = ScriptedEngine(write_chain([8, 5, 3]), latency_s=0.01)
    times = await time_by_samples(engine, FORMAT, (1, 24), 2)
    assert [sum(prompt.n for prompt in prompts) for prompts, _ in engine.calls] == [1, 24] * 3
    assert all(seconds >= 0.01 for seconds in times.values())


def test_what_was_varied_is_drawn(tmp_path: Path) -> None:
    lines = (
        Series(name="vllm", x_label="callers", y_label="a second", x=(1, 8, 32), y=(1, 4, 6)),
        Series(name="recall", x_label="interactions", y_label="ms", x=(1e4, 1e5), y=(1, 2)),
    )
    report = SpeedReport(machine="2 CPU cores", figures=(), series=lines)
    draw_speed(report, tmp_path / "speed.svg")
    drawn = (tmp_path / "speed.svg").read_text(encoding="utf-8")
    assert "callers" in drawn
    assert "100,000" in drawn
    with pytest.raises(ConfigurationError, match="nothing to plot"):
        draw_speed(report.model_copy(update={"series": ()}), tmp_path / "speed.svg")


@pytest.mark.long
def test_the_command_measures_the_model_it_is_given() -> None:
    done = pgenrm(
        *("bench", "--model", bundled_model(), "--repeats", "1", "--json"),
        *("--part", "overhead", "--part", "samples"),
    )
    assert done.returncode == 0, done.stderr
    report = SpeedReport.model_validate_json(done.stdout)
    assert (report.model, report.engine) == (bundled_model().name, "transformers")
    figures = {figure.name: figure.value for figure in report.figures}
    assert figures["8 samples against 1"] > 1
    assert figures["generated tokens a second, 8 samples"] > 1
