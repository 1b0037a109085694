"""The evaluation graph: one request in, every candidate scored for one person out.

    START -> recall -> derive_persona -> match_prototype -> generate_rubric -> sample_scores
                             ^                                                       |
                             +---- not sure yet, budget left ---- aggregate <--------+
                                                                      |
                                                                     END

The state is plain JSON data, so that any checkpointer gives back what it was given. What a run
needs beyond data (engine, memory, chain format) comes in its context and is never stored. Nodes are
idempotent: an update depends on the state and its seed alone, so a node can be run again after a
fault, an interrupt or an edit of the state.

A chain's text is the single record of what the model said; personas, rubrics and totals are read
from it where they are needed. So whoever edits a text between two nodes changes what follows.

`graph` is exported for `langgraph dev`, which brings its own checkpointer. Started there without a
context, it runs the bundled model on the default user memory.
"""

from __future__ import annotations

import asyncio
import functools
import random
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Annotated,
    Literal,
    NotRequired,
    Protocol,
    TypeAlias,
    runtime_checkable,
)

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import RetryPolicy
from pydantic import ConfigDict, TypeAdapter, WithJsonSchema
from typing_extensions import TypedDict

from pgenrm_agent.aggregation import aggregate as aggregate_chains
from pgenrm_agent.aggregation import best_of, count_reasons, rank
from pgenrm_agent.chain import (
    ChainFormat,
    ParsedChain,
    Section,
    answer_in,
    parse_chain,
    read_persona,
)
from pgenrm_agent.engines.protocol import Completion, Engine, Prompt, SamplingParams
from pgenrm_agent.errors import (
    ChainError,
    ConfigurationError,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
)
from pgenrm_agent.scaling import PlannedChain, derive_seed, plan_chains, plan_rounds
from pgenrm_agent.schema import (
    ChainFailure,
    Evaluation,
    EvaluationChain,
    EvaluationRequest,
    Level,
    Message,
    Persona,
    PreferencePair,
    Rubric,
    Scaling,
    StatedPreference,
    Usage,
    UserSignals,
)

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.graph.state import CompiledStateGraph

    from pgenrm_agent.prototypes import Match

__all__ = [
    "Draft",
    "EvaluationContext",
    "EvaluationGraph",
    "EvaluationInput",
    "EvaluationState",
    "EvaluationUpdate",
    "NeighbourSource",
    "SignalSource",
    "build_graph",
    "graph",
]

SECTIONS: tuple[Section, ...] = ("persona", "rubric", "scores")

# Personas sampled only to find the nearest prototype, where none of the person's own is asked for.
SCOUTS = 4

WITHHELD = "(withheld: what is written of a similar person is not for others)"

# Engines retry what is theirs to retry (connections, rate limits); one more try of a whole node
# covers a fault that outlived that, such as a server being restarted.
RETRIES = RetryPolicy(max_attempts=2, retry_on=(EngineTimeout, EngineUnavailable))

JSONObject: TypeAlias = dict[str, object]
# By text and the ids of the candidates it was shown.
Readings: TypeAlias = dict[tuple[str, tuple[str, ...]], ParsedChain | ChainError]


@runtime_checkable
class SignalSource(Protocol):
    """Where a person's past choices and stated criteria come from; `UserMemory` is one."""

    def recall(
        self,
        user_id: str,
        *,
        query: str | None = None,
        limit: int | None = None,
        selection: Literal["random", "similar", "recent"] = "random",
        seed: int = 0,
    ) -> UserSignals: ...


@runtime_checkable
class NeighbourSource(Protocol):
    """Who is similar to whom; `pgenrm_agent.prototypes.Neighbours` is one.

    memory: where the similar people's own choices come from.
    """

    @property
    def memory(self) -> SignalSource: ...

    def available(self) -> bool: ...

    def match(
        self, user_id: str, personas: Sequence[str], query: str, count: int
    ) -> Match | None: ...


