"""What goes over the wire: requests with their limits, answers, and examples that work."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from starlette.exceptions import HTTPException

from pgenrm_agent.aggregation import typical_chain
from pgenrm_agent.fields import (
    MAX_CANDIDATES,
    MAX_TEXT,
    MAX_TURNS,
    Identifier,
    Model,
    UserId,
    YesOrNo,
)
from pgenrm_agent.memory import Entry, UserSummary
from pgenrm_agent.ranking import RerankResult
from pgenrm_agent.schema import (
    CandidateScore,
    Evaluation,
    EvaluationChain,
    Evidence,
    Message,
    PreferencePair,
    Rubric,
    Scaling,
    StatedPreference,
    Usage,
    UserSignals,
)

__all__ = [
    "ConsentBody",
    "EntryBody",
    "ErrorBody",
    "Forgotten",
    "PreferenceBody",
    "PreferenceChange",
    "Ready",
    "RerankBody",
    "RerankResponse",
    "ScoreBody",
    "ScoreResponse",
    "StatementBody",
    "StatementChange",
    "Stored",
    "UserList",
    "UserResponse",
    "rerank_response",
    "score_response",
]

MAX_SIGNALS = 64

# Only what every store and tokenizer takes: no text that is blank, none with a NUL.
Text = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_TEXT, pattern=r"^[^\x00]*[^\s\x00][^\x00]*$"),
]


Timeout = Annotated[
    Annotated[float, Field(gt=0, allow_inf_nan=False)] | None,
    Field(description="Seconds after which the chains that are whole by then have to do."),
]


class Turn(Model):
    """One turn of the conversation before the query."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, StringConstraints(max_length=MAX_TEXT, pattern=r"^[^\x00]*$")]

    def message(self) -> Message:
        return Message(role=self.role, content=self.content)


class ScalingBody(Model):
    """How many chains to sample, from what. What is left out is the server's choice."""

    individual: Annotated[int, Field(ge=1, le=32)] | None = None
    prototype: Annotated[int, Field(ge=0, le=32)] | None = None
    stop_when_sure: Annotated[float, Field(gt=0.5, lt=1)] | None = None
    history: Annotated[int, Field(ge=0, le=16)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None

    def over(self, default: Scaling) -> Scaling:
        """Return the server's scaling with what the request says."""
        return default.model_copy(update=self.model_dump(exclude_none=True))


class PreferenceBody(Model):
    """One past choice: the user preferred `chosen` to `rejected`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "How do I boil an egg?",
                    "chosen": "Lower it into boiling water, wait eight minutes, then cool it under the"
                    " tap.",
                    "rejected": "Oh, I love a good egg! It depends on how you like yours, my friend. Soft"
                    " and runny, or firm? Keep an eye on the pot, trust your feeling, and I am sure you"
                    " will enjoy it!",
                }
            ]
        }
    )

    query: Text
    chosen: Text
    rejected: Text

    def pair(self) -> PreferencePair:
        """Return it as a pair.

        Raises:
            HTTPException: 409, the two answers are the same.
        """
        if self.chosen == self.rejected:
            raise HTTPException(
                409, "chosen and rejected are the same text, which says nothing about a preference"
            )
        return PreferencePair(query=self.query, chosen=self.chosen, rejected=self.rejected)


class PreferenceChange(PreferenceBody):
    """What a remembered choice is to be from now on; `id` says which."""

    id: Identifier


class StatementBody(Model):
    """What the user says they want."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"text": "Short answers, please.", "kind": "style"}]}
    )

    text: Text
    kind: Literal["style", "self_description", "demographics", "attributes"] = "style"

    def statement(self) -> StatedPreference:
        """Return it as a statement."""
        return StatedPreference(kind=self.kind, text=self.text)


class StatementChange(StatementBody):
    """What a remembered statement is to be from now on; `id` says which."""

    id: Identifier


class EntryBody(Model):
    """One remembered choice or statement."""

    id: Identifier


class SignalsBody(Model):
    """What is known of the user, instead of what the memory knows. Nothing of it is kept."""

    history: Annotated[tuple[PreferenceBody, ...], Field(max_length=MAX_SIGNALS)] = ()
    stated: Annotated[tuple[StatementBody, ...], Field(max_length=MAX_SIGNALS)] = ()

    def of(self, user_id: str) -> UserSignals:
        """Return it as the signals of this user."""
        return UserSignals(
            user_id=user_id,
            history=tuple(choice.pair() for choice in self.history),
            stated=tuple(statement.statement() for statement in self.stated),
        )


class ScoreBody(Model):
    """Which of `candidates` would `user_id` like as the answer to `query`?"""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": "ada",
                    "query": "How do I cook rice?",
                    "candidates": [
                        "Simmer one part of rice in two parts of water for twelve minutes, then let it"
                        " rest.",
                        "Rice is such a joy! I could talk about it all day, and so could my"
                        " grandmother. Which kind do you like best? Be patient with it, my friend, and"
                        " I am sure you will love what you get!",
                    ],
                    "scaling": {"individual": 8, "seed": 7},
                }
            ]
        }
    )

    user_id: UserId
    query: Text
    candidates: Annotated[list[Text], Field(min_length=1, max_length=MAX_CANDIDATES)]
    conversation: Annotated[tuple[Turn, ...], Field(max_length=MAX_TURNS)] = ()
    scaling: ScalingBody = ScalingBody()
    signals: SignalsBody | None = None
    timeout_s: Timeout = None
    include_chains: YesOrNo = Field(
        default=False, description="Also return the user's own evaluation chains, in full."
    )


