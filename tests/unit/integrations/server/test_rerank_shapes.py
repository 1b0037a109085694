"""Rerank requests as existing clients write them, and documents that cannot be judged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from pgenrm_agent.engines.protocol import Prompt
from pgenrm_agent.errors import EngineUnavailable
from pgenrm_agent.ranking import relevance

if TYPE_CHECKING:
    from .conftest import Running, Serve

ASKED = {"query": "How?", "user": "ada", "documents": ["Fair. 5", "Good. 10", "Poor. 1"]}
TEXTS = {"query": "How?", "texts": ["Fair. 5", "", "Good. 10"]}


def ranked(answer: dict[str, Any]) -> list[tuple[int, float]]:
    return [(row["index"], round(row["relevance_score"], 6)) for row in answer["results"]]


@pytest.fixture
def http(running: Running) -> Iterator[httpx.Client]:
    with running.client() as client:
        yield client


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_a_document_that_cannot_be_judged_costs_the_others_nothing(
    http: httpx.Client, path: str
) -> None:
    documents = ["Fair. 5", "", "  \n", "x" * 50_001, "Good. 10", {"title": "No text."}]
    answer = http.post(path, json={**ASKED, "documents": documents}).raise_for_status().json()
    assert ranked(answer) == [(4, 1.0), (0, round(4 / 9, 6))]
    assert [(row["index"], row["reason"]) for row in answer["not_scored"]] == [
        (1, "its text is blank"),
        (2, "its text is blank"),
        (3, "its text has 50,001 characters; at most 50,000 can be judged"),
        (5, "it has no field text"),
    ]


def test_where_nothing_can_be_judged_no_model_is_asked(running: Running) -> None:
    calls = len(running.engine.calls)
    with running.client() as http:
        answer = http.post("/v1/rerank", json={**ASKED, "documents": ["", {"image": "x"}]}).json()
    assert (answer["results"], len(answer["not_scored"])) == ([], 2)
    assert len(running.engine.calls) == calls


def test_the_fields_to_judge_are_the_clients_choice(running: Running) -> None:
    documents = [
        {"title": "Fair", "body": "5", "year": 1990},
        {"title": "Good", "body": "10"},
        {"text": "Neither. 9"},
    ]
    with running.client() as http:
        asked = {**ASKED, "documents": documents, "rank_fields": ["title", "body", "year"]}
        answer = http.post("/v1/rerank", json=asked).raise_for_status().json()
        shown = running.engine.calls[-1][0][0].messages[-1].content
        alone = http.post("/v1/rerank", json={**asked, "rank_fields": ["body"]}).json()
    assert "title: Fair\nbody: 5\nyear: 1990" in shown
    assert answer["not_scored"] == [{"index": 2, "reason": "it has no field title or body or year"}]
    assert answer["results"][0]["document"] in documents
    assert ranked(alone) == [(1, 1.0), (0, round(4 / 9, 6))]


def test_no_limit_is_a_limit_of_nought(running: Running) -> None:
    """vLLM's clients send 0 for all."""
    with running.client() as http:
        every = http.post("/v1/rerank", json={**ASKED, "top_n": 0}).raise_for_status().json()
        plain = http.post("/v1/rerank", json=ASKED).json()
    assert ranked(every) == ranked(plain)


def test_texts_are_answered_as_text_embeddings_inference_does(http: httpx.Client) -> None:
    plain = http.post("/rerank", json=TEXTS).raise_for_status().json()
    assert [(row["index"], round(row["score"], 6)) for row in plain] == [
        (2, 1.0),
        (0, round(4 / 9, 6)),
    ]
    with_text = http.post(
        "/rerank", json={**TEXTS, "return_text": True, "raw_scores": False}
    ).json()
    assert [row["text"] for row in with_text] == ["Good. 10", "Fair. 5"]


@pytest.mark.parametrize("body", [{}, {"documents": [], "texts": []}, {**TEXTS, **ASKED}])
def test_texts_or_documents_have_to_be_there(http: httpx.Client, body: dict[str, Any]) -> None:
    refused = http.post("/rerank", json={"query": "How?", **body})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert "`texts`" in refused.json()["message"]


def test_the_model_is_listed_and_a_key_opens_every_door(running: Running) -> None:
    with running.client() as http:
        listed = http.get("/v1/models").raise_for_status().json()
    assert (listed["object"], [model["id"] for model in listed["data"]]) == ("list", ["pgenrm"])
    assert httpx.get(f"{running.url}/v1/models").status_code == 401
    for path in ("/rerank", "/v1/evaluations", "/v1/evaluations/stream"):
        assert httpx.post(f"{running.url}{path}", json=TEXTS).status_code == 401


def test_a_model_that_is_down_gives_the_given_order_and_says_so(serve: Serve) -> None:
    with serve() as running, running.client() as http:

        def down(prompt: Prompt, number: int) -> str:
            raise EngineUnavailable("the model is being restarted")

        running.engine._reply = down
        for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
            assert http.post(path, json=ASKED).status_code == 503
            answer = http.post(path, json={**ASKED, "fallback": "order", "top_n": 2}).json()
            assert ranked(answer) == [(0, 0.0), (1, 0.0)]
            assert len(answer["not_scored"]) == 3
            assert "the model is being restarted" in answer["not_scored"][0]["reason"]
            (warning,) = answer["meta"]["warnings"]
            assert "the order in which the answers came" in warning
        assert http.post("/v1/rerank", json={**ASKED, "fallback": "best"}).status_code == 422


@pytest.mark.parametrize(
    ("score", "expected"), [(0.46, 0.0), (0.0, 0.0), (1.0, 0.0), (5.5, 0.5), (10.0, 1.0), (10.3, 1)]
)
def test_relevance_lies_between_0_and_1(score: float, expected: float) -> None:
    assert relevance(score) == pytest.approx(expected)


def test_scores_that_are_tied_have_one_relevance() -> None:
    assert relevance(5.0 + 1e-12) == relevance(5.0 - 1e-12)
