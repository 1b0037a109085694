"""Settings for the whole suite, a Chroma server for whatever is kept in Chroma, and a chat server."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from platformdirs import user_config_path
from xdist.scheduler import LoadFileScheduling

from pgenrm_agent.sampling import derive_seed
from pgenrm_agent.testing import write_chain

pytest_plugins = [
    "fixtures.models",
    "fixtures.postgres",
    "fixtures.spans",
    "fixtures.studio",
    "fixtures.training",
]

# A thread for each process, before anything loads torch: two pytest workers, and what they start,
# share the cores already, and idle threads that spin would take them from each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Other work on a shared machine must not fail a property; slowness is tested where it matters.
settings.register_profile("pgenrm", deadline=None)
settings.load_profile("pgenrm")

# For `studies`, behind the installed package: the tree's own has no graphs and training under it.
sys.path.append(str(Path(__file__).parents[1]))

START_TIMEOUT_S = 240
OF_THE_TESTS = frozenset(
    f"PGENRM_{name}" for name in ("RESPONSES", "LANGGRAPH", "SCREENSHOTS", "TEST_POSTGRES", "DRAW")
)
"""Variables that say what the tests have, and what they draw."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep tests, and what they start, away from the memory and the settings of who runs them."""
    folder = tempfile.mkdtemp(prefix="pgenrm-tests-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    for name in {name for name in os.environ if name.startswith("PGENRM_")} - OF_THE_TESTS:
        del os.environ[name]
    # What says where packages are stays.
    os.environ.setdefault("PIP_CONFIG_FILE", str(user_config_path("pip") / "pip.conf"))
    os.environ["XDG_CONFIG_HOME"] = f"{folder}/config"
    os.environ["XDG_DATA_HOME"] = f"{folder}/data"
    os.environ["PGENRM_HOME"] = f"{folder}/home"
    os.environ["PGENRM_CONFIG"] = f"{folder}/pgenrm.toml"  # and not the working directory's
    Path(os.environ["PGENRM_CONFIG"]).touch()


PAGES = "tests/system/test_printed_pages.py"


class _Shares(LoadFileScheduling):
    """Gives a worker one file after another, and of the pages one page."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(PAGES) else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Share the tests out in the order of `pytest_collection_modifyitems`."""
    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return _Shares(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, so that no worker is left with one of them at the end."""
    long = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: (item.path not in long, "system" not in item.path.parts))


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    return _free_port


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def chroma_executable() -> str:
    beside = Path(sys.executable).with_name("chroma")
    executable = str(beside) if beside.exists() else shutil.which("chroma")
    assert executable, "the chroma executable comes with chromadb"
    return executable


@pytest.fixture
def chroma_server(chroma_process: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a real Chroma server, with the vault of its memory in the settings."""
    url, vault = chroma_process
    monkeypatch.setenv("PGENRM_VAULT", str(vault))
    return url


@pytest.fixture(scope="session")
def chroma_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL of a real Chroma server, and where the keys of its memory are."""
    directory = tmp_path_factory.mktemp("server")
    with _chroma_in(directory) as url:
        yield url, directory / "vault.sqlite3"


@pytest.fixture
def empty_chroma(tmp_path: Path) -> Iterator[str]:
    """The URL of a real Chroma server that nobody else uses."""
    with _chroma_in(tmp_path) as url:
        yield url


@contextmanager
def _chroma_in(directory: Path) -> Iterator[str]:
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(chroma_executable(), "run", "--path", directory / "data"),
                *("--host", "127.0.0.1", "--port", str(port)),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        ends = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                urllib.request.urlopen(f"{url}/api/v2/heartbeat", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                said = (directory / "log").read_text(errors="replace")
                assert process.poll() is None, said
                assert time.monotonic() < ends, said
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


class _SeededModel(BaseHTTPRequestHandler):
    """A chat model over HTTP whose answers follow from what is asked and the seed alone.

    It likes what it finds "good", more or less so by the seed; and it writes whatever form of answer
    it is asked for: a chain, scores alone, or a persona. It counts a token for every four bytes that
    it reads, and for every word that it writes; the model "wordy" counts 2,000 for each answer.
    """

    protocol_version = "HTTP/1.1"
    latency_s = 0.01

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        model = {"id": "m", "object": "model", "created": 0, "owned_by": "tests"}
        self._reply({"object": "list", "data": [model]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(self.latency_s)
        structured = "response_format" in body
        texts = [
            self._text(body["messages"], body["seed"] + number, structured)
            for number in range(body.get("n", 1))
        ]
        choices = [
            {
                "index": index,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text},
            }
            for index, text in enumerate(texts)
        ]
        read = sum(len(message["content"].encode()) for message in body["messages"]) // 4
        each = [2000 if body["model"] == "wordy" else len(text.split()) for text in texts]
        self._reply(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": choices,
                "usage": {
                    "prompt_tokens": read,
                    "completion_tokens": sum(each),
                    "total_tokens": read + sum(each),
                },
            }
        )

    def _text(self, messages: list[dict[str, str]], seed: int, structured: bool) -> str:
        system, asked = messages[0]["content"], messages[-1]["content"]
        if "Who is this person" in asked and not structured:
            return "Someone who likes what is good."
        answers = re.findall(r"\[The Start of Response \d+\]\n(.*)\n", asked)
        scores = [
            4 + 3 * ("good" in answer) + derive_seed(seed, place) % 4
            for place, answer in enumerate(answers)
        ]
        if system.startswith("You judge responses"):
            return json.dumps({f"response_{place}": score for place, score in enumerate(scores, 1)})
        return _document(scores) if structured else write_chain(scores)

    def _reply(self, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _document(scores: list[int]) -> str:
    """A chain as the JSON object of "structured-1", with the same mark on every criterion."""
    criteria = [
        {"name": name, "weight": 1, "reason": "It shows."} for name in ("Good", "Better", "Best")
    ]
    marks = {
        f"response_{place}": {"why": "So it is.", "marks": [score] * len(criteria)}
        for place, score in enumerate(scores, start=1)
    }
    return json.dumps(
        {
            "persona": "Someone who likes what is good.",
            "evaluation": {"criteria": criteria, "scores": marks},
        }
    )


@pytest.fixture
def seeded_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a chat server that `--engine openai` finds, and whose seeds are exact."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _SeededModel)
    server.daemon_threads = True
    url = f"http://127.0.0.1:{server.server_port}/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield url
    server.shutdown()
    server.server_close()
