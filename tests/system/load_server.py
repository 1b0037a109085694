"""Load on the HTTP server: prints ratios, and what went wrong.

    python tests/system/load_server.py                     # bundled model, 2,000 evaluations: minutes
    python tests/system/load_server.py --evaluations 200   # a short look

The server runs in a process of its own, on the bundled model. The cost of HTTP is measured apart,
with an engine that takes no time, against the same call in the process. Not part of the test suite:
figures belong to a machine and to what else runs on it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx

from pgenrm_agent import PGenRM, Scaling
from pgenrm_agent.testing import ScriptedEngine, write_chain

QUERY = "How do I cook rice?"
ANSWERS = ["Rice is such a joy! Let me tell you.", "One part rice, two parts water, 12 minutes."]


def resident_mib(process: int) -> float:
    """Resident memory of a process, in MiB (Linux)."""
    match = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    assert match is not None
    return int(match[1]) / 1024


async def load(url: str, clients: int, requests: int) -> tuple[Counter[int], float, int]:
    """`requests` evaluations by `clients` at a time: answers by status, seconds, wrong answers.

    Every request has its own user and seed; an answer with another seed would be another's.
    """
    statuses: Counter[int] = Counter()
    wrong = 0
    numbers = iter(range(requests))

    async def one_client(client: httpx.AsyncClient) -> None:
        nonlocal wrong
        for number in numbers:
            body = {
                "user_id": f"user-{number}",
                "query": QUERY,
                "candidates": ANSWERS,
                "scaling": {"individual": 4, "seed": number},
            }
            answer = await client.post("/v1/score", json=body)
            statuses[answer.status_code] += 1
            if answer.status_code == 200:
                wrong += answer.json()["seed"] != number
            elif answer.status_code == 429:
                await asyncio.sleep(float(answer.headers["Retry-After"]))

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
        started = time.perf_counter()
        await asyncio.gather(*(one_client(client) for _ in range(clients)))
        return statuses, time.perf_counter() - started, wrong


def start_server(options: list[str], folder: str) -> tuple[subprocess.Popen[str], str]:
    """`pgenrm serve` on a free port, and its URL once it is ready."""
    port = 8000 + os.getpid() % 2000
    command = [sys.executable, "-P", "-m", "pgenrm_agent.cli", "serve", "--no-keys", *options]
    server = subprocess.Popen([*command, "--port", str(port), "--memory", folder], text=True)
    url = f"http://127.0.0.1:{port}"
    while server.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return server, url
        except httpx.ConnectError:
            time.sleep(0.2)
    raise SystemExit(f"the server ended with exit code {server.returncode}")


def http_cost(rounds: int) -> tuple[float, float]:
    """Median seconds of one evaluation in the process, and of the same over HTTP."""
    import socket
    import threading

    import uvicorn

    from pgenrm_agent.integrations.server import create_app

    engine = ScriptedEngine(write_chain([8, 3]))
    scaling = Scaling(individual=8, prototype=0, seed=1)
    with (
        tempfile.TemporaryDirectory() as folder,
        PGenRM(engine=engine, memory=folder, scaling=scaling) as rm,
    ):
        server = uvicorn.Server(uvicorn.Config(create_app(rm), log_level="error"))
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        body = {"user_id": "ada", "query": QUERY, "candidates": ANSWERS}
        inside, over = [], []
        with httpx.Client(base_url=url, timeout=60) as client:
            for number in range(rounds + 5):
                # In turn, so that whatever else the machine does falls on both.
                started = time.perf_counter()
                rm.score("ada", QUERY, ANSWERS)
                between = time.perf_counter()
                client.post("/v1/score", json=body).raise_for_status()
                if number >= 5:
                    inside.append(between - started)
                    over.append(time.perf_counter() - between)
        server.should_exit = True
        thread.join()
    return statistics.median(inside), statistics.median(over)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--evaluations", type=int, default=2000, help="for the memory figure")
    parser.add_argument("--requests", type=int, default=64, help="for each throughput figure")
    chosen = parser.parse_args()
    inside, over = http_cost(rounds=100)
    report: dict[str, object] = {
        "http_costs_ms": round((over - inside) * 1000, 2),
        "http_over_in_process": round(over / inside, 2),
    }
    with tempfile.TemporaryDirectory() as folder:
        server, url = start_server(["--running", "16", "--waiting", "32"], folder)
        try:
            asyncio.run(load(url, 4, 8))  # warm
            _, alone, wrong = asyncio.run(load(url, 1, chosen.requests))
            statuses, together, more = asyncio.run(load(url, 16, chosen.requests * 4))
            report["throughput_16_over_1"] = round(4 * alone / together, 2)
            wrong += more
            many, _, more = asyncio.run(load(url, 64, chosen.requests * 4))
            wrong += more
            report["statuses_64_clients"] = dict(many)
            before = resident_mib(server.pid)
            left = chosen.evaluations - 9 * chosen.requests
            statuses, _, more = asyncio.run(load(url, 16, max(16, left)))
            after = resident_mib(server.pid)
            report["statuses_16_clients"] = dict(statuses)
            report["answers_of_somebody_else"] = wrong + more
            report["memory_after_over_before"] = round(after / before, 3)
        finally:
            server.terminate()
            server.wait(60)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
