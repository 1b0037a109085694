"""Keys, and that a tenant's key never reaches another tenant's data, on any route."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.integrations.server import KeyRing
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.prototypes import Member, PrototypeStore

if TYPE_CHECKING:
    from .conftest import Running


SECRET = "the violet lighthouse"
BODIES: dict[tuple[str, str], dict[str, object]] = {
    ("post", "/v1/score"): {"query": "How?", "candidates": ["a", "b"], "include_chains": True},
    ("post", "/v1/score/stream"): {"query": "How?", "candidates": ["a", "b"]},
    ("post", "/v1/evaluations"): {"query": "How?", "candidates": ["a", "b"]},
    ("post", "/v1/evaluations/stream"): {"query": "How?", "candidates": ["a", "b"]},
    ("post", "/rerank"): {"query": "How?", "documents": ["a", "b"]},
    ("post", "/v1/rerank"): {"query": "How?", "documents": ["a", "b"]},
    ("post", "/v2/rerank"): {"query": "How?", "documents": ["a", "b"]},
    ("post", "/v1/users/{user_id}/preferences"): {"query": "q", "chosen": "c", "rejected": "r"},
    ("post", "/v1/users/{user_id}/statements"): {"text": "Something else."},
    ("put", "/v1/users/{user_id}/preferences"): {
        "id": "theirs",
        "query": "q",
        "chosen": "c",
        "rejected": "r",
    },
    ("put", "/v1/users/{user_id}/statements"): {"id": "theirs", "text": "Something else."},
    ("post", "/v1/users/{user_id}/forget"): {"id": "theirs"},
    ("put", "/v1/users/{user_id}/consent"): {"consent": True},
}


def routes(running: Running) -> list[tuple[str, str]]:
    """Every method and path there is, from the description of the running server."""
    paths = httpx.get(f"{running.url}/openapi.json").json()["paths"]
    return sorted((method, path) for path, methods in paths.items() for method in methods)


def snapshot(running: Running, tenant: str, user: str) -> object:
    with running.client(tenant) as client:
        return client.get(f"/v1/users/{user}").raise_for_status().json()


def body_for(method: str, path: str, user: str) -> dict[str, object] | None:
    body = BODIES.get((method, path))
    if body is None:
        return None
    named = "user" if path.endswith("rerank") else "user_id"
    return body if "{user_id}" in path else {**body, named: user}


@pytest.fixture(scope="module")
def with_prototypes(running: Running) -> Running:
    """Bloom's people have a prototype, named after what nobody else may learn."""
    with running.client("bloom") as owner:
        owner.put("/v1/users/member/consent", json={"consent": True}).raise_for_status()
    # The same process as the server's, so the folder is shared with it.
    with UserMemory(running.ring.path.parent / "tenants" / "bloom") as memory:
        centroids = np.eye(2, dtype=np.float32)[:1]
        member = Member("member", 0, centroids[0])
        PrototypeStore(memory).replace(centroids, [member], embedder="states", labels=[SECRET])
    with running.client("bloom") as owner:
        assert SECRET in owner.get("/v1/prototypes").raise_for_status().text
    return running


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_no_route_reaches_across_tenants(with_prototypes: Running, data: st.DataObject) -> None:
    """Whatever acme asks for, of whatever user of bloom's, it learns and changes nothing."""
    running = with_prototypes
    user = data.draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@+~-]{0,20}", fullmatch=True))
    order = data.draw(st.permutations(routes(running)))
    with running.client("bloom") as owner:
        pair = {"query": "Where?", "chosen": f"At {SECRET}.", "rejected": "Nowhere."}
        owner.post(f"/v1/users/{user}/preferences", json=pair).raise_for_status()
        said = {"text": f"I live in {SECRET}."}
        owner.post(f"/v1/users/{user}/statements", json=said).raise_for_status()
    before = snapshot(running, "bloom", user)
    with running.client("bloom") as owner:
        learned = owner.get("/v1/prototypes").json()
    first_call = len(running.engine.calls)
    with running.client("acme") as stranger:
        for method, path in order:
            answer = stranger.request(
                method, path.replace("{user_id}", user), json=body_for(method, path, user)
            )
            body = body_for(method, path, user) or {}
            of_others = body.get("id") == "theirs"
            told = (method, path, answer.text)
            assert answer.status_code == 404 if of_others else answer.status_code < 300, told
            assert SECRET not in answer.text
    for prompts, _ in running.engine.calls[first_call:]:
        assert SECRET not in json.dumps([prompt.model_dump() for prompt in prompts])
    assert snapshot(running, "bloom", user) == before
    with running.client("bloom") as owner:
        assert owner.get("/v1/prototypes").json() == learned
        owner.delete(f"/v1/users/{user}").raise_for_status()


