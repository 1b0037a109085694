"""Edits of a run: where they go back to, and the branch that begins there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, cast

from langgraph.types import StateSnapshot

from pgenrm_agent.arguments import items_of, models_of, text_of, whole_number
from pgenrm_agent.chain import ChainFormat
from pgenrm_agent.debugging.edits import rubric_of, with_persona, with_rubric
from pgenrm_agent.debugging.records import Records, checkpoint_of, config_of, id_of
from pgenrm_agent.debugging.views import Checkpoint
from pgenrm_agent.errors import ConfigurationError, InvalidInput
from pgenrm_agent.graphs.evaluation import EvaluationGraph
from pgenrm_agent.graphs.sealing import seal_update, still_closed
from pgenrm_agent.graphs.state import Draft, EvaluationContext, EvaluationState, EvaluationUpdate
from pgenrm_agent.schema import (
    Candidate,
    EvaluationRequest,
    PreferencePair,
    StatedPreference,
    UserSignals,
)

Change: TypeAlias = Callable[[EvaluationState], dict[str, object]]
Made: TypeAlias = Callable[[Mapping[str, object]], bool]


class Editor:
    """Changes states of runs. An edit goes back to where the edited thing was made.

    chain_format: returns the format in which chains are written now.
    context: with the engine that will continue the edited texts, and what seals similar users' texts.
    """

    def __init__(
        self,
        records: Records,
        graph: EvaluationGraph,
        chain_format: Callable[[], ChainFormat],
        context: EvaluationContext,
    ) -> None:
        self._records = records
        self._graph = graph
        self._format = chain_format
        self._context = context

    async def persona(self, run: str, persona: str, chain: int | None) -> Checkpoint:
        """Write another persona, in every chain or in one."""
        text_of(persona, "persona")
        self._refuse_without_continuation()
        return await self._edit_chains(
            run,
            "persona",
            chain,
            lambda draft: bool(draft["text"].strip()),
            lambda draft: with_persona(draft, persona, self._format()),
        )

    async def rubric(
        self, run: str, criteria: Sequence[tuple[str, float, str]], chain: int | None
    ) -> Checkpoint:
        """Put other criteria into every chain that has a rubric, or into one."""
        self._refuse_without_continuation()
        rubric = rubric_of(criteria)

        def change(draft: Draft) -> Draft:
            if chain is None and not self._has_rubric(draft):
                return draft
            return with_rubric(draft, rubric, self._format())

        return await self._edit_chains(run, "rubric", chain, self._has_rubric, change)

    async def history(
        self, run: str, history: Sequence[PreferencePair], stated: Sequence[StatedPreference] | None
    ) -> Checkpoint:
        """Show other past choices of the user, and other stated criteria if given."""
        past = models_of(PreferencePair, history, "history")

        def change(values: EvaluationState) -> dict[str, object]:
            user = str(values["request"]["user_id"])
            signals = UserSignals.model_validate(values["signals"][user])
            update: dict[str, object] = {"history": past}
            if stated is not None:
                update["stated"] = models_of(StatedPreference, stated, "stated")
            changed = signals.model_copy(update=update).model_dump(mode="json")
            return {"signals": {**values["signals"], user: changed}}

        return await self._edit_state(run, "history", _is_recalled, change)

    async def neighbors(self, run: str, names: Sequence[str]) -> Checkpoint:
        """Let only these of the similar users take part."""
        wanted = items_of(names, "names", "neighbors' names")

        def change(values: EvaluationState) -> dict[str, object]:
            present = values["neighbors"]
            unknown = [name for name in wanted if name not in present]
            if unknown:
                raise ConfigurationError(
                    f"{unknown[0]!r} is no neighbor in run {run}: choose from {', '.join(present)}"
                )
            chains = [
                draft
                for draft in values["chains"]
                if draft["level"] == "individual" or draft["signals_of"] in wanted
            ]
            if not chains:
                raise ConfigurationError(
                    f"run {run} would have no chain left: keep one of {', '.join(present)}"
                )
            return {"chains": chains, "neighbors": [name for name in present if name in wanted]}

        return await self._edit_state(
            run, "neighbors", lambda values: bool(values.get("neighbors")), change
        )

    async def candidates(self, run: str, candidates: Sequence[Candidate]) -> Checkpoint:
        """Score other answers."""
        answers = [answer.model_dump() for answer in models_of(Candidate, candidates, "candidates")]

        def change(values: EvaluationState) -> dict[str, object]:
            try:
                request = EvaluationRequest.model_validate(
                    {**values["request"], "candidates": answers}
                )
            except InvalidInput as error:
                raise ConfigurationError(
                    f"these candidates cannot be used: {error.details}"
                ) from None
            return {"request": request.model_dump(mode="json")}

        return await self._edit_state(run, "candidates", _is_recalled, change)

    async def rewind(self, run: str, to: str | int) -> Checkpoint:
        """Go on from an earlier checkpoint: its id, or how many steps to go back."""
        if not isinstance(to, str):
            whole_number(to, "to")
            lineage = await self._records.lineage(run)
            if not 0 < to < len(lineage):
                raise ConfigurationError(
                    f"run {run} cannot go back {to} steps: it has {len(lineage) - 1} behind it"
                )
            target = lineage[-1 - to]
        else:
            target = await self._records.snapshot(run, to)
        async with self._records.writing(run):
            await self._graph.aupdate_state(config_of(run, id_of(target)), None, as_node="__copy__")
        return checkpoint_of(await self._records.snapshot(run), ran=None, current=True)

    def _has_rubric(self, draft: Draft) -> bool:
        return self._format().complete_through(draft["text"]) in ("rubric", "scores")

    async def _edit_chains(
        self,
        run: str,
        what: str,
        chain: int | None,
        has: Callable[[Draft], bool],
        change: Callable[[Draft], Draft],
    ) -> Checkpoint:
        if chain is not None:
            whole_number(chain, "chain")

        def made(values: Mapping[str, object]) -> bool:
            drafts = cast(list[Draft], values.get("chains") or [])
            if chain is None:
                return any(has(draft) for draft in drafts)
            return 0 <= chain < len(drafts) and has(drafts[chain])

        def changed(values: EvaluationState) -> dict[str, object]:
            drafts = enumerate(values["chains"])
            return {
                "chains": [
                    change(draft) if chain in (None, place) and not draft["sealed"] else draft
                    for place, draft in drafts
                ]
            }

        return await self._edit_state(run, what, made, changed)

    async def _edit_state(self, run: str, what: str, made: Made, change: Change) -> Checkpoint:
        node, base = await self._where_made(run, what, made)
        config = config_of(run, id_of(base))
        config["metadata"] = {"edit": what}
        update = cast(EvaluationUpdate, change(cast(EvaluationState, base.values)))
        sealed = await asyncio.to_thread(seal_update, update, base.values, self._context.neighbors)
        if "chains" in sealed:
            stored = (await self._graph.aget_state(config_of(run, id_of(base)))).values["chains"]
            sealed["chains"] = still_closed(sealed["chains"], stored)
        async with self._records.writing(run):
            await self._graph.aupdate_state(config, sealed, as_node=node)
        return checkpoint_of(await self._records.snapshot(run), ran=None, current=True)

    async def _where_made(self, run: str, what: str, made: Made) -> tuple[str, StateSnapshot]:
        """Return the node that made something, and the last state before anything came after it.

        The last: an edit that was made there already stays in force.
        """
        lineage = await self._records.lineage(run)
        first = next((i for i, snapshot in enumerate(lineage) if made(snapshot.values)), None)
        if first is None or first == 0:
            raise ConfigurationError(
                f"run {run} has nothing to edit as {what} yet: step on until it has"
            )
        there = _place(lineage[first])
        same_place = [snapshot for snapshot in lineage[first:] if _place(snapshot) == there]
        return lineage[first - 1].next[0], same_place[-1]

    def _refuse_without_continuation(self) -> None:
        engine = self._context.engine
        if not (engine is None or self._format().in_turns or engine.capabilities.continues):
            raise ConfigurationError(
                f"engine {engine.name} cannot continue an edited text: edit the history or the"
                ' candidates, or use an engine that continues text, or chain_format "structured-1"'
            )


def _place(snapshot: StateSnapshot) -> tuple[object, object]:
    """Where in a run a state stands: what comes next, and in which round."""
    return snapshot.next, snapshot.values.get("round")


def _is_recalled(values: Mapping[str, object]) -> bool:
    return bool(values.get("signals"))
