"""The evaluation graph: one request in, every candidate scored for one user out.

    START -> recall -> derive_persona -> match_prototype -> generate_rubric -> sample_scores
                             ^                                                       |
                             +---- not sure yet, budget left ---- aggregate <--------+
                                                                      |
                                                                     END

Nodes are idempotent: an update depends on the state and its seed alone, so a node can be run again
after a fault, an interrupt or an edit of the state.

A chain's text is the single record of what the model said; personas, rubrics and totals are read
from it where they are needed. So whoever edits a text between two nodes changes what follows.

`graph` is exported for `langgraph dev`, which brings its own checkpointer. Started there without a
context, it runs the bundled model on the default user memory.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import RetryPolicy

from pgenrm_agent.aggregation import aggregate as aggregate_chains
from pgenrm_agent.aggregation import best_of, leader_holds, rank
from pgenrm_agent.chain import read_persona
from pgenrm_agent.errors import (
    ChainError,
    ConfigurationError,
    EngineTimeout,
    EngineUnavailable,
)
from pgenrm_agent.evidence import evidence_of
from pgenrm_agent.graphs.results import (
    cannot_write,
    chain_of,
    failure_of,
    not_scored,
    read_draft,
    reason_of,
    usage_of,
    withheld,
)
from pgenrm_agent.graphs.sampler import Sampler, count_owners, empty_draft, plan_budgets
from pgenrm_agent.graphs.sealing import Node, sealed_signals, sealing, signals_in
from pgenrm_agent.graphs.spans import in_span, run_counts
from pgenrm_agent.graphs.state import (
    EvaluationContext,
    EvaluationInput,
    EvaluationState,
    EvaluationUpdate,
    JSONObject,
    context_of,
    default_format,
    is_unknown,
    known_signals,
    scaling_of,
)
from pgenrm_agent.sampling import derive_seed
from pgenrm_agent.schema import (
    ChainFailure,
    Evaluation,
    EvaluationChain,
    EvaluationRequest,
    Scaling,
)

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.graph.state import CompiledStateGraph

    from pgenrm_agent.prototypes import Match

EvaluationGraph: TypeAlias = (
    "CompiledStateGraph[EvaluationState, EvaluationContext, EvaluationInput, EvaluationState]"
)

# Engines retry what is theirs to retry (connections, rate limits); one more try of a whole node
# covers a fault that outlived that, such as a server being restarted.
COUNTED = ("engine_calls", "prompt_tokens", "completion_tokens", "chains_sampled")

RETRIES = RetryPolicy(max_attempts=2, retry_on=(EngineTimeout, EngineUnavailable))


# --- nodes -------------------------------------------------------------------------------------


async def recall(state: EvaluationState, runtime: Runtime[EvaluationContext]) -> EvaluationUpdate:
    """Recall what is known of the user, and settle the seed.

    Clears what an earlier run in the same thread left behind.
    """
    started = time.perf_counter()
    request = EvaluationRequest.model_validate(state["request"])
    scaling = scaling_of(state)
    if scaling.individual == 0 and not await _has_neighbors(runtime, scaling):
        raise ConfigurationError(
            "scaling.individual is 0 and there are no prototypes to sample from: "
            "ask for at least 1 individual chain, or run `pgenrm prototypes build`"
        )
    seed = secrets.randbelow(2**31) if scaling.seed is None else scaling.seed
    signals = await asyncio.to_thread(known_signals, state, context_of(runtime), seed)
    return {
        "seed": seed,
        "signals": {request.user_id: signals.model_dump(mode="json")},
        "personas": [],
        "prototype": None,
        "neighbors": [],
        "round": 0,
        "settled": 0,
        "chains": [],
        "failures": [],
        "usage": dict.fromkeys(COUNTED, 0),
        "timings": {"recall": time.perf_counter() - started, "engine": 0.0},
        "evaluation": None,
    }


async def derive_persona(
    state: EvaluationState, runtime: Runtime[EvaluationContext]
) -> EvaluationUpdate:
    """Plan the user's own chains and write their personas: who are they in the present scenario?

    Of somebody of whom nothing is known there is nothing to derive: where there are prototypes,
    their chains are left to these. In a later round, the chains that are new in it.
    """
    started = time.perf_counter()
    sampler = await Sampler.of(state, runtime)
    chains, personas = list(state["chains"]), list(state["personas"])
    matching = await _has_neighbors(runtime, sampler.scaling)
    expecting = state["round"] == 0 or bool(state["neighbors"])
    if not (matching and expecting and is_unknown(sampler.own_signals)):
        planned = sampler.plan_individual(
            have=count_owners(chains, "individual"), round_=state["round"]
        )
        probing = matching and not sampler.scaling.individual and state["round"] == 0
        drafts = [empty_draft(chain) for chain in (sampler.plan_probes() if probing else planned)]
        # Whole chains are written together with those of similar people, once these are known.
        fresh = await sampler.extend(
            drafts, to="persona", pause=matching, spare=state["settled"] > 0
        )
        if probing:
            texts = (read_persona(draft["text"]) for draft in fresh)
            personas += [text for text in texts if text is not None]
        else:
            chains += fresh
    return {
        "chains": chains,
        "personas": personas,
        **sampler.cost(state, "derive_persona", started),
    }


async def match_prototype(
    state: EvaluationState, runtime: Runtime[EvaluationContext]
) -> EvaluationUpdate:
    """Add one chain with each similar user's signals instead of the user's own (paper 4.2.2).

    The personas just derived lead to the nearest prototype and its most similar members; without
    any, the prior over prototypes does, and the whole budget is theirs. Their chains start empty:
    the next stage writes persona and rubric of those, in the call that writes the others' rubrics.
    """
    started = time.perf_counter()
    sampler = await Sampler.of(state, runtime)
    signals, names = dict(state["signals"]), list(state["neighbors"])
    chains, prototype = list(state["chains"]), state["prototype"]
    unknown = is_unknown(sampler.own_signals)
    if await _has_neighbors(runtime, sampler.scaling):
        if state["round"] == 0:
            match, similar = await _similar_people(state, runtime, sampler, unknown=unknown)
            prototype = match.prototype if match else None
            names = list(similar)
            signals |= similar
        chains += [
            empty_draft(chain)
            for chain in sampler.plan_prototype(
                names,
                have=count_owners(chains, "prototype"),
                round_=state["round"],
                unknown=unknown,
            )
        ]
    if not chains and sampler.request.usable:  # nobody similar has agreed to take part
        if not sampler.scaling.individual:
            raise ConfigurationError(
                "scaling.individual is 0 and nobody similar has agreed to take part, so there is "
                "nothing to sample: ask for at least 1 individual chain"
            )
        chains = [
            empty_draft(chain) for chain in sampler.plan_individual(have=0, round_=state["round"])
        ]
    return {
        "chains": chains,
        "signals": signals,
        "prototype": prototype,
        "neighbors": names,
        **sampler.cost(state, "match_prototype", started),
    }


async def generate_rubric(
    state: EvaluationState, runtime: Runtime[EvaluationContext]
) -> EvaluationUpdate:
    """Extend all chains to the end of their rubric: which criteria, with which weights?"""
    started = time.perf_counter()
    sampler = await Sampler.of(state, runtime)
    chains = await sampler.extend(state["chains"], to="rubric", spare=state["settled"] > 0)
    return {"chains": chains, **sampler.cost(state, "generate_rubric", started)}


async def sample_scores(
    state: EvaluationState, runtime: Runtime[EvaluationContext]
) -> EvaluationUpdate:
    """Extend all chains to their end, and sample those again that do not count.

    Chains of an earlier round stay as they are.

    A chain that is unreadable, truncated or lacks a mark is sampled anew with another seed, for
    `Scaling.resamples` rounds: from where this stage found it if its rubric stood then, else from
    the start, or from what a person wrote of it. The attempts before are failures.
    """
    started = time.perf_counter()
    sampler = await Sampler.of(state, runtime)
    settled = state["settled"]
    begun = state["chains"][settled:]
    chains = await sampler.extend(begun, to="scores", spare=settled > 0)
    parsed = [read_draft(draft, sampler.request) for draft in chains]
    failures: list[ChainFailure] = []
    for attempt in range(1, sampler.scaling.resamples + 1):
        again = {
            i: content
            for i, content in enumerate(parsed)
            if isinstance(content, ChainError) and sampler.can_write(chains[i])
        }
        reasons = [*map(reason_of, parsed), *(failure.reason for failure in failures)]
        if not again or sampler.time_is_up or cannot_write(reasons):
            break
        restarted = [sampler.restart(begun[i], attempt) for i in again]
        fresh = await sampler.extend(restarted, to="scores", spare=True)
        for (i, error), draft in zip(again.items(), fresh, strict=True):
            failures.append(failure_of(chains[i], error, sampler.context))
            chains[i], parsed[i] = draft, read_draft(draft, sampler.request)
    return {
        "chains": [*state["chains"][:settled], *chains],
        "settled": settled + len(chains),
        "failures": [
            *state["failures"],
            *(failure.model_dump(mode="json") for failure in failures),
        ],
        **sampler.cost(state, "sample_scores", started),
    }


async def aggregate(
    state: EvaluationState, runtime: Runtime[EvaluationContext]
) -> EvaluationUpdate:
    """Parse the chains, then score and rank the candidates (Eq. 9).

    A candidate whose text cannot be judged is in no chain, and not scored for that reason.

    Raises ChainError, with the counts by reason, when no chain can be read and no round is left.
    """
    started = time.perf_counter()
    request = EvaluationRequest.model_validate(state["request"])
    context = context_of(runtime)
    failures = [ChainFailure.model_validate(failure) for failure in state["failures"]]
    chain_format = context.chain_format
    if chain_format is None:
        chain_format = await asyncio.to_thread(default_format, context.engine)
    chains: list[EvaluationChain] = []
    for draft in state["chains"]:
        content = read_draft(draft, request)
        if isinstance(content, ChainError):
            failures.append(failure_of(draft, content, context))
        else:
            chains.append(chain_of(draft, content))
    done: EvaluationUpdate = {"round": state["round"] + 1}
    if not chains and request.usable:
        told = cannot_write([failure.reason for failure in failures])
        if done["round"] < len(plan_budgets(scaling_of(state))) and not told:
            return done
        raise not_scored(failures, context, usage_of(state["usage"], context))
    # A thousand candidates take a second or two, in which a server has others to answer.
    scores = await asyncio.to_thread(
        aggregate_chains,
        [candidate.id for candidate in request.candidates],
        chains,
        failures,
        unusable={item.id: item.unusable for item in request.candidates if item.unusable},
        seed=state["seed"],
    )
    spent = state["timings"].get("aggregate", 0.0) + time.perf_counter() - started
    timings = {**state["timings"], "aggregate": spent}
    scaling = scaling_of(state)
    prompts = {(chain.signals_of, chain.order) for chain in chains}
    if not context.show_neighbors:
        chains = [withheld(chain) for chain in chains]
    evaluation = Evaluation(
        request=request,
        scores=scores,
        ranking=rank(scores),
        best=best_of(scores),
        chains=tuple(chains),
        failures=tuple(failures),
        prototype=state["prototype"],
        neighbors=tuple(state["neighbors"]),
        evidence=evidence_of(
            request,
            signals_in(state)[request.user_id],
            chain_format,
            neighbors=len({chain.signals_of for chain in chains if chain.level == "prototype"}),
            asked_for=scaling.history,
            copies=0 if scaling.temperature else len(chains) - len(prompts),
        ),
        usage=usage_of(state["usage"], context),
        timings=timings,
        seed=state["seed"],
    )
    return {**done, "timings": timings, "evaluation": evaluation.model_dump(mode="json")}


def sure_enough(state: EvaluationState) -> Literal["derive_persona", "__end__"]:
    """Decide after `aggregate` whether the leader holds with the probability asked for.

    Without `stop_when_sure` there is one round, which is the whole budget.
    """
    scaling = scaling_of(state)
    if state["round"] >= len(plan_budgets(scaling)):
        return "__end__"
    evaluation = state["evaluation"]
    if evaluation is None or scaling.stop_when_sure is None:
        return "derive_persona"
    result = Evaluation.model_validate(evaluation)
    shown = [candidate.id for candidate in result.request.candidates if not candidate.unusable]
    chains = result.chains
    if not scaling.temperature:  # the samples of a prompt are copies
        chains = tuple({(chain.signals_of, chain.order): chain for chain in chains}.values())
    sure = leader_holds(shown, chains, seed=result.seed)
    return "__end__" if sure >= scaling.stop_when_sure else "derive_persona"


# --- finding similar people -------------------------------------------------------------------


async def _has_neighbors(runtime: Runtime[EvaluationContext], scaling: Scaling) -> bool:
    source = context_of(runtime).neighbors
    if source is None or scaling.prototype == 0:
        return False
    return await asyncio.to_thread(source.version) is not None


async def _similar_people(
    state: EvaluationState,
    runtime: Runtime[EvaluationContext],
    sampler: Sampler,
    *,
    unknown: bool,
) -> tuple[Match | None, dict[str, JSONObject]]:
    """Return the match, and each similar user's sealed signals, if there are any, by opaque name."""
    source = context_of(runtime).neighbors
    assert source is not None
    scaling, request = sampler.scaling, sampler.request
    count = scaling.prototype + (scaling.individual if unknown else 0)
    # From the texts as they stand: a persona may have been edited since it was written.
    personas = [
        persona
        for draft in state["chains"]
        if draft["level"] == "individual" and (persona := read_persona(draft["text"])) is not None
    ] or state["personas"]

    def look_up() -> tuple[Match | None, dict[str, JSONObject]]:
        match = source.match(request.user_id, personas, request.query, count)
        similar: dict[str, JSONObject] = {}
        for user, name in zip(match.neighbors, match.names, strict=True) if match else ():
            signals = source.memory.recall(
                user,
                query=request.query,
                limit=scaling.history,
                selection=scaling.history_selection,
                seed=derive_seed(state["seed"], "recall", name),
            )
            if not is_unknown(signals):
                signals = signals.model_copy(update={"user_id": name})
                similar[name] = sealed_signals(user, signals, source)
        return match, similar

    return await asyncio.to_thread(look_up)


