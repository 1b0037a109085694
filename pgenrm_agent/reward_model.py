"""PGenRM: the one object a user of this library meets.

Each method comes twice: a plain one (`score`), and one for async code (`ascore`) with the same
arguments. Plain calls also work inside a running event loop, as in a notebook, because their
coroutines run on a private loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import functools
import json
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeAlias, TypeVar, cast

from pydantic import ValidationError

from pgenrm_agent.background_loop import PrivateLoop
from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.engines.protocol import Engine
from pgenrm_agent.errors import ConfigurationError, PGenRMError
from pgenrm_agent.schema import (
    Candidate,
    Evaluation,
    EvaluationRequest,
    Message,
    Model,
    PreferencePair,
    Scaling,
    StatedPreference,
)

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import BaseCheckpointSaver

    from pgenrm_agent.embedding import Embedder
    from pgenrm_agent.graphs.evaluation import EvaluationGraph
    from pgenrm_agent.graphs.prototype_learning import LearnedPrototypes
    from pgenrm_agent.graphs.state import EvaluationContext, EvaluationInput
    from pgenrm_agent.integrations.langchain.node import EvaluationNode
    from pgenrm_agent.integrations.langchain.tool import PGenRMTool
    from pgenrm_agent.integrations.langchain.user import UserFrom
    from pgenrm_agent.integrations.trl import PersonalReward
    from pgenrm_agent.memory import UserMemory
    from pgenrm_agent.prototypes import Neighbors, PrototypeStore

__all__ = ["PGenRM", "Progress", "RerankItem", "RerankResult"]

T = TypeVar("T")
EngineName = Literal["transformers", "vllm", "openai"]


class Progress(Model):
    """How far an evaluation is: `stage` is the node of the evaluation graph that has just ended.

    seconds: since the evaluation began. chains: texts sampled so far, resampled ones included.
    """

    stage: str
    seconds: float
    chains: int


OnProgress: TypeAlias = Callable[[Progress], None]
OnLearning: TypeAlias = Callable[[str, int, int], None]


class RerankItem(Model):
    """One candidate in its new place. `index` is its place in the request, from 0.

    `score` is the mean reward, 1-10; None when the candidate was not scored, for this `reason`.
    """

    index: int
    id: str
    text: str
    score: float | None
    reason: str | None = None


class RerankResult(Model):
    """The candidates, best first; those not scored come last, in the request's order.

    Iterates over, counts and indexes its items.
    """

    items: tuple[RerankItem, ...]
    evaluation: Evaluation

    def __iter__(self) -> Iterator[RerankItem]:  # type: ignore[override]
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> RerankItem:
        return self.items[place]

    def top(self, count: int) -> tuple[RerankItem, ...]:
        """The first `count` items that were scored."""
        return tuple(item for item in self.items if item.score is not None)[: max(count, 0)]


class PGenRM:
    """Scores candidate answers for one person, from what that person preferred before.

    With no arguments: the bundled model, on this machine, and the default user memory.

    model: a folder or a hub or server name, for the engine named by `engine` ("transformers" when
        none is); or any LangChain chat model.
    engine: an engine's name, or an engine of your own, which stays yours to close.
    memory: a `UserMemory` of your own (yours to close), a folder, or the URL of a Chroma server.
    scaling: how many chains and from what, where a call does not say.
    chain_format: a format's name or folder; by default the one that the model's folder names, and
        "published" for all others.
    checkpointer: keeps the state after every step, under the `thread_id` of the call. It has to be
        one that works in async code (for SQLite: `AsyncSqliteSaver`).
    staged: write chains section by section, so that a run can be stopped and edited in between;
        slower than writing them whole.
    persona_embedder: what finds similar people by their personas. None means the bundled model's
        own token embeddings; with a sentence encoder, `SentenceTransformerEmbedder(...)`, people are
        grouped by what their personas mean. Prototypes built with one embedder are refused by another.
    show_neighbors: leave texts written from similar people's choices in results.

    Model and memory are opened by the first call that needs them. Use as a context manager, or
    call `close` (in async code: `async with`, `aclose`). Errors are those of
    `pgenrm_agent.errors`.
    """

    def __init__(
        self,
        model: str | Path | BaseChatModel | None = None,
        *,
        engine: Engine | EngineName | None = None,
        memory: UserMemory | str | Path | None = None,
        scaling: Scaling | None = None,
        chain_format: ChainFormat | str | Path | None = None,
        checkpointer: BaseCheckpointSaver[str] | None = None,
        staged: bool = False,
        persona_embedder: Embedder | None = None,
        show_neighbors: bool = False,
    ) -> None:
        if model is not None and engine is not None and not isinstance(engine, str):
            raise ConfigurationError(
                f"model {model!r} and a ready engine are both given, and the engine has its model "
                "already: pass one of them, or the engine's name"
            )
        self._model = model
        self._engine_wanted = engine
        self._memory_wanted = memory
        self._format_wanted = chain_format
        self._scaling = scaling or Scaling()
        self._checkpointer = checkpointer
        self._staged = staged
        self._persona_embedder = persona_embedder
        self._show_neighbors = show_neighbors
        self._neighbors: Neighbors | None = None
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._memory: UserMemory | None = None
        self._format: ChainFormat | None = None
        self._graph: EvaluationGraph | None = None
        self._loop = PrivateLoop("PGenRM")
        self._closed = False

    @property
    def scaling(self) -> Scaling:
        """What is sampled where a call does not say."""
        return self._scaling

    # --- scoring ---

    def score(
        self,
        user_id: str,
        query: str,
        candidates: Sequence[str | Candidate],
        *,
        conversation: Sequence[Message] = (),
        scaling: Scaling | None = None,
        history: Sequence[PreferencePair] | None = None,
        stated: Sequence[StatedPreference] | None = None,
        thread_id: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Evaluation:
        """How much would `user_id` like each of `candidates` as the answer to `query`?

        candidates: texts get the ids "answer-1", "answer-2", ...
        conversation: the turns before the query, oldest first.
        history, stated: what is known of the person, instead of what the memory knows. With one of
            them given, the other is empty and the memory is not opened.
        thread_id: with a checkpointer, where the run's steps are kept.
        on_progress: called after each stage, in the thread that runs the evaluation (for `score`
            that is not the caller's). What it raises ends the evaluation.

        Raises ConfigurationError for a request or setting that cannot be used, EngineError when the
        model cannot be asked, MemoryStoreError when the memory cannot be read, and ChainError when
        none of the sampled texts can be read. A candidate that no chain scored is in the result,
        as "not_scored", with the reason.
        """
        return self._run(
            self.ascore(
                user_id,
                query,
                candidates,
                conversation=conversation,
                scaling=scaling,
                history=history,
                stated=stated,
                thread_id=thread_id,
                on_progress=on_progress,
            )
        )

    async def ascore(
        self,
        user_id: str,
        query: str,
        candidates: Sequence[str | Candidate],
        *,
        conversation: Sequence[Message] = (),
        scaling: Scaling | None = None,
        history: Sequence[PreferencePair] | None = None,
        stated: Sequence[StatedPreference] | None = None,
        thread_id: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Evaluation:
        """`score`, for async code. Many calls at once share the engine's batches."""
        started = time.perf_counter()
        given = self.evaluation_input(
            user_id,
            query,
            candidates,
            conversation=conversation,
            scaling=scaling,
            history=history,
            stated=stated,
        )
        if thread_id is not None and self._checkpointer is None:
            raise ConfigurationError(
                f"thread_id {thread_id!r} is given, but nothing keeps the run's steps: "
                "pass a checkpointer to PGenRM"
            )
        from_memory = history is None and stated is None
        graph, context = await self.aprepare(memory=from_memory)
        config: RunnableConfig = {"configurable": {"thread_id": thread_id or uuid.uuid4().hex}}
        if on_progress is None:
            state = await graph.ainvoke(given, config, context=context)
        else:
            state, chains = {}, 0
            async for mode, part in graph.astream(
                given, config, context=context, stream_mode=["updates", "values"]
            ):
                if mode == "values":
                    state = cast(dict[str, object], part)
                else:
                    for stage, update in cast(dict[str, dict[str, object]], part).items():
                        usage = cast(dict[str, int], update.get("usage", {}))
                        chains = usage.get("chains_sampled", chains)
                        seconds = time.perf_counter() - started
                        on_progress(Progress(stage=stage, seconds=seconds, chains=chains))
        evaluation = Evaluation.model_validate(state["evaluation"])
        total = {"total": time.perf_counter() - started}
        return evaluation.model_copy(update={"timings": evaluation.timings | total})

    def rerank(
        self,
        user_id: str,
        query: str,
        candidates: Sequence[str | Candidate],
        *,
        conversation: Sequence[Message] = (),
        scaling: Scaling | None = None,
        history: Sequence[PreferencePair] | None = None,
        stated: Sequence[StatedPreference] | None = None,
        thread_id: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> RerankResult:
        """The candidates, what `user_id` would like best first; arguments as for `score`."""
        return self._run(
            self.arerank(
                user_id,
                query,
                candidates,
                conversation=conversation,
                scaling=scaling,
                history=history,
                stated=stated,
                thread_id=thread_id,
                on_progress=on_progress,
            )
        )

    async def arerank(
        self,
        user_id: str,
        query: str,
        candidates: Sequence[str | Candidate],
        *,
        conversation: Sequence[Message] = (),
        scaling: Scaling | None = None,
        history: Sequence[PreferencePair] | None = None,
        stated: Sequence[StatedPreference] | None = None,
        thread_id: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> RerankResult:
        """`rerank`, for async code."""
        evaluation = await self.ascore(
            user_id,
            query,
            candidates,
            conversation=conversation,
            scaling=scaling,
            history=history,
            stated=stated,
            thread_id=thread_id,
            on_progress=on_progress,
        )
        return _reranked(evaluation)

    def score_many(
        self,
        requests: Sequence[EvaluationRequest],
        *,
        scaling: Scaling | None = None,
        concurrency: int = 32,
    ) -> list[Evaluation | PGenRMError]:
        """Score many requests from the memory, `concurrency` at a time; results in their order.

        A request that cannot be scored has its error in its place and does not stop the others.
        """
        return self._run(self.ascore_many(requests, scaling=scaling, concurrency=concurrency))

    async def ascore_many(
        self,
        requests: Sequence[EvaluationRequest],
        *,
        scaling: Scaling | None = None,
        concurrency: int = 32,
    ) -> list[Evaluation | PGenRMError]:
        """`score_many`, for async code."""
        if concurrency < 1:
            raise ConfigurationError(f"concurrency is {concurrency}: pass at least 1")
        places = asyncio.Semaphore(concurrency)

        async def one(request: EvaluationRequest) -> Evaluation | PGenRMError:
            async with places:
                try:
                    return await self.ascore(
                        request.user_id,
                        request.query,
                        request.candidates,
                        conversation=request.conversation,
                        scaling=scaling,
                    )
                except PGenRMError as error:
                    return error

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(request)) for request in requests]
        return [task.result() for task in tasks]

    # --- memory ---

    def remember(self, user_id: str, pair: PreferencePair) -> str:
        """Store that `user_id` preferred one answer to another; returns the pair's id.

        It is durable once this returns. Raises MemoryStoreError when it cannot be stored.
        """
        return self.memory.remember(user_id, pair)

    async def aremember(self, user_id: str, pair: PreferencePair) -> str:
        """`remember`, for async code."""
        return await asyncio.to_thread(self.remember, user_id, pair)

    def state(self, user_id: str, stated: StatedPreference | str) -> str:
        """Store what `user_id` says they want; returns the statement's id.

        A plain text is a statement of style. Raises ConfigurationError for a blank text.
        """
        if isinstance(stated, str):
            try:
                stated = StatedPreference(text=stated)
            except ValidationError as error:
                raise _refused("stated preference", error) from None
        return self.memory.state(user_id, stated)

    async def astate(self, user_id: str, stated: StatedPreference | str) -> str:
        """`state`, for async code."""
        return await asyncio.to_thread(self.state, user_id, stated)

    def forget(self, user_id: str) -> int:
        """Remove everything kept about `user_id`; returns how many entries that were."""
        return self.memory.forget(user_id)

    async def aforget(self, user_id: str) -> int:
        """`forget`, for async code."""
        return await asyncio.to_thread(self.forget, user_id)

    @property
    def memory(self) -> UserMemory:
        """The user memory, opened on first use: for listing, export and import."""
        with self._lock:
            self._refuse_closed()
            if self._memory is None:
                self._memory = _open_memory(self._memory_wanted)
            return self._memory

    def with_memory(self, memory: UserMemory | str | Path) -> PGenRM:
        """The same model and settings on another memory; this object stays the engine's owner.

        The model is loaded if it is not yet. Close this object last.
        """
        self.prepare(memory=False)
        return PGenRM(
            engine=self._engine,
            memory=memory,
            scaling=self._scaling,
            chain_format=self._format,
            checkpointer=self._checkpointer,
            staged=self._staged,
            persona_embedder=self._persona_embedder,
            show_neighbors=self._show_neighbors,
        )

    # --- similar people ---

    @property
    def prototypes(self) -> PrototypeStore:
        """The prototypes of the people in this memory: which version, how stale."""
        from pgenrm_agent.prototypes import PrototypeStore

        memory = self.memory
        with self._lock:
            # That one has the version in memory already, once something was scored.
            return self._neighbors.store if self._neighbors else PrototypeStore(memory)

    def learn_prototypes(
        self,
        *,
        k: int | None = None,
        queries: int = 3,
        seed: int = 0,
        keep: str | Path | None = None,
        fresh: bool = False,
        on_progress: OnLearning | None = None,
    ) -> LearnedPrototypes:
        """Group everybody who agreed by personas, and use these groups from now on (paper 4.2.1).

        k: how many prototypes; None chooses by the spectrum of the personas.
        queries: of how many of a person's past queries personas are derived.
        keep: an SQLite file that keeps what is done after each batch. A call that was cut off goes
            on there at the next call with that file, unless that is told to start `fresh`.
        on_progress: called with what is being done, how much of it is done, and of how much.

        Needs the extra "training", and "debugging" for `keep`. Raises ConfigurationError when
        nobody agreed or no persona can be read; the version before then still counts.
        """
        return self._run(
            self.alearn_prototypes(
                k=k, queries=queries, seed=seed, keep=keep, fresh=fresh, on_progress=on_progress
            )
        )

    async def alearn_prototypes(
        self,
        *,
        k: int | None = None,
        queries: int = 3,
        seed: int = 0,
        keep: str | Path | None = None,
        fresh: bool = False,
        on_progress: OnLearning | None = None,
    ) -> LearnedPrototypes:
        """`learn_prototypes`, for async code."""
        from pgenrm_agent.graphs.prototype_learning import LearningContext, learn_prototypes
        from pgenrm_agent.prototypes.fitting import fit_prototypes

        await self.aprepare()
        engine, memory, neighbors = self._engine, self._memory, self._neighbors
        if engine is None or memory is None or neighbors is None or self._format is None:
            raise ConfigurationError("this PGenRM was closed while it was being opened")
        context = LearningContext(
            engine=engine,
            chain_format=self._format,
            memory=memory,
            embedder=neighbors.embedder,
            fit=fit_prototypes,
            queries=queries,
            history=self._scaling.history,
            k=k,
            temperature=self._scaling.temperature,
            seed=seed,
            on_progress=on_progress or (lambda what, done, total: None),
        )
        return await learn_prototypes(context, keep=keep, fresh=fresh)

    # --- use in other people's programs ---

    def as_tool(
        self, *, user_id: str | None = None, user_from: UserFrom = "argument"
    ) -> PGenRMTool:
        """A LangChain tool that ranks candidate answers, with the evaluation as its artifact.

        user_id: whom the tool judges for, always.
        user_from: where that is not given, who names the person. "argument": the model that calls
            the tool, which so can ask about anyone in the memory. "config": the run's
            `config["configurable"]["user_id"]`. "state": the field `user_id` of the graph's state.
            With the last two the tool has no such argument, and the model cannot choose.
        """
        from pgenrm_agent.integrations.langchain.tool import PGenRMTool

        return PGenRMTool(reward_model=self, bound_user=user_id, user_from=user_from)

    def as_node(
        self,
        *,
        query: str = "query",
        candidates: str = "candidates",
        user: str = "user_id",
        to: str = "evaluation",
    ) -> EvaluationNode:
        """A node for a LangGraph graph of your own, with the evaluation graph inside.

        query, candidates, user: the fields of your state to read: a text, a list of texts, an id.
        to: the field that gets the evaluation, as JSON data (`Evaluation.model_validate` reads it).
        """
        from pgenrm_agent.integrations.langchain.node import EvaluationNode

        return EvaluationNode(self, query=query, candidates=candidates, user=user, to=to)

    def as_reward_func(self, *, user_column: str = "user_id") -> PersonalReward:
        """A reward function for TRL's trainers: what each completion's person would think of it.

        user_column: the column of the training data with the person's id.
        """
        from pgenrm_agent.integrations.trl import PersonalReward

        return PersonalReward(self, user_column=user_column)

    # --- running the graph oneself ---

    def evaluation_input(
        self,
        user_id: str,
        query: str,
        candidates: Sequence[str | Candidate],
        *,
        conversation: Sequence[Message] = (),
        scaling: Scaling | None = None,
        history: Sequence[PreferencePair] | None = None,
        stated: Sequence[StatedPreference] | None = None,
    ) -> EvaluationInput:
        """What the evaluation graph is started with; arguments and errors as for `score`."""
        return _evaluation_input(
            user_id, query, candidates, conversation, scaling or self._scaling, history, stated
        )

    def prepare(self, *, memory: bool = True) -> tuple[EvaluationGraph, EvaluationContext]:
        """Open the model, and the memory, now; otherwise the first call does.

        Returns the evaluation graph and the context to run it with, for programs that run it
        themselves.
        """
        return self._run(self.aprepare(memory=memory))

    async def aprepare(self, *, memory: bool = True) -> tuple[EvaluationGraph, EvaluationContext]:
        """`prepare`, for async code. What has to be loaded is loaded in a thread."""
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
            show_neighbors=self._show_neighbors,
            staged=self._staged,
        )

    # --- life cycle ---

    def close(self) -> None:
        """Free what this object opened: model, memory, thread. Calling it again does nothing."""
        engine = self._take_down()
        if engine is not None:
            self._loop.run_blocking(engine.aclose())
        self._loop.close()

    async def aclose(self) -> None:
        """`close`, for async code."""
        engine = await asyncio.to_thread(self._take_down)
        if engine is not None:
            await engine.aclose()
        await asyncio.to_thread(self._loop.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _take_down(self) -> Engine | None:
        """Close the memory if it is ours; returns the engine if that is ours to close."""
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
            if from_memory and self._memory is None:
                self._memory = _open_memory(self._memory_wanted)
            if from_memory and self._neighbors is None and self._memory is not None:
                self._neighbors = self._find_neighbors(self._memory)
            if self._graph is None:
                self._format = self._choose_format()
                self._engine = self._open_engine()
                self._graph = build_graph(self._checkpointer)

    def _find_neighbors(self, memory: UserMemory) -> Neighbors:
        from pgenrm_agent.prototypes import Neighbors

        return Neighbors(memory, self._persona_embedder or _default_persona_embedder())

    def _choose_format(self) -> ChainFormat:
        from pgenrm_agent.model_files import bundled_model, format_of

        if isinstance(self._format_wanted, ChainFormat):
            return self._format_wanted
        if self._format_wanted is not None:
            return ChainFormat.load(self._format_wanted)
        if isinstance(self._model, (str, Path)):
            return format_of(self._model)
        if self._model is None and (
            self._engine_wanted is None or isinstance(self._engine_wanted, str)
        ):
            return format_of(bundled_model())
        return ChainFormat.load("published")

    def _open_engine(self) -> Engine:
        from pgenrm_agent.engines import load_engine
        from pgenrm_agent.model_files import bundled_model

        wanted, model = self._engine_wanted, self._model
        if wanted is not None and not isinstance(wanted, str):
            return wanted
        if model is None:
            if wanted == "openai":
                raise ConfigurationError(
                    'engine "openai" needs the name of the model that the server offers: '
                    "pass model=..."
                )
            return load_engine(wanted or "transformers", bundled_model())
        if isinstance(model, (str, Path)):
            return load_engine(wanted or "transformers", model)
        if wanted is not None:
            raise ConfigurationError(
                f"engine {wanted!r} cannot run a {type(model).__name__}: leave engine out for a "
                "LangChain chat model, or pass a model's name"
            )
        from langchain_core.language_models import BaseChatModel

        from pgenrm_agent.engines.chat import ChatModelEngine

        if not isinstance(model, BaseChatModel):
            raise ConfigurationError(
                f"model is a {type(model).__name__}: pass a folder, a name or a chat model"
            )
        return ChatModelEngine(model)

    # --- plain calls ---

    def _run(self, coroutine: Coroutine[object, object, T]) -> T:
        try:
            self._refuse_closed()
        except ConfigurationError:
            coroutine.close()
            raise
        return self._loop.run_blocking(coroutine)


@functools.cache
def _default_persona_embedder() -> Embedder:
    """One for all: a server has a PGenRM by tenant, and the model needs loading once."""
    from pgenrm_agent.embedding import ModelTokensEmbedder
    from pgenrm_agent.model_files import bundled_model

    return ModelTokensEmbedder(bundled_model())


def _open_memory(wanted: UserMemory | str | Path | None) -> UserMemory:
    from pgenrm_agent.memory import UserMemory

    if isinstance(wanted, UserMemory):
        return wanted
    if isinstance(wanted, str) and wanted.startswith(("http://", "https://")):
        return UserMemory(url=wanted)
    return UserMemory(wanted)


def _evaluation_input(
    user_id: str,
    query: str,
    candidates: Sequence[str | Candidate],
    conversation: Sequence[Message],
    scaling: Scaling,
    history: Sequence[PreferencePair] | None,
    stated: Sequence[StatedPreference] | None,
) -> EvaluationInput:
    if isinstance(candidates, (str, Candidate)):
        raise ConfigurationError(
            "candidates is a single answer: pass a list, such as ['first answer', 'second answer']"
        )
    try:
        request = EvaluationRequest(
            user_id=user_id,
            query=query,
            candidates=tuple(
                one if isinstance(one, Candidate) else Candidate(id=f"answer-{number}", text=one)
                for number, one in enumerate(candidates, start=1)
            ),
            conversation=tuple(conversation),
        )
    except ValidationError as error:
        raise _refused("request", error) from None
    return {
        "request": request.model_dump(mode="json"),
        "scaling": scaling.model_dump(mode="json"),
        "history": None if history is None else [pair.model_dump(mode="json") for pair in history],
        "stated": None if stated is None else [one.model_dump(mode="json") for one in stated],
    }


def _refused(what: str, error: ValidationError) -> ConfigurationError:
    """The schema's complaints in one line: where, what, and the value."""
    complaints = []
    for problem in error.errors(include_url=False, include_context=False):
        place = ".".join(str(part) for part in problem["loc"])
        shown = json.dumps(problem["input"], default=lambda value: type(value).__name__)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        complaints.append(f"{place}: {problem['msg']} (got {shown})" if place else problem["msg"])
    return ConfigurationError(f"this {what} cannot be used: {'; '.join(complaints)}")


def _reranked(evaluation: Evaluation) -> RerankResult:
    place = {one: number for number, one in enumerate(evaluation.ranking)}
    last = len(place)
    items = [
        RerankItem(
            index=index,
            id=candidate.id,
            text=candidate.text,
            score=score.mean,
            reason=score.reason,
        )
        for index, (candidate, score) in enumerate(
            zip(evaluation.request.candidates, evaluation.scores, strict=True)
        )
    ]
    items.sort(key=lambda item: place.get(item.id, last))
    return RerankResult(items=tuple(items), evaluation=evaluation)