@dataclass(frozen=True)
class EvaluationContext:
    """What a run needs besides its state.

    engine: None means the bundled model.
    chain_format: None means the one the bundled model was trained on, and "published" for others.
    memory: asked only when the input brings no signals; None means the default user memory.
    neighbours: finds the similar people of the prototype level; without it there is none.
    show_neighbours: leave texts written from similar people's choices in the result. By default a
        result has their marks and weights, and withholds personas, names of criteria, reasons and
        texts.
    staged: write the chains section by section, one engine call a stage, so that a run can be
        stopped, read and edited in between. Otherwise each chain is written whole at the first
        stage, in one engine call, and later stages find their section present. An engine that
        cannot continue a begun answer always writes whole chains.
    """

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)

    engine: Annotated[Engine | None, WithJsonSchema({"type": "null"})] = None
    chain_format: Annotated[ChainFormat | None, WithJsonSchema({"type": "null"})] = None
    memory: Annotated[SignalSource | None, WithJsonSchema({"type": "null"})] = None
    neighbours: Annotated[NeighbourSource | None, WithJsonSchema({"type": "null"})] = None
    show_neighbours: bool = False
    staged: bool = False
    # What was read from texts already, so that two nodes of a run need not read a text twice.
    readings: Annotated[Readings, WithJsonSchema({"type": "null"})] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )


class Draft(TypedDict):
    """One chain being written.

    order: indices, in the request, of the candidates it covers, in the order shown.
    attempt: 0 for the first text, k for the k-th resample.
    status: "open" texts can be continued; "written" ones the model ended; "truncated" ones ran into
        the token limit and are not used.
    """

    level: Level
    signals_of: str
    order: list[int]
    seed: int
    attempt: int
    text: str
    tokens: int
    status: Literal["open", "written", "truncated"]


class EvaluationInput(TypedDict):
    """What a run is started with; JSON forms of the models in `pgenrm_agent.schema`.

    history, stated: signals to use instead of the memory's; one of them given, the other is empty.
    """

    request: JSONObject
    scaling: NotRequired[JSONObject]
    history: NotRequired[list[JSONObject] | None]
    stated: NotRequired[list[JSONObject] | None]


class EvaluationUpdate(TypedDict, total=False):
    """What the nodes add.

    signals: what is known of each person whose signals enter a prompt, by `Draft.signals_of`; of
        similar people under opaque names.
    personas: written only to match the person to a prototype, where no chain of her own is wanted.
    prototype, neighbours: the one she is nearest to, and similar people, most similar first.
    round: how many rounds of `plan_rounds` are done. settled: how many of `chains` came through
        `sample_scores`.
    failures: texts that were sampled again; unreadable texts among `chains` are not in it.
    evaluation: the result, an `Evaluation`.
    """

    seed: int
    signals: dict[str, JSONObject]
    personas: list[str]
    prototype: str | None
    neighbours: list[str]
    round: int
    settled: int
    chains: list[Draft]
    failures: list[JSONObject]
    usage: dict[str, int]
    timings: dict[str, float]
    evaluation: JSONObject | None


class EvaluationState(EvaluationInput, EvaluationUpdate):
    """Everything about one run: its input, and what the nodes have added so far."""


EvaluationGraph: TypeAlias = (
    "CompiledStateGraph[EvaluationState, EvaluationContext, EvaluationInput, EvaluationState]"
)

_HISTORY = TypeAdapter(tuple[PreferencePair, ...])
_STATED = TypeAdapter(tuple[StatedPreference, ...])


# --- nodes -------------------------------------------------------------------------------------


