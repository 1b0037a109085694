"""`python -m studies.speed`: what each part of the library costs."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pgenrm_agent.benchmarks.report import SpeedReport
from pgenrm_agent.chain import parse_chain
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.model_files import bundled_model, format_of
from pgenrm_agent.prototypes import PrototypeStore
from pgenrm_agent.testing import ScriptedEngine, write_chain
from studies.speed.__main__ import app
from studies.speed.figures import measure_parts
from studies.speed.memory import fill_and_measure
from studies.speed.parser import chain_texts, measure_parser
from studies.speed.prototypes import measure_matching, measure_refinement
from studies.speed.scheduling import time_of_scheduling


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


def test_a_memory_is_filled_and_measured(tmp_path: Path) -> None:
    measured = fill_and_measure(250, tmp_path / "memory", repeats=20)
    with UserMemory(tmp_path / "memory") as memory:
        assert sum(user.pairs for user in memory.users()) == 250 + 20
    assert measured.users == 5
    assert 0 < measured.remember.p50 <= measured.remember.p99
    assert measured.recall_similar.p50 > 0
    assert measured.disk_mb > 0.1
    assert measured.rss_mb > 50


def test_similar_users_are_matched_in_a_store_that_was_written(tmp_path: Path) -> None:
    matching = measure_matching(700, tmp_path / "memory", repeats=20, dimension=16, k=5)
    with UserMemory(tmp_path / "memory") as memory:
        version = PrototypeStore(memory).current()
        assert version is not None
        assert len(version.user_ids) == 700
        assert len(memory.consenting(version.user_ids)) == 350
    assert 0 < matching.p50 <= matching.p99
    assert matching.loading > 0
    assert matching.written_per_second > 0


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


def test_a_part_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'overhead' is unknown: use memory"):
        measure_parts(["overhead"])


def test_the_command_prints_the_figures_of_the_parts_that_are_named() -> None:
    done = CliRunner().invoke(app, ["--part", "parser", "--json"])
    assert done.exit_code == 0, done.output
    report = SpeedReport.model_validate_json(done.stdout)
    assert [figure.name for figure in report.figures] == [
        "parser, short chain",
        "parser, long chain",
    ]
    assert all(figure.value > 0.1 for figure in report.figures)
