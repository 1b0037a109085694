"""What the evaluation graph works on: its state, its context, and what a run is started with.

The state is plain JSON data, so that any checkpointer gives back what it was given. What a run
needs beyond data (engine, memory, chain format) comes in its context and is never stored.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Annotated,
    Literal,
    NotRequired,
    Protocol,
    TypeAlias,
    runtime_checkable,
)

from langgraph.runtime import Runtime
from pydantic import ConfigDict, TypeAdapter, WithJsonSchema
from typing_extensions import TypedDict

from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.embedding import Embedder, HashingEmbedder, embedded
from pgenrm_agent.engines.protocol import Engine, FinishReason
from pgenrm_agent.memory.agreement import standing_statements
from pgenrm_agent.memory.selection import select
from pgenrm_agent.sampling import derive_seed
from pgenrm_agent.schema import (
    EvaluationRequest,
    Level,
    PreferencePair,
    Prices,
    Scaling,
    StatedPreference,
    UserSignals,
)

if TYPE_CHECKING:
    from pgenrm_agent.prototypes import Match

JSONObject: TypeAlias = dict[str, object]

STRUCTURED, PUBLISHED = "structured-1", "published"


@runtime_checkable
class SignalSource(Protocol):
    """Where a user's past choices and stated criteria come from; `UserMemory` is one."""

    def recall(
        self,
        user_id: str,
        *,
        query: str | None = None,
        limit: int | None = None,
        selection: Literal["random", "similar", "recent"] = "random",
        seed: int = 0,
    ) -> UserSignals:
        """Return what is known of a user; with `limit`, that many past choices at most."""


@runtime_checkable
class NeighborSource(Protocol):
    """Who is similar to whom; `pgenrm_agent.prototypes.Neighbors` is one.

    memory: where the similar people's own choices come from.
    """

    @property
    def memory(self) -> SignalSource:
        """Where the similar users' own choices come from."""

    def version(self) -> str | None:
        """Return the name of the version that counts now; None without any."""

    def match(self, user_id: str, personas: Sequence[str], query: str, count: int) -> Match | None:
        """Return the `count` most similar users; None where there is no version."""

    def seal(self, user_id: str, text: str) -> str:
        """Return a text of a similar user, sealed; the same text is sealed alike."""

    def seal_beside(self, sealed: str, text: str) -> str:
        """Return a text, sealed as one of the user whose `sealed` is."""

    def unseal(self, sealed: Iterable[str]) -> dict[str, str]:
        """Return the texts by what was sealed; those of users who no longer take part are missing."""


@dataclass(frozen=True)
class EvaluationContext:
    """What a run needs besides its state.

    engine: None means the bundled model.
    chain_format: None means the one that the bundled model was trained on; for other engines
        "structured-1" where they hold an answer to a JSON schema, and "published" where they do not.
    memory: asked only when the input brings no signals; None means the default user memory.
    neighbors: finds the similar people of the prototype level; without it there is none.
    deadline: when, by `time.monotonic()`, writing ends; chains that are whole by then count. None
        for no end.
    max_tokens: new tokens a chain may take, thinking included, instead of the format's own number.
    prices: what the engine's tokens cost; the result then says what it cost.
    show_neighbors: leave texts written from similar people's choices in the result. By default a
        result has their marks and weights, and withholds personas, names of criteria, reasons and
        texts.
    staged: write the chains section by section, one engine call a stage, so that a run can be
        stopped, read and edited in between. Otherwise each chain is written whole at the first
        stage, in one engine call, and later stages find their section present. In prose, an engine
        that cannot continue a begun answer always writes whole chains.
    """

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)

    engine: Annotated[Engine | None, WithJsonSchema({"type": "null"})] = None
    chain_format: Annotated[ChainFormat | None, WithJsonSchema({"type": "null"})] = None
    memory: Annotated[SignalSource | None, WithJsonSchema({"type": "null"})] = None
    neighbors: Annotated[NeighborSource | None, WithJsonSchema({"type": "null"})] = None
    show_neighbors: bool = False
    staged: bool = False
    deadline: float | None = None
    max_tokens: int | None = None
    prices: Prices | None = None


class Draft(TypedDict):
    """One chain being written.

    order: indices, in the request, of the candidates it covers, in the order shown.
    attempt: 0 for the first text, k for the k-th resample.
    reasoning: what the model thought before it wrote; never read.
    status: "open" texts can be continued; "written" ones the model ended; "truncated" ones ran into
        the token limit and "failed" ones were not written to their end: neither is used.
    edited: the text as a person last edited it, which every further attempt begins with.
    asks_totals: whether its format has the model work out totals.
    finish: how its last part ended. problem: what is said about that, where it is not whole.
    sealed: text, reasoning, edited text and problem of a similar user's chain, which are empty then.
    """

    level: Level
    signals_of: str
    order: list[int]
    seed: int
    attempt: int
    text: str
    reasoning: str
    tokens: int
    status: Literal["open", "written", "truncated", "failed"]
    edited: str
    asks_totals: bool
    finish: FinishReason
    problem: str
    sealed: str


