"""Rerank requests and answers in the shapes of others: Cohere, Jina and vLLM, text-embeddings-inference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from pgenrm_agent.fields import MAX_CANDIDATES, Model, Text, UserId, WholeText, YesOrNo
from pgenrm_agent.integrations.server.schemas import Timeout
from pgenrm_agent.ranking import Fallback, RerankResult, relevance

Document: TypeAlias = WholeText | dict[str, object]
MAX_FIELDS = 64


class RerankBody(BaseModel):
    """A rerank request as Cohere's and Jina's clients send it, and `user`, whose taste counts.

    A document is a text, or an object: then the text is in its field `text`, or in the fields that
    `rank_fields` names. Fields of theirs that are not listed are accepted and do nothing. The user can
    also be named in the header X-PGenRM-User. With no user the answers are judged for somebody
    unknown. With `fallback` "order" the documents keep their order where the model cannot be asked.
    """

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "model": "pgenrm",
                    "query": "How do I cook rice?",
                    "documents": [
                        "Simmer one part of rice in two parts of water for twelve minutes, then let it"
                        " rest.",
                        "Rice is such a joy! I could talk about it all day, and so could my"
                        " grandmother. Which kind do you like best? Be patient with it, my friend, and"
                        " I am sure you will love what you get!",
                    ],
                    "top_n": 1,
                    "user": "ada",
                }
            ]
        },
    )

    query: Text
    documents: Annotated[list[Document], Field(min_length=1, max_length=MAX_CANDIDATES)]
    rank_fields: Annotated[list[str], Field(min_length=1, max_length=MAX_FIELDS)] | None = None
    model: Annotated[str, StringConstraints(max_length=256)] | None = None
    top_n: Annotated[int, Field(ge=0)] | None = None
    return_documents: YesOrNo | None = None
    user: UserId | None = None
    timeout: Timeout = None
    fallback: Fallback | None = None

    @model_validator(mode="after")
    def _can_be_sent_back(self) -> Self:
        """Refuse what could not be written into the answer, before a model is asked."""
        try:
            self.model_dump_json(include={"documents"})
            json.dumps(self.documents, ensure_ascii=False).encode()  # the names of fields, too
        except (ValueError, RecursionError) as error:
            raise ValueError(
                "a document cannot be written as JSON again: it is nested too deeply, or holds half"
                " a character (a lone surrogate)"
            ) from error
        return self

    def texts_to_judge(self) -> list[str]:
        """Return the documents' texts, in order; "" for an object that has none."""
        return [self._text(document) or "" for document in self.documents]

    def lacks_text(self, index: int) -> str | None:
        """Return which fields an object lacks that has no text; None for any other document."""
        if self._text(self.documents[index]) is not None:
            return None
        return f"it has no field {' or '.join(self._fields)}"

    @property
    def _fields(self) -> Sequence[str]:
        return self.rank_fields or ("text",)

    def _text(self, document: Document) -> str | None:
        if isinstance(document, str):
            return document
        parts = {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name in self._fields
            if (value := document.get(name)) is not None
        }
        if len(self._fields) == 1:
            return next(iter(parts.values()), None)
        return "\n".join(f"{name}: {text}" for name, text in parts.items()) or None