async def recall(state: EvaluationState, runtime: Runtime[EvaluationContext]) -> EvaluationUpdate:
    """Find out what is known of the person, and settle the seed.

    Clears what an earlier run in the same thread left behind.
    """
    started = time.perf_counter()
    request = EvaluationRequest.model_validate(state["request"])
    scaling = _scaling(state)
    if scaling.individual == 0 and not await _has_neighbours(runtime, scaling):
        raise ConfigurationError(
            "scaling.individual is 0 and there are no prototypes to sample from: "
            "ask for at least 1 individual chain, or run `pgenrm prototypes build`"
        )
    seed = secrets.randbelow(2**31) if scaling.seed is None else scaling.seed
    history, stated = state.get("history"), state.get("stated")
    if history is None and stated is None:
        memory = await _memory(runtime)
        signals = await asyncio.to_thread(
            memory.recall,
            request.user_id,
            query=request.query,
            limit=scaling.history,
            selection=scaling.history_selection,
            seed=derive_seed(seed, "recall"),
        )
    else:
        signals = UserSignals(
            user_id=request.user_id,
            history=_choose(_HISTORY.validate_python(history or ()), request.query, scaling, seed),
            stated=_STATED.validate_python(stated or ()),
        )
    return {
        "seed": seed,
        "signals": {request.user_id: signals.model_dump(mode="json")},
        "personas": [],
        "prototype": None,
        "neighbours": [],
        "round": 0,
        "settled": 0,
        "chains": [],
        "failures": [],
        "usage": Usage().model_dump(),
        "timings": {"recall": time.perf_counter() - started, "engine": 0.0},
        "evaluation": None,
    }


async def derive_persona(
    state: EvaluationState, runtime: Runtime[EvaluationContext]
) -> EvaluationUpdate:
    """Plan the person's own chains and write their personas: who is she in the present scenario?

    Of somebody of whom nothing is known there is nothing to derive: where there are prototypes, her
    chains are left to them. In a later round, the chains that are new in it.
    """
    started = time.perf_counter()
    writer = await _Writer.of(state, runtime)
    chains, personas = list(state["chains"]), list(state["personas"])
    matching = await _has_neighbours(runtime, writer.scaling)
    expecting = state["round"] == 0 or bool(state["neighbours"])
    if not (matching and expecting and _is_unknown(writer.own_signals)):
        planned = writer.plan_individual(have=_owners(chains, "individual"), round_=state["round"])
        scouting = matching and not writer.scaling.individual and not personas
        drafts = [_draft(chain) for chain in (writer.plan_scouts() if scouting else planned)]
        # Whole chains are written together with those of similar people, once these are known.
        fresh = await writer.extend(drafts, to="persona", pause=matching)
        if scouting:
            texts = (read_persona(draft["text"]) for draft in fresh)
            personas += [text for text in texts if text is not None]
        else:
            chains += fresh
    return {
        "chains": chains,
        "personas": personas,
        **writer.cost(state, "derive_persona", started),
    }


async def match_prototype(
    state: EvaluationState, runtime: Runtime[EvaluationContext]
) -> EvaluationUpdate:
    """Add one chain with each similar person's signals instead of the person's own (paper 4.2.2).

    The personas just derived lead to the nearest prototype and its most similar members; without
    any, the prior over prototypes does, and the whole budget is theirs. Their chains start empty:
    the next stage writes persona and rubric of those, in the call that writes the others' rubrics.
    """
    started = time.perf_counter()
    writer = await _Writer.of(state, runtime)
    signals, names = dict(state["signals"]), list(state["neighbours"])
    chains, prototype = list(state["chains"]), state["prototype"]
    unknown = _is_unknown(writer.own_signals)
    if await _has_neighbours(runtime, writer.scaling):
        if state["round"] == 0:
            match, found = await _similar_people(state, runtime, writer, unknown=unknown)
            prototype = match.prototype if match else None
            names = list(found)
            signals |= {name: one.model_dump(mode="json") for name, one in found.items()}
        chains += [
            _draft(chain)
            for chain in writer.plan_prototype(
                names, have=_owners(chains, "prototype"), round_=state["round"], unknown=unknown
            )
        ]
    if not chains:  # nobody similar has agreed to take part
        if not writer.scaling.individual:
            raise ConfigurationError(
                "scaling.individual is 0 and nobody similar has agreed to take part, so there is "
                "nothing to sample: ask for at least 1 individual chain"
            )
        chains = [_draft(chain) for chain in writer.plan_individual(have=0, round_=state["round"])]
    return {
        "chains": chains,
        "signals": signals,
        "prototype": prototype,
        "neighbours": names,
        **writer.cost(state, "match_prototype", started),
    }