class ScoreResponse(Model):
    """The scores, and one chain's persona and rubric as the reason why.

    `scores` are in the candidates' order; their ids are answer-1, answer-2, ... `failures` counts
    sampled texts that could not be used, by reason. `prototype` is the group of similar users that
    the user is nearest to, `neighbors` how many of them took part. `chains` holds the user's
    own chains only: what similar users' signals gave is theirs. `evidence` says what the scores
    rest on, with warnings.
    """

    scores: list[CandidateScore]
    ranking: list[str]
    best: str | None
    persona: str | None
    rubric: Rubric | None
    chains: list[EvaluationChain] | None
    failures: dict[str, int]
    prototype: str | None = None
    neighbors: int = 0
    evidence: Evidence
    usage: Usage
    seconds: float
    seed: int


class RerankDocument(BaseModel):
    """A document given as an object; further fields are carried along, not read."""

    model_config = ConfigDict(extra="allow")

    text: Text


class RerankBody(BaseModel):
    """A rerank request as Cohere's and Jina's clients send it, and `user`, whose taste counts.

    Fields of theirs that are not listed are accepted and do nothing. The user can also be named in
    the header X-PGenRM-User. With no user the answers are judged for somebody unknown.
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
    documents: Annotated[
        list[Text | RerankDocument], Field(min_length=1, max_length=MAX_CANDIDATES)
    ]
    model: Annotated[str, StringConstraints(max_length=256)] | None = None
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: YesOrNo | None = None
    user: UserId | None = None
    timeout_s: Timeout = None

    @model_validator(mode="after")
    def _can_be_sent_back(self) -> Self:
        """Refuse what could not be written into the answer, before a model is asked."""
        try:
            self.model_dump_json()
        except (ValueError, RecursionError) as error:
            raise ValueError(
                "a document cannot be written as JSON again: it is nested too deeply, or holds half"
                " a character (a lone surrogate)"
            ) from error
        return self

    def texts(self) -> list[str]:
        """Return the documents' texts, in order."""
        return [
            document if isinstance(document, str) else document.text for document in self.documents
        ]


class RerankResponseItem(Model):
    """`relevance_score` is the mean reward brought from 1-10 to 0-1, as these clients expect."""

    index: int
    relevance_score: float
    document: dict[str, object] | None = None


class NotScored(Model):
    """A document that no chain scored. It is in no result: that would need a made-up number."""

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


class ConsentBody(Model):
    """Whether the user's choices may help to score answers for similar users."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"consent": True}]})

    consent: YesOrNo


class Stored(Model):
    """The id of what was stored."""

    id: str


class Forgotten(Model):
    """How many entries were removed."""

    forgotten: int


class UserResponse(Model):
    """What is remembered of one user; empty for one nobody has heard of.

    `stated` is what counts now. `entries` holds all choices and statements with the ids by which they
    are corrected and forgotten, and says which newer one has overruled them.
    """

    user_id: str
    history: list[PreferencePair]
    stated: list[StatedPreference]
    entries: list[Entry]
    consent: bool


class UserList(Model):
    """Users by id. `next` is what to pass as `after` for more; None at the end."""

    users: list[UserSummary]
    next: str | None


class Ready(Model):
    """State of the server."""

    status: Literal["ok", "not_ready"]


class ErrorBody(Model):
    """Every error: a code for programs, a message for people."""

    code: str
    message: str


def score_response(evaluation: Evaluation, *, include_chains: bool) -> ScoreResponse:
    """Return what a caller may see of an evaluation."""
    own = [chain for chain in evaluation.chains if chain.level == "individual"]
    shown = typical_chain(evaluation, own) if own else None
    return ScoreResponse(
        scores=list(evaluation.scores),
        ranking=list(evaluation.ranking),
        best=evaluation.best,
        persona=shown.persona.text if shown else None,
        rubric=shown.rubric if shown else None,
        chains=own if include_chains else None,
        failures=dict(Counter(failure.reason for failure in evaluation.failures)),
        prototype=evaluation.prototype,
        neighbors=len(evaluation.neighbors),
        evidence=evaluation.evidence,
        usage=evaluation.usage,
        seconds=evaluation.timings.get("total", 0.0),
        seed=evaluation.seed,
    )


def rerank_response(
    result: RerankResult, body: RerankBody, version: Literal["1", "2"], warnings: list[str]
) -> RerankResponse:
    """Return the result in the shape that rerank clients read."""
    # Jina returns documents unless told not to, and Cohere's clients do not mind them; the second
    # version of Cohere's shape has none.
    with_documents = body.return_documents
    if with_documents is None:
        with_documents = version == "1"
    scored = result.top(len(result))[: body.top_n]
    usage = result.evaluation.usage
    return RerankResponse(
        id=f"rerank-{result.evaluation.seed}",
        model=body.model or "pgenrm",
        results=[
            RerankResponseItem(
                index=item.index,
                relevance_score=((item.score or 1.0) - 1) / 9,
                document=_document(body, item.index) if with_documents else None,
            )
            for item in scored
        ],
        not_scored=[
            NotScored(index=item.index, reason=item.reason or "")
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


def _document(body: RerankBody, index: int) -> dict[str, object]:
    document = body.documents[index]
    return {"text": document} if isinstance(document, str) else document.model_dump()