class PlainRerankBody(RerankBody):
    """A rerank request at /rerank: with `documents` as at /v1/rerank, or with `texts`.

    `texts` is what text-embeddings-inference and its clients say; the answer then has their shape.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [name], "properties": {name: {"minItems": 1}}}
                for name in ("documents", "texts")
            ],
            "examples": [
                {
                    "query": "How do I cook rice?",
                    "texts": ["Simmer it in two parts of water.", "Rice is such a joy!"],
                    "user": "ada",
                }
            ],
        }
    )

    documents: Annotated[list[Document], Field(max_length=MAX_CANDIDATES)] = Field(
        default_factory=list
    )
    texts: Annotated[list[Document], Field(max_length=MAX_CANDIDATES)] = Field(default_factory=list)
    return_text: YesOrNo = False

    @model_validator(mode="after")
    def _documents_or_texts(self) -> Self:
        if bool(self.documents) == bool(self.texts):
            raise ValueError("give the list `documents`, or the list `texts`")
        return self

    def with_documents(self) -> PlainRerankBody:
        """Return the request with its texts as the documents."""
        return self if self.documents else self.model_copy(update={"documents": self.texts})


class RerankResponseItem(Model):
    """`relevance_score` is the mean reward brought from 1-10 to 0-1, as these clients expect."""

    index: int
    relevance_score: float
    document: dict[str, object] | None = None


class NotScored(Model):
    """A document that no chain scored. It is in no result: that would need a made-up number.

    In the results of a `fallback` all documents are, in the order they came in, with 0.
    """

    index: int
    reason: str


class RerankTokens(Model):
    """Tokens read and written."""

    input_tokens: int
    output_tokens: int


class ApiVersion(Model):
    """Which shape this is."""

    version: Literal["1", "2"]


class RerankMeta(Model):
    """What Cohere's clients read beside the results."""

    api_version: ApiVersion
    tokens: RerankTokens
    warnings: list[str] | None = None


class RerankUsage(Model):
    """What Jina's clients read beside the results; and the money, where the server knows prices."""

    total_tokens: int
    prompt_tokens: int
    cost: float | None = None


class RerankResponse(Model):
    """The documents, best first. Cohere's clients read `id` and `meta`, Jina's `model` and `usage`."""

    id: str
    model: str
    results: list[RerankResponseItem]
    not_scored: list[NotScored]
    meta: RerankMeta
    usage: RerankUsage


class ScoredText(Model):
    """A text and its score from 0 to 1, as clients of text-embeddings-inference read it."""

    index: int
    score: float
    text: str | None = None


def rerank_response(
    result: RerankResult, body: RerankBody, version: Literal["1", "2"], warnings: list[str]
) -> RerankResponse:
    """Return the result in the shape that rerank clients read."""
    # Jina returns documents unless told not to, and Cohere's clients do not mind them; the second
    # version of Cohere's shape has none.
    with_documents = body.return_documents
    if with_documents is None:
        with_documents = version == "1"
    usage = result.evaluation.usage
    return RerankResponse(
        id=f"rerank-{result.evaluation.seed}",
        model=body.model or "pgenrm",
        results=[
            RerankResponseItem(
                index=index,
                relevance_score=score,
                document=_document(body, index) if with_documents else None,
            )
            for index, score in _ranked(result)[: body.top_n or None]
        ],
        not_scored=[
            NotScored(index=item.index, reason=body.lacks_text(item.index) or item.reason or "")
            for item in result
            if item.score is None
        ],
        meta=RerankMeta(
            api_version=ApiVersion(version=version),
            tokens=RerankTokens(
                input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens
            ),
            warnings=warnings or None,
        ),
        usage=RerankUsage(
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens=usage.prompt_tokens,
            cost=usage.cost,
        ),
    )


def scored_texts(result: RerankResult, body: PlainRerankBody) -> list[ScoredText]:
    """Return the result as text-embeddings-inference does."""
    texts = body.texts_to_judge()
    return [
        ScoredText(index=index, score=score, text=texts[index] if body.return_text else None)
        for index, score in _ranked(result)[: body.top_n or None]
    ]


def _ranked(result: RerankResult) -> list[tuple[int, float]]:
    """Return places and scores from 0 to 1, best first; the given order with 0 for each as a fallback."""
    if result.fallback is not None:
        return [(item.index, 0.0) for item in result]
    return [(item.index, relevance(item.score)) for item in result if item.score is not None]


def _document(body: RerankBody, index: int) -> dict[str, object]:
    document = body.documents[index]
    return {"text": document} if isinstance(document, str) else document
