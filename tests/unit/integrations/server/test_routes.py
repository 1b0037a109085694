"""What the routes answer, over a socket."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from pgenrm_agent.fields import MAX_CANDIDATES, MAX_TEXT, MAX_TURNS
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.prototypes import Member, PrototypeStore
from pgenrm_agent.schema import PreferencePair

if TYPE_CHECKING:
    from .conftest import Running, Serve


ASKED = {"user_id": "ada", "query": "How?", "candidates": ["So. 3", "Thus. 8"]}
TURN = {"role": "user", "content": "Hello."}


def test_score_answers_with_scores_and_the_reason_why(running: Running) -> None:
    with running.client() as client:
        answer = client.post("/v1/score", json=ASKED).raise_for_status().json()
        assert answer["ranking"] == ["answer-2", "answer-1"]
        assert [score["mean"] for score in answer["scores"]] == [3.0, 8.0]
        assert answer["persona"] == "This person wants a useful answer."
        assert answer["rubric"]["criteria"][0]["name"] == "Usefulness"
        assert answer["chains"] is None
        full = client.post("/v1/score", json={**ASKED, "include_chains": True}).json()
        assert len(full["chains"]) == 2


def test_a_mistyped_user_is_told_of(running: Running) -> None:
    asked = {"query": "How?", "documents": ["So. 3", "Thus. 8"], "user": "adda"}
    known = {"query": "Before?", "chosen": "Yes.", "rejected": "No."}
    with running.client() as client:
        client.post("/v1/users/kim/preferences", json=known).raise_for_status()
        told = client.post("/v1/score", json={**ASKED, "user_id": "kim"}).json()["evidence"]
        assert (told["choices"], told["choices_known"], told["warnings"]) == (1, 1, [])
        evidence = client.post("/v1/score", json={**ASKED, "user_id": "adda"}).json()["evidence"]
        assert (evidence["choices"], evidence["choices_known"], evidence["statements"]) == (0, 0, 0)
        warning = "nothing is known of user 'adda': is the name right?"
        assert evidence["warnings"] == [warning]
        for path in ("/v1/rerank", "/v2/rerank"):
            assert client.post(path, json=asked).json()["meta"]["warnings"] == [warning]


def test_scaling_in_the_request_goes_over_the_servers(running: Running) -> None:
    scaling = {"individual": 5, "seed": 11}
    with running.client() as client:
        answer = client.post("/v1/score", json={**ASKED, "scaling": scaling}).json()
    assert (answer["usage"]["chains_sampled"], answer["seed"]) == (5, 11)


def test_a_request_says_how_long_it_waits(running: Running) -> None:
    with running.client() as client:
        assert client.post("/v1/score", json={**ASKED, "timeout": 60}).status_code == 200
        asked = {"query": "How?", "documents": ["So. 3", "Thus. 8"], "user": "ada"}
        for path, body in (("/v1/score", ASKED), ("/v1/rerank", asked), ("/v2/rerank", asked)):
            late = client.post(path, json={**body, "timeout": 1e-6})
            assert (late.status_code, late.json()["code"]) == (504, "engine_timeout")


def test_signals_in_the_request_are_shown_and_not_kept(running: Running) -> None:
    known = {"query": "Before?", "chosen": "Yes, as the request says.", "rejected": "No."}
    signals = {"history": [known], "stated": [{"text": "Only in this request."}]}
    with running.client() as client:
        first_call = len(running.engine.calls)
        asked = {**ASKED, "user_id": "zed", "signals": signals}
        client.post("/v1/score", json=asked).raise_for_status()
        shown = str([prompts for prompts, _ in running.engine.calls[first_call:]])
        assert "Yes, as the request says." in shown
        assert "Only in this request." in shown
        assert client.get("/v1/users/zed").json()["history"] == []
        same = {**known, "rejected": known["chosen"]}
        refused = client.post("/v1/score", json={**asked, "signals": {"history": [same]}})
    assert (refused.status_code, refused.json()["code"]) == (409, "contradiction")


def test_the_stream_tells_every_stage_and_then_the_result(running: Running) -> None:
    events: list[tuple[str, Any]] = []
    with running.client() as client, client.stream("POST", "/v1/score/stream", json=ASKED) as got:
        assert got.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in got.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                events.append((name, json.loads(value)))
    assert [data["stage"] for name, data in events if name == "progress"] == [
        "recall",
        "derive_persona",
        "match_prototype",
        "generate_rubric",
        "sample_scores",
        "aggregate",
    ]
    assert events[-1][0] == "result"
    assert events[-1][1]["best"] == "answer-2"


def test_a_stream_tells_of_what_nobody_foresaw(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("an engine of one's own with a bug")

    monkeypatch.setattr(running.engine, "sample", broken)
    with running.client() as client:
        told = client.post("/v1/score/stream", json=ASKED).text
    assert "event: error" in told
    assert "internal_error" in told
    assert "with a bug" not in told


def test_what_is_remembered_is_shown_used_and_forgotten(running: Running) -> None:
    pair = {"query": "Whence?", "chosen": "From there.", "rejected": "Who knows?"}
    with running.client() as client:
        made = client.post("/v1/users/mia/preferences", json=pair)
        assert made.status_code == 201
        said = client.post("/v1/users/mia/statements", json={"text": "Short answers."})
        assert said.status_code == 201
        client.put("/v1/users/mia/consent", json={"consent": True}).raise_for_status()
        known = client.get("/v1/users/mia").json()
        assert known["history"][0]["id"] == made.json()["id"]
        assert (known["stated"][0]["text"], known["consent"]) == ("Short answers.", True)
        listed = client.get("/v1/users", params={"limit": 1000}).json()
        assert {"user_id": "mia", "pairs": 1, "stated": 1, "consent": True} in listed["users"]

        client.post("/v1/score", json={**ASKED, "user_id": "mia"}).raise_for_status()
        prompt = running.engine.calls[-1][0][0].messages
        assert any("From there." in message.content for message in prompt)

        assert client.delete("/v1/users/mia").json() == {"forgotten": 3}
        assert client.get("/v1/users/mia").json()["history"] == []


@pytest.mark.parametrize(
    "document",
    [
        r'{"text": "So. 3", "note": "half \ud800 a character"}',
        r'{"text": "So. 3", "\udfff": 1}',
        '{"text": "So. 3", "deep": ' + "[" * 400 + "]" * 400 + "}",
        '{"text": "So. 3", "deep": ' + '{"a":' * 90_000 + "1" + "}" * 90_000 + "}",
    ],
    ids=["surrogate", "surrogate as a name", "deep", "very deep"],
)
def test_what_could_not_be_sent_back_is_refused_before_a_model_is_asked(
    running: Running, document: str
) -> None:
    body = '{"query": "How?", "user": "ada", "documents": ["Thus. 8", ' + document + "]}"
    calls = len(running.engine.calls)
    with running.client() as client:
        for path in ("/v1/rerank", "/v2/rerank"):
            answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
            assert 400 <= answer.status_code < 500, answer.text
            assert answer.json()["code"]
    assert len(running.engine.calls) == calls


def test_the_docs_load_nothing_from_elsewhere(running: Running) -> None:
    with running.client() as client:
        page = client.get("/docs")
        paths = client.get("/openapi.json").json()["paths"]
        assert client.get("/redoc").status_code == 404
    assert page.status_code == 200
    assert all(f"{path}</code>" in page.text for path in paths)
    assert "How do I cook rice?" in page.text
    assert "<script" not in page.text
    assert re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"'>)]+)", page.text) == ["openapi.json"]


def test_users_come_page_by_page(running: Running) -> None:
    with running.client("bloom") as client:
        for name in ("p1", "p2", "p3"):
            client.put(f"/v1/users/{name}/consent", json={"consent": False}).raise_for_status()
        first = client.get("/v1/users", params={"limit": 2}).json()
        assert ([user["user_id"] for user in first["users"]], first["next"]) == (["p1", "p2"], "p2")
        rest = client.get("/v1/users", params={"limit": 2, "after": "p2"}).json()
        assert ([user["user_id"] for user in rest["users"]], rest["next"]) == (["p3"], None)


def test_the_operators_routes_need_no_key_and_name_nobody(running: Running) -> None:
    with running.client() as client:
        client.get("/v1/users/secret-name").raise_for_status()
    assert httpx.get(f"{running.url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{running.url}/readyz").json() == {"status": "ok"}
    text = httpx.get(f"{running.url}/metrics").text
    assert 'pgenrm_requests_total{route="/v1/users/{user_id}",status="200"}' in text
    assert "secret-name" not in text
    assert "acme" not in text


def test_prototypes_are_told_to_their_tenant_without_naming_anybody(serve: Serve) -> None:
    centroids = np.eye(4, dtype=np.float32)[:2]
    people = {"secret-ann": 0, "secret-bob": 1, "secret-cid": 1}
    with serve() as running:
        with running.client() as client:
            before = client.get("/v1/prototypes").raise_for_status().json()
        # The same process as the server's, so the folder is shared with it.
        with UserMemory(running.ring.path.parent / "tenants" / "acme") as memory:
            for user in (*people, "secret-dee"):
                memory.set_consent(user, True)
                memory.remember(user, PreferencePair(query="How?", chosen="So.", rejected="No."))
            PrototypeStore(memory).replace(
                centroids,
                [Member(user, number, centroids[number]) for user, number in people.items()],
                embedder="states",
                labels=["brief", "thorough"],
                remembered=dict.fromkeys(people, 1),
            )
        with running.client() as client:
            answer = client.get("/v1/prototypes").raise_for_status()
        with running.client("bloom") as client:
            others = client.get("/v1/prototypes").raise_for_status().json()
    assert before == others
    assert (before["status"], before["version"], before["prototypes"]) == ("none", None, [])
    told = answer.json()
    assert told["status"] == "in_force"
    assert told["embedder"] == "states"
    assert told["prototypes"] == [
        {"users": 1, "label": "brief"},
        {"users": 2, "label": "thorough"},
    ]
    assert (told["users"], told["not_members"], told["pairs_since"]) == (3, 1, 1)
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/score", {**ASKED, "candidates": []}, 422, "invalid_request"),
        (
            "POST",
            "/v1/score",
            {**ASKED, "candidates": ["a"] * (MAX_CANDIDATES + 1)},
            422,
            "invalid_request",
        ),
        ("POST", "/v1/score", {**ASKED, "query": "x" * (MAX_TEXT + 1)}, 422, "invalid_request"),
        ("POST", "/v1/score", {**ASKED, "querry": "?"}, 422, "invalid_request"),
        ("POST", "/v1/score", {**ASKED, "timeout": 0}, 422, "invalid_request"),
        ("POST", "/v1/score", {**ASKED, "user_id": ".."}, 422, "invalid_request"),
        ("POST", "/v1/score", {**ASKED, "query": "x" * 3_000_000}, 413, "body_too_large"),
        (
            "POST",
            "/v1/score",
            {**ASKED, "conversation": [TURN] * (MAX_TURNS + 1)},
            422,
            "invalid_request",
        ),
        ("POST", "/v1/score", {**ASKED, "scaling": {"individual": 1025}}, 422, "invalid_request"),
        (
            "POST",
            "/v1/score/stream",
            {**ASKED, "candidates": ["a"] * (MAX_CANDIDATES + 1)},
            422,
            "invalid_request",
        ),
        (
            "POST",
            "/v1/rerank",
            {"query": "q", "documents": ["a"] * (MAX_CANDIDATES + 1)},
            422,
            "invalid_request",
        ),
        ("POST", "/v2/rerank", {"query": "q", "documents": []}, 422, "invalid_request"),
        (
            "POST",
            "/v1/users/ada/statements",
            {"text": "x" * (MAX_TEXT + 1)},
            422,
            "invalid_request",
        ),
        ("PUT", "/v1/users/ada/consent", {"consent": "yes"}, 422, "invalid_request"),
        ("PUT", "/v1/users/ada/consent", {"consent": 1}, 422, "invalid_request"),
        ("POST", "/v1/score", {**ASKED, "include_chains": "on"}, 422, "invalid_request"),
        ("GET", "/v1/users/ada%09", None, 422, "invalid_request"),
        ("GET", "/v1/users?limit=1001", None, 422, "invalid_request"),
        ("GET", "/v1/nothing", None, 404, "not_found"),
        ("DELETE", "/v1/score", None, 405, "method_not_allowed"),
        (
            "POST",
            "/v1/users/ada/preferences",
            {"query": "q", "chosen": "x", "rejected": "x"},
            409,
            "contradiction",
        ),
    ],
)
def test_a_wrong_request_gets_one_clear_error(
    running: Running, method: str, path: str, body: object, status: int, code: str
) -> None:
    with running.client() as client:
        answer = client.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "\n" not in answer.json()["message"]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/score", "rice", "body: it is not JSON (Expecting value)"),
        ("/v1/score", "", "body: it is missing"),
        ("/v1/score", "[]", "body: an object with fields is needed"),
        ("/v1/score", '{"query": "q", "candidates": ["a"]}', "body.user_id: it is missing"),
        ("/v1/rerank", '{"query": "q", "documents": []}', "body.documents: it is empty"),
        ("/v1/rerank", '{"query": "q", "documents": [5]}', "body.documents.0: a text is needed"),
    ],
)
def test_what_is_wrong_with_a_body_is_said_in_our_words(
    running: Running, path: str, body: str, message: str
) -> None:
    headers = {"Content-Type": "application/json"}
    with running.client() as client:
        answer = client.post(path, content=body, headers=headers)
    assert (answer.status_code, answer.json()["message"]) == (422, message)


def test_a_body_of_no_announced_length_is_limited_too(running: Running) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(48):
            yield b" " * 65_536

    with running.client() as client:
        answer = client.post("/v1/score", content=parts())
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_every_example_of_the_openapi_description_works(running: Running) -> None:
    tried = 0
    with running.client() as client:
        description = client.get("/openapi.json").json()
        schemas = description["components"]["schemas"]
        for path, methods in description["paths"].items():
            for method, route in methods.items():
                if "requestBody" not in route:
                    continue
                reference = route["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                for example in schemas[reference.rpartition("/")[2]]["examples"]:
                    address = path.replace("{user_id}", "ada")
                    answer = client.request(method, address, json=example)
                    # No entry has the id of an example.
                    unknown = "id" in example and answer.status_code == 404
                    assert answer.is_success or unknown, (path, answer.text)
                    tried += 1
    assert tried >= 7
