"""Many clients at once, clients that hang up, and stopping."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Literal

import httpx
import pytest

from pgenrm_agent.integrations.server import Limits

if TYPE_CHECKING:
    from .conftest import Running, Serve


def until(true: object, seconds: float = 20) -> bool:
    assert callable(true)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.02)
    return False


def asked(number: int) -> dict[str, object]:
    return {
        "user_id": f"user-{number}",
        "query": f"Question {number}?",
        "candidates": [f"First {number}: {number % 9 + 1}", f"Second {number}: 10"],
    }


def test_64_clients_get_their_own_results(running: Running) -> None:
    def call(number: int) -> None:
        with running.client() as client:
            answer = client.post("/v1/score", json=asked(number))
        assert answer.status_code == 200, answer.text
        assert [score["mean"] for score in answer.json()["scores"]] == [number % 9 + 1, 10]

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(call, range(64)))


def test_too_many_are_turned_away_at_once_and_told_when_to_come_back(serve: Serve) -> None:
    limits = Limits(running=2, waiting=1)

    with serve(limits=limits, latency_s=1.0) as running:

        def call(number: int) -> httpx.Response:
            with running.client() as client:
                return client.post("/v1/score", json=asked(number))

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(call, range(8)))
        turned_away = [answer for answer in answers if answer.status_code == 429]
        assert {answer.status_code for answer in answers} == {200, 429}
        for answer in turned_away:
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
            assert answer.json()["code"] == "overloaded"
        # Nothing stays behind: there is room again.
        assert call(9).status_code == 200
        assert running.metric("pgenrm_evaluations_inside") == 0


def body_for(path: str) -> dict[str, object]:
    if "rerank" in path:
        return {"query": "How?", "documents": ["a", "b"], "user": "ada"}
    return asked(1)


PATHS = ["/v1/score", "/v1/score/stream", "/v1/rerank", "/v2/rerank"]


def send(running: Running, path: str, body: dict[str, object]) -> HTTPConnection:
    """A request that is sent, and its connection, to be closed when its client gives up."""
    connection = HTTPConnection(running.url.removeprefix("http://"), timeout=60)
    headers = {
        "Authorization": f"Bearer {running.keys['acme']}",
        "Content-Type": "application/json",
    }
    connection.request("POST", path, json.dumps(body), headers)
    return connection


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_hangs_up_stops_its_evaluation(serve: Serve, path: str) -> None:
    with serve(latency_s=30.0) as running:
        connection = send(running, path, body_for(path))
        assert until(lambda: running.engine.calls)
        connection.close()
        stopped = 'pgenrm_evaluations_total{outcome="canceled"}'
        assert until(lambda: running.metric(stopped) == 1)
        assert running.metric("pgenrm_evaluations_inside") == 0


def test_all_evaluating_routes_turn_away_and_whoever_leaves_the_queue_makes_room(
    serve: Serve,
) -> None:
    inside = "pgenrm_evaluations_inside"
    with serve(limits=Limits(running=1, waiting=1), latency_s=30.0) as running:
        first = send(running, "/v1/score", asked(1))
        assert until(lambda: len(running.engine.calls) == 1)
        second = send(running, "/v1/score", asked(2))
        assert until(lambda: running.metric(inside) == 2)
        with running.client() as client:
            for path in PATHS:
                answer = client.post(path, json=body_for(path))
                assert answer.status_code == 429, path
                assert 1 <= int(answer.headers["Retry-After"]) <= 60
        second.close()
        assert until(lambda: running.metric(inside) == 1)
        first.close()
        assert until(lambda: running.metric(inside) == 0)
        # The model never heard of the one that waited.
        assert len(running.engine.calls) == 1


def test_stopping_the_server_finishes_what_runs(serve: Serve) -> None:
    answers: list[httpx.Response] = []
    with serve(latency_s=2.0) as running:

        def call() -> None:
            with running.client() as client:
                answers.append(client.post("/v1/score", json=asked(1)))

        waiting = threading.Thread(target=call)
        waiting.start()
        assert until(lambda: running.metric("pgenrm_evaluations_inside") == 1)
        running.server.should_exit = True
        running.thread.join(30)
        waiting.join(30)
    assert [answer.status_code for answer in answers] == [200]


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_what_does_not_end_in_the_grace_time_is_told_that_the_server_stops(
    serve: Serve, http: Literal["h11", "httptools"]
) -> None:
    with (
        serve(latency_s=30, grace_s=1, http=http) as running,
        running.client() as client,
        ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(client.post, "/v1/score", json=asked(1))
        assert until(lambda: running.engine.calls)
        running.server.should_exit = True
        told = answer.result(20)
        assert told.status_code == 503
        assert told.json()["code"] == "stopping"
        assert told.headers["connection"] == "close"