# --- wiring -----------------------------------------------------------------------------------


def build_graph(checkpointer: BaseCheckpointSaver[str] | None = None) -> EvaluationGraph:
    """Compile the graph. Engine faults that may pass are retried once by node."""
    builder = StateGraph(
        EvaluationState, context_schema=EvaluationContext, input_schema=EvaluationInput
    )
    builder.add_node("recall", _node(recall))
    builder.add_node("derive_persona", _node(derive_persona), retry_policy=RETRIES)
    builder.add_node("match_prototype", _node(match_prototype))
    builder.add_node("generate_rubric", _node(generate_rubric), retry_policy=RETRIES)
    builder.add_node("sample_scores", _node(sample_scores), retry_policy=RETRIES)
    builder.add_node("aggregate", _node(aggregate))
    builder.add_edge(START, "recall")
    builder.add_edge("recall", "derive_persona")
    builder.add_edge("derive_persona", "match_prototype")
    builder.add_edge("match_prototype", "generate_rubric")
    builder.add_edge("generate_rubric", "sample_scores")
    builder.add_edge("sample_scores", "aggregate")
    builder.add_conditional_edges("aggregate", sure_enough, ["derive_persona", END])
    return builder.compile(checkpointer=checkpointer, name="evaluation")


def _node(work: Node) -> Callable[..., Awaitable[EvaluationUpdate]]:
    """Return the node: what is of similar users is open inside it only, and it is seen as a span."""
    return in_span(sealing(work), run_counts)


graph = build_graph()
