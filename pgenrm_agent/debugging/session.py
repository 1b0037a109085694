"""DebugSession: runs of the evaluation graph that can be stopped, read, edited and gone back in.

A run is a thread of LangGraph's checkpointer, and each step of it a checkpoint. Nothing is kept in
this process that the store does not have, so a session can be closed, or its process killed, and
another one goes on: finished nodes are not run again.

Going back never loses anything: rewinding and editing begin a new branch of the same run, and the
newest checkpoint is where the run goes on. Which nodes there are is asked of the graph.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import cast

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START

from pgenrm_agent.arguments import items_of, model_of, refuse_other, whole_number
from pgenrm_agent.background_loop import BackgroundLoop
from pgenrm_agent.chain import SECTIONS, ChainFormat
from pgenrm_agent.debugging.breakpoints import Breakpoint
from pgenrm_agent.debugging.editing import Editor
from pgenrm_agent.debugging.export import copy_run, dump_run, load_run
from pgenrm_agent.debugging.records import Records, checkpoint_of, config_of, id_of, side_of
from pgenrm_agent.debugging.replay import replay
from pgenrm_agent.debugging.views import (
    Checkpoint,
    Comparison,
    Difference,
    Replay,
    RunSummary,
    Stop,
    differences,
)
from pgenrm_agent.engines.protocol import Engine
from pgenrm_agent.errors import ConfigurationError, EngineUnavailable
from pgenrm_agent.evaluation_input import evaluation_input
from pgenrm_agent.evidence import shown_signals
from pgenrm_agent.graphs.evaluation import EvaluationGraph, build_graph
from pgenrm_agent.graphs.run_store import MEMORY, ForgetRuns, forget_in, open_saver
from pgenrm_agent.graphs.sealing import NO_LONGER_OPEN, signals_in
from pgenrm_agent.graphs.state import (
    EvaluationContext,
    EvaluationInput,
    EvaluationState,
    NeighborSource,
    SignalSource,
    default_format,
)
from pgenrm_agent.memory import UserMemory
from pgenrm_agent.opening import refuse_other_types
from pgenrm_agent.schema import (
    Candidate,
    EvaluationRequest,
    Message,
    PreferencePair,
    Scaling,
    StatedPreference,
    UserSignals,
)
from pgenrm_agent.sync_wrappers import Closeable, at_home, blocking


class DebugSession(Closeable):
    """Steps through evaluations, one node at a time or up to a breakpoint.

    Chains are written section by section where the engine continues text or the format is a
    JSON object, so that what is edited changes what follows. Every call has two forms: `step`
    is a plain one, which also works inside a running event loop, and `astep` is awaited; so
    with the others. The constructor waits for the store. One run is acted on by one caller at a
    time; others may look meanwhile. A run id or checkpoint id that is not in the store raises
    ConfigurationError, and so does every edit that cannot be made. A session with `neighbors` shows
    the texts of similar users' chains; the store and exports have them sealed.

    Args:
        store: A SQLite file (made when missing), a PostgreSQL URL, or None to keep runs in memory.
        engine: What samples, yours to close; None means the bundled model.
        chain_format: The format of its chains; left out, the one that suits the engine.
        memory: Where signals come from that a run is not given. Who is forgotten in a `UserMemory`
            leaves the store, too.
        neighbors: Who is similar. Give `Neighbors(..., joining=False)`: nobody should join a
            prototype with a persona that was made up here.
    """

    def __init__(
        self,
        store: str | Path | None = None,
        *,
        engine: Engine | None = None,
        chain_format: ChainFormat | None = None,
        memory: SignalSource | None = None,
        neighbors: NeighborSource | None = None,
    ) -> None:
        refuse_other_types(store=store, engine=engine, chain_format=chain_format)
        self._engine = engine
        self._context = EvaluationContext(
            engine=engine,
            chain_format=chain_format,
            memory=memory,
            neighbors=neighbors,
            staged=True,
        )
        self._loop = BackgroundLoop("DebugSession")
        self._resources = AsyncExitStack()
        try:
            self._saver = self._loop.run_blocking(
                lambda: open_saver(None if store is None else str(store), self._resources)
            )
        except BaseException:
            self.close()
            raise
        self._graph: EvaluationGraph = build_graph(self._saver)
        self._records = Records(self._graph, self._saver, neighbors)
        self._editor = Editor(self._records, self._graph, self._format, self._context)
        if isinstance(memory, UserMemory):
            where = (
                str(store) if store is None or "://" in str(store) else str(Path(store).resolve())
            )
            memory.also_forget_whole.add(self._forget if store is None else ForgetRuns(where))

    def _forget(self, user_id: str) -> int:
        try:
            return self._loop.run_blocking(lambda: forget_in(self._saver, user_id))
        except EngineUnavailable:  # it was closed meanwhile, and what it had in memory is gone
            return 0

    def _format(self) -> ChainFormat:
        """Return the format in which chains are written now: a server's is found out by asking it."""
        return self._context.chain_format or default_format(self._engine)

    # --- life cycle ---

    def close(self) -> None:
        """Close the store. Calling it again does nothing."""
        if isinstance(self._context.memory, UserMemory):
            self._context.memory.also_forget_whole.discard(self._forget)
        self._loop.close(self._resources.aclose)

    # --- running ---

    @property
    def nodes(self) -> tuple[str, ...]:
        """The graph's nodes, in the order in which they were added."""
        return tuple(node for node in self._graph.nodes if node != START)

    @at_home
    async def astart(
        self,
        request: EvaluationRequest,
        *,
        scaling: Scaling | None = None,
        signals: UserSignals | None = None,
        run: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> str:
        """Begin a run and stop before its first node; returns its id.

        Args:
            request: What is asked, of whom, and the answers.
            scaling: How many chains and from what.
            signals: What is known of the user, instead of what the memory knows.
            run: An id of your choice.
            labels: Short texts kept with the run, shown in lists.

        Raises:
            ConfigurationError: The id is taken, or the signals are somebody else's.
        """
        given = evaluation_input(request, Scaling() if scaling is None else scaling, signals)
        name = uuid.uuid4().hex[:12] if run is None else run
        refuse_other({} if labels is None else labels, Mapping, "labels", "a dict of texts")
        await self._refuse_taken(name)
        config = config_of(name)
        config["metadata"] = {f"label_{key}": value for key, value in (labels or {}).items()}
        if isinstance(self._context.memory, UserMemory):
            config["metadata"][MEMORY] = self._context.memory.where
        async with self._records.beginning(name):
            await self._invoke(given, config, before="*")
        return name

    start = blocking(astart)

    @at_home
    async def astep(self, run: str) -> Checkpoint:
        """Run the next node. Raises what the node raises; the run then stands where it stood."""
        return await self._step(run)

    step = blocking(astep)

    @at_home
    async def aresume(
        self,
        run: str,
        breakpoints: Sequence[Breakpoint | str] = (),
        *,
        on_step: Callable[[Checkpoint], None] | None = None,
    ) -> Stop:
        """Run on to the end, or until a breakpoint is met.

        At least one node is run, so a run that stands at a breakpoint leaves it.
        on_step: called after every node, in the session's own thread.
        """
        points = [
            Breakpoint.parse(point)
            if isinstance(point, str)
            else model_of(Breakpoint, point, "a breakpoint")
            for point in items_of(breakpoints, "breakpoints", "breakpoints")
        ]
        for point in points:
            if point.node is not None:
                self._refuse_unknown_node(point.node)
        return await self._resume(run, points, on_step)

    resume = blocking(aresume)

    @at_home
    async def arun_to(
        self, run: str, *, before: str | None = None, after: str | None = None
    ) -> Stop:
        """Run on until just before, or just after, a node."""
        wanted = [f"before:{before}"] if before else []
        return await self.aresume(run, wanted + ([f"after:{after}"] if after else []))

    run_to = blocking(arun_to)

    # --- looking ---

    @at_home
    async def aruns(self) -> tuple[RunSummary, ...]:
        """Return every run of the store, newest first; one that cannot be read has an `error`."""
        return await self._records.runs()

    runs = blocking(aruns)

    @at_home
    async def atimeline(self, run: str) -> tuple[Checkpoint, ...]:
        """Return every checkpoint of the run, oldest first, abandoned branches included."""
        return await self._records.timeline(run)

    timeline = blocking(atimeline)

    @at_home
    async def acheckpoint(self, run: str, at: str | None = None) -> Checkpoint:
        """Return a checkpoint; the current one for None. `at` may be the start or end of an id."""
        wanted = id_of(await self._records.snapshot(run, at))
        timeline = await self._records.timeline(run)
        return next(checkpoint for checkpoint in timeline if checkpoint.id == wanted)

    checkpoint = blocking(acheckpoint)

    @at_home
    async def astate(self, run: str, at: str | None = None) -> EvaluationState:
        """Return the whole state at a checkpoint, as plain data."""
        return cast(EvaluationState, (await self._records.snapshot(run, at)).values)

    state = blocking(astate)

    @at_home
    async def alabels(self, run: str) -> dict[str, str]:
        """Return what was given as `labels` when the run was started."""
        return await self._records.labels(run)

    labels = blocking(alabels)

    @at_home
    async def aprompt(self, run: str, chain: int, at: str | None = None) -> tuple[Message, ...]:
        """Return the messages that a chain's next section answers, as the model is given them.

        Of a chain that is whole: those that its scores answered.
        """
        state = cast(EvaluationState, (await self._records.snapshot(run, at)).values)
        drafts = state.get("chains") or []
        whole_number(chain, "chain")
        if not 0 <= chain < len(drafts):
            raise ConfigurationError(f"run {run} has no chain {chain} there: it has {len(drafts)}")
        draft, chain_format = drafts[chain], await asyncio.to_thread(self._format)
        through = chain_format.complete_through(draft["text"])
        following = 0 if through is None else SECTIONS.index(through) + 1
        request = EvaluationRequest.model_validate(state["request"])
        signals = signals_in(state).get(draft["signals_of"])
        if signals is None:
            raise ConfigurationError(
                f"chain {chain} of run {run} has no prompt to show: {NO_LONGER_OPEN}"
            )
        signals = shown_signals(request, signals, chain_format)
        return chain_format.turn(
            SECTIONS[min(following, len(SECTIONS) - 1)],
            draft["text"],
            query=request.query,
            candidates=[request.candidates[place].text for place in draft["order"]],
            history=signals.history,
            stated=signals.stated,
            conversation=request.conversation,
        ).messages

    prompt = blocking(aprompt)

    @at_home
    async def adiff(
        self, run: str, before: str, after: str | None = None
    ) -> tuple[Difference, ...]:
        """Return where two checkpoints of a run differ, seconds left out."""
        earlier = await self._records.snapshot(run, before)
        later = await self._records.snapshot(run, after)
        return differences(earlier.values, later.values)

    diff = blocking(adiff)

    @at_home
    async def acompare(self, left: str, right: str) -> Comparison:
        """Return two runs side by side, each where it stands."""
        first, second = await self._records.snapshot(left), await self._records.snapshot(right)
        before, after = side_of(first), side_of(second)
        return Comparison(
            left=before,
            right=after,
            changes={
                name: after.means[name] - mean
                for name, mean in before.means.items()
                if name in after.means
            },
            differences=differences(first.values, second.values),
        )

    compare = blocking(acompare)

    # --- editing ---

    @at_home
    async def aedit_persona(
        self, run: str, persona: str, *, chain: int | None = None
    ) -> Checkpoint:
        """Write another persona, in every chain that there is or in one; the run goes on with the rubric.

        Goes back to where the persona was written when the run is further on.
        """
        return await self._editor.persona(run, persona, chain)

    edit_persona = blocking(aedit_persona)

    @at_home
    async def aedit_rubric(
        self, run: str, criteria: Sequence[tuple[str, float, str]], *, chain: int | None = None
    ) -> Checkpoint:
        """Put other criteria, as (name, weight, reason), into every chain that there is or into one.

        The weights are scaled to sum to 100. The run goes on with the marks; chains without a
        rubric, whose text went wrong before it, stay as they are unless `chain` names one.
        """
        return await self._editor.rubric(run, criteria, chain)

    edit_rubric = blocking(aedit_rubric)

    @at_home
    async def aedit_history(
        self,
        run: str,
        history: Sequence[PreferencePair],
        *,
        stated: Sequence[StatedPreference] | None = None,
    ) -> Checkpoint:
        """Show other past choices of the user; the run goes on from where they were recalled.

        stated: other stated criteria; None leaves them.
        """
        return await self._editor.history(run, history, stated)

    edit_history = blocking(aedit_history)

    @at_home
    async def aedit_neighbors(self, run: str, names: Sequence[str]) -> Checkpoint:
        """Let only these of the similar users take part; the run goes on with the rubric.

        names: some of the state's `neighbors`, or none of them.
        """
        return await self._editor.neighbors(run, names)

    edit_neighbors = blocking(aedit_neighbors)

    @at_home
    async def aedit_candidates(self, run: str, candidates: Sequence[Candidate]) -> Checkpoint:
        """Score other answers; the run goes on from where the user's choices were recalled."""
        return await self._editor.candidates(run, candidates)

    edit_candidates = blocking(aedit_candidates)

    @at_home
    async def arewind(self, run: str, to: str | int) -> Checkpoint:
        """Go on from an earlier checkpoint: its id, or how many steps to go back.

        What came after stays in the time line.
        """
        return await self._editor.rewind(run, to)

    rewind = blocking(arewind)

    @at_home
    async def afork(self, run: str, at: str | None = None, *, name: str | None = None) -> str:
        """Make a new run with everything up to a checkpoint in it; returns its id."""
        name = uuid.uuid4().hex[:12] if name is None else name
        await self._refuse_taken(name)
        lineage = [id_of(snapshot) for snapshot in await self._records.lineage(run, at)]
        async with self._records.writing(run, into=name):
            await copy_run(self._saver, self._saver, run, name, lineage, {"label_forked_from": run})
        return name

    fork = blocking(afork)

    # --- taking along ---

    @at_home
    async def aexport(self, run: str) -> str:
        """Return the run as JSON text: all its checkpoints, texts of the user included."""
        return await dump_run(self._saver, run)

    export = blocking(aexport)

    @at_home
    async def aimport_(self, text: str, *, run: str | None = None) -> str:
        """Read an export back, under its own id or another one; returns the id."""
        return await load_run(self._saver, text, run)

    import_ = blocking(aimport_)

    @at_home
    async def areplay(self, run: str) -> Replay:
        """Go through the recorded steps without a model, and score the recorded texts anew.

        Shows whether this version of the library reads the same scores from the same texts.
        """
        chain_format = await asyncio.to_thread(self._format)
        context = replace(self._context, chain_format=chain_format)
        return await replay(self._records, self._saver, context, run)

    replay = blocking(areplay)

    # --- behind it ---

    async def _invoke(
        self, given: EvaluationInput | None, config: RunnableConfig, *, before: str = ""
    ) -> None:
        # "sync": a node's result is on disk before the next node begins.
        await self._graph.ainvoke(
            given,
            config,
            context=self._context,
            interrupt_before="*" if before else None,
            interrupt_after=None if before else "*",
            durability="sync",
        )

    async def _step(self, run: str) -> Checkpoint:
        snapshot = await self._records.snapshot(run)
        if not snapshot.next:
            raise ConfigurationError(
                f"run {run} is at its end: rewind it, edit it, or fork it to try another way"
            )
        async with self._records.writing(run):
            await self._invoke(None, config_of(run))
        return checkpoint_of(await self._records.snapshot(run), ran=snapshot.next[0], current=True)

    async def _resume(
        self, run: str, points: Sequence[Breakpoint], on_step: Callable[[Checkpoint], None] | None
    ) -> Stop:
        watching = any(point.kind == "rank-change" for point in points)
        last = await self._records.last_ranking(run) if watching else ()
        values: Mapping[str, object] = (await self._records.snapshot(run)).values if points else {}
        while True:
            made = await self._step(run)
            if on_step is not None:
                on_step(made)
            if points:
                previous, values = values, (await self._records.snapshot(run)).values
                for point in points:
                    if point.holds(
                        values,
                        previous=previous,
                        ran=made.node,
                        coming=made.next,
                        last_ranking=last,
                    ):
                        return Stop(checkpoint=made, reason=str(point))
                last = made.ranking if made.node == "aggregate" else last
            if not made.next:
                return Stop(checkpoint=made, reason="finished")

    def _refuse_unknown_node(self, node: str) -> None:
        if node not in self.nodes:
            raise ConfigurationError(
                f"the graph has no node {node!r}; its nodes are {', '.join(self.nodes)}"
            )

    async def _refuse_taken(self, name: str) -> None:
        if await self._records.exists(name):
            raise ConfigurationError(f"there is a run {name!r} already: choose another id")