async def generate_rubric(
    state: EvaluationState, runtime: Runtime[EvaluationContext]
) -> EvaluationUpdate:
    """Extend all chains to the end of their rubric: which criteria, with which weights?"""
    started = time.perf_counter()
    writer = await _Writer.of(state, runtime)
    chains = await writer.extend(state["chains"], to="rubric")
    return {"chains": chains, **writer.cost(state, "generate_rubric", started)}


async def sample_scores(
    state: EvaluationState, runtime: Runtime[EvaluationContext]
) -> EvaluationUpdate:
    """Extend all chains to their end, and sample those again that do not score their candidates.

    Chains of an earlier round stay as they are.

    A chain that is unreadable, truncated or lacks candidates is sampled anew with another seed, for
    `Scaling.resamples` rounds: from where this stage found it if its rubric stood then, else from
    the start. Of several attempts the one with the most totals is kept; the others are failures.
    """
    started = time.perf_counter()
    writer = await _Writer.of(state, runtime)
    settled = state["settled"]
    found = state["chains"][settled:]
    chains = await writer.extend(found, to="scores")
    readings = [_read(draft, writer.request, writer.readings) for draft in chains]
    failures: list[ChainFailure] = []
    for attempt in range(1, writer.scaling.resamples + 1):
        again = [i for i, reading in enumerate(readings) if not _is_complete(reading)]
        if not again:
            break
        restarted = [writer.restart(found[i], attempt) for i in again]
        fresh = await writer.extend(restarted, to="scores")
        for i, draft in zip(again, fresh, strict=True):
            reading = _read(draft, writer.request, writer.readings)
            if _totals_in(reading) >= _totals_in(readings[i]):
                chains[i], draft = draft, chains[i]
                readings[i], reading = reading, readings[i]
            failures.append(_failure(draft, reading))
    return {
        "chains": [*state["chains"][:settled], *chains],
        "settled": settled + len(chains),
        "failures": [
            *state["failures"],
            *(failure.model_dump(mode="json") for failure in failures),
        ],
        **writer.cost(state, "sample_scores", started),
    }


async def aggregate(
    state: EvaluationState, runtime: Runtime[EvaluationContext]
) -> EvaluationUpdate:
    """Read the chains, then score and rank the candidates (Eq. 9).

    Raises ChainError, with the counts by reason, when no chain can be read and no round is left.
    """
    started = time.perf_counter()
    request = EvaluationRequest.model_validate(state["request"])
    context = runtime.context or EvaluationContext()
    failures = [ChainFailure.model_validate(failure) for failure in state["failures"]]
    chains: list[EvaluationChain] = []
    for draft in state["chains"]:
        reading = _read(draft, request, context.readings)
        if isinstance(reading, ChainError):
            failures.append(_failure(draft, reading))
        else:
            chains.append(_chain(draft, reading))
    done: EvaluationUpdate = {"round": state["round"] + 1}
    if not chains:
        if done["round"] < len(_rounds(_scaling(state))):
            return done
        last = failures[-1].message if failures else "nothing was sampled"
        raise ChainError(
            f"not scored: none of {len(failures)} sampled texts is an evaluation chain "
            f"({count_reasons(failures)}; last: {last}); use another model or chain format, or "
            "raise scaling.resamples",
            reason="no_usable_chain",
            failures=Counter(failure.reason for failure in failures),
        )
    scores = aggregate_chains(
        [candidate.id for candidate in request.candidates], chains, failures, seed=state["seed"]
    )
    spent = state["timings"].get("aggregate", 0.0) + time.perf_counter() - started
    timings = {**state["timings"], "aggregate": spent}
    if not context.show_neighbours:
        chains = [_withheld(chain) for chain in chains]
        failures = [
            failure.model_copy(update={"text": "", "message": WITHHELD})
            if failure.level == "prototype"
            else failure
            for failure in failures
        ]
    evaluation = Evaluation(
        request=request,
        scores=scores,
        ranking=rank(scores),
        best=best_of(scores),
        chains=tuple(chains),
        failures=tuple(failures),
        prototype=state["prototype"],
        neighbours=tuple(state["neighbours"]),
        usage=Usage.model_validate(state["usage"]),
        timings=timings,
        seed=state["seed"],
    )
    return {**done, "timings": timings, "evaluation": evaluation.model_dump(mode="json")}


