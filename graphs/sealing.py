"""What of similar users stands in the state of an evaluation: sealed, wherever the state may go.

A state is streamed in every mode, shown to callbacks and tracers, and kept by the checkpointer of any
graph around this one. So what is known of a similar user, and what was written from it, is open inside
a node only: `sealing` opens the state that a node is given, and seals the update that it returns.

Sealed, rather than kept out of the state (an `UntrackedValue` is lost with the process) or looked up
again by reference: a run that is resumed after a kill then goes on from the very prompts and drafts
it had, and samples nothing twice. Who withdrew or was forgotten meanwhile is no longer opened; their
chains fail, and the others count.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar, cast

from langgraph.runtime import Runtime

from pgenrm_agent.graphs.state import (
    Draft,
    EvaluationContext,
    EvaluationState,
    EvaluationUpdate,
    JSONObject,
    NeighborSource,
    context_of,
)
from pgenrm_agent.schema import UserSignals

NO_LONGER_OPEN = (
    "it is sealed: the similar user no longer takes part, or their memory is not open here"
)
WRITTEN = ("text", "reasoning", "edited", "problem")
"""The fields of a draft that hold what a model wrote, or was told, of a user."""

State = TypeVar("State", bound=Mapping[str, object])


class Node(Protocol):
    """A node of the evaluation graph."""

    def __call__(
        self, state: EvaluationState, runtime: Runtime[EvaluationContext]
    ) -> Awaitable[EvaluationUpdate]:
        """Return the node's update."""


def sealing(node: Node) -> Callable[..., Awaitable[EvaluationUpdate]]:
    """Return the node, working on an open state and giving back a sealed update."""

    @functools.wraps(cast("Callable[..., Awaitable[EvaluationUpdate]]", node))
    async def sealed(
        state: EvaluationState, runtime: Runtime[EvaluationContext]
    ) -> EvaluationUpdate:
        source = context_of(runtime).neighbors
        opened = await asyncio.to_thread(open_state, state, source)
        update = await node(opened, runtime)
        return await asyncio.to_thread(seal_update, update, opened, source)

    return sealed


def sealed_signals(user_id: str, signals: UserSignals, source: NeighborSource) -> JSONObject:
    """Return what is known of a similar user as it stands in a state."""
    return {"sealed": source.seal(user_id, signals.model_dump_json())}


def signals_in(state: Mapping[str, object]) -> dict[str, UserSignals]:
    """Return what is known of each user in an open state; those whose signals are sealed are missing."""
    signals = cast("dict[str, JSONObject]", state.get("signals") or {})
    contents = {
        owner: {name: value for name, value in known.items() if name != "sealed"}
        for owner, known in signals.items()
    }
    return {owner: UserSignals.model_validate(known) for owner, known in contents.items() if known}


def open_state(state: State, source: NeighborSource | None) -> State:
    """Return the state with what is sealed in it open, as far as `source` opens it.

    What an open state has of a similar user keeps its seal beside it, by which `seal_update` closes it
    again. A draft that stays closed has failed.
    """
    signals = cast("dict[str, JSONObject]", state.get("signals") or {})
    chains = cast("list[Draft]", state.get("chains") or [])
    tokens = [*(str(known["sealed"]) for known in signals.values() if "sealed" in known)]
    tokens += [draft["sealed"] for draft in chains if draft["sealed"]]
    if not tokens:
        return state
    texts = source.unseal(tokens) if source is not None else {}

    def opened_signals(known: JSONObject) -> JSONObject:
        text = texts.get(str(known.get("sealed")))
        return known if text is None else {**json.loads(text), "sealed": known["sealed"]}

    opened = {
        **state,
        "signals": {owner: opened_signals(known) for owner, known in signals.items()},
        "chains": [_opened(draft, texts) for draft in chains],
    }
    return cast(State, opened)


def seal_update(
    update: EvaluationUpdate, opened: Mapping[str, object], source: NeighborSource | None
) -> EvaluationUpdate:
    """Return an update of an open state with everything of similar users in it sealed."""
    known = cast("dict[str, JSONObject]", opened.get("signals") or {})
    seals = {
        owner: str(signals["sealed"])
        for owner, signals in {**known, **update.get("signals", {})}.items()
        if "sealed" in signals
    }
    sealed = update.copy()
    if "signals" in update:
        sealed["signals"] = {
            owner: {"sealed": seals[owner]} if owner in seals else signals
            for owner, signals in update["signals"].items()
        }
    if "chains" in update:
        sealed["chains"] = [_closed(draft, seals, source) for draft in update["chains"]]
    return sealed


def still_closed(drafts: Sequence[Draft], stored: Sequence[Draft]) -> list[Draft]:
    """Return the drafts, and those that could not be opened as they are `stored`: they have not failed."""
    closed = {draft["sealed"]: draft for draft in stored if draft["sealed"]}
    return [
        closed.get(draft["sealed"], draft) if draft["problem"] == NO_LONGER_OPEN else draft
        for draft in drafts
    ]


def _opened(draft: Draft, texts: Mapping[str, str]) -> Draft:
    if not draft["sealed"]:
        return draft
    text = texts.get(draft["sealed"])
    if text is None:
        return {**draft, "status": "failed", "finish": "failed", "problem": NO_LONGER_OPEN}
    return cast(Draft, {**draft, **json.loads(text), "sealed": ""})


def _closed(draft: Draft, seals: Mapping[str, str], source: NeighborSource | None) -> Draft:
    written = {name: draft[name] for name in WRITTEN}  # type: ignore[literal-required]
    owner = draft["signals_of"]
    nothing = not any(written.values()) or draft["problem"] == NO_LONGER_OPEN
    if draft["level"] == "individual" or draft["sealed"] or nothing:
        return draft
    if source is None or owner not in seals:
        raise ValueError(f"nothing is there to seal the draft of {owner} with")
    token = source.seal_beside(seals[owner], json.dumps(written, ensure_ascii=False))
    return cast(Draft, {**draft, **dict.fromkeys(WRITTEN, ""), "sealed": token})
