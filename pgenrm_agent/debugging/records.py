"""What the store knows of runs: their checkpoints, how these follow from each other, their labels.

A snapshot is LangGraph's record of a checkpoint as it was saved. What a node wrote after it, and a
kill kept from becoming the next checkpoint, is no part of it: that node counts as coming.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.errors import EmptyInputError
from langgraph.graph import START
from langgraph.types import StateSnapshot

from pgenrm_agent.arguments import text_of
from pgenrm_agent.chain import read_persona
from pgenrm_agent.debugging.validation import check_state
from pgenrm_agent.debugging.views import (
    Checkpoint,
    RunSummary,
    Side,
    chain_views,
    evidence_in,
    means_of,
    ranking_of,
)
from pgenrm_agent.errors import ConfigurationError, MemoryStoreError
from pgenrm_agent.graphs.checkpoints import emptied, skipping_refused
from pgenrm_agent.graphs.evaluation import EvaluationGraph
from pgenrm_agent.graphs.sealing import open_state
from pgenrm_agent.graphs.state import NeighborSource


class Records:
    """Reads the runs that a graph's checkpointer holds.

    neighbors: opens what is sealed in them. Where another process owns the memory, it stays sealed.
    """

    def __init__(
        self,
        graph: EvaluationGraph,
        saver: BaseCheckpointSaver[str],
        neighbors: NeighborSource | None,
    ) -> None:
        self._graph = graph
        self._saver = saver
        self._neighbors = neighbors

    async def exists(self, run: str) -> bool:
        """Return whether the store has a run of this id."""
        return await self._saver.aget_tuple(config_of(run)) is not None

    @asynccontextmanager
    async def writing(self, run: str, into: str | None = None) -> AsyncIterator[None]:
        """Leave nothing behind of a run that is deleted while something of it is written.

        Whoever is forgotten while a node runs would otherwise come back with what the node gives.

        into: The run that is written to, where it is a new one, made of `run`.

        Raises:
            ConfigurationError: There is no such run, or no longer.
        """
        if not await self._roots(run):
            raise ConfigurationError(f"there is no run {run!r} in this store")
        async with self._kept(run, into or run):
            yield

    @asynccontextmanager
    async def beginning(self, run: str) -> AsyncIterator[None]:
        """The same for a run that is being started, and may be deleted before it is whole."""
        async with self._kept(run, run):
            yield

    @asynccontextmanager
    async def _kept(self, run: str, written: str) -> AsyncIterator[None]:
        gone = ConfigurationError(
            f"run {run} was deleted meanwhile, as those about somebody who is forgotten are: start"
            " another one"
        )
        try:
            yield
        except BaseException as error:
            await self._clear_deleted(run, written)
            if isinstance(
                error, EmptyInputError
            ):  # what LangGraph says of a run without checkpoints
                raise gone from error
            raise
        if await self._clear_deleted(run, written):
            raise gone

    async def _clear_deleted(self, run: str, written: str) -> bool:
        if await self._roots(run) and (written == run or await self._roots(written)):
            return False
        await self._saver.adelete_thread(written)
        try:
            await emptied(self._saver)
        except sqlite3.Error as error:
            raise MemoryStoreError(
                f"what was written of run {written}, which was deleted meanwhile, may still be in the"
                f" store's log ({error}): forget its user again"
            ) from error
        return True

    async def _roots(self, run: str) -> list[CheckpointTuple]:
        """Return the checkpoint that a run was started with; none of a run that there is not."""
        listed = self._saver.alist(config_of(run), filter={"source": "input"})
        return [root async for root in listed]

    async def runs(self) -> tuple[RunSummary, ...]:
        """Return every run, newest first; one that cannot be read has an `error`."""
        # All of them first: the SQLite checkpointer answers nothing else while it lists.
        listing = skipping_refused(self._saver).alist(None, filter={"source": "input"})
        roots = [root async for root in listing]
        summaries = [await self._summary(root) for root in roots]
        return tuple(sorted(summaries, key=lambda summary: summary.created_at, reverse=True))

    async def _summary(self, root: CheckpointTuple) -> RunSummary:
        run = root.config["configurable"]["thread_id"]
        labels = _labels_in(cast(Mapping[str, object], root.metadata))
        begun = str(root.checkpoint.get("ts", ""))
        try:
            snapshot = await self.snapshot(run)
        except Exception as error:  # whatever is wrong with it, the others are to be seen
            told = str(error) if isinstance(error, ConfigurationError) else repr(error)
            return RunSummary(run=run, created_at=begun, labels=labels, error=told)
        request = cast(dict[str, object], snapshot.values.get("request") or {})
        return RunSummary(
            run=run,
            user_id=str(request.get("user_id")),
            query=str(request.get("query")),
            candidates=len(cast(list[object], request.get("candidates") or [])),
            created_at=begun,
            next=snapshot.next,
            finished=not snapshot.next,
            labels=labels,
        )

    async def labels(self, run: str) -> dict[str, str]:
        """Return what was given as labels when the run was started."""
        roots = await self._roots(run)
        if not roots:
            raise ConfigurationError(f"there is no run {run!r} in this store")
        return _labels_in(cast(Mapping[str, object], roots[0].metadata))

    async def snapshots(self, run: str, limit: int | None = None) -> list[StateSnapshot]:
        """Return a run's checkpoints, newest first; at most `limit` of them."""
        history = self._graph.aget_state_history(config_of(run), limit=limit)
        snapshots = [snapshot async for snapshot in history]
        if not snapshots:
            raise ConfigurationError(f"there is no run {run!r} in this store")
        return await asyncio.to_thread(lambda: [self._opened(snapshot) for snapshot in snapshots])

    async def snapshot(self, run: str, at: str | None = None) -> StateSnapshot:
        """Return a checkpoint by its id, or by the start or end of it; the newest for None."""
        if at is None:
            return (await self.snapshots(run, limit=1))[0]
        text_of(at, "the checkpoint's id")
        matching = [snapshot for snapshot in await self.snapshots(run) if _is(snapshot, at)]
        if len(matching) != 1:
            how_many = "no" if not matching else str(len(matching))
            raise ConfigurationError(
                f"run {run} has {how_many} checkpoints {at!r}: take an id from its time line"
            )
        return matching[0]

    async def lineage(self, run: str, at: str | None = None) -> list[StateSnapshot]:
        """Return the checkpoints that lead to one, oldest first, itself last."""
        by_id = {id_of(snapshot): snapshot for snapshot in await self.snapshots(run)}
        place: str | None = id_of(await self.snapshot(run, at))
        lineage: list[StateSnapshot] = []
        while place is not None and place in by_id:
            # Taken out: in a damaged store a checkpoint may be its own ancestor.
            lineage.append(by_id.pop(place))
            place = _parent(lineage[-1])
        return lineage[::-1]

    async def timeline(self, run: str) -> tuple[Checkpoint, ...]:
        """Return every checkpoint of the run, oldest first, abandoned branches included."""
        snapshots = await self.snapshots(run)
        by_id = {id_of(snapshot): snapshot for snapshot in snapshots}
        current = id_of(snapshots[0])
        timeline = []
        for snapshot in reversed(snapshots):
            parent = by_id.get(_parent(snapshot) or "")
            ran = parent.next[0] if parent is not None and parent.next else None
            is_current = id_of(snapshot) == current
            timeline.append(checkpoint_of(snapshot, ran=ran, current=is_current))
        return tuple(timeline)

    async def last_ranking(self, run: str) -> tuple[str, ...]:
        """Return the order of the newest evaluation in the run, on whatever branch."""
        for snapshot in await self.snapshots(run):
            if snapshot.values.get("evaluation"):
                return ranking_of(snapshot.values)
        return ()

    def _opened(self, snapshot: StateSnapshot) -> StateSnapshot:
        check_state(snapshot.values)
        try:
            return snapshot._replace(values=open_state(snapshot.values, self._neighbors))
        except MemoryStoreError:
            return snapshot._replace(values=open_state(snapshot.values, None))