def sure_enough(state: EvaluationState) -> Literal["derive_persona", "__end__"]:
    """After `aggregate`: is the best candidate the best with the probability asked for?

    Without `stop_when_sure` there is one round, which is the whole budget.
    """
    scaling = _scaling(state)
    if state["round"] >= len(_rounds(scaling)):
        return "__end__"
    evaluation = state["evaluation"]
    if evaluation is None or scaling.stop_when_sure is None:
        return "derive_persona"
    scores = Evaluation.model_validate(evaluation).scores
    surest = max(score.probability_best or 0.0 for score in scores)
    return "__end__" if surest >= scaling.stop_when_sure else "derive_persona"


# --- wiring ------------------------------------------------------------------------------------


def build_graph(checkpointer: BaseCheckpointSaver[str] | None = None) -> EvaluationGraph:
    """Compile the graph. Engine faults that may pass are retried once by node."""
    builder = StateGraph(
        EvaluationState, context_schema=EvaluationContext, input_schema=EvaluationInput
    )
    builder.add_node("recall", recall)
    builder.add_node("derive_persona", derive_persona, retry_policy=RETRIES)
    builder.add_node("match_prototype", match_prototype)
    builder.add_node("generate_rubric", generate_rubric, retry_policy=RETRIES)
    builder.add_node("sample_scores", sample_scores, retry_policy=RETRIES)
    builder.add_node("aggregate", aggregate)
    builder.add_edge(START, "recall")
    builder.add_edge("recall", "derive_persona")
    builder.add_edge("derive_persona", "match_prototype")
    builder.add_edge("match_prototype", "generate_rubric")
    builder.add_edge("generate_rubric", "sample_scores")
    builder.add_edge("sample_scores", "aggregate")
    builder.add_conditional_edges("aggregate", sure_enough, ["derive_persona", END])
    return builder.compile(checkpointer=checkpointer, name="evaluation")


# --- writing chains ----------------------------------------------------------------------------


