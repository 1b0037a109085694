"""Which sites' pages may call the server from a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.integrations.server import KeyRing, create_app
from pgenrm_agent.reward_model import PGenRM

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Serve

SITE, EVIL = "https://app.example.com", "https://evil.example"
ASKED = {"user_id": "ada", "query": "How?", "candidates": ["So. 3", "Thus. 8"]}
ALLOWED = "access-control-allow-origin"


def preflight(url: str, origin: str) -> httpx.Response:
    """What a browser asks before it sends a key or JSON to another site."""
    asks = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, idempotency-key, x-pgenrm-user",
    }
    return httpx.options(f"{url}/v1/score", headers=asks)


def test_a_site_that_is_named_may_call_and_no_other(serve: Serve) -> None:
    with serve(cors=(SITE, "http://localhost:3000")) as running:
        asked = preflight(running.url, SITE)
        assert (asked.status_code, asked.headers[ALLOWED]) == (200, SITE)
        assert ALLOWED not in preflight(running.url, EVIL).headers
        for origin, told in ((SITE, SITE), (EVIL, None)):
            with running.client() as http:
                answer = http.post("/v1/score", json=ASKED, headers={"Origin": origin})
            assert answer.headers.get(ALLOWED) == told
        # A page can read why it was refused.
        refused = httpx.post(f"{running.url}/v1/score", json=ASKED, headers={"Origin": SITE})
        assert (refused.status_code, refused.headers[ALLOWED]) == (401, SITE)


def test_without_the_setting_no_site_may_call(serve: Serve) -> None:
    with serve() as running:
        assert ALLOWED not in preflight(running.url, SITE).headers


def test_without_keys_only_the_sites_that_are_named_may_change_anything(serve: Serve) -> None:
    with serve(cors=(SITE,), keyless=True) as running, httpx.Client(base_url=running.url) as http:
        assert preflight(running.url, SITE).status_code == 200
        for origin, status in ((SITE, 200), (EVIL, 403), (f"{SITE}.evil.example", 403)):
            answer = http.post("/v1/score", json=ASKED, headers={"Origin": origin})
            assert answer.status_code == status, origin
        foreign_host = {"Origin": SITE, "Host": "evil.example"}
        assert http.post("/v1/score", json=ASKED, headers=foreign_host).status_code == 421


@pytest.mark.parametrize(
    "origin",
    ["*", "app.example.com", f"{SITE}/", f"{SITE}/page", "https://*.example.com", "null", " ", 7],
)
def test_what_is_no_site_is_refused(rm: PGenRM, origin: str) -> None:
    with pytest.raises(ConfigurationError, match="cors has"):
        create_app(rm, cors=[origin])


def test_with_keys_all_sites_may_call(rm: PGenRM, tmp_path: Path) -> None:
    create_app(rm, cors=["*"], keys=KeyRing(tmp_path / "keys.jsonl"), tenants_folder=tmp_path)
