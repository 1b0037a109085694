"""`pgenrm bench`: what it compares, on a scripted engine whose own time is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pgenrm_command import pgenrm

from pgenrm_agent.benchmarks.load import (
    throughput_by_callers,
    time_by_samples,
    time_of_scheduling,
)
from pgenrm_agent.benchmarks.plot import draw_speed
from pgenrm_agent.benchmarks.speed import Series, SpeedReport, measure_engine, measure_speed
from pgenrm_agent.chain import parse_chain
from pgenrm_agent.errors import ChainError, ConfigurationError
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.model_files import bundled_model, format_of
from pgenrm_agent.prototypes import PrototypeStore
from pgenrm_agent.testing import ScriptedEngine, write_chain
from studies.speed.memory import fill_and_measure
from studies.speed.parser import chain_texts, measure_parser
from studies.speed.prototypes import measure_matching, measure_refinement


async def test_only_what_the_engine_did_not_need_counts_as_overhead(tmp_path: Path) -> None:
    engine = ScriptedEngine(write_chain([8, 5, 3]), latency_s=0.2)
    found = await measure_engine(engine, tmp_path, 5)
    assert all(seconds >= 0.2 for seconds in found.engine_times)
    # The goal is 15 ms; other work on the machine only adds to it, here and there.
    assert 0 < min(found.overheads) < 0.1
    assert len(found.overheads) == 5


async def test_one_sample_and_eight_are_asked_for_in_turn(tmp_path: Path) -> None:
    engine = ScriptedEngine(write_chain([8, 5, 3]))
    found = await measure_engine(engine, tmp_path, 2)
    evaluations, raw = engine.calls[:3], engine.calls[3:]
    assert [sum(prompt.n for prompt in prompts) for prompts, _ in evaluations] == [8] * 3
    assert [sum(prompt.n for prompt in prompts) for prompts, _ in raw] == [1, 8] * 3
    assert {samples: len(times) for samples, times in found.times.items()} == {1: 2, 8: 2}
    assert engine.closed


async def test_a_model_that_writes_no_chain_cannot_be_measured(tmp_path: Path) -> None:
    with pytest.raises(ChainError):
        await measure_engine(ScriptedEngine("no chain"), tmp_path, 1)


def test_an_engine_that_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="abacus"):
        measure_speed(["abacus"], repeats=1)


async def test_one_request_a_sample_waits_for_each_of_them() -> None:
    engine = ScriptedEngine(write_chain([8, 5, 3]), latency_s=0.1)
    ours, obvious = await time_of_scheduling(
        engine, format_of(bundled_model()), own=8, neighbors=4, repeats=1
    )
    sizes = [sum(prompt.n for prompt in prompts) for prompts, _ in engine.calls]
    assert sizes == ([12] + [1] * 12) * 2
    assert obvious > 5 * ours
    asked = [prompt.messages for prompt in engine.calls[0][0]]
    assert len(set(asked)) == len(asked) >= 5  # every neighbor's prompt is another one


async def test_more_callers_get_more_done_where_the_engine_only_waits(tmp_path: Path) -> None:
    engine = ScriptedEngine(write_chain([8, 5, 3]), latency_s=0.3)
    rates = await throughput_by_callers(
        engine, format_of(bundled_model()), (1, 8), tmp_path, repeats=2
    )
    assert rates[1] < 1 / 0.3
    assert rates[8] > 2 * rates[1]


async def test_samples_are_timed_in_one_call_each() -> None:
    engine = ScriptedEngine(write_chain([8, 5, 3]), latency_s=0.01)
    times = await time_by_samples(engine, format_of(bundled_model()), (1, 24), 2)
    assert [sum(prompt.n for prompt in prompts) for prompts, _ in engine.calls] == [1, 24] * 3
    assert all(seconds >= 0.01 for seconds in times.values())


def test_a_memory_is_filled_and_measured(tmp_path: Path) -> None:
    found = fill_and_measure(250, tmp_path / "memory", repeats=20)
    with UserMemory(tmp_path / "memory") as memory:
        assert sum(one.pairs for one in memory.users()) == 250 + 20
    assert found.users == 5
    assert 0 < found.remember.p50 <= found.remember.p99
    assert found.recall_similar.p50 > 0
    assert found.disk_mb > 0.1
    assert found.rss_mb > 50


def test_similar_people_are_found_in_a_store_that_was_written(tmp_path: Path) -> None:
    found = measure_matching(700, tmp_path / "memory", repeats=20, dimension=16, k=5)
    with UserMemory(tmp_path / "memory") as memory:
        version = PrototypeStore(memory).current()
        assert version is not None
        assert len(version.user_ids) == 700
        assert len(memory.consenting(version.user_ids)) == 350
    assert 0 < found.p50 <= found.p99
    assert found.loading > 0
    assert found.written_per_second > 0


def test_an_epoch_of_the_refinement_takes_longer_with_more_samples() -> None:
    few, many = (measure_refinement(count, dimension=16, k=4) for count in (32, 3200))
    assert 0 < few < many


def test_the_parser_is_measured_on_chains_that_need_no_repair() -> None:
    for text in chain_texts().values():
        chain = parse_chain(text, ["a", "b"])
        assert chain.repairs == ()
        assert set(chain.totals) == {"a", "b"}
        assert chain.totals_from == "marks"
    assert all(rate > 0 for rate in measure_parser(repeats=2).values())


def test_what_was_varied_is_drawn(tmp_path: Path) -> None:
    lines = (
        Series(name="vllm", x_label="callers", y_label="a second", x=(1, 8, 32), y=(1, 4, 6)),
        Series(name="recall", x_label="interactions", y_label="ms", x=(1e4, 1e5), y=(1, 2)),
    )
    report = SpeedReport(machine="2 CPU cores", repeats=1, figures=(), series=lines)
    draw_speed(report, tmp_path / "speed.svg")
    drawn = (tmp_path / "speed.svg").read_text(encoding="utf-8")
    assert "callers" in drawn
    assert "100,000" in drawn
    with pytest.raises(ConfigurationError, match="nothing to plot"):
        draw_speed(report.model_copy(update={"series": ()}), tmp_path / "speed.svg")


def test_a_part_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="abacus"):
        measure_speed(repeats=1, parts=["abacus"])


@pytest.mark.long
def test_the_command_prints_figures_for_the_bundled_model() -> None:
    parts = [word for part in ("overhead", "parser", "start") for word in ("--part", part)]
    done = pgenrm("bench", "--engine", "transformers", "--repeats", 1, *parts, "--json")
    assert done.returncode == 0, done.stderr
    values = {figure["name"]: figure["value"] for figure in json.loads(done.stdout)["figures"]}
    # One batch of eight takes longer than one sample, and less than eight of them.
    assert 1 < values["transformers: 8 samples against 1"] < 8
    assert values["parser, long chain"] > 0
    first = values["first score from the command line"]
    assert first > values["pgenrm --help"] > 0
    assert first > values["import pgenrm_agent"] > 0