def test_every_route_about_people_refuses_callers_without_a_key(running: Running) -> None:
    open_to_all = {"/healthz", "/readyz", "/metrics"}
    for method, path in routes(running):
        for headers in ({}, {"Authorization": "Bearer pgenrm_wrong"}, {"Authorization": "Basic x"}):
            answer = httpx.request(
                method,
                running.url + path.replace("{user_id}", "ada"),
                json=body_for(method, path, "ada"),
                headers=headers,
            )
            if path in open_to_all:
                assert answer.status_code == 200
            else:
                assert answer.status_code == 401, path
                assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_revoked_key_opens_nothing_from_then_on(running: Running) -> None:
    key, issued = running.ring.issue("acme")
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{running.url}/v1/users", headers=headers).status_code == 200
    # Another process would do the same: the server reads the file again.
    KeyRing(running.ring.path).revoke(issued.id)
    assert httpx.get(f"{running.url}/v1/users", headers=headers).status_code == 401


def test_keys_that_cannot_be_read_are_the_servers_fault_and_let_nobody_in(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    before = running.ring.path.read_text()
    try:
        running.ring.path.write_text(before + "nonsense\n")
        for headers in ({}, {"Authorization": f"Bearer {running.keys['acme']}"}):
            answer = httpx.get(f"{running.url}/v1/users", headers=headers)
            expected = 503 if headers else 401
            assert answer.status_code == expected
            assert str(running.ring.path) not in answer.text
        assert answer.json()["code"] == "keys_unavailable"
        assert f"{running.ring.path}, line 3 is no key" in caplog.text
    finally:
        running.ring.path.write_text(before)
    with running.client() as client:
        assert client.get("/v1/users").status_code == 200


def test_keys_are_kept_as_hashes_in_a_file_of_their_owner(running: Running) -> None:
    kept = running.ring.path.read_text()
    for key in running.keys.values():
        assert key not in kept
        assert key.removeprefix("pgenrm_") not in kept
    assert stat.S_IMODE(running.ring.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "x" * 64, "-a"])
def test_a_tenant_that_would_be_no_folder_name_is_refused(running: Running, name: str) -> None:
    with pytest.raises(ConfigurationError, match="tenant"):
        running.ring.issue(name)


def test_a_damaged_key_file_is_named_with_its_line(tmp_path: object) -> None:
    ring = KeyRing(f"{tmp_path}/keys.jsonl")
    ring.issue("acme")
    with ring.path.open("a") as file:
        file.write("nonsense\n")
    with pytest.raises(ConfigurationError, match="line 2 is no key"):
        ring.tenant_of("anything")


def test_a_route_needs_a_key_unless_it_is_named(running: Running) -> None:
    async def added() -> str:
        return "words"

    running.app.add_api_route("/added", added, include_in_schema=False)
    assert httpx.get(f"{running.url}/added").status_code == 401
    with running.client() as client:
        assert client.get("/added").json() == "words"
    for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
        assert httpx.get(f"{running.url}{path}").status_code == 200
