"""A server without keys answers its own machine, and no page that a browser there happens to show."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import httpx
import pytest

if TYPE_CHECKING:
    from .conftest import Running, Serve

OWN_HOSTS = (
    "127.0.0.1",
    "127.0.0.1:8000",
    "localhost",
    "localhost:1",
    "LocalHost:8000",
    "localhost.",
    "localhost.:8000",
    "[::1]",
    "[::1]:8000",
    "127.0.0.2:8000",
)
FOREIGN_HOSTS = (
    "evil.example",
    "evil.example:8000",
    "127.0.0.1.evil.example",
    "127.0.0.1.nip.io:8000",
    "localhost.evil.example",
    "evil.example.",
    "notlocalhost",
    "evil-localhost:8000",
    "a.localhost",
    "127.0.0.1@evil.example",
    "localhost:8000@evil.example",
    "evil.example@127.0.0.1",
    "evil.example#127.0.0.1",
    "evil.example/127.0.0.1",
    "127.0.0.1,evil.example",
    "127.0.0.1 evil.example",
    "127.0.0.1:8000:8000",
    "127.0.0.1:port",
    "127.0.0.1:99999",
    "http://127.0.0.1",
    "0.0.0.0:8000",
    "[::]:8000",
    "192.168.1.7:8000",
    "[fe80::1]",
    "box.local",
    "2130706433",
    "127.1",
    "0x7f.0.0.1",
    "[::1",
    "::1",
    ":8000",
    "localh\xf6st",
    "",
)
OWN_ORIGINS = (
    "http://127.0.0.1:8000",
    "http://localhost:3000",
    "https://[::1]",
    "http://LOCALHOST",
)
FOREIGN_ORIGINS = (
    "https://evil.example",
    "http://evil.example:8000",
    "null",
    "",
    "http://127.0.0.1.evil.example",
    "http://127.0.0.1@evil.example",
    "http://0.0.0.0:8000",
    "file://",
    "chrome-extension://abc",
    "localhost",
    "http://localhost/",
    "http://localhost https://evil.example",
)
CHOICE = {"query": "How?", "chosen": "So.", "rejected": "Not so."}


@pytest.fixture(scope="module", params=["h11", "httptools"])
def keyless(request: pytest.FixtureRequest, serve: Serve) -> Iterator[Running]:
    """A server without keys that knows ada, with each of the two readers of HTTP that uvicorn has."""
    http: Literal["h11", "httptools"] = request.param
    with serve(keyless=True, http=http) as running:
        httpx.post(f"{running.url}/v1/users/ada/preferences", json=CHOICE).raise_for_status()
        yield running


def send(running: Running, request: bytes) -> tuple[int, bytes]:
    """Status and rest of what the server answers to these very bytes."""
    address = urlsplit(running.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(answer.split(b" ", 2)[1]), answer


def ask(running: Running, line: str, *headers: str, body: bytes = b"") -> tuple[int, bytes]:
    lines = [f"{line} HTTP/1.1", *headers, "Connection: close", f"Content-Length: {len(body)}"]
    return send(running, "\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def people(running: Running) -> dict[str, int]:
    users = httpx.get(f"{running.url}/v1/users").raise_for_status().json()["users"]
    return {user["user_id"]: user["pairs"] for user in users}


@pytest.mark.parametrize("host", OWN_HOSTS)
def test_its_own_names_are_answered(keyless: Running, host: str) -> None:
    assert ask(keyless, "GET /v1/users", f"Host: {host}")[0] == 200


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_name_that_was_pointed_here_reads_and_deletes_nothing(
    keyless: Running, host: str
) -> None:
    before = people(keyless)
    for line in ("DELETE /v1/users/ada", "GET /v1/users/ada", "GET /docs", "GET /healthz", "PUT /"):
        status, answer = ask(keyless, line, f"Host: {host}", f"Origin: http://{host}")
        assert status in (400, 421), line  # 400: uvicorn itself did not take it
        assert b"ada" not in answer
    assert people(keyless) == before


def test_the_refusal_is_the_servers_own_kind_of_error(keyless: Running) -> None:
    status, answer = ask(keyless, "GET /v1/users", "Host: evil.example")
    assert status == 421
    told = json.loads(answer.rpartition(b"\r\n\r\n")[2])
    assert told.keys() == {"code", "message"}
    assert told["code"] == "foreign_host"
    assert "localhost" in told["message"]


def test_a_host_that_is_missing_doubled_or_in_the_request_line_is_refused(keyless: Running) -> None:
    before = people(keyless)
    two = ("Host: 127.0.0.1", "Host: evil.example")
    for line, headers in (
        ("DELETE /v1/users/ada", ()),
        ("DELETE /v1/users/ada", two),
        ("DELETE /v1/users/ada", two[::-1]),
        ("DELETE http://127.0.0.1/v1/users/ada", two[1:]),
        ("DELETE http://evil.example/v1/users/ada", two[1:]),
    ):
        assert ask(keyless, line, *headers)[0] in (400, 421), (line, headers)
    old = b"DELETE /v1/users/ada HTTP/1.0\r\n\r\n"
    assert send(keyless, old)[0] in (400, 421)
    assert people(keyless) == before


def test_nothing_of_a_body_is_waited_for(keyless: Running) -> None:
    lines = ("POST /v1/score HTTP/1.1", "Host: evil.example", "Content-Length: 1000000", "", "")
    address = urlsplit(keyless.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall("\r\n".join(lines).encode())
        assert connection.recv(65536).split(b" ", 2)[1] == b"421"


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_a_page_of_another_site_changes_nothing(keyless: Running, origin: str) -> None:
    """Without any rebinding: a form or a script of a page sends what needs no leave to be sent."""
    before = people(keyless)
    headers = ("Host: 127.0.0.1", f"Origin: {origin}", "Content-Type: text/plain")
    body = json.dumps(CHOICE).encode()
    for line in ("POST /v1/users/eve/preferences", "POST /v1/score", "DELETE /v1/users/ada"):
        status, answer = ask(keyless, line, *headers, body=body)
        assert status == 403, line
        assert b"foreign_origin" in answer
    assert people(keyless) == before
    assert ask(keyless, "GET /healthz", *headers)[0] == 200  # such a page cannot read it


@pytest.mark.parametrize("origin", OWN_ORIGINS)
def test_a_page_of_this_machine_may_change_things(keyless: Running, origin: str) -> None:
    headers = ("Host: 127.0.0.1", f"Origin: {origin}", "Content-Type: application/json")
    body = json.dumps(CHOICE).encode()
    assert ask(keyless, "POST /v1/users/cy/preferences", *headers, body=body)[0] in (200, 201)


def test_with_keys_any_name_may_lead_to_it(running: Running) -> None:
    key = f"Authorization: Bearer {running.keys['acme']}"
    status, _ = ask(running, "GET /v1/users", "Host: pgenrm.example", key)
    assert status == 200
    assert ask(running, "GET /v1/users", "Host: pgenrm.example")[0] == 401
