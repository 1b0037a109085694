"""Rerank with the clients people have already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cohere
import pytest
from cohere.core.api_error import ApiError

if TYPE_CHECKING:
    from .conftest import Running


DOCUMENTS = ["Fair. 5", "Good. 10", "Poor. 1"]
FOR_ADA = {"additional_body_parameters": {"user": "ada"}}


@pytest.mark.parametrize("kind", [cohere.Client, cohere.ClientV2])
def test_coheres_clients_work_by_changing_the_base_url(
    running: Running, kind: type[cohere.Client] | type[cohere.ClientV2]
) -> None:
    client = kind(api_key=running.keys["acme"], base_url=running.url)
    answer = client.rerank(
        model="pgenrm", query="How?", documents=DOCUMENTS, top_n=2, request_options=FOR_ADA
    )
    assert [(result.index, round(result.relevance_score, 6)) for result in answer.results] == [
        (1, 1.0),
        (0, round(4 / 9, 6)),
    ]
    assert answer.meta is not None
    assert answer.meta.warnings == ["nothing is known of user 'ada': is the name right?"]


def test_coheres_client_names_the_user_in_a_header_too(running: Running) -> None:
    client = cohere.ClientV2(api_key=running.keys["acme"], base_url=running.url)
    options = {"additional_headers": {"X-PGenRM-User": "ada"}}
    client.rerank(model="m", query="How?", documents=DOCUMENTS, request_options=options)
    with pytest.raises(ApiError) as told:
        client.rerank(
            model="m",
            query="How?",
            documents=DOCUMENTS,
            request_options={**options, "additional_body_parameters": {"user": "bob"}},
        )
    assert told.value.status_code == 409


def test_coheres_client_without_a_user_is_told_that_nothing_is_personal(running: Running) -> None:
    client = cohere.ClientV2(api_key=running.keys["acme"], base_url=running.url)
    answer = client.rerank(model="m", query="How?", documents=DOCUMENTS)
    assert [result.index for result in answer.results] == [1, 0, 2]
    assert answer.meta is not None
    assert "no user was named" in str(answer.meta.warnings)


def test_coheres_client_sees_a_wrong_key_as_its_own_error(running: Running) -> None:
    client = cohere.ClientV2(api_key="wrong", base_url=running.url)
    with pytest.raises(cohere.UnauthorizedError):
        client.rerank(model="m", query="How?", documents=DOCUMENTS)


def test_jinas_shape_brings_documents_and_usage(running: Running) -> None:
    asked = {
        "model": "jina-reranker",
        "query": "How?",
        "documents": [{"text": "Fair. 5", "source": "a"}, "Good. 10"],
        "user": "ada",
    }
    with running.client() as client:
        answer = client.post("/v1/rerank", json=asked).raise_for_status().json()
        silent = client.post("/v1/rerank", json={**asked, "return_documents": False}).json()
    assert answer["model"] == "jina-reranker"
    assert [result["index"] for result in answer["results"]] == [1, 0]
    assert answer["results"][1]["document"] == {"text": "Fair. 5", "source": "a"}
    assert answer["usage"]["total_tokens"] > 0
    assert silent["results"][0]["document"] is None