class EvaluationInput(TypedDict):
    """What a run is started with; JSON forms of the models in `pgenrm_agent.schema`.

    history, stated: signals to use instead of the memory's; one of them given, the other is empty.
    choices_known: how many past choices there are in all, where the history is a selection.
    """

    request: JSONObject
    scaling: NotRequired[JSONObject]
    history: NotRequired[list[JSONObject] | None]
    stated: NotRequired[list[JSONObject] | None]
    choices_known: NotRequired[int | None]


class EvaluationUpdate(TypedDict, total=False):
    """What the nodes add.

    signals: what is known of each user whose signals enter a prompt, by `Draft.signals_of`; of
        similar people under opaque names, and sealed outside of nodes.
    personas: written only to match the user to a prototype, where no chain of their own is wanted.
    prototype, neighbors: the one the user is nearest to, and similar people, most similar first.
    round: how many rounds of `plan_rounds` are done. settled: how many of `chains` came through
        `sample_scores`.
    failures: texts that were sampled again; unreadable texts among `chains` are not in it.
    evaluation: the result, an `Evaluation`.
    """

    seed: int
    signals: dict[str, JSONObject]
    personas: list[str]
    prototype: str | None
    neighbors: list[str]
    round: int
    settled: int
    chains: list[Draft]
    failures: list[JSONObject]
    usage: dict[str, int]
    timings: dict[str, float]
    evaluation: JSONObject | None


class EvaluationState(EvaluationInput, EvaluationUpdate):
    """Everything about one run: its input, and what the nodes have added so far."""


_HISTORY = TypeAdapter(tuple[PreferencePair, ...])
_STATED = TypeAdapter(tuple[StatedPreference, ...])


def context_of(runtime: Runtime[EvaluationContext]) -> EvaluationContext:
    """Return the run's context; one started without any gets the defaults."""
    return runtime.context or EvaluationContext()


def scaling_of(state: EvaluationInput) -> Scaling:
    """Read the options that the run was started with."""
    return Scaling.model_validate(state.get("scaling") or {})


def is_unknown(signals: UserSignals) -> bool:
    """Return whether nothing is known of the user."""
    return not signals.history and not signals.stated


def known_signals(state: EvaluationState, context: EvaluationContext, seed: int) -> UserSignals:
    """Return what is known of the user: what the input brings, else what the memory recalls.

    Both ways show the same past choices in the same order.
    """
    request, scaling = EvaluationRequest.model_validate(state["request"]), scaling_of(state)
    history, stated = state.get("history"), state.get("stated")
    seed = derive_seed(seed, "recall")
    if history is None and stated is None:
        return (context.memory or _default_memory()).recall(
            request.user_id,
            query=request.query,
            limit=scaling.history,
            selection=scaling.history_selection,
            seed=seed,
        )
    pairs = _HISTORY.validate_python(history or ())
    similarity = None
    if pairs and scaling.history_selection == "similar":
        # As the memory would, where there is one to ask.
        embedder: Embedder = getattr(context.memory, "embedder", None) or HashingEmbedder()
        vectors = embedded(embedder, [pair.query for pair in pairs])
        similarity = vectors @ embedded(embedder, [request.query])[0]
    return UserSignals(
        user_id=request.user_id,
        history=select(
            pairs, scaling.history_selection, scaling.history, seed=seed, similarity=similarity
        ),
        stated=standing_statements(_STATED.validate_python(stated or ())),
        choices_known=max(state.get("choices_known") or 0, len(pairs)) if scaling.history else None,
    )


@functools.cache
def default_engine() -> Engine:
    """Load the bundled model, once a process."""
    from pgenrm_agent.engines import load_engine
    from pgenrm_agent.model_files import bundled_model

    return load_engine("transformers", bundled_model())


def default_format(engine: Engine | None) -> ChainFormat:
    """Return the format for an engine: see `EvaluationContext.chain_format`. It may ask a server."""
    from pgenrm_agent.model_files import bundled_model, format_of, named_format

    if engine is None:
        return format_of(bundled_model())
    if named := named_format(*getattr(engine, "models", ())):
        return named
    return _format(STRUCTURED if engine.capabilities.json_schema else PUBLISHED)


@functools.cache
def _format(name: str) -> ChainFormat:
    return ChainFormat.load(name)


@functools.cache
def _default_memory() -> SignalSource:
    from pgenrm_agent.memory import UserMemory

    return UserMemory()
