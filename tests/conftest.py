"""Settings for the whole suite, and a Chroma server for whatever is kept in Chroma."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Other work on a shared machine must not fail a property; slowness is tested where it matters.
settings.register_profile("pgenrm", deadline=None)
settings.load_profile("pgenrm")

START_TIMEOUT_S = 240


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    return _free_port


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def chroma_executable() -> str:
    beside = Path(sys.executable).with_name("chroma")
    found = str(beside) if beside.exists() else shutil.which("chroma")
    assert found, "the chroma executable comes with chromadb"
    return found


@pytest.fixture(scope="session")
def chroma_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Chroma server."""
    directory = tmp_path_factory.mktemp("server")
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
