"""Users over HTTP: every id that the library takes can be listed, paged, scored and forgotten."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from awkward_ids import TYPED_ANOTHER_WAY, UNUSABLE, USABLE

if TYPE_CHECKING:
    from .conftest import Running

CHOICE = {"query": "How?", "chosen": "So.", "rejected": "Not so."}
ASKED = {"query": "How?", "candidates": ["So. 3", "Thus. 8"], "scaling": {"individual": 1}}
RERANKED = {"query": "How?", "documents": ["So. 3", "Thus. 8"]}


def path_of(user: str) -> str:
    return f"/v1/users/{quote(user, safe='')}"


def test_every_usable_id_goes_through_every_route(running: Running) -> None:
    with running.client("bloom") as http:
        for user in USABLE:
            path = path_of(user)
            assert http.post(f"{path}/preferences", json=CHOICE).status_code == 201, user
            assert http.post(f"{path}/statements", json={"text": "Brief."}).status_code == 201
            assert http.put(f"{path}/consent", json={"consent": True}).status_code == 200
            kept = http.get(path).json()
            assert (kept["user_id"], len(kept["history"]), kept["consent"]) == (user, 1, True)
            assert http.post("/v1/score", json={**ASKED, "user_id": user}).status_code == 200
            assert http.post("/v1/rerank", json={**RERANKED, "user": user}).status_code == 200
            named = http.post("/v2/rerank", json=RERANKED, headers={"X-PGenRM-User": user.encode()})
            assert named.status_code == 200, named.text
            assert named.json()["meta"]["warnings"] is None
        listed: list[str] = []
        page = http.get("/v1/users", params={"limit": 4}).json()
        while True:
            listed += [summary["user_id"] for summary in page["users"]]
            if page["next"] is None:
                break
            page = http.get("/v1/users", params={"limit": 4, "after": page["next"]}).json()
        assert listed == sorted(USABLE)
        for user in USABLE:
            assert http.delete(path_of(user)).json() == {"forgotten": 3}, user
        assert http.get("/v1/users").json()["users"] == []
        assert "user_id:path" not in http.get("/metrics").text


def test_an_id_is_the_same_however_it_was_typed(running: Running) -> None:
    with running.client("bloom") as http:
        http.post(f"{path_of(TYPED_ANOTHER_WAY)}/preferences", json=CHOICE)
        assert len(http.get(path_of("jos\u00e9")).json()["history"]) == 1
        assert http.delete(path_of(TYPED_ANOTHER_WAY)).json() == {"forgotten": 1}


@pytest.mark.parametrize("user", UNUSABLE, ids=ascii)
def test_no_route_takes_another_id(running: Running, user: str) -> None:
    with running.client() as http:
        answers = [
            http.post("/v1/score", content=ascii_json({**ASKED, "user_id": user})),
            http.post("/v1/rerank", content=ascii_json({**RERANKED, "user": user})),
        ]
        if "\ud800" not in user:
            answers.append(http.get("/v1/users", params={"after": user}))
        if user not in (".", "..") and "\ud800" not in user:  # the client itself resolves these
            answers += [
                http.delete(path_of(user)),
                http.post(f"{path_of(user)}/preferences", json=CHOICE),
            ]
    for answer in answers:
        no_path = "\n" in user and "/v1/users/" in str(answer.request.url)
        assert answer.status_code == (404 if no_path else 422), (answer.request.url, answer.text)
        assert "pydantic" not in answer.text


def ascii_json(body: object) -> bytes:
    return json.dumps(body).encode()


def test_a_header_names_one_user_in_utf8(running: Running) -> None:
    with running.client() as http:
        twice = [("X-PGenRM-User", "ada"), ("x-pgenrm-user", "ben")]
        for headers in (twice, twice[:1] * 2):
            answer = http.post("/v1/rerank", json=RERANKED, headers=headers)
            assert answer.status_code == 409, answer.text
            assert "twice" in answer.json()["message"]
        headers = {"X-PGenRM-User": "jos\u00e9".encode("latin-1")}
        answer = http.post("/v1/rerank", json=RERANKED, headers=headers)
        assert answer.status_code == 422
        both = http.post(
            "/v1/rerank",
            json={**RERANKED, "user": "jos\u00e9"},
            headers={"X-PGenRM-User": TYPED_ANOTHER_WAY.encode()},
        )
        assert both.status_code == 200, both.text
