"""Examples and printed blocks run on the bundled model, and the pages show what they print.

Numbers and personas depend on the machine and are left out of the comparison; which answer comes first does
not. `PGENRM_UPDATE_DOCS=1 pytest tests/system/test_examples.py` writes what was printed into the pages.
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

from pgenrm_agent.memory import UserMemory
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Scaling

ROOT = Path(__file__).parents[2]
CHOICES = ROOT / "examples" / "choices.jsonl"
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"python examples/(\w+\.py)[^\n]*\n```\n+```text\n(.*?)```", re.DOTALL)
PYTHON = re.compile(r"```python\n((?:(?!```).)*)```\n+```text\n(.*?)```", re.DOTALL)
CURL = re.compile(r"```sh\n(curl (?:(?!```).)*)```.*?```json\n(.*?)```", re.DOTALL)


def shape(output: str) -> list[str]:
    """The lines of an output without decimals, percentages and personas."""
    text = re.sub(r"[+-]?\d+\.\d+|\d+(?=%)|not scored|null", "#", output.strip())
    return re.sub(r'(persona"?:) .*', r"\1 #", text).splitlines()


def documented() -> dict[str, tuple[Path, re.Match[str]]]:
    """The page of each example, and where it shows the output."""
    return {
        shown[1]: (page, shown)
        for page in PAGES
        for shown in COMMAND.finditer(page.read_text(encoding="utf-8"))
    }


def compare(page: Path, block: re.Match[str], printed: str) -> None:
    """Compare what a page shows with what was printed; write it there instead when asked to."""
    if os.environ.get("PGENRM_UPDATE_DOCS"):
        before, after = block.string[: block.start(2)], block.string[block.end(2) :]
        page.write_text(f"{before}{printed.strip()}\n{after}", encoding="utf-8")
    else:
        assert shape(printed) == shape(block[2])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import uvicorn

    from pgenrm_agent.integrations.server import create_app

    memory = tmp_path_factory.mktemp("memory")
    with PGenRM(memory=memory, scaling=Scaling(individual=8, prototype=0)) as rm:
        rm.memory.import_jsonl(CHOICES)
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
        page = documented()["batch_jsonl.py"][0].read_text(encoding="utf-8")
        rows = re.search(r"```json\n(.*?)```", page, re.DOTALL)
        assert rows is not None
        (tmp_path / "requests.jsonl").write_text(rows[1], encoding="utf-8")
        with UserMemory(tmp_path / "people") as memory:
            memory.import_jsonl(CHOICES)
        return [str(tmp_path / "requests.jsonl"), str(tmp_path / "people")]
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
    compare(*documented()[name], printed)


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
    compare(*documented()["mcp_client.py"], done.stdout)


def run_block(page: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the first block of a page that shows its output; returns what it printed."""
    text = (ROOT / page).read_text(encoding="utf-8")
    block = PYTHON.search(text)
    assert block is not None
    exec(compile(block[1], page, "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    compare(ROOT / page, block, printed)
    return printed


def test_the_readme_ranks_the_answer_first_that_its_user_would_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PGENRM_HOME", str(tmp_path))
    first, second = run_block("README.md", capsys).splitlines()
    assert "Simmer one part of rice" in first
    assert "Rice is such a joy" in second
    assert not list(tmp_path.iterdir()), "the README's example is not for the default memory"


@pytest.mark.long
def test_the_tutorial_runs_from_its_first_block_to_its_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its blocks share one Python session, and its commands see what that left behind."""
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "tutorial.md"
    session: dict[str, object] = {"__name__": "__main__"}
    outputs = []
    for number in range(len(PYTHON.findall(page.read_text(encoding="utf-8")))):
        block = list(PYTHON.finditer(page.read_text(encoding="utf-8")))[number]
        exec(compile(block[1], str(page), "exec"), session)
        outputs.append(capsys.readouterr().out)
        compare(page, block, outputs[-1])
    assert "Rice" in outputs[0].splitlines()[0]
    assert "Simmer" in outputs[1].splitlines()[0]

    commands = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    programs = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for block in commands[1:]:  # the first one installs
        done = subprocess.run(
            ["bash", "-ec", block], env=programs, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_the_debugging_page_turns_the_order_by_the_choices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    before, after, *_ = run_block("docs/how-to/debugging.md", capsys).splitlines()
    assert (before, after) == ("plain > chatty", "chatty > plain")


@pytest.mark.long
def test_the_server_page_gets_the_response_that_it_shows(server: str) -> None:
    page = ROOT / "docs" / "how-to" / "server.md"
    block = CURL.search(page.read_text(encoding="utf-8"))
    assert block is not None
    command = block[1].replace("http://127.0.0.1:8000", server)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    keys = ("ranking", "best", "persona", "seed")
    response = {key: json.loads(done.stdout)[key] for key in keys}
    compare(page, block, json.dumps(response, indent=2))
    assert response["ranking"] == ["answer-2", "answer-1"]


def test_every_example_has_its_page() -> None:
    assert set(EXAMPLES) == set(documented())


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short(name: str) -> None:
    assert len((ROOT / "examples" / name).read_text().splitlines()) < 70
