"""Over HTTP: one entry corrected or forgotten, and a request that comes twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Running

CHOICE = {"query": "How?", "chosen": "So.", "rejected": "Thus."}


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
        assert client.put(f"{path}/preferences", json=changed).json() == {"id": choice}
        longer = client.put(f"{path}/statements", json={"id": old, "text": "I want short answers"})
        known = client.get(path).raise_for_status().json()
        assert [pair["chosen"] for pair in known["history"]] == ["Otherwise."]
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
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
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
        too_long = client.post(path, json=CHOICE, headers={"Idempotency-Key": "x" * 257})
        assert too_long.status_code == 422
