"""Clients that begin a request and do not go on: without a key, and with one."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from pgenrm_agent.integrations.server import Limits
from pgenrm_agent.integrations.slow_clients import giving_up

if TYPE_CHECKING:
    from .conftest import Serve

BODY_S = 1.0


def begun(url: str, key: str | None, *, sent: bytes = b"{", announced: int = 1000) -> socket.socket:
    """A connection on which a request has its headers, and the beginning of its body."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    client = socket.create_connection((parts.hostname, parts.port), timeout=20)
    lines = [
        "POST /v1/score HTTP/1.1",
        f"Host: {parts.netloc}",
        "Content-Type: application/json",
        f"Content-Length: {announced}",
        *([] if key is None else [f"Authorization: Bearer {key}"]),
    ]
    client.sendall("\r\n".join([*lines, "", ""]).encode() + sent)
    return client


def answer(client: socket.socket) -> tuple[int, str, float]:
    """The status and code of the answer, and the seconds until the server closed the connection."""
    started = time.monotonic()
    received = b""
    while part := client.recv(65536):
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["code"], time.monotonic() - started


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_the_key_is_asked_for_before_the_body_and_a_slow_body_is_given_up(
    serve: Serve, http: str
) -> None:
    with serve(limits=Limits(body_s=BODY_S), http=http) as running:  # type: ignore[arg-type]
        strangers = [begun(running.url, key) for key in [None, "pgenrm_wrong"] * 10]
        for stranger in strangers:
            status, code, seconds = answer(stranger)
            assert (status, code) == (401, "no_valid_key")
            assert seconds < BODY_S
        status, code, seconds = answer(begun(running.url, running.keys["acme"]))
        assert (status, code) == (408, "body_too_slow")
        assert BODY_S / 2 < seconds < 10 * BODY_S
        assert not running.engine.calls


def test_headers_that_do_not_come_are_given_up_and_answers_are_waited_for(serve: Serve) -> None:
    with serve(http=giving_up(0.5), latency_s=0.4) as running:
        parts = urlsplit(running.url)
        assert parts.hostname is not None
        slow = []
        for sent in (
            b"",
            b"POST /v1/score HTTP/1.1\r\nHost: ",
            b"GET /healthz HTTP/1.1\r\nA: b\r\n",
        ):
            client = socket.create_connection((parts.hostname, parts.port or 80), timeout=20)
            client.sendall(sent)
            slow.append(client)
        with running.client() as http:
            for _ in range(3):  # on one connection
                assert http.get("/healthz").status_code == 200
                time.sleep(0.3)
            asked = {"user_id": "ada", "query": "How?", "candidates": ["So. 3", "Thus. 8"]}
            assert http.post("/v1/score", json=asked).status_code == 200
        for client in slow:
            with suppress(ConnectionResetError):
                assert client.recv(100) == b""


def test_an_evaluation_may_take_longer_than_its_body(serve: Serve) -> None:
    with serve(limits=Limits(body_s=0.5), latency_s=0.4) as running, running.client() as client:
        asked = {"user_id": "ada", "query": "How?", "candidates": ["So. 3", "Thus. 8"]}
        scored = client.post("/v1/score", json=asked)
        assert scored.status_code == 200, scored.text
        assert scored.json()["seconds"] > 0.3


BEGUN = b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
FLOODS = {
    "one header": (BEGUN + b"X: ", b"a" * 65536),
    "headers": (BEGUN, b"X: a\r\n" * 10_000),
    "an address": (b"GET /", b"a" * 65536),
    "a chunk's extension": (BEGUN + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a" * 65536),
    "trailers": (
        BEGUN + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n",
        b"X: a\r\n" * 10_000,
    ),
}
MOST_TAKEN = 16 * 2**20  # what the system's buffers may take, and more


@pytest.mark.parametrize("http", ["h11", giving_up()], ids=["h11", "auto"])
def test_a_flood_of_headers_is_cut_off_before_it_fills_the_memory(
    serve: Serve, http: str | type
) -> None:
    with serve(keyless=True, http=http) as running:
        parts = urlsplit(running.url)
        for name, (first, more) in FLOODS.items():
            with socket.create_connection(
                (parts.hostname or "", parts.port or 80), timeout=20
            ) as client:
                client.sendall(first)
                sent = 0
                with suppress(ConnectionError):
                    while sent < MOST_TAKEN:
                        client.sendall(more)
                        sent += len(more)
                assert sent < MOST_TAKEN, name
        with running.client() as http_client:
            assert http_client.get("/healthz").status_code == 200


def test_what_is_large_and_no_header_is_taken(serve: Serve) -> None:
    asked = {"user_id": "ada", "query": "How?", "candidates": ["So. 3", "Thus. 8"]}
    body = json.dumps({**asked, "conversation": [{"role": "user", "content": "a" * 49_000}] * 20})
    assert len(body) > 900_000
    with serve(http=giving_up()) as running, running.client() as client:
        typed = {"Content-Type": "application/json"}
        for content in (body, (body[at : at + 7000].encode() for at in range(0, len(body), 7000))):
            scored = client.post("/v1/score", content=content, headers=typed)
            assert scored.status_code == 200, scored.text
        long = client.get("/healthz", headers={"X-Long": "a" * 60_000})
        assert long.status_code == 200
        assert client.get("/healthz", headers={"X-Long": "a" * 500_000}).status_code == 431
