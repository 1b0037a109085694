"""The offline graph: personas of all who agreed -> prototypes, as a new version (paper 4.2.1).

    START -> survey -> derive_personas -> learn -> END
                         ^        |
                         +-- more +

Personas are derived for a few of each user's past queries, in batches; with a checkpointer each
batch is kept, and a run that was killed continues with the next. Vectors are no part of the state:
they follow from the texts.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, cast

from langgraph.channels import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import RetryPolicy
from typing_extensions import TypedDict

from pgenrm_agent.arguments import whole_number
from pgenrm_agent.chain import ChainFormat, read_persona
from pgenrm_agent.costs import PERSONA_SHARE, CostLedger, Estimate, Work, estimate_work, spread
from pgenrm_agent.embedding import Embedder, HashingEmbedder
from pgenrm_agent.engines.confidential import silent, unseen
from pgenrm_agent.engines.counting import CountingEngine
from pgenrm_agent.engines.outcomes import failed_samples
from pgenrm_agent.engines.protocol import Completion, Engine, Prompt, SamplingParams
from pgenrm_agent.errors import ConfigurationError, EngineError, EngineTimeout, EngineUnavailable
from pgenrm_agent.fields import Model
from pgenrm_agent.files import PRIVATE
from pgenrm_agent.graphs.checkpoints import in_sqlite
from pgenrm_agent.graphs.learning_jobs import (
    Job,
    LearnedPersona,
    is_of_jobs_alone,
    job_of,
    merged,
    open_personas,
    pairs_by_choice,
    sealed_persona,
    standing_signals,
)
from pgenrm_agent.graphs.learning_vectors import embedded_choices
from pgenrm_agent.graphs.spans import build_counts, in_span, sample
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.prototypes import Member, PrototypeStore
from pgenrm_agent.prototypes.fitting import Fit, fit_prototypes
from pgenrm_agent.sampling import derive_seed
from pgenrm_agent.schema import Prices, Usage

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.graph.state import CompiledStateGraph

RETRIES = RetryPolicy(max_attempts=2, retry_on=(EngineTimeout, EngineUnavailable))
PERSONAS = "personas"
FAILED = ("failed", "timeout")
"""How a sample ends of which nothing is learned about the user, or the model."""
SNAPSHOT_EVERY = 1000
"""Batches after which a checkpoint holds the whole list again, so that reading it back stays short."""


OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class LearningContext:
    """What a run needs besides its state.

    queries: of how many of a user's past queries personas are derived.
    history: past choices shown in each prompt. batch: prompts of an engine call.
    k: number of prototypes; None chooses by the retained spectrum.
    ledger: prices, and what the personas may cost, those of an earlier start included.
    """

    engine: Engine
    chain_format: ChainFormat
    memory: UserMemory
    embedder: Embedder
    fit: Fit = fit_prototypes
    queries: int = 3
    history: int = 3
    batch: int = 64
    k: int | None = None
    temperature: float = 1.0
    seed: int = 0
    on_progress: OnProgress = lambda what, done, total: None
    ledger: CostLedger = field(default_factory=CostLedger)

    def __post_init__(self) -> None:
        if self.k is not None:
            whole_number(self.k, "k", least=1)
        whole_number(self.queries, "queries", least=1)
        whole_number(self.seed, "seed", least=0)


class LearningState(TypedDict, total=False):
    """jobs: what to derive. again: those of them that failed, and come once more after all others.

    done: how many of both are done. unreadable: texts without a persona. failed: jobs that failed twice.
    prompt_tokens, completion_tokens: what those that are done took.

    version: the new version's name, and reason: why it has as many prototypes as it has.

    Of the lists a checkpoint holds what a node adds, or a build would write the square of its size.
    """

    jobs: Annotated[list[Job], DeltaChannel(merged, snapshot_frequency=SNAPSHOT_EVERY)]
    again: Annotated[list[Job], DeltaChannel(merged, snapshot_frequency=SNAPSHOT_EVERY)]
    done: int
    unreadable: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    personas: Annotated[
        list[LearnedPersona], DeltaChannel(merged, snapshot_frequency=SNAPSHOT_EVERY)
    ]
    version: str
    reason: str


LearningGraph: TypeAlias = (
    "CompiledStateGraph[LearningState, LearningContext, LearningState, LearningState]"
)


async def survey(state: LearningState, runtime: Runtime[LearningContext]) -> LearningState:
    """List who has agreed, and for which of their queries a persona shall be derived.

    Raises ConfigurationError when nobody with a past choice has agreed.
    """
    context = runtime.context
    vault = context.memory.shared_store().vault

    def look() -> list[Job]:
        jobs: list[Job] = []
        for user in context.memory.users():
            if not (user.consent and user.pairs):
                continue
            key = vault.key_of(user.user_id)
            ids = [pair.id for pair in standing_signals(context.memory, user.user_id).history]
            rng = random.Random(derive_seed(context.seed, "survey", user.user_id))
            chosen = rng.sample(ids, min(context.queries, len(ids)))
            if key is not None:  # else forgotten in this moment
                jobs += [job_of(key, pair_id) for pair_id in chosen]
        return jobs

    jobs = await asyncio.to_thread(look)
    if not jobs:
        raise ConfigurationError(
            f"nobody in {context.memory.where} has both agreed to take part and made a choice: "
            "`pgenrm users consent USER --give` records that somebody agrees"
        )
    return {"jobs": jobs, "done": 0, "unreadable": 0, "personas": []}


async def derive_personas(state: LearningState, runtime: Runtime[LearningContext]) -> LearningState:
    """Derive the next batch of personas, in one engine call: who is the user facing that query?

    A sample that fails costs its job, which is tried once more: a server may be back by then, and a
    prompt that is too long is one user's alone.

    Raises BudgetReached where the batch does not fit into the budget.
    """
    context = runtime.context
    vault = context.memory.shared_store().vault
    ledger = context.ledger
    done, again = state["done"], state.get("again", [])
    jobs = [*state["jobs"], *again][done : done + context.batch]
    prompts = await asyncio.to_thread(lambda: [_prompt(job, context) for job in jobs])
    asked = [i for i, prompt in enumerate(prompts) if prompt is not None]  # forgotten meanwhile
    read, written = state.get("prompt_tokens", 0), state.get("completion_tokens", 0)
    ledger.set(PERSONAS, read, written, pieces=done)
    if not ledger.begin(PERSONAS, len(asked)):
        raise ledger.end(done, len(state["jobs"]) + len(again), PERSONAS)
    costs_jobs_alone = partial(
        is_of_jobs_alone,
        jobs=jobs,
        answered=bool(written or state["personas"]),
        last_try=done >= len(state["jobs"]),
    )
    answers = await _answers([p for p in prompts if p is not None], context, costs_jobs_alone)
    keys = await asyncio.to_thread(vault.keys_behind, {job["user"] for job in jobs})
    personas: list[LearnedPersona] = []
    failing: list[Job] = []
    unreadable, failed = state["unreadable"], state.get("failed", 0)
    for i, completion in zip(asked, answers, strict=True):
        text = read_persona(context.chain_format.join("", completion.text, "persona"))
        key = keys.get(jobs[i]["user"])  # None: forgotten while it was sampled
        if completion.finish_reason in FAILED:
            if done + i < len(state["jobs"]):
                failing.append(jobs[i])
            else:
                failed += 1
        elif completion.finish_reason != "stop" or text is None:
            unreadable += 1
        elif key is not None:
            personas.append(sealed_persona(jobs[i], key, text))
        read += completion.prompt_tokens
        written += completion.tokens
    ledger.set(PERSONAS, read, written, pieces=done + len(jobs))
    total = len(state["jobs"]) + len(again) + len(failing)
    context.on_progress("personas", done + len(jobs), total)
    return {
        "done": done + len(jobs),
        "again": failing,
        "unreadable": unreadable,
        "failed": failed,
        "personas": personas,
        "prompt_tokens": read,
        "completion_tokens": written,
    }


async def _answers(
    prompts: Sequence[Prompt], context: LearningContext, costs_jobs_alone: Callable[..., bool]
) -> list[Completion]:
    """Return one sample of each prompt; failed ones where the error of all `costs_jobs_alone`."""
    chain_format = context.chain_format
    params = SamplingParams(
        temperature=context.temperature,
        max_tokens=chain_format.max_tokens(candidates=2),
        stop=chain_format.turn("persona", query="-", candidates=["-"]).stop,
    )
    try:
        return [completion for (completion,) in await sample(context.engine, prompts, params)]
    except (ConfigurationError, EngineError) as error:
        if not costs_jobs_alone(error):
            raise
        return failed_samples(len(prompts), str(error))


def more(state: LearningState) -> Literal["derive_personas", "learn"]:
    """Choose the next node: another batch, or learning once all are derived."""
    jobs = len(state["jobs"]) + len(state.get("again", []))
    return "derive_personas" if state["done"] < jobs else "learn"


async def learn(state: LearningState, runtime: Runtime[LearningContext]) -> LearningState:
    """Embed, cluster, refine, and switch to the new version; not when it is canceled before that.

    Raises ConfigurationError when no persona could be read.
    """
    context = runtime.context
    canceled = threading.Event()

    def written(done: int, total: int) -> None:
        if canceled.is_set():
            raise asyncio.CancelledError  # Its thread goes on without whoever waited.
        context.on_progress("members", done, total)

    def work() -> LearningState:
        # Who withdrew or was forgotten since the survey is not learned from.
        vault = context.memory.shared_store().vault
        keys = vault.keys_behind({persona["user"] for persona in state["personas"]})
        agreed = context.memory.consenting(key.user_id for key in keys.values())
        known = {user: standing_signals(context.memory, user) for user in sorted(agreed)}
        pairs = {user: signals.history for user, signals in known.items()}
        personas = open_personas(state["personas"], pairs, vault)
        if not personas:
            raise ConfigurationError(
                f"none of {len(state['jobs'])} personas could be read, of users who still agree "
                f"({state.get('failed', 0)} could not be sampled): use another model or chain format"
            )
        choices = embedded_choices(
            personas,
            pairs,
            context.embedder,
            history=context.history,
            on_progress=lambda done, total: context.on_progress("embeddings", done, total),
        )
        fitted = context.fit(choices, context.k, context.seed)
        # Fitting takes its time: ask again.
        agreed = context.memory.consenting(agreed)
        members = [
            Member(persona.user_id, int(prototype), vector)
            for persona, prototype, vector in zip(
                personas, fitted.labels, choices.samples.persona, strict=True
            )
            if persona.user_id in agreed
        ]
        version = PrototypeStore(context.memory).replace(
            fitted.prototypes,
            members,
            embedder=context.embedder.name,
            labels=fitted.names,
            remembered={user: signals.choices_known or 0 for user, signals in known.items()},
            progress=written,
        )
        return {"version": version, "reason": fitted.reason}

    try:
        return await asyncio.to_thread(work)
    except asyncio.CancelledError:
        canceled.set()
        raise


def build_graph(checkpointer: BaseCheckpointSaver[str] | None = None) -> LearningGraph:
    """Compile the graph; engine faults that may pass are retried once by node."""
    builder = StateGraph(LearningState, context_schema=LearningContext)
    builder.add_node("survey", in_span(survey, build_counts))
    builder.add_node(
        "derive_personas", in_span(derive_personas, build_counts), retry_policy=RETRIES
    )
    builder.add_node("learn", in_span(learn, build_counts))
    builder.add_edge(START, "survey")
    builder.add_edge("survey", "derive_personas")
    builder.add_conditional_edges("derive_personas", more, ["derive_personas", "learn"])
    builder.add_edge("learn", END)
    return builder.compile(checkpointer=checkpointer, name="prototype_learning")


class LearnedPrototypes(Model):
    """What a run gave. personas: texts read. unreadable: sampled texts without a persona.

    failed: personas that could not be sampled, in two tries; of a user without another, nothing is
    learned. reason: why there are as many prototypes as there are. usage: what the personas took.
    """

    version: str
    prototypes: int
    users: int
    personas: int
    unreadable: int
    failed: int = 0
    reason: str
    usage: Usage = Usage()


async def estimate_learning(
    memory: UserMemory,
    chain_format: ChainFormat,
    counting: CountingEngine,
    *,
    queries: int = 3,
    seed: int = 0,
    prices: Prices | None = None,
) -> Estimate:
    """Return what deriving all personas would cost. Nothing is sent, and nothing is fitted.

    Raises ConfigurationError when nobody with a past choice has agreed.
    """
    context = LearningContext(
        engine=counting,
        chain_format=chain_format,
        memory=memory,
        embedder=HashingEmbedder(),
        queries=queries,
        seed=seed,
    )
    runtime = Runtime(context=context)
    jobs = (await survey({}, runtime))["jobs"]
    outlined = spread(jobs, context.batch)
    await derive_personas({"jobs": outlined, "done": 0, "unreadable": 0, "personas": []}, runtime)
    work = Work(
        pieces=len(jobs),
        outline=counting.outline,
        outlined=len(outlined),
        share=PERSONA_SHARE,
    )
    return estimate_work(PERSONAS, {PERSONAS: work}, prices)


async def learn_prototypes(
    context: LearningContext, *, keep: str | Path | None = None, fresh: bool = False
) -> LearnedPrototypes:
    """Run the graph to its end; with `keep` (an SQLite file), from where an earlier run was cut off.

    Raises ConfigurationError when the SQLite checkpointer is not installed, and what nodes raise.
    """
    if keep is None:
        # One step a batch. The state holds personas of others, which are for no tracer or callback.
        endless: RunnableConfig = {"recursion_limit": 1_000_000, "callbacks": [silent()]}
        state = await unseen(lambda: build_graph().ainvoke({}, endless, context=context))
        return _learned(state, context)
    Path(keep).parent.mkdir(parents=True, exist_ok=True)
    await asyncio.to_thread(Path(keep).touch, mode=PRIVATE)
    async with in_sqlite(keep) as saver:
        graph = build_graph(saver)
        # What was begun with other users, another model or other settings is another run.
        thread = _thread_of(context)
        config: RunnableConfig = {
            "configurable": {"thread_id": thread},
            "recursion_limit": 1_000_000,
            "callbacks": [silent()],
        }
        if fresh:
            await saver.adelete_thread(thread)
        # Not whether a node is to come: after a kill between what a node wrote and the checkpoint
        # that follows, LangGraph names none, and a run begun anew would do everything twice.
        begun = await saver.aget_tuple(config) is not None
        # "sync": a batch is on disk before the next is sampled.
        given: LearningState | None = None if begun else {}
        state = await unseen(
            lambda: graph.ainvoke(given, config, context=context, durability="sync")
        )
        await saver.adelete_thread(thread)
        others = [checkpoint async for checkpoint in saver.alist(None, limit=1)]
    if not others:
        # SQLite keeps deleted texts in its free pages; personas are not to outlive the build.
        await asyncio.to_thread(Path(keep).unlink, missing_ok=True)
    return _learned(state, context)


def _thread_of(context: LearningContext) -> str:
    parts = (
        "sealed",  # states of before were not
        context.memory.where,
        context.engine.name,
        context.embedder.name,
        str(context.queries),
        str(context.history),
        str(context.temperature),
        str(context.seed),
    )
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()


def _learned(state: dict[str, object], context: LearningContext) -> LearnedPrototypes:
    version = PrototypeStore(context.memory).current()
    done = cast(LearningState, state)
    # What an earlier start did, where this one had nothing left to derive.
    context.ledger.set(
        PERSONAS,
        done.get("prompt_tokens", 0),
        done.get("completion_tokens", 0),
        pieces=done["done"],
    )
    return LearnedPrototypes(
        version=done["version"],
        prototypes=version.k if version else 0,
        users=len({persona["user"] for persona in done["personas"]}),
        personas=len(done["personas"]),
        unreadable=done["unreadable"],
        failed=done.get("failed", 0),
        reason=done["reason"],
        usage=context.ledger.usage.model_copy(
            update={
                "model": context.engine.name,
                "engine_calls": -(-done["done"] // context.batch),
                "chains_sampled": done["done"],
            }
        ),
    )


def _prompt(job: Job, context: LearningContext) -> Prompt | None:
    """Return the prompt of a past choice, with the user's others as history.

    None if it is gone or overruled, or its user no longer takes part.
    """
    key = context.memory.shared_store().vault.keys_behind([job["user"]]).get(job["user"])
    if key is None or not context.memory.consent(key.user_id):
        return None
    user = key.user_id
    known = standing_signals(context.memory, user)
    pairs = pairs_by_choice(key, known.history)
    asked = pairs.pop((job["user"], job["choice"]), None)
    if asked is None:
        return None
    rng = random.Random(derive_seed(context.seed, "persona", user, asked.id))
    shown = rng.sample(list(pairs.values()), min(context.history, len(pairs)))
    if not shown and not known.stated:
        shown = [asked]  # the only thing known of them
    answers = rng.sample([asked.chosen, asked.rejected], 2)
    turn = context.chain_format.turn(
        "persona",
        query=asked.query,
        candidates=answers,
        history=shown,
        stated=known.stated,
        conversation=asked.conversation,
    )
    return Prompt(
        messages=turn.messages,
        json_schema=turn.json_schema if context.engine.capabilities.json_schema else None,
        grammar=turn.grammar if context.engine.capabilities.grammar else None,
        seed=derive_seed(context.seed, "sample", user, asked.id),
        confidential=True,
    )
