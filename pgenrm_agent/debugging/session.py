"""DebugSession: runs of the evaluation graph that can be stopped, read, edited and gone back in.

A run is a thread of LangGraph's checkpointer, and each step of it a checkpoint. Nothing is kept in
this process that the store does not have, so a session can be closed, or its process killed, and
another one goes on: finished nodes are not run again.

Going back never loses anything: rewinding and editing begin a new branch of the same run, and the
newest checkpoint is where the run goes on. Which nodes there are is asked of the graph.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import cast

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START
from langgraph.types import StateSnapshot

from pgenrm_agent.background_loop import BackgroundLoop
from pgenrm_agent.chain import ChainFormat, read_persona
from pgenrm_agent.debugging import export
from pgenrm_agent.debugging.breakpoints import Breakpoint
from pgenrm_agent.debugging.edits import rubric_of, with_persona, with_rubric
from pgenrm_agent.debugging.store import open_saver
from pgenrm_agent.debugging.views import (
    Checkpoint,
    Comparison,
    Difference,
    Replay,
    RunSummary,
    Side,
    Stop,
    chain_views,
    differences,
    means_of,
    ranking_of,
)
from pgenrm_agent.engines.protocol import Capabilities, Completion, Engine, Prompt, SamplingParams
from pgenrm_agent.errors import ConfigurationError, EngineError
from pgenrm_agent.graphs.evaluation import (
    Draft,
    EvaluationContext,
    EvaluationGraph,
    EvaluationInput,
    EvaluationState,
    NeighbourSource,
    SignalSource,
    build_graph,
)
from pgenrm_agent.model_files import bundled_model, format_of
from pgenrm_agent.schema import (
    Candidate,
    Evaluation,
    EvaluationRequest,
    Message,
    PreferencePair,
    Scaling,
    StatedPreference,
    UserSignals,
)
from pgenrm_agent.sync_wrappers import Closeable, at_home, blocking

__all__ = ["DebugSession"]


class DebugSession(Closeable):
    """Steps through evaluations, one node at a time or up to a breakpoint.

    store: a SQLite file (made when missing), a PostgreSQL URL, or None to keep runs in memory.
    engine, chain_format, memory, neighbours: as in `EvaluationContext`; the engine stays yours to
        close. Give `Neighbours(..., joining=False)`: nobody should join a prototype with a persona
        that was made up here. A session shows the texts of similar people's chains.

    Chains are written section by section where the engine continues text, so that what is
    edited changes what follows. Every call has two forms: `step` is a plain one, which also works
    inside a running event loop, and `astep` is awaited; so with the others. The constructor waits
    for the store. One run is acted on by one caller at a time; others may look meanwhile. A run id
    or checkpoint id that is not in the store raises ConfigurationError, and so does every edit
    that cannot be made.
    """

    def __init__(
        self,
        store: str | Path | None = None,
        *,
        engine: Engine | None = None,
        chain_format: ChainFormat | None = None,
        memory: SignalSource | None = None,
        neighbours: NeighbourSource | None = None,
    ) -> None:
        self._engine = engine
        self._format = chain_format or (
            format_of(bundled_model()) if engine is None else ChainFormat.load("published")
        )
        self._context = EvaluationContext(
            engine=engine,
            chain_format=self._format,
            memory=memory,
            neighbours=neighbours,
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

    # --- life cycle ---

    def close(self) -> None:
        """Close the store. Calling it again does nothing."""
        self._loop.close(self._resources.aclose)

    # --- running ---

    @property
    def nodes(self) -> tuple[str, ...]:
        """The graph's nodes, in the order in which they were added."""
        return tuple(node for node in self._graph.nodes if node != START)

    def edges(self) -> tuple[tuple[str, str], ...]:
        """The graph's edges, its start and end included."""
        return tuple((edge.source, edge.target) for edge in self._graph.get_graph().edges)

    @at_home
    async def astart(
        self,
        request: EvaluationRequest,
        *,
        scaling: Scaling | None = None,
        history: Sequence[PreferencePair] | None = None,
        stated: Sequence[StatedPreference] | None = None,
        run: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> str:
        """Begin a run and stop before its first node; returns its id.

        history, stated: what is known of the person, instead of what the memory knows.
        run: an id of your choice. labels: short texts kept with the run, shown in lists.
        """
        given: EvaluationInput = {
            "request": request.model_dump(mode="json"),
            "scaling": (scaling or Scaling()).model_dump(mode="json"),
            "history": None
            if history is None
            else [one.model_dump(mode="json") for one in history],
            "stated": None if stated is None else [one.model_dump(mode="json") for one in stated],
        }
        name = run or uuid.uuid4().hex[:12]
        if await self._saver.aget_tuple(_config(name)) is not None:
            raise ConfigurationError(f"there is a run {name!r} already: choose another id")
        config = _config(name)
        config["metadata"] = {f"label_{key}": value for key, value in (labels or {}).items()}
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
            one if isinstance(one, Breakpoint) else Breakpoint.parse(one) for one in breakpoints
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
        """Every run of the store, newest first."""
        return await self._runs()

    runs = blocking(aruns)

    @at_home
    async def atimeline(self, run: str) -> tuple[Checkpoint, ...]:
        """Every checkpoint of the run, oldest first, abandoned branches included."""
        return await self._timeline(run)

    timeline = blocking(atimeline)

    @at_home
    async def acheckpoint(self, run: str, at: str | None = None) -> Checkpoint:
        """One checkpoint; the current one if `at` is None. `at` may be the start or end of an id."""
        wanted = _id(await self._snapshot(run, at))
        return next(one for one in await self._timeline(run) if one.id == wanted)

    checkpoint = blocking(acheckpoint)

    @at_home
    async def astate(self, run: str, at: str | None = None) -> EvaluationState:
        """The whole state at a checkpoint, as plain data."""
        return cast(EvaluationState, (await self._snapshot(run, at)).values)

    state = blocking(astate)

    @at_home
    async def alabels(self, run: str) -> dict[str, str]:
        """What was given as `labels` when the run was started."""
        return await self._labels_of(run)

    labels = blocking(alabels)

    @at_home
    async def aprompt(self, run: str, chain: int, at: str | None = None) -> tuple[Message, ...]:
        """The messages that a chain answers, as the model is given them."""
        state = cast(EvaluationState, (await self._snapshot(run, at)).values)
        drafts = state.get("chains") or []
        if not 0 <= chain < len(drafts):
            raise ConfigurationError(f"run {run} has no chain {chain} there: it has {len(drafts)}")
        request = EvaluationRequest.model_validate(state["request"])
        signals = UserSignals.model_validate(state["signals"][drafts[chain]["signals_of"]])
        return self._format.messages(
            query=request.query,
            candidates=[request.candidates[place].text for place in drafts[chain]["order"]],
            history=signals.history,
            stated=signals.stated,
            conversation=request.conversation,
        )

    prompt = blocking(aprompt)

    @at_home
    async def adiff(
        self, run: str, before: str, after: str | None = None
    ) -> tuple[Difference, ...]:
        """Where two checkpoints of a run differ, seconds left out."""
        one, other = await self._snapshot(run, before), await self._snapshot(run, after)
        return differences(one.values, other.values)

    diff = blocking(adiff)

    @at_home
    async def acompare(self, left: str, right: str) -> Comparison:
        """Two runs side by side, each where it stands."""
        first, second = await self._snapshot(left), await self._snapshot(right)
        one, other = _side(first), _side(second)
        return Comparison(
            left=one,
            right=other,
            changes={
                name: other.means[name] - mean
                for name, mean in one.means.items()
                if name in other.means
            },
            differences=differences(first.values, second.values),
        )

    compare = blocking(acompare)

    # --- editing ---

    @at_home
    async def aedit_persona(
        self, run: str, persona: str, *, chain: int | None = None
    ) -> Checkpoint:
        """Write another persona, in every chain or in one; the run goes on with the rubric.

        Goes back to where the persona was written when the run is further on.
        """
        self._refuse_without_continuation()
        return await self._edit_chains(
            run,
            "persona",
            chain,
            lambda draft: bool(draft["text"].strip()),
            lambda draft: with_persona(draft, persona, self._format),
        )

    edit_persona = blocking(aedit_persona)

    @at_home
    async def aedit_rubric(
        self, run: str, criteria: Sequence[tuple[str, float, str]], *, chain: int | None = None
    ) -> Checkpoint:
        """Put other criteria, as (name, weight, reason), into every chain or into one.

        The weights are scaled to sum to 100. The run goes on with the marks; chains without a
        rubric, whose text went wrong before it, stay as they are unless `chain` names one.
        """
        self._refuse_without_continuation()
        rubric = rubric_of(criteria)

        def change(draft: Draft) -> Draft:
            if chain is None and not self._has_rubric(draft):
                return draft
            return with_rubric(draft, rubric, self._format)

        return await self._edit_chains(run, "rubric", chain, self._has_rubric, change)

    edit_rubric = blocking(aedit_rubric)

    @at_home
    async def aedit_history(
        self,
        run: str,
        history: Sequence[PreferencePair],
        *,
        stated: Sequence[StatedPreference] | None = None,
    ) -> Checkpoint:
        """Show other past choices of the person; the run goes on from where they were recalled.

        stated: other stated criteria; None leaves them.
        """

        def change(values: EvaluationState) -> dict[str, object]:
            user = str(values["request"]["user_id"])
            signals = UserSignals.model_validate(values["signals"][user])
            update: dict[str, object] = {"history": tuple(history)}
            if stated is not None:
                update["stated"] = tuple(stated)
            changed = signals.model_copy(update=update).model_dump(mode="json")
            return {"signals": {**values["signals"], user: changed}}

        return await self._edit_recalled(run, "history", change)

    edit_history = blocking(aedit_history)

    @at_home
    async def aedit_neighbours(self, run: str, names: Sequence[str]) -> Checkpoint:
        """Let only these of the similar people take part; the run goes on with the rubric.

        names: some of the state's `neighbours`, or none of them.
        """

        def change(values: EvaluationState) -> dict[str, object]:
            there = values["neighbours"]
            unknown = [one for one in names if one not in there]
            if unknown:
                raise ConfigurationError(
                    f"{unknown[0]!r} is no neighbour in run {run}: choose from {', '.join(there)}"
                )
            chains = [
                draft
                for draft in values["chains"]
                if draft["level"] == "individual" or draft["signals_of"] in names
            ]
            if not chains:
                raise ConfigurationError(
                    f"run {run} would have no chain left: keep one of {', '.join(there)}"
                )
            return {"chains": chains, "neighbours": [one for one in there if one in names]}

        return await self._edit_state(
            run, "neighbours", lambda values: bool(values.get("neighbours")), change
        )

    edit_neighbours = blocking(aedit_neighbours)

    @at_home
    async def aedit_candidates(self, run: str, candidates: Sequence[Candidate]) -> Checkpoint:
        """Score other answers; the run goes on from where the person's choices were recalled."""

        def change(values: EvaluationState) -> dict[str, object]:
            try:
                request = EvaluationRequest.model_validate(
                    {**values["request"], "candidates": [one.model_dump() for one in candidates]}
                )
            except ValueError as error:
                raise ConfigurationError(f"these candidates cannot be used: {error}") from None
            return {"request": request.model_dump(mode="json")}

        return await self._edit_recalled(run, "candidates", change)

    edit_candidates = blocking(aedit_candidates)

    @at_home
    async def arewind(self, run: str, to: str | int) -> Checkpoint:
        """Go on from an earlier checkpoint: its id, or how many steps to go back.

        What came after stays in the time line.
        """
        return await self._rewind(run, to)

    rewind = blocking(arewind)

    @at_home
    async def afork(self, run: str, at: str | None = None, *, name: str | None = None) -> str:
        """A new run with everything up to a checkpoint in it; returns its id."""
        return await self._fork(run, at, name or uuid.uuid4().hex[:12])

    fork = blocking(afork)

    # --- taking along ---

    @at_home
    async def aexport(self, run: str) -> str:
        """The run as JSON text: all its checkpoints, texts of the person included."""
        return await export.dump(self._saver, run)

    export = blocking(aexport)

    @at_home
    async def aimport_(self, text: str, *, run: str | None = None) -> str:
        """Read an export back, under its own id or another one; returns the id."""
        return await export.load(self._saver, text, run)

    import_ = blocking(aimport_)

    @at_home
    async def areplay(self, run: str) -> Replay:
        """Go through the recorded steps without a model, and score the recorded texts anew.

        Shows whether this version of the library reads the same scores from the same texts.
        """
        return await self._replay(run)

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
        snapshot = await self._snapshot(run)
        if not snapshot.next:
            raise ConfigurationError(
                f"run {run} is at its end: rewind it, edit it, or fork it to try another way"
            )
        await self._invoke(None, _config(run))
        return _checkpoint(await self._snapshot(run), ran=snapshot.next[0], current=True)

    async def _resume(
        self,
        run: str,
        points: Sequence[Breakpoint],
        on_step: Callable[[Checkpoint], None] | None,
    ) -> Stop:
        watching = any(point.kind == "rank-change" for point in points)
        last = await self._last_ranking(run) if watching else ()
        values: Mapping[str, object] = (await self._snapshot(run)).values if points else {}
        while True:
            made = await self._step(run)
            if on_step is not None:
                on_step(made)
            if points:
                previous, values = values, (await self._snapshot(run)).values
                for point in points:
                    if point.holds(
                        values,
                        previous=previous,
                        ran=made.node,
                        coming=made.next,
                        last_ranking=last,
                    ):
                        return Stop(checkpoint=made, reason=str(point))
            if not made.next:
                return Stop(checkpoint=made, reason="finished")

    async def _last_ranking(self, run: str) -> tuple[str, ...]:
        """The order of the newest evaluation in the run, on whatever branch."""
        for snapshot in await self._snapshots(run):
            if snapshot.values.get("evaluation"):
                return ranking_of(snapshot.values)
        return ()

    async def _runs(self) -> tuple[RunSummary, ...]:
        found = []
        # All of them first: the SQLite checkpointer answers nothing else while it lists.
        roots = [one async for one in self._saver.alist(None, filter={"source": "input"})]
        for root in roots:
            run = root.config["configurable"]["thread_id"]
            snapshot = await self._snapshot(run)
            request = cast(dict[str, object], snapshot.values.get("request") or {})
            found.append(
                RunSummary(
                    run=run,
                    user_id=str(request.get("user_id")),
                    query=str(request.get("query")),
                    candidates=len(cast(list[object], request.get("candidates") or [])),
                    created_at=str(root.checkpoint["ts"]),
                    next=snapshot.next,
                    finished=not snapshot.next,
                    labels=_labels(cast(Mapping[str, object], root.metadata)),
                )
            )
        return tuple(sorted(found, key=lambda one: one.created_at, reverse=True))

    async def _labels_of(self, run: str) -> dict[str, str]:
        roots = [one async for one in self._saver.alist(_config(run), filter={"source": "input"})]
        if not roots:
            raise ConfigurationError(f"there is no run {run!r} in this store")
        return _labels(cast(Mapping[str, object], roots[0].metadata))

    async def _snapshots(self, run: str) -> list[StateSnapshot]:
        """All of a run's checkpoints, newest first."""
        found = [one async for one in self._graph.aget_state_history(_config(run))]
        if not found:
            raise ConfigurationError(f"there is no run {run!r} in this store")
        return found

    async def _snapshot(self, run: str, at: str | None = None) -> StateSnapshot:
        if at is None:
            found = await self._graph.aget_state(_config(run))
            if not found.config["configurable"].get("checkpoint_id"):
                raise ConfigurationError(f"there is no run {run!r} in this store")
            return found
        matching = [one for one in await self._snapshots(run) if _is(one, at)]
        if len(matching) != 1:
            how_many = "no" if not matching else str(len(matching))
            raise ConfigurationError(
                f"run {run} has {how_many} checkpoints {at!r}: take an id from its time line"
            )
        return matching[0]

    async def _lineage(self, run: str, at: str | None = None) -> list[StateSnapshot]:
        """The checkpoints that lead to one, oldest first, itself last."""
        by_id = {_id(one): one for one in await self._snapshots(run)}
        place: str | None = _id(await self._snapshot(run, at))
        found: list[StateSnapshot] = []
        while place is not None and place in by_id:
            found.append(by_id[place])
            place = _parent(by_id[place])
        return found[::-1]

    async def _timeline(self, run: str) -> tuple[Checkpoint, ...]:
        snapshots = await self._snapshots(run)
        by_id = {_id(one): one for one in snapshots}
        current = _id(snapshots[0])
        found = []
        for one in reversed(snapshots):
            parent = by_id.get(_parent(one) or "")
            ran = parent.next[0] if parent is not None and parent.next else None
            found.append(_checkpoint(one, ran=ran, current=_id(one) == current))
        return tuple(found)

    # --- editing, behind it ---

    def _has_rubric(self, draft: Draft) -> bool:
        return self._format.complete_through(draft["text"]) in ("rubric", "scores")

    async def _edit_chains(
        self,
        run: str,
        what: str,
        chain: int | None,
        has: Callable[[Draft], bool],
        change: Callable[[Draft], Draft],
    ) -> Checkpoint:
        def made(values: Mapping[str, object]) -> bool:
            drafts = cast(list[Draft], values.get("chains") or [])
            if chain is None:
                return any(has(draft) for draft in drafts)
            return 0 <= chain < len(drafts) and has(drafts[chain])

        node, base = await self._where_made(run, what, made)
        drafts = cast(list[Draft], base.values["chains"])
        changed = [
            change(draft) if chain in (None, place) else draft for place, draft in enumerate(drafts)
        ]
        return await self._update(run, base, {"chains": changed}, node, what)

    async def _edit_recalled(
        self, run: str, what: str, change: Callable[[EvaluationState], dict[str, object]]
    ) -> Checkpoint:
        return await self._edit_state(run, what, lambda values: bool(values.get("signals")), change)

    async def _edit_state(
        self,
        run: str,
        what: str,
        made: Callable[[Mapping[str, object]], bool],
        change: Callable[[EvaluationState], dict[str, object]],
    ) -> Checkpoint:
        node, base = await self._where_made(run, what, made)
        return await self._update(run, base, change(cast(EvaluationState, base.values)), node, what)

    async def _where_made(
        self, run: str, what: str, made: Callable[[Mapping[str, object]], bool]
    ) -> tuple[str, StateSnapshot]:
        """The node that made something, and the last state of the run before anything came after.

        The last: an edit that was made there already stays in force.
        """
        lineage = await self._lineage(run)
        first = next((i for i, one in enumerate(lineage) if made(one.values)), None)
        if first is None or first == 0:
            raise ConfigurationError(
                f"run {run} has nothing to edit as {what} yet: step on until it has"
            )
        same_place = [one for one in lineage[first:] if one.next == lineage[first].next]
        return lineage[first - 1].next[0], same_place[-1]

    async def _update(
        self, run: str, base: StateSnapshot, update: dict[str, object], node: str, what: str
    ) -> Checkpoint:
        config = _config(run, _id(base))
        config["metadata"] = {"edit": what}
        await self._graph.aupdate_state(config, update, as_node=node)
        return _checkpoint(await self._snapshot(run), ran=None, current=True)

    async def _rewind(self, run: str, to: str | int) -> Checkpoint:
        if isinstance(to, int):
            lineage = await self._lineage(run)
            if not 0 < to < len(lineage):
                raise ConfigurationError(
                    f"run {run} cannot go back {to} steps: it has {len(lineage) - 1} behind it"
                )
            target = lineage[-1 - to]
        else:
            target = await self._snapshot(run, to)
        await self._graph.aupdate_state(_config(run, _id(target)), None, as_node="__copy__")
        return _checkpoint(await self._snapshot(run), ran=None, current=True)

    async def _fork(self, run: str, at: str | None, name: str) -> str:
        if await self._saver.aget_tuple(_config(name)) is not None:
            raise ConfigurationError(f"there is a run {name!r} already: choose another id")
        lineage = [_id(one) for one in await self._lineage(run, at)]
        await export.copy(self._saver, self._saver, run, name, lineage, {"label_forked_from": run})
        return name

    async def _replay(self, run: str) -> Replay:
        lineage = await self._lineage(run)
        recorded = [one for one in await self._timeline(run) if one.id in {_id(x) for x in lineage}]
        scored = [
            i
            for i, one in enumerate(lineage)
            if i and one.values.get("evaluation") and not lineage[i - 1].values.get("evaluation")
        ]
        if not scored:
            return Replay(steps=tuple(recorded), evaluation=None, same=None)
        from langgraph.checkpoint.memory import InMemorySaver

        scratch = InMemorySaver()
        before = [_id(one) for one in lineage[: scored[-1]]]
        await export.copy(self._saver, scratch, run, run, before, {})
        state = await build_graph(scratch).ainvoke(
            None,
            _config(run),
            context=replace(self._context, engine=_Silent()),
            interrupt_after="*",
        )
        evaluation = Evaluation.model_validate(state["evaluation"])
        then = Evaluation.model_validate(lineage[scored[-1]].values["evaluation"])
        untimed: dict[str, dict[str, float]] = {"timings": {}}
        same = evaluation.model_copy(update=untimed) == then.model_copy(update=untimed)
        return Replay(steps=tuple(recorded), evaluation=evaluation, same=same)

    def _refuse_unknown_node(self, node: str) -> None:
        if node not in self.nodes:
            raise ConfigurationError(
                f"the graph has no node {node!r}; its nodes are {', '.join(self.nodes)}"
            )

    def _refuse_without_continuation(self) -> None:
        if self._engine is not None and not self._engine.capabilities.continues:
            raise ConfigurationError(
                f"engine {self._engine.name} cannot continue an edited text: edit the history or the"
                " candidates, or use an engine that continues text"
            )


class _Silent:
    """The engine of a replay: there is nothing to sample, and it says so if asked to."""

    name = "replay"
    capabilities = Capabilities(continues=True, seeds="exact")

    async def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[list[Completion]]:
        raise EngineError("the record lacks texts that this step needs, and a replay samples none")

    async def aclose(self) -> None:
        return None


def _config(run: str, checkpoint: str | None = None) -> RunnableConfig:
    configurable = {"thread_id": run, "checkpoint_ns": ""}
    if checkpoint is not None:
        configurable["checkpoint_id"] = checkpoint
    return {"configurable": configurable}


def _id(snapshot: StateSnapshot) -> str:
    return str(snapshot.config["configurable"]["checkpoint_id"])


def _parent(snapshot: StateSnapshot) -> str | None:
    above = snapshot.parent_config
    return str(above["configurable"]["checkpoint_id"]) if above else None


def _is(snapshot: StateSnapshot, wanted: str) -> bool:
    # Ids of one run begin alike, so their ends are what people can tell apart.
    return len(wanted) >= 4 and (_id(snapshot).endswith(wanted) or _id(snapshot).startswith(wanted))


def _side(snapshot: StateSnapshot) -> Side:
    views = chain_views(snapshot.values)
    return Side(
        run=str(snapshot.config["configurable"]["thread_id"]),
        checkpoint=_id(snapshot),
        ranking=ranking_of(snapshot.values),
        means=means_of(snapshot.values),
        personas=tuple(dict.fromkeys(words for one in views if (words := read_persona(one.text)))),
        rubric=next((one.rubric for one in views if one.rubric), ()),
        tokens=_tokens(snapshot.values),
    )


def _labels(metadata: Mapping[str, object]) -> dict[str, str]:
    return {
        key.removeprefix("label_"): str(value)
        for key, value in metadata.items()
        if key.startswith("label_")
    }


def _tokens(values: Mapping[str, object]) -> int:
    usage = values.get("usage")
    return int(usage["completion_tokens"]) if isinstance(usage, dict) else 0


def _checkpoint(snapshot: StateSnapshot, *, ran: str | None, current: bool) -> Checkpoint:
    metadata = cast(Mapping[str, object], snapshot.metadata or {})
    source = str(metadata.get("source"))
    step = metadata.get("step")
    errors = [str(task.error) for task in snapshot.tasks if task.error]
    return Checkpoint(
        run=str(snapshot.config["configurable"]["thread_id"]),
        id=_id(snapshot),
        parent=_parent(snapshot),
        step=step if isinstance(step, int) else 0,
        created_at=snapshot.created_at or "",
        source=source,
        node=ran if source == "loop" and ran != START else None,
        next=snapshot.next,
        edit=str(metadata["edit"]) if source == "update" and "edit" in metadata else None,
        error=errors[0] if errors else None,
        chains=len(snapshot.values.get("chains") or ()),
        tokens=_tokens(snapshot.values),
        means=means_of(snapshot.values),
        ranking=ranking_of(snapshot.values),
        finished=not snapshot.next,
        current=current,
    )
