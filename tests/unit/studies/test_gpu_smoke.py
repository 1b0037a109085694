"""The smoke test for machines with a GPU, on a CPU; and what it may not need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from studies.gpu_smoke.__main__ import parser
from studies.gpu_smoke.study import measure, page

ROOT = Path(__file__).parents[3]
NOT_THERE = (
    *("langgraph", "langchain_core", "chromadb", "pydantic_settings", "platformdirs"),
    *("typer", "rich", "scipy", "sklearn", "matplotlib", "trl", "datasets", "openai", "vllm"),
)
"""What torch, transformers, peft, pydantic, jinja2 and xgrammar do without."""
ALONE = f"""
import sys
for name in {NOT_THERE!r}:
    sys.modules[name] = None  # to import it fails, as where it is not installed
import pgenrm_agent.chain, pgenrm_agent.engines.transformers
from pgenrm_agent.engines import load_engine
load_engine
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_texts_are_compared_and_chains_timed() -> None:
    report = await measure("cpu", chains=(1, 2), same=2, dtypes=("float32",))
    (sameness,) = report.sameness
    assert (sameness.same, sameness.prompts) == (2, 2)
    assert [row.chains for row in report.rows] == [1, 2]
    for row in report.rows:
        assert row.tokens > 20 * row.chains
        assert row.memory_mib > 50
    text = page(report)
    assert "float32     2 of 2" in text
    assert len(text.splitlines()) < 40


async def test_what_there_is_no_time_for_is_told() -> None:
    report = await measure("cpu", chains=(1,), same=1, dtypes=("float32",), within_s=0)
    assert report.left_out == ("texts in float32", "1 chains")
    assert "no time was left for: texts in float32, 1 chains" in page(report)


def test_nothing_but_a_few_packages_is_needed() -> None:
    """The study itself, where neither LangGraph nor Chroma is installed."""
    code = ALONE + (
        # `studies` is not installed, and the tree's own package has no graphs and training under it.
        f"sys.path.append({str(ROOT)!r})\n"
        "import asyncio\n"
        "from studies.gpu_smoke.study import measure, page\n"
        "print(page(asyncio.run(measure('cpu', chains=(1,), same=1, dtypes=('float32',)))))\n"
    )
    assert "float32     1 of 1" in run(code)


def test_the_command_takes_its_options() -> None:
    asked = parser().parse_args(["--device", "cpu", "--chains", "1", "8"])
    assert (asked.device, asked.chains, asked.json) == ("cpu", [1, 8], False)