def config_of(run: str, checkpoint: str | None = None) -> RunnableConfig:
    """Return what LangGraph calls a run by, or one of its checkpoints."""
    configurable = {"thread_id": text_of(run, "run"), "checkpoint_ns": ""}
    if checkpoint is not None:
        configurable["checkpoint_id"] = checkpoint
    return {"configurable": configurable}


def id_of(snapshot: StateSnapshot) -> str:
    """Return the id of the snapshot's checkpoint."""
    return str(snapshot.config["configurable"]["checkpoint_id"])


def checkpoint_of(snapshot: StateSnapshot, *, ran: str | None, current: bool) -> Checkpoint:
    """Return what is shown of a snapshot. ran: the node that came before it."""
    metadata = cast(Mapping[str, object], snapshot.metadata or {})
    source = str(metadata.get("source"))
    step = metadata.get("step")
    errors = [str(task.error) for task in snapshot.tasks if task.error]
    return Checkpoint(
        run=str(snapshot.config["configurable"]["thread_id"]),
        id=id_of(snapshot),
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
        evidence=evidence_in(snapshot.values),
        finished=not snapshot.next,
        current=current,
    )


def side_of(snapshot: StateSnapshot) -> Side:
    """Return a run where it stands, to be set beside another."""
    views = chain_views(snapshot.values)
    personas = (read_persona(view.text) for view in views)
    return Side(
        run=str(snapshot.config["configurable"]["thread_id"]),
        checkpoint=id_of(snapshot),
        ranking=ranking_of(snapshot.values),
        means=means_of(snapshot.values),
        personas=tuple(dict.fromkeys(persona for persona in personas if persona)),
        rubric=next((view.rubric for view in views if view.rubric), ()),
        tokens=_tokens(snapshot.values),
    )


def _parent(snapshot: StateSnapshot) -> str | None:
    above = snapshot.parent_config
    return str(above["configurable"]["checkpoint_id"]) if above else None


def _is(snapshot: StateSnapshot, wanted: str) -> bool:
    # Ids of one run begin alike, so their ends are what people can tell apart.
    whole = id_of(snapshot)
    return len(wanted) >= 4 and (whole.endswith(wanted) or whole.startswith(wanted))


def _labels_in(metadata: Mapping[str, object]) -> dict[str, str]:
    return {
        key.removeprefix("label_"): str(value)
        for key, value in metadata.items()
        if key.startswith("label_")
    }


def _tokens(values: Mapping[str, object]) -> int:
    usage = values.get("usage")
    return int(usage["completion_tokens"]) if isinstance(usage, dict) else 0