@dataclass
class _Writer:
    """Writes the chains of one node, and keeps count of what that costs."""

    request: EvaluationRequest
    scaling: Scaling
    seed: int
    signals: dict[str, UserSignals]
    engine: Engine
    chain_format: ChainFormat
    staged: bool
    readings: Readings
    usage: dict[str, int] = field(default_factory=lambda: Usage().model_dump())
    engine_seconds: float = 0.0

    @classmethod
    async def of(cls, state: EvaluationState, runtime: Runtime[EvaluationContext]) -> _Writer:
        context = runtime.context or EvaluationContext()
        engine = context.engine
        if engine is None:
            engine = await asyncio.to_thread(_default_engine)
        return cls(
            request=EvaluationRequest.model_validate(state["request"]),
            scaling=_scaling(state),
            seed=state["seed"],
            signals={
                owner: UserSignals.model_validate(signals)
                for owner, signals in state["signals"].items()
            },
            engine=engine,
            chain_format=context.chain_format or _default_format(bundled=context.engine is None),
            staged=context.staged and engine.capabilities.continues,
            readings=context.readings,
        )

    @property
    def own_signals(self) -> UserSignals:
        return self.signals[self.request.user_id]

    def plan_individual(self, *, have: int, round_: int) -> tuple[PlannedChain, ...]:
        """The person's own chains that are new in a round. have: owners planned already."""
        wanted = _rounds(self.scaling)[round_][0]
        return self._planned([self.request.user_id] * self.scaling.individual, have, wanted)

    def plan_scouts(self) -> tuple[PlannedChain, ...]:
        """Chains of which only the persona is wanted."""
        return self._planned([self.request.user_id] * SCOUTS, 0, SCOUTS)

    def plan_prototype(
        self, names: Sequence[str], *, have: int, round_: int, unknown: bool
    ) -> tuple[PlannedChain, ...]:
        """The similar people's chains that are new in a round; all of the budget for somebody unknown."""
        individual, prototype = _rounds(self.scaling)[round_]
        wanted = individual + prototype if unknown else prototype
        return self._planned(names, have, wanted, "prototype")

    def _planned(
        self, owners: Sequence[str], have: int, wanted: int, level: Level = "individual"
    ) -> tuple[PlannedChain, ...]:
        plan = plan_chains(
            owners,
            len(self.request.candidates),
            seed=self.seed,
            level=level,
            max_candidates=self.chain_format.max_candidates,
        )
        groups = len(plan) // max(1, len(owners))
        return plan[have * groups : wanted * groups]

    async def extend(
        self, drafts: Sequence[Draft], *, to: Section, pause: bool = False
    ) -> list[Draft]:
        """Write each open draft up to the end of section `to`, in one engine call.

        pause: stop there even where chains are not written stage by stage, if the engine can go on
        from there later.

        Drafts that stand at the same text with the same prompt become samples of one prompt, so
        that an engine encodes it once. Not staged, the drafts are written to their end. Drafts that
        have the section already are returned as they are; without any to write, no call is made.
        """
        pause = pause and self.engine.capabilities.continues
        goal: Section = to if self.staged or pause else "scores"
        together: dict[tuple[str, tuple[int, ...], str], list[int]] = {}
        for i, draft in enumerate(drafts):
            if draft["status"] == "open" and not self._has(draft["text"], to):
                key = (draft["signals_of"], tuple(draft["order"]), draft["text"])
                together.setdefault(key, []).append(i)
        if not together:
            return list(drafts)
        if not self.engine.capabilities.continues and any(text for _, _, text in together):
            raise ConfigurationError(
                f"engine {self.engine.name} cannot continue a begun chain: resume this run with an "
                "engine that continues text, or start it anew"
            )
        prompts = [
            Prompt(
                messages=self._messages(owner, order),
                partial=text,
                n=len(members),
                seed=self._seed(drafts[members[0]], goal),
            )
            for (owner, order, text), members in together.items()
        ]
        used = min(drafts[i]["tokens"] for members in together.values() for i in members)
        answers = await self._sample(
            prompts,
            SamplingParams(
                temperature=self.scaling.temperature,
                max_tokens=max(1, self.chain_format.max_tokens - used),
                stop=self.chain_format.stop(goal),
            ),
        )
        extended = list(drafts)
        for members, completions in zip(together.values(), answers, strict=True):
            for i, completion in zip(members, completions, strict=True):
                extended[i] = self._extended(drafts[i], completion, goal)
                self.usage["chains_sampled"] += extended[i]["status"] != "open"
        return extended

    def restart(self, draft: Draft, attempt: int) -> Draft:
        """The draft to resample: with the rubric it had, or from nothing, and with another seed."""
        keeps = draft["status"] == "open" and self._has(draft["text"], "rubric")
        return {
            **draft,
            "seed": derive_seed(draft["seed"], "attempt", attempt),
            "attempt": attempt,
            "text": draft["text"] if keeps else "",
            "tokens": draft["tokens"] if keeps else 0,
            "status": "open",
        }

    def cost(self, state: EvaluationState, stage: str, started: float) -> EvaluationUpdate:
        """The part of a node's update that tells what the node cost."""
        timings = state["timings"]
        return {
            "usage": {name: count + self.usage[name] for name, count in state["usage"].items()},
            "timings": {
                **timings,
                stage: timings.get(stage, 0.0) + time.perf_counter() - started,
                "engine": timings["engine"] + self.engine_seconds,
            },
        }

    async def _sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        started = time.perf_counter()
        answers = await self.engine.sample(prompts, params)
        self.engine_seconds += time.perf_counter() - started
        if [len(answer) for answer in answers] != [prompt.n for prompt in prompts]:
            raise EngineError(
                f"engine {self.engine.name} returned {[len(answer) for answer in answers]} samples "
                f"where {[prompt.n for prompt in prompts]} were asked for"
            )
        everything = [completion for answer in answers for completion in answer]
        self.usage["engine_calls"] += 1
        self.usage["completion_tokens"] += sum(completion.tokens for completion in everything)
        # The samples of a prompt share it: it is read once.
        self.usage["prompt_tokens"] += sum(answer[0].prompt_tokens for answer in answers)
        return answers

    def _seed(self, draft: Draft, goal: Section) -> int:
        return derive_seed(draft["seed"], goal) if draft["text"] else draft["seed"]

    def _messages(self, owner: str, order: Iterable[int]) -> tuple[Message, ...]:
        signals = self.signals[owner]
        return self.chain_format.messages(
            query=self.request.query,
            candidates=[self.request.candidates[index].text for index in order],
            history=signals.history,
            stated=signals.stated,
            conversation=self.request.conversation,
        )

    def _has(self, text: str, section: Section) -> bool:
        through = self.chain_format.complete_through(text)
        return through is not None and SECTIONS.index(through) >= SECTIONS.index(section)

    def _extended(self, draft: Draft, completion: Completion, goal: Section) -> Draft:
        text = draft["text"] + completion.text
        truncated = completion.finish_reason == "length"
        return {
            **draft,
            "text": text if truncated else self.chain_format.finish(goal, text),
            "tokens": draft["tokens"] + completion.tokens,
            "status": "truncated" if truncated else "written" if goal == "scores" else "open",
        }


