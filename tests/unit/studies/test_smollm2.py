"""The study of a small instruct model's chains: what is counted, and where it goes on."""

from __future__ import annotations

from pathlib import Path

from pgenrm_agent.engines import Prompt
from pgenrm_agent.jsonl import read_records
from pgenrm_agent.testing import ScriptedEngine
from studies.smollm2.study import Batch, measure, rows_of, short_format


async def test_chains_are_counted_by_way_and_sampled_once(tmp_path: Path) -> None:
    chain_format = short_format(tmp_path / "format")
    assert short_format(tmp_path / "format").digest == chain_format.digest

    def reply(prompt: Prompt, number: int) -> str:
        return "no object"

    engine = ScriptedEngine(reply, json_schema=True, continues=False)
    await measure("transformers", engine, chain_format, tmp_path, chains=3, together=2)
    asked = len(engine.calls)
    await measure("transformers", engine, chain_format, tmp_path, chains=3, together=2)
    assert len(engine.calls) == asked, "what is there is not sampled again"
    await measure("transformers", engine, chain_format, tmp_path, chains=4, together=2)
    rows = rows_of(read_records(tmp_path / "records.jsonl", Batch))
    assert [(row.way, row.chains, row.valid) for row in rows] == [("whole", 4, 0), ("staged", 4, 0)]
    assert all(sum(row.reasons.values()) == 4 for row in rows)
