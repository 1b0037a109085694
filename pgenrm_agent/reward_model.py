"""PGenRM: the one object a user of this library meets.

Each method comes twice: a plain one (`score`), and one for async code (`ascore`) with the same
arguments. Plain calls also work inside a running event loop, as in a notebook.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pgenrm_agent.arguments import model_of
from pgenrm_agent.background_loop import BackgroundLoop
from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.costs import CostLedger
from pgenrm_agent.engine_names import EngineName
from pgenrm_agent.engines.protocol import Engine
from pgenrm_agent.errors import ConfigurationError, MemoryStoreError, PGenRMError
from pgenrm_agent.evaluation_input import evaluation_input, evaluation_request, run_config
from pgenrm_agent.evaluation_run import OnProgress, evaluate, evaluate_each, ranked, run_options
from pgenrm_agent.extras import require
from pgenrm_agent.opening import (
    default_persona_embedder,
    format_for,
    memory_exists,
    open_engine_for,
    open_memory,
    refuse_other_types,
    refuse_unusable,
)
from pgenrm_agent.ranking import Fallback, RerankResult
from pgenrm_agent.remembering import Remembering
from pgenrm_agent.schema import (
    Candidate,
    Evaluation,
    EvaluationRequest,
    Message,
    Prices,
    Scaling,
    UserSignals,
)
from pgenrm_agent.sync_wrappers import blocking

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import BaseCheckpointSaver

    from pgenrm_agent.embedding import Embedder
    from pgenrm_agent.evaluation_cache import EvaluationCache
    from pgenrm_agent.graphs.evaluation import EvaluationGraph
    from pgenrm_agent.graphs.prototype_learning import LearnedPrototypes
    from pgenrm_agent.graphs.state import EvaluationContext
    from pgenrm_agent.memory import UserMemory
    from pgenrm_agent.prototypes import Neighbors, PrototypeStore


class PGenRM(Remembering):
    """Scores candidate answers for one user, from what that user preferred before.

    With no arguments: the bundled model, on this machine, and the default user memory.

    Model and memory are opened by the first call that needs them. Use as a context manager, or
    call `close` (in async code: `async with`, `aclose`). Errors are those of
    `pgenrm_agent.errors`.

    Args:
        model: A folder or a hub or server name, for the engine named by `engine` ("transformers"
            when none is); or any LangChain chat model.
        engine: An engine's name, or an engine of your own, which stays yours to close.
        engine_options: Further arguments of the engine that is opened here, such as `base_url`.
        memory: A `UserMemory` of your own (yours to close), a folder, or the URL of a Chroma
            server.
        scaling: How many chains and from what, where a call does not say.
        chain_format: A format's name or folder. By default the one that the model's folder names;
            for other models "structured-1" where the engine holds answers to a JSON schema, and
            "published" where it does not, or the model is a P-GenRM checkpoint by its name.
        max_tokens: New tokens that a chain may take, what the model thinks included, instead of the
            format's own number.
        prices: What the model's tokens cost; results then say what they cost.
        checkpointer: Keeps the state after every step of calls with a `thread_id`. It has to
            work in async code (for SQLite: `AsyncSqliteSaver`).
        staged: Write chains section by section, so that a run can be stopped and edited in between;
            slower than writing them whole.
        cache: Keeps evaluations on disk, so that the same one is not made twice; yours to close. Who
            is forgotten by the memory is forgotten by it.
        persona_embedder: Finds similar users by their personas. None means the bundled model's own
            token embeddings; with a sentence encoder, `SentenceTransformerEmbedder(...)`, users are
            grouped by what their personas mean. Prototypes built with one embedder are refused by
            another.
        show_neighbors: Leave texts written from similar users' choices in results.
    """

    def __init__(
        self,
        model: str | Path | BaseChatModel | None = None,
        *,
        engine: Engine | EngineName | None = None,
        engine_options: Mapping[str, object] | None = None,
        memory: UserMemory | str | Path | None = None,
        scaling: Scaling | None = None,
        chain_format: ChainFormat | str | Path | None = None,
        checkpointer: BaseCheckpointSaver[str] | None = None,
        max_tokens: int | None = None,
        prices: Prices | None = None,
        staged: bool = False,
        cache: EvaluationCache | None = None,
        persona_embedder: Embedder | None = None,
        show_neighbors: bool = False,
    ) -> None:
        refuse_unusable(model, engine)
        refuse_other_types(engine_options=engine_options, memory=memory, chain_format=chain_format)
        refuse_other_types(checkpointer=checkpointer, cache=cache)
        refuse_other_types(persona_embedder=persona_embedder)
        self._model = model
        self._engine_wanted = engine
        self._engine_options = engine_options or {}
        self._memory_wanted = memory
        self._format_wanted = chain_format
        self._scaling = Scaling() if scaling is None else model_of(Scaling, scaling, "scaling")
        self._checkpointer = checkpointer
        self._run = run_options(show_neighbors, staged, max_tokens, prices)
        self._cache = cache
        if memory is not None and not isinstance(memory, (str, Path)):
            self._also_forget_in(memory)
        self._persona_embedder = persona_embedder
        self._neighbors: Neighbors | None = None
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._memory: UserMemory | None = None
        self._format: ChainFormat | None = None
        self._graph: EvaluationGraph | None = None
        self._graph_not_kept: EvaluationGraph | None = None
        self._background = BackgroundLoop("PGenRM")
        self._closed = False

    @property
    def scaling(self) -> Scaling:
        """What is sampled where a call does not say."""
        return self._scaling

    # --- scoring ---

    async def ascore(
        self,
        user_id: str,
        query: str,
        candidates: Sequence[str | Candidate],
        *,
        conversation: Sequence[Message] = (),
        scaling: Scaling | None = None,
        signals: UserSignals | None = None,
        timeout: float | None = None,
        thread_id: str | None = None,
        on_progress: OnProgress | None = None,
        config: RunnableConfig | None = None,
    ) -> Evaluation:
        """Score how much `user_id` would like each of `candidates` as the answer to `query`.

        A candidate that no chain scored is in the result, as "not_scored", with the reason. Many
        calls at once share the engine's batches.

        Args:
            user_id: Whose preferences decide.
            query: What the user asked.
            candidates: The answers. Texts get the ids "answer-1", "answer-2", ...
            conversation: The turns before the query, oldest first.
            scaling: How many chains and from what, instead of this object's.
            signals: What is known of the user, instead of what the memory knows. Similar users
                still take part where the memory has prototypes, and it is opened for that if it
                exists; with `scaling.prototype` 0 it is left alone. None: from the memory.
            timeout: Seconds after which writing ends: the chains that are whole by then count, and
                the others are among `failures`.
            thread_id: With a checkpointer, where the run's steps are kept.
            on_progress: Called after each stage, in the thread that runs the evaluation (for
                `score` that is not the caller's). What it raises ends the evaluation.
            config: A LangChain config. Its callbacks, tags, metadata, run_name and run_id are the
                run's; callbacks hear every step and every call of a chat model, and of calls made
                of similar users' words no more than counts.

        Raises:
            ConfigurationError: The request or a setting cannot be used.
            EngineError: The model cannot be asked; EngineTimeout when no chain was whole within
                `timeout`.
            MemoryStoreError: The memory cannot be read.
            ChainError: None of the sampled texts can be read.
        """
        started = time.perf_counter()
        scaling = self._scaling if scaling is None else model_of(Scaling, scaling, "scaling")
        request = evaluation_request(user_id, query, candidates, conversation)
        given = evaluation_input(request, scaling, signals)
        config = run_config(config)
        if thread_id is not None and self._checkpointer is None:
            raise ConfigurationError(
                f"thread_id {thread_id!r} is given, but nothing keeps the run's steps: "
                "pass a checkpointer to PGenRM"
            )
        prepared = self.aprepare() if signals is None else self._prepare_beside(scaling)
        graph, context = await prepared
        if thread_id is None and self._graph_not_kept is not None:
            graph = self._graph_not_kept  # nobody could find its steps again, or forget them
        return await evaluate(
            graph,
            given,
            context,
            self._cache,
            started=started,
            timeout=timeout,
            thread_id=thread_id,
            on_progress=on_progress,
            config=config,
        )

    score = blocking(ascore)

    async def arerank(
        self,
        user_id: str,
        query: str,
        candidates: Sequence[str | Candidate],
        *,
        conversation: Sequence[Message] = (),
        scaling: Scaling | None = None,
        signals: UserSignals | None = None,
        timeout: float | None = None,
        thread_id: str | None = None,
        on_progress: OnProgress | None = None,
        config: RunnableConfig | None = None,
        fallback: Fallback | None = None,
    ) -> RerankResult:
        """Order the candidates, what `user_id` would like best first; arguments as for `score`.

        fallback: "order" for the order given, where the model cannot be asked; the result says so.
        """
        asked = evaluation_request(user_id, query, candidates, conversation)
        scoring = self.ascore(
            user_id,
            query,
            asked.candidates,
            conversation=asked.conversation,
            scaling=scaling,
            signals=signals,
            timeout=timeout,
            thread_id=thread_id,
            on_progress=on_progress,
            config=config,
        )
        return await ranked(scoring, fallback, asked)

    rerank = blocking(arerank)

    async def ascore_many(
        self,
        requests: Sequence[EvaluationRequest],
        *,
        scaling: Scaling | None = None,
        timeout: float | None = None,
        concurrency: int = 32,
        config: RunnableConfig | None = None,
    ) -> list[Evaluation | PGenRMError]:
        """Score many requests from the memory, `concurrency` at a time; results in their order.

        timeout: seconds for each, from when it is begun; see `score`.
        config: of each, as for `score`; a run_id in it, which names a single run, is left out.

        A request that cannot be scored has its error in its place and does not stop the others.
        """
        shared = run_config(config)
        shared.pop("run_id", None)

        async def score_request(request: EvaluationRequest) -> Evaluation:
            return await self.ascore(
                request.user_id,
                request.query,
                request.candidates,
                conversation=request.conversation,
                scaling=scaling,
                timeout=timeout,
                config=shared,
            )

        return await evaluate_each(score_request, requests, concurrency)

    score_many = blocking(ascore_many)

    # --- memory ---

    @property
    def memory(self) -> UserMemory:
        """The user memory, opened on first use: for listing, export and import."""
        with self._lock:
            self._refuse_closed()
            if self._memory is None:
                self._memory = open_memory(self._memory_wanted)
                self._also_forget_in(self._memory)
            return self._memory

    def _also_forget_in(self, memory: UserMemory) -> None:
        """Let who is forgotten in the memory leave the cache, and the runs that were debugged on it."""
        from pgenrm_agent.graphs.run_store import ForgetRuns

        memory.also_forget_whole.add(ForgetRuns(memory=memory.where))
        if self._cache is not None:
            memory.also_forget.add(self._cache.forget)

    def with_memory(self, memory: UserMemory | str | Path) -> PGenRM:
        """Return the same model and settings on another memory; the engine stays this object's.

        The model is loaded if it is not yet. Close this object last.
        """
        self.prepare(memory=False)
        return PGenRM(
            engine=self._engine,
            memory=memory,
            scaling=self._scaling,
            chain_format=self._format,
            checkpointer=self._checkpointer,
            cache=self._cache,
            persona_embedder=self._persona_embedder,
            **self._run,
        )

    # --- similar users ---

    @property
    def prototypes(self) -> PrototypeStore:
        """The prototypes of the users in this memory: which version, how stale."""
        from pgenrm_agent.prototypes import PrototypeStore

        memory = self.memory
        with self._lock:
            # That one has the version in memory already, once something was scored.
            return self._neighbors.store if self._neighbors else PrototypeStore(memory)

    async def alearn_prototypes(
        self,
        *,
        k: int | None = None,
        queries: int = 3,
        seed: int = 0,
        keep: str | Path | None = None,
        fresh: bool = False,
        on_progress: Callable[[str, int, int], None] | None = None,
        ledger: CostLedger | None = None,
    ) -> LearnedPrototypes:
        """Group all users who agreed by personas, and use these groups from now on (paper 4.2.1).

        Needs the extra "training", and "debugging" for `keep`.

        Args:
            k: How many prototypes; None chooses by the spectrum of the personas.
            queries: Of how many of a user's past queries personas are derived.
            seed: Of all that is sampled.
            keep: An SQLite file that keeps what is done after each batch. A call that was cut off
                goes on there at the next call with that file.
            fresh: Start anew even so.
            on_progress: Called with what is being done, how much of it is done, and of how much.
            ledger: The budget of the build, earlier starts included; None for no end.

        Raises:
            BudgetReached: It is spent; with `keep`, a new call with a higher one goes on.
            ConfigurationError: A package is missing, nobody agreed, or no persona can be read; the
                version before then still counts.
        """
        require("learning prototypes", "sklearn", *(("aiosqlite",) if keep else ()))
        from pgenrm_agent.graphs.prototype_learning import LearningContext, learn_prototypes
        from pgenrm_agent.graphs.state import default_format

        await self.aprepare()
        engine, memory, neighbors = self._engine, self._memory, self._neighbors
        if engine is None or memory is None or neighbors is None:
            raise ConfigurationError("this PGenRM was closed while it was being opened")
        context = LearningContext(
            engine=engine,
            chain_format=await asyncio.to_thread(lambda: self._format or default_format(engine)),
            memory=memory,
            embedder=neighbors.embedder,
            queries=queries,
            history=self._scaling.history,
            k=k,
            temperature=self._scaling.temperature,
            seed=seed,
            on_progress=on_progress or (lambda what, done, total: None),
            ledger=ledger or CostLedger(self._run["prices"]),
        )
        return await learn_prototypes(context, keep=keep, fresh=fresh)

    learn_prototypes = blocking(alearn_prototypes)

    # --- running the graph oneself ---

    async def aprepare(self, *, memory: bool = True) -> tuple[EvaluationGraph, EvaluationContext]:
        """Open the model, and the memory, now; otherwise the first call does.

        Returns the evaluation graph and the context to run it with, for programs that run it
        themselves. What has to be loaded is loaded in a thread.
        """
        self._refuse_closed()
        # Not under the lock: a loop with many runs must not wait while a thread opens something.
        if self._graph is None or (memory and self._neighbors is None):
            await asyncio.to_thread(self._open, memory)
        from pgenrm_agent.graphs.state import EvaluationContext

        graph, engine, source = self._graph, self._engine, self._memory
        if graph is None or engine is None or (memory and source is None):
            raise ConfigurationError("this PGenRM was closed while it was being opened")
        return graph, EvaluationContext(
            engine=engine,
            chain_format=self._format,
            memory=source if memory else None,
            neighbors=self._neighbors if memory else None,
            **self._run,
        )

    prepare = blocking(aprepare)

    async def _prepare_beside(self, scaling: Scaling) -> tuple[EvaluationGraph, EvaluationContext]:
        """`aprepare` for a user whose signals are given.

        A memory that exists is there for similar users, and for its embedder, which orders past
        choices. Nothing is written: a persona derived from given signals is not the user's in it.
        """
        wanted = scaling.prototype > 0 or scaling.history_selection == "similar"
        needed = wanted and (self._memory is not None or memory_exists(self._memory_wanted))
        try:
            graph, context = await self.aprepare(memory=needed)
        except MemoryStoreError as error:
            raise MemoryStoreError(
                f"{error}; with signals given, only similar users need the memory (and the selection "
                "of similar choices): Scaling(prototype=0) does without them"
            ) from error
        if context.neighbors is not None and self._neighbors is not None:
            context = replace(context, neighbors=self._neighbors.without_joining())
        return graph, context

    # --- life cycle ---

    def close(self) -> None:
        """Free what this object opened: model, memory, thread. Calling it again does nothing."""
        self._background.refuse_own_thread()
        engine = self._take_down()
        try:
            if engine is not None:
                self._background.run_blocking(engine.aclose)
        finally:
            self._background.close()

    @property
    def _loop(self) -> BackgroundLoop:
        self._refuse_closed()
        return self._background

    def _take_down(self) -> Engine | None:
        """Close the memory if it is ours; return the engine if that is ours to close."""
        with self._lock:
            self._closed = True
            memory, self._memory = self._memory, None
            self._neighbors = None
            engine, self._engine = self._engine, None
        if memory is not None and memory is not self._memory_wanted:
            memory.close()
        return engine if engine is not self._engine_wanted else None

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ConfigurationError("this PGenRM is closed: make another one")

    # --- what a run needs ---

    def _open(self, from_memory: bool) -> None:
        """Open what is not open yet; the graph last: where it is, format and engine are."""
        from pgenrm_agent.graphs.evaluation import build_graph

        with self._lock:
            self._refuse_closed()
            if from_memory and self._neighbors is None:
                from pgenrm_agent.prototypes import Neighbors

                embedder = self._persona_embedder or default_persona_embedder()
                self._neighbors = Neighbors(self.memory, embedder)
            if self._graph is None:
                model, engine = self._model, self._engine_wanted
                adapter = self._engine_options.get("adapter")
                self._format = format_for(model, engine, self._format_wanted, adapter)
                self._engine = open_engine_for(model, engine, self._engine_options)
                self._graph_not_kept = build_graph() if self._checkpointer else None
                self._graph = build_graph(self._checkpointer)