def _draft(chain: PlannedChain) -> Draft:
    return {
        "level": chain.level,
        "signals_of": chain.signals_of,
        "order": list(chain.order),
        "seed": chain.seed,
        "attempt": 0,
        "text": "",
        "tokens": 0,
        "status": "open",
    }


def _owners(chains: Sequence[Draft], level: Level) -> int:
    """How many entries of a plan are among the drafts: each covers the first candidate once."""
    return sum(draft["level"] == level and 0 in draft["order"] for draft in chains)


def _rounds(scaling: Scaling) -> tuple[tuple[int, int], ...]:
    if scaling.stop_when_sure is None:
        return ((scaling.individual, scaling.prototype),)
    return plan_rounds(scaling.individual, scaling.prototype)


def _is_unknown(signals: UserSignals) -> bool:
    return not signals.history and not signals.stated


async def _has_neighbours(runtime: Runtime[EvaluationContext], scaling: Scaling) -> bool:
    source = (runtime.context or EvaluationContext()).neighbours
    if source is None or scaling.prototype == 0:
        return False
    return await asyncio.to_thread(source.available)


async def _similar_people(
    state: EvaluationState,
    runtime: Runtime[EvaluationContext],
    writer: _Writer,
    *,
    unknown: bool,
) -> tuple[Match | None, dict[str, UserSignals]]:
    """The match, and what is known of each similar person, by opaque name; the empty-handed left out."""
    source = (runtime.context or EvaluationContext()).neighbours
    assert source is not None
    scaling, request = writer.scaling, writer.request
    count = scaling.prototype + (scaling.individual if unknown else 0)
    # From the texts as they stand: a persona may have been edited since it was written.
    personas = [
        persona
        for draft in state["chains"]
        if draft["level"] == "individual" and (persona := read_persona(draft["text"])) is not None
    ] or state["personas"]

    def look_up() -> tuple[Match | None, dict[str, UserSignals]]:
        match = source.match(request.user_id, personas, request.query, count)
        found: dict[str, UserSignals] = {}
        for user, name in zip(match.neighbours, match.names, strict=True) if match else ():
            signals = source.memory.recall(
                user,
                query=request.query,
                limit=scaling.history,
                selection=scaling.history_selection,
                seed=derive_seed(state["seed"], "recall", name),
            )
            if not _is_unknown(signals):
                found[name] = signals.model_copy(update={"user_id": name})
        return match, found

    return await asyncio.to_thread(look_up)


# --- reading chains ----------------------------------------------------------------------------


def _read(draft: Draft, request: EvaluationRequest, readings: Readings) -> ParsedChain | ChainError:
    """What the chain says, or why it cannot be used."""
    if draft["status"] == "truncated":
        cut = f"the text ends at the limit of {draft['tokens']} tokens"
        try:
            answer_in(draft["text"])
        except ChainError as error:
            return ChainError(f"{cut}: {error}", reason=error.reason)
        return ChainError(cut, reason="truncated")
    key = draft["text"], tuple(request.candidates[i].id for i in draft["order"])
    if key not in readings:
        try:
            readings[key] = parse_chain(*key)
        except ChainError as error:
            readings[key] = error
    return readings[key]


