"""Every example runs on the bundled model, and its page shows what it prints.

Texts and numbers depend on the bundled model, so it is the form of each line that is compared.
`PGENRM_UPDATE_DOCS=1 pytest tests/system/test_examples.py` writes what was printed into the pages.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Scaling

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
SHOWN = re.compile(r"python examples/(\w+\.py)[^\n]*\n```\n+```text\n(.*?)```", re.DOTALL)


def form(output: str) -> set[str]:
    """The lines without numbers and without the texts that stand behind them."""
    ids = re.sub(r'\["[^\]]*"\]', "[#]", output)
    lines = (re.sub(r"\d+(\.\d+)?|not scored|null", "#", line) for line in ids.splitlines())
    return {
        re.sub(r"(#\]|#:|\d:|answer:|ranking:|persona:|#)( .*)$", r"\1", line)
        for line in lines
        if line
    }


def documented() -> dict[str, str]:
    """What the pages show, by example."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    return dict(SHOWN.findall(pages))


def compare(name: str, printed: str) -> None:
    """What was printed with what the page shows; or, when asked to, written there."""
    if os.environ.get("PGENRM_UPDATE_DOCS"):
        for page in (ROOT / "docs").glob("*.md"):
            text = page.read_text(encoding="utf-8")
            for shown in SHOWN.finditer(text):
                if shown[1] == name:
                    start, end = shown.span(2)
                    page.write_text(text[:start] + printed.strip() + "\n" + text[end:])
    assert form(printed) == form(documented()[name])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import uvicorn

    from pgenrm_agent.integrations.server import create_app

    memory = tmp_path_factory.mktemp("memory")
    with PGenRM(memory=memory, scaling=Scaling(individual=8, prototype=0, seed=7)) as rm:
        running = uvicorn.Server(uvicorn.Config(create_app(rm), log_level="error"))
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        while not running.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        running.should_exit = True
        thread.join(60)


@pytest.fixture
def arguments(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """What the example is started with."""
    if request.getfixturevalue("name") == "http_client.py":
        return [request.getfixturevalue("server")]
    if request.getfixturevalue("name") == "batch_jsonl.py":
        file = tmp_path / "requests.jsonl"
        candidates = [{"id": "a", "text": "Twelve minutes."}, {"id": "b", "text": "What a joy!"}]
        rows = [
            {"user_id": user, "query": "How do I cook rice?", "candidates": candidates}
            for user in ("ada", "ben")
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return [str(file)]
    if request.getfixturevalue("name") == "small_policy.py":
        return [str(tmp_path / "policy")]
    return []


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "mcp_client.py"])
def test_an_example_prints_what_its_page_shows(
    name: str,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PGENRM_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed.strip()
    compare(name, printed)


def test_the_mcp_example_talks_to_pgenrm_mcp_over_stdio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGENRM_HOME", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-P", str(ROOT / "examples" / "mcp_client.py")],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    compare("mcp_client.py", done.stdout)


def test_every_example_has_its_page() -> None:
    assert set(EXAMPLES) == set(documented())


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short(name: str) -> None:
    assert len((ROOT / "examples" / name).read_text().splitlines()) < 60
