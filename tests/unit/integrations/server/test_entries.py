"""Over HTTP: one entry corrected or forgotten, and a request that comes twice."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from pgenrm_agent.schema import PreferencePair

if TYPE_CHECKING:
    from .conftest import Running

CHOICE: dict[str, str] = {"query": "How?", "chosen": "So.", "rejected": "Thus."}


def test_entries_are_listed_corrected_and_forgotten(running: Running) -> None:
    with running.client() as client:
        path = "/v1/users/team%2Fada"
        choice = client.post(f"{path}/preferences", json=CHOICE).raise_for_status().json()["id"]
        old = client.post(f"{path}/statements", json={"text": "Be brief."}).json()["id"]
        new = client.post(f"{path}/statements", json={"text": "long answers"}).json()["id"]
        known = client.get(path).json()
        overruled = {entry["id"]: entry["overruled_by"] for entry in known["entries"]}
        assert overruled == {choice: None, old: new, new: None}
        changed = {**CHOICE, "id": choice, "chosen": "Otherwise."}
        # An id that follows from the content goes with it; a given one stays.
        corrected = client.put(f"{path}/preferences", json=changed).json()["id"]
        again = client.put(f"{path}/preferences", json=changed)
        assert (again.status_code, again.json()["code"]) == (404, "entry_unknown")
        assert corrected == PreferencePair(**{**CHOICE, "chosen": "Otherwise."}).id
        choice = client.post(f"{path}/preferences", json={**CHOICE, "id": "given"}).json()["id"]
        changed = {**CHOICE, "id": "given", "chosen": "Or so."}
        assert client.put(f"{path}/preferences", json=changed).json() == {"id": "given"}
        assert client.post(f"{path}/forget", json={"id": corrected}).json() == {"forgotten": 1}
        longer = client.put(f"{path}/statements", json={"id": old, "text": "I want short answers"})
        known = client.get(path).raise_for_status().json()
        assert [pair["chosen"] for pair in known["history"]] == ["Or so."]
        overruled = {entry["id"]: entry["overruled_by"] for entry in known["entries"]}
        assert overruled == {choice: None, new: longer.json()["id"], longer.json()["id"]: None}
        assert [stated["text"] for stated in known["stated"]] == ["I want short answers"]
        assert client.post(f"{path}/forget", json={"id": choice}).json() == {"forgotten": 1}
        assert client.get(path).json()["history"] == []
        assert len(client.get(path).json()["entries"]) == 2


@pytest.mark.parametrize("user", ["nobody", "ada"])
def test_an_entry_that_is_not_there_is_404(running: Running, user: str) -> None:
    with running.client() as client, running.client("bloom") as neighbor:
        foreign = neighbor.post("/v1/users/ada/preferences", json=CHOICE).json()["id"]
        for method, end, body in (
            ("POST", "forget", {"id": foreign}),
            ("PUT", "preferences", {**CHOICE, "id": foreign}),
            ("PUT", "statements", {"id": foreign, "text": "x"}),
        ):
            answer = client.request(method, f"/v1/users/{user}/{end}", json=body)
            assert (answer.status_code, answer.json()["code"]) == (404, "entry_unknown")
        assert len(neighbor.get("/v1/users/ada").json()["history"]) >= 1


def test_a_choice_that_is_sent_twice_with_one_key_is_remembered_once(running: Running) -> None:
    with running.client() as client:
        path = "/v1/users/ida/preferences"
        first = client.post(path, json=CHOICE, headers={"Idempotency-Key": "abc"})
        again = client.post(path, json=CHOICE, headers={"Idempotency-Key": "abc"})
        assert first.status_code == again.status_code == 201
        assert first.json() == again.json()
        assert len(client.get("/v1/users/ida").json()["history"]) == 1
        client.post(path, json=CHOICE, headers={"Idempotency-Key": "abd"}).raise_for_status()
        client.post(path, json=CHOICE).raise_for_status()
        assert len(client.get("/v1/users/ida").json()["history"]) == 3
        other_body = {**CHOICE, "chosen": "Otherwise."}
        refused = client.post(path, json=other_body, headers={"Idempotency-Key": "abc"})
        assert (refused.status_code, refused.json()["code"]) == (409, "contradiction")
        assert "Idempotency-Key" in refused.json()["message"]
        # An id says by itself that it is the same request, and stays the choice's own.
        for _ in range(2):
            named = client.post(
                path, json={**CHOICE, "id": "mine"}, headers={"Idempotency-Key": "abe"}
            )
            assert (named.status_code, named.json()) == (201, {"id": "mine"})
        clash = client.post(path, json={**other_body, "id": "mine"})
        assert (clash.status_code, clash.json()["code"]) == (409, "entry_conflict")
        too_long = client.post(path, json=CHOICE, headers={"Idempotency-Key": "x" * 257})
        assert too_long.status_code == 422


@pytest.mark.parametrize("bodies", [1, 4])
def test_one_key_in_many_requests_at_once_is_one_choice(running: Running, bodies: int) -> None:
    with running.client() as client:
        user = f"/v1/users/eva-{bodies}"

        def send(number: int) -> tuple[int, str]:
            answer = client.post(
                f"{user}/preferences",
                json={**CHOICE, "chosen": f"So. {number % bodies}"},
                headers={"Idempotency-Key": "at once"},
            )
            return answer.status_code, answer.json().get("id") or answer.json()["code"]

        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(send, range(12)))
        [kept] = client.get(user).json()["history"]
        of_the_kept = [n for n in range(12) if kept["chosen"] == f"So. {n % bodies}"]
        for number, answer in enumerate(answers):
            same = number in of_the_kept
            assert answer == ((201, kept["id"]) if same else (409, "contradiction"))


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"conversation": [{"role": "user", "content": "w" * 200_000}]}, "entry_refused"),
        ({"chosen_score": float("nan")}, "entry_refused"),
        ({"attributes": {"wit": float("inf")}}, "entry_refused"),
        ({"chosen": "w" * 50_001}, "invalid_request"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_what_cannot_be_kept_is_refused_as_the_callers_mistake(
    running: Running, given: dict[str, object], code: str, method: str
) -> None:
    with running.client() as client:
        path = "/v1/users/uma/preferences"
        client.post(path, json={**CHOICE, "id": "kept"}).raise_for_status()
        body = json.dumps({**CHOICE, "id": "kept" if method == "PUT" else "new", **given})
        headers = {"Content-Type": "application/json"}
        answer = client.request(method, path, content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (422, code)
        assert [pair["id"] for pair in client.get("/v1/users/uma").json()["history"]] == ["kept"]
