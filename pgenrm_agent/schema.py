"""The nouns of the domain: frozen, validated models that survive a JSON round trip unchanged."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.fields import (
    MAX_CANDIDATES,
    MAX_TEXT,
    MAX_TURNS,
    Identifier,
    Model,
    Moment,
    NonBlank,
    Text,
    UserId,
    WholeText,
    now,
)

Level = Literal["individual", "prototype"]
WEIGHT_SUM_TOLERANCE = 1e-6


class Message(Model):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: WholeText


def _choice_id(said: Mapping[str, object]) -> str:
    """Return the id that follows from what a choice says, whenever it was made."""
    content = {name: value for name, value in said.items() if name not in ("id", "created_at")}
    text = json.dumps(content, sort_keys=True, default=lambda turn: turn.model_dump())
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class PreferencePair(Model):
    """One past choice: the person preferred `chosen` over `rejected` as the answer to `query`.

    `attributes` are named dimensions with weights 0-100 that the person set for this conversation. An
    `id` that is left out follows from the content: the same choice twice is one choice.
    """

    query: Text
    chosen: Text
    rejected: Text
    conversation: tuple[Message, ...] = ()
    attributes: dict[str, float] | None = None
    chosen_score: float | None = None
    rejected_score: float | None = None
    id: Identifier = Field(default_factory=_choice_id)
    created_at: Moment = Field(default_factory=now)

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.chosen == self.rejected:
            raise ValueError(
                "chosen and rejected are the same text, so the pair says nothing about a preference"
            )
        return self

    @property
    def content_id(self) -> str:
        """The id that follows from the content; `id` is another where somebody gave one."""
        return _choice_id(dict(self))


class StatedPreference(Model):
    """A criterion that the person put into words (an element of E in the paper)."""

    kind: Literal["style", "self_description", "demographics", "attributes"] = "style"
    text: Text


class UserSignals(Model):
    """What is known of one person: history H and stated criteria E of the paper.

    choices_known: how many past choices there are in all, where whoever selected the history says so.
    """

    user_id: UserId
    history: tuple[PreferencePair, ...] = ()
    stated: tuple[StatedPreference, ...] = ()
    choices_known: int | None = None


class Candidate(Model):
    """One answer to be scored. `id` is unique within a request.

    A text that cannot be judged, because it is blank or too long, makes the candidate "not_scored".
    """

    id: Identifier
    text: WholeText

    @property
    def unusable(self) -> str | None:
        """Why the text cannot be judged; None where it can."""
        if not self.text.strip():
            return "its text is blank"
        if len(self.text) > MAX_TEXT:
            return f"its text has {len(self.text):,} characters; at most {MAX_TEXT:,} can be judged"
        return None


class EvaluationRequest(Model):
    """Which of `candidates` would `user_id` like best as the answer to `query`?"""

    user_id: UserId
    query: Text
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1, max_length=MAX_CANDIDATES)]
    conversation: Annotated[tuple[Message, ...], Field(max_length=MAX_TURNS)] = ()

    @model_validator(mode="after")
    def _unique_ids(self) -> Self:
        counts = Counter(candidate.id for candidate in self.candidates)
        repeated = sorted(candidate_id for candidate_id, count in counts.items() if count > 1)
        if repeated:
            raise ValueError(f"candidate ids must be unique; repeated: {', '.join(repeated)}")
        return self

    @model_validator(mode="after")
    def _short_turns(self) -> Self:
        longest = max((len(turn.content) for turn in self.conversation), default=0)
        if longest > MAX_TEXT:
            raise ValueError(
                f"a turn of the conversation has {longest:,} characters; at most {MAX_TEXT:,} can be"
                " judged"
            )
        return self

    @property
    def usable(self) -> tuple[int, ...]:
        """The places of the candidates whose texts can be judged."""
        return tuple(i for i, item in enumerate(self.candidates) if item.unusable is None)


class Persona(Model):
    """Who the person is in the present scenario, and what they look for."""

    text: NonBlank


class Criterion(Model):
    """One line of a rubric. `weight` is in percent; `reported_weight` is what the model wrote."""

    name: NonBlank
    weight: Annotated[float, Field(ge=0, le=100)]
    reason: str = ""
    reported_weight: float | None = None


class Rubric(Model):
    """Weighted criteria. The weights sum to 100; build from raw weights with `normalized`."""

    criteria: Annotated[tuple[Criterion, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _sums_to_100(self) -> Self:
        total = sum(criterion.weight for criterion in self.criteria)
        if abs(total - 100) > WEIGHT_SUM_TOLERANCE:
            raise ValueError(
                f"rubric weights sum to {total:g}, not 100; use Rubric.normalized(...)"
            )
        return self

    @classmethod
    def normalized(cls, criteria: tuple[Criterion, ...]) -> Rubric:
        """Scale the weights to sum to 100 and keep what the model wrote in `reported_weight`.

        All weights zero means equal weights.
        """
        if not isinstance(criteria, (tuple, list)) or not all(
            isinstance(criterion, Criterion) for criterion in criteria
        ):
            raise ConfigurationError(
                f"criteria is {criteria!r:.80}: pass a tuple of Criterion objects"
            )
        total = sum(criterion.weight for criterion in criteria)
        if total == 100 and all(criterion.reported_weight is not None for criterion in criteria):
            return cls(criteria=criteria)
        return cls(
            criteria=tuple(
                Criterion(
                    name=criterion.name,
                    # Rounding can end just above 100, which would not survive a round trip.
                    weight=min(100.0, criterion.weight * 100 / total)
                    if total
                    else 100 / len(criteria),
                    reason=criterion.reason,
                    reported_weight=criterion.weight
                    if criterion.reported_weight is None
                    else criterion.reported_weight,
                )
                for criterion in criteria
            )
        )


class EvaluationChain(Model):
    """One sampled text, read: persona, rubric, marks (paper Eq. 2).

    `order[k]` is the index, in the request, of the candidate shown as response k+1.
    `marks[id][c]` is the mark (1-10) of candidate `id` on criterion c of the rubric, None where the
    model gave none. `totals[id]` is sum(weight * mark) / sum(weight) over the marked criteria, 1-10.
    `reported[id]` is the total that the model itself wrote. A model that writes totals but no marks
    per criterion has `totals_from == "reported"`.
    `notes` is what the model worked out before the persona, where its format has a place for that.
    `reasons[id]` is why the candidate got its marks, where the chain says so. `reasoning` is what
    the model thought before it wrote; nothing is read from it.
    `repairs` names what had to be mended to read the text.
    """

    level: Level = "individual"
    signals_of: Identifier
    order: tuple[int, ...]
    notes: str = ""
    persona: Persona
    rubric: Rubric | None
    marks: dict[str, tuple[float | None, ...]]
    reported: dict[str, float]
    totals: dict[str, float]
    totals_from: Literal["marks", "reported"] = "marks"
    reasons: dict[str, str] = Field(default_factory=dict)
    reasoning: str = ""
    repairs: tuple[str, ...] = ()
    text: str
    tokens: int
    seed: int


class ChainFailure(Model):
    """A sampled text that could not be used. `reason` is a code, `message` says more."""

    level: Level = "individual"
    signals_of: Identifier
    reason: str
    message: str
    text: str
    tokens: int
    seed: int
    attempt: int


class Scaling(Model):
    """How many chains, for whom, from what (paper 3 and 4.2; Eq. 8, 9).

    individual: m, chains sampled for the user themselves.
    prototype: n, chains sampled with similar users' signals, one each.
    history: h, past choices shown in a prompt.
    resamples: rounds in which unparseable chains are sampled again.
    stop_when_sure: end early once further chains leave the same candidate in front with this probability.
    seed: None draws one and reports it.
    """

    individual: Annotated[int, Field(ge=0, le=1024)] = 8
    prototype: Annotated[int, Field(ge=0, le=1024)] = 4
    history: Annotated[int, Field(ge=0, le=64)] = 3
    history_selection: Literal["random", "similar", "recent"] = "random"
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    resamples: Annotated[int, Field(ge=0, le=16)] = 2
    stop_when_sure: Annotated[float, Field(gt=0.5, lt=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None

    @model_validator(mode="after")
    def _some_chain(self) -> Self:
        if self.individual + self.prototype == 0:
            raise ValueError("individual and prototype are both 0: there would be no chain to read")
        return self


class CandidateScore(Model):
    """The reward of one candidate, or why there is none.

    mean: Eq. 9 divided by the number of levels present, so that it stays on the 1-10 scale; of a
        single neighbor beside the user's own chains, a quarter at most (`aggregation.aggregate`).
    standard_error: of `mean`, from the spread of the chains; None where neither the user's own nor
        similar users' are two or more.
    probability_best: chance that the user likes this candidate best of all, 0-1; None where fewer
        than two chains tell, or where another candidate that can be judged is not scored
        (`confidence`).
    `outcome == "not_scored"` has no numbers and a `reason`; it is never a zero or a tie.
    """

    candidate_id: Identifier
    outcome: Literal["scored", "not_scored"] = "scored"
    reason: str | None = None
    mean: float | None = None
    standard_error: float | None = None
    individual_mean: float | None = None
    prototype_mean: float | None = None
    probability_best: float | None = None
    chains: int = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.outcome == "scored" and self.mean is None:
            raise ValueError("a scored candidate needs a mean")
        if self.outcome == "not_scored" and (self.mean is not None or not self.reason):
            raise ValueError("a candidate that is not scored has no mean and needs a reason")
        return self


class Prices(Model):
    """What a model's tokens cost, per million, in the currency of whoever pays.

    prompt: tokens read. completion: tokens written, thinking included.
    """

    prompt: Annotated[float, Field(ge=0)]
    completion: Annotated[float, Field(ge=0)]

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return what so many tokens cost."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1_000_000


class Usage(Model):
    """What an evaluation cost.

    model: the engine that was asked; empty where nothing was.
    prompt_tokens, completion_tokens: tokens read and written; a prompt that several samples share is
        read once. Tokens of what a model thought are among those written.
    cost: money, where prices were given.
    """

    model: str = ""

    engine_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    chains_sampled: int = 0
    cost: float | None = None


class Writing(Model):
    """In what a text is written, as far as a plain rule can tell; the script is "" without letters."""

    language: Literal["English", "other", "unknown"]
    script: str


class ClippedText(Model):
    """A text of which prompts show the beginning only.

    place: "query", a candidate's id, "choice 2, chosen", "statement 1". characters: how long it is.
    shown: how much of it prompts show.
    """

    place: str
    characters: int
    shown: int


class Evidence(Model):
    """What an evaluation rests on, and what it was not made for.

    choices: past choices of the user that prompts show; choice_ids: which, as chains number them:
        "choice 1" is the first, the oldest of them. choices_known: how many there are in all,
        None where the memory does not say. statements: what the user stated, shown.
    neighbors: similar users whose chains count.
    clipped: texts that prompts show the beginning of only.
    query_writing, candidate_writings: in what they are written; the candidates' by id.
    warnings: sentences on input beyond what the chain format or its model was made for, and on a
        user of whom nothing is known.
    """

    choices: int
    choice_ids: tuple[str, ...] = ()
    choices_known: int | None
    statements: int
    neighbors: int
    clipped: tuple[ClippedText, ...]
    query_writing: Writing
    candidate_writings: dict[str, Writing]
    warnings: tuple[str, ...]


class Evaluation(Model):
    """Everything there is to know about one scored request.

    `ranking` holds the ids of the scored candidates, best first; ties keep the request's order.
    `timings` are seconds by stage. `cached`: taken from an `EvaluationCache`, at no cost.
    """

    request: EvaluationRequest
    scores: tuple[CandidateScore, ...]
    ranking: tuple[str, ...]
    best: str | None
    chains: tuple[EvaluationChain, ...]
    failures: tuple[ChainFailure, ...] = ()
    prototype: str | None = None
    neighbors: tuple[str, ...] = ()
    evidence: Evidence
    usage: Usage = Usage()
    timings: dict[str, float] = Field(default_factory=dict)
    seed: int
    cached: bool = False

    def score_of(self, candidate_id: str) -> CandidateScore:
        """Return the score of one candidate.

        Raises:
            ConfigurationError: The request had no candidate of that id.
        """
        for score in self.scores:
            if score.candidate_id == candidate_id:
                return score
        raise ConfigurationError(
            f"no candidate has the id {candidate_id!r}: the request had "
            f"{', '.join(score.candidate_id for score in self.scores)}"
        )
