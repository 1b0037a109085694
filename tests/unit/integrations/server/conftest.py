"""Real servers on real sockets, with an engine whose marks are known beforehand."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from pgenrm_agent.integrations.server import KeyRing, Limits, create_app
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Scaling
from pgenrm_agent.testing import ScriptedEngine

TENANTS = ("acme", "bloom")


@dataclass
class Running:
    """A server that runs. `keys` holds one key per tenant."""

    url: str
    keys: dict[str, str]
    ring: KeyRing
    engine: ScriptedEngine
    app: FastAPI
    server: uvicorn.Server
    thread: threading.Thread
    reward_model: PGenRM

    def client(self, tenant: str = "acme", **options: object) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.keys[tenant]}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)

    def metric(self, line: str) -> float:
        text = httpx.get(f"{self.url}/metrics").text
        lines = [row for row in text.splitlines() if row.startswith(line + " ")]
        return float(lines[0].rpartition(" ")[2]) if lines else 0.0


Serve = Callable[..., AbstractContextManager[Running]]


@pytest.fixture(scope="session")
def serve(
    scaling: Scaling,
    make_engine: Callable[..., ScriptedEngine],
    tmp_path_factory: pytest.TempPathFactory,
) -> Serve:
    """Starts a server: `with serve(limits=..., latency_s=...) as running`.

    keyless: for everybody on this machine. http: which of uvicorn's readers of HTTP it uses.
    grace_s: how long a request gets to end when the server is stopped.
    """

    @contextlib.contextmanager
    def start(
        limits: Limits | None = None,
        latency_s: float = 0.0,
        keyless: bool = False,
        cors: tuple[str, ...] = (),
        http: Literal["auto", "h11", "httptools"] | type[asyncio.Protocol] = "auto",
        grace_s: int = 20,
    ) -> Iterator[Running]:
        folder: Path = tmp_path_factory.mktemp("server")
        ring = KeyRing(folder / "keys.jsonl")
        keys = {tenant: ring.issue(tenant)[0] for tenant in TENANTS}
        engine = make_engine(latency_s=latency_s)
        with PGenRM(engine=engine, memory=folder / "own", scaling=scaling) as rm:
            guarded = {} if keyless else {"keys": ring, "tenants_folder": folder / "tenants"}
            app = create_app(rm, limits=limits, cors=cors, **guarded)  # type: ignore[arg-type]
            config = uvicorn.Config(
                app, log_level="error", timeout_graceful_shutdown=grace_s, http=http
            )
            server = uvicorn.Server(config)
            listening = socket.socket()
            listening.bind(("127.0.0.1", 0))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            try:
                while not server.started or not app.state.service.ready:
                    assert thread.is_alive(), "the server did not start"
                    time.sleep(0.01)
                url = f"http://127.0.0.1:{listening.getsockname()[1]}"
                yield Running(url, keys, ring, engine, app, server, thread, rm)
            finally:
                server.should_exit = True
                thread.join(60)
                listening.close()
            assert not thread.is_alive()

    return start


@pytest.fixture(scope="module")
def running(serve: Serve) -> Iterator[Running]:
    with serve() as server:
        yield server
