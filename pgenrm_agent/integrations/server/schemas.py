"""What goes over the wire: requests with their limits, answers, and examples that work."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict
from starlette.exceptions import HTTPException

from pgenrm_agent.aggregation import typical_chain
from pgenrm_agent.fields import (
    MAX_CANDIDATES,
    MAX_TURNS,
    Identifier,
    Model,
    Moment,
    Text,
    UserId,
    WholeText,
    YesOrNo,
)
from pgenrm_agent.memory import Entry, UserSummary
from pgenrm_agent.schema import (
    Candidate,
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

Timeout = Annotated[
    Annotated[float, Field(gt=0, allow_inf_nan=False)] | None,
    Field(description="Seconds after which the chains that are whole by then have to do."),
]


class Turn(Model):
    """One turn of the conversation before the query."""

    role: Literal["system", "user", "assistant"]
    content: WholeText

    def message(self) -> Message:
        """Return it as a message."""
        return Message(role=self.role, content=self.content)


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
    conversation: Annotated[tuple[Turn, ...], Field(max_length=MAX_TURNS)] = ()
    attributes: dict[str, float] | None = None
    chosen_score: float | None = None
    rejected_score: float | None = None
    id: Identifier | None = None
    created_at: Moment | None = None

    def pair(self) -> PreferencePair:
        """Return it as a pair.

        Raises:
            HTTPException: 409, the two answers are the same.
        """
        if self.chosen == self.rejected:
            raise HTTPException(
                409, "chosen and rejected are the same text, which says nothing about a preference"
            )
        return PreferencePair.model_validate(self.model_dump(exclude_none=True))


class PreferenceChange(PreferenceBody):
    """What a remembered choice is to be from now on; `id` says which."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "5f7c8e",
                    "query": "How do I cook rice?",
                    "chosen": "Simmer one part of rice in two parts of water.",
                    "rejected": "Rice is such a joy!",
                }
            ]
        }
    )

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

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": "5f7c8e", "text": "numbers and steps, please"}]}
    )

    id: Identifier


class EntryBody(Model):
    """One remembered choice or statement."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "5f7c8e"}]})

    id: Identifier


class SignalsBody(Model):
    """What is known of the user, instead of what the memory knows. Nothing of it is kept.

    choices_known: how many past choices there are in all, where the history is a selection.
    """

    history: tuple[PreferenceBody, ...] = ()
    stated: tuple[StatementBody, ...] = ()
    choices_known: Annotated[int, Field(ge=0)] | None = None

    def of(self, user_id: str) -> UserSignals:
        """Return it as the signals of this user."""
        return UserSignals(
            user_id=user_id,
            history=tuple(choice.pair() for choice in self.history),
            stated=tuple(statement.statement() for statement in self.stated),
            choices_known=self.choices_known,
        )


_EXAMPLE: JsonDict = {
    "user_id": "ada",
    "query": "How do I cook rice?",
    "candidates": [
        "Simmer one part of rice in two parts of water for twelve minutes, then let it rest.",
        "Rice is such a joy! I could talk about it all day, and so could my grandmother. Which kind do"
        " you like best? Be patient with it, my friend, and I am sure you will love what you get!",
    ],
    "scaling": {"individual": 8, "seed": 7},
}


class EvaluationBody(Model):
    """Which of `candidates` would `user_id` like as the answer to `query`?

    The fields are the arguments of `PGenRM.score`. A candidate is a text, or an id and a text. What
    `scaling` leaves out is the server's choice.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    user_id: UserId
    query: Text
    candidates: Annotated[
        list[WholeText | Candidate], Field(min_length=1, max_length=MAX_CANDIDATES)
    ]
    conversation: Annotated[tuple[Turn, ...], Field(max_length=MAX_TURNS)] = ()
    scaling: Scaling = Scaling()
    signals: SignalsBody | None = None
    timeout: Timeout = None

    def scaling_over(self, default: Scaling) -> Scaling:
        """Return the server's scaling with what the request says."""
        said = self.scaling.model_dump(include=self.scaling.model_fields_set)
        return Scaling.model_validate(default.model_dump() | said)


class ScoreBody(EvaluationBody):
    """Which of `candidates` would `user_id` like as the answer to `query`? With a short answer.

    The fields are the arguments of `PGenRM.score`, and `include_chains`.
    """

    include_chains: YesOrNo = Field(
        default=False, description="Also return the user's own evaluation chains, in full."
    )


class ScoreResponse(Model):
    """The scores, and one chain's persona and rubric as the reason why.

    `scores` are in the candidates' order; ids that the request leaves out are answer-1, answer-2, ...
    `failures` counts sampled texts that could not be used, by reason. `prototype` is the group of
    similar users that the user is nearest to, `neighbors` how many of them took part. `chains` holds
    the user's own chains only: what similar users' signals gave is theirs. `evidence` says what the
    scores rest on, with warnings.
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


class ModelEntry(Model):
    """A model by the name that rerank requests may give it."""

    id: str = "pgenrm"
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "pgenrm-agent"


class ModelList(Model):
    """The models, in the shape of OpenAI's API: one."""

    object: Literal["list"] = "list"
    data: tuple[ModelEntry, ...] = (ModelEntry(),)


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