def _is_complete(reading: ParsedChain | ChainError) -> bool:
    return isinstance(reading, ParsedChain) and not reading.missing


def _totals_in(reading: ParsedChain | ChainError) -> int:
    return len(reading.totals) if isinstance(reading, ParsedChain) else 0


def _failure(draft: Draft, reading: ParsedChain | ChainError) -> ChainFailure:
    if isinstance(reading, ParsedChain):
        reason, message = "missing_candidates", f"no total for {', '.join(reading.missing)}"
    else:
        reason, message = reading.reason, str(reading)
    return ChainFailure(
        level=draft["level"],
        signals_of=draft["signals_of"],
        reason=reason,
        message=message,
        text=draft["text"],
        tokens=draft["tokens"],
        seed=draft["seed"],
        attempt=draft["attempt"],
    )


def _chain(draft: Draft, reading: ParsedChain) -> EvaluationChain:
    return EvaluationChain(
        level=draft["level"],
        signals_of=draft["signals_of"],
        order=tuple(draft["order"]),
        persona=reading.persona,
        rubric=reading.rubric,
        marks=reading.marks,
        reported=reading.reported,
        totals=reading.totals,
        totals_from=reading.totals_from,
        repairs=reading.repairs,
        text=draft["text"],
        tokens=draft["tokens"],
        seed=draft["seed"],
    )


def _withheld(chain: EvaluationChain) -> EvaluationChain:
    """Without what was written of somebody else; marks and weights stay, so that totals can be followed.

    The names of criteria are such texts, too: "Comfort after her divorce" tells of a life.
    """
    if chain.level == "individual":
        return chain
    rubric = chain.rubric and Rubric(
        criteria=tuple(
            one.model_copy(update={"name": f"criterion {number}", "reason": ""})
            for number, one in enumerate(chain.rubric.criteria, start=1)
        )
    )
    return chain.model_copy(
        update={"persona": Persona(text=WITHHELD), "rubric": rubric, "repairs": (), "text": ""}
    )


# --- what a run is given -----------------------------------------------------------------------


def _scaling(state: EvaluationState) -> Scaling:
    return Scaling.model_validate(state.get("scaling") or {})


def _choose(
    pairs: tuple[PreferencePair, ...], query: str, scaling: Scaling, seed: int
) -> tuple[PreferencePair, ...]:
    """At most `scaling.history` of the pairs that came with the request, in their order."""
    wanted = scaling.history
    if len(pairs) <= wanted:
        return pairs
    everyone = range(len(pairs))
    if scaling.history_selection == "random":
        chosen = random.Random(derive_seed(seed, "recall")).sample(everyone, wanted)
    elif scaling.history_selection == "recent":
        chosen = sorted(everyone, key=lambda i: pairs[i].created_at)[len(pairs) - wanted :]
    else:
        from pgenrm_agent.embedding import HashingEmbedder

        vectors = HashingEmbedder().embed([query, *(pair.query for pair in pairs)])
        likeness = vectors[1:] @ vectors[0]
        chosen = sorted(everyone, key=lambda i: -float(likeness[i]))[:wanted]
    return tuple(pairs[i] for i in sorted(chosen))


async def _memory(runtime: Runtime[EvaluationContext]) -> SignalSource:
    context = runtime.context or EvaluationContext()
    if context.memory is None:
        return await asyncio.to_thread(_default_memory)
    return context.memory


@functools.cache
def _default_engine() -> Engine:
    from pgenrm_agent.engines import load_engine
    from pgenrm_agent.model_files import bundled_model

    return load_engine("transformers", bundled_model())


@functools.cache
def _default_format(*, bundled: bool) -> ChainFormat:
    from pgenrm_agent.model_files import bundled_model, format_of

    return format_of(bundled_model()) if bundled else ChainFormat.load("published")


@functools.cache
def _default_memory() -> SignalSource:
    from pgenrm_agent.memory import UserMemory

    return UserMemory()


graph = build_graph()
