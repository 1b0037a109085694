"""vLLM's OpenAI server on a CPU, small enough to stand beside the tests."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

START_UP_S = 600
KEY = "key-of-the-test-server"

# One thread each: the machine may have two cores, and vLLM's engine, its server and the tests share
# them. Binding would put all of vLLM's processes on the same core.
QUIET = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True)
class Server:
    url: str
    model: str
    key: str


@contextlib.contextmanager
def serve(folder: Path, name: str, log: Path, options: Mapping[str, object]) -> Iterator[Server]:
    """Serve a model under a name, as long as the context lasts. options: of the server's command.

    Its module rather than `vllm serve`, which in vllm-cpu looks for a package named vllm and stops.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    told = {
        "model": folder,
        "host": "127.0.0.1",
        "port": port,
        "served-model-name": name,
        "dtype": "float32",
        **options,
    }
    for option, value in told.items():
        command += [f"--{option}", str(value)]
    # Its sockets lie in TMPDIR, and their paths have 107 characters at most.
    with log.open("wb") as sink, tempfile.TemporaryDirectory(dir="/tmp") as short:
        process = subprocess.Popen(
            [*command, "--enforce-eager", "--no-enable-chunked-prefill"],
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **QUIET, "VLLM_API_KEY": KEY, "TMPDIR": short},
        )
        try:
            _await_health(f"http://127.0.0.1:{port}/health", process, log)
            yield Server(f"http://127.0.0.1:{port}/v1", name, KEY)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=60)
            process.kill()
            process.wait()


def _await_health(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_UP_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.5)
    tail = log.read_text(errors="replace")[-4000:]
    pytest.fail(f"the vLLM server did not start (exit status {process.poll()}):\n{tail}")
