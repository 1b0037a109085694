"""What is remembered of people."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.exceptions import HTTPException

from pgenrm_agent.integrations.server.errors import errors
from pgenrm_agent.integrations.server.schemas import (
    ConsentBody,
    Forgotten,
    PreferenceBody,
    PrototypeEntry,
    PrototypesStatus,
    StatementBody,
    Stored,
    UserAnswer,
    UserEntry,
    UserId,
    UserList,
)
from pgenrm_agent.integrations.server.service import CallersModel
from pgenrm_agent.schema import PreferencePair, StatedPreference

router = APIRouter(tags=["memory"])

READ = errors(401, 422, 503)
WRITE = errors(401, 413, 422, 503)
Person = Annotated[UserId, Path()]


@router.get("/v1/users", responses=READ)
async def users(
    reward_model: CallersModel,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[UserId | None, Query()] = None,
) -> UserList:
    """Everyone of whom anything is remembered, by id, `limit` at a time."""
    found = await asyncio.to_thread(reward_model.memory.users)
    later = [one for one in found if after is None or one.user_id > after]
    shown = [UserEntry.model_validate(one.model_dump()) for one in later[:limit]]
    return UserList(users=shown, next=shown[-1].user_id if len(later) > limit else None)


@router.get("/v1/users/{user_id}", responses=READ)
async def user(user_id: Person, reward_model: CallersModel) -> UserAnswer:
    """Everything that is remembered of one person."""

    def read() -> UserAnswer:
        memory = reward_model.memory
        return UserAnswer(
            user_id=user_id,
            history=list(memory.history(user_id)),
            stated=list(memory.recall(user_id, limit=0).stated),
            consent=memory.consent(user_id),
        )

    return await asyncio.to_thread(read)


@router.post("/v1/users/{user_id}/preferences", status_code=201, responses={**WRITE, **errors(409)})
async def remember(user_id: Person, body: PreferenceBody, reward_model: CallersModel) -> Stored:
    """Remember that the person preferred one answer to another."""
    if body.chosen == body.rejected:
        raise HTTPException(
            409, "chosen and rejected are the same text, which says nothing about a preference"
        )
    pair = PreferencePair(query=body.query, chosen=body.chosen, rejected=body.rejected)
    return Stored(id=await reward_model.aremember(user_id, pair))


@router.post("/v1/users/{user_id}/statements", status_code=201, responses=WRITE)
async def state(user_id: Person, body: StatementBody, reward_model: CallersModel) -> Stored:
    """Remember what the person says they want."""
    stated = StatedPreference(kind=body.kind, text=body.text)
    return Stored(id=await reward_model.astate_preference(user_id, stated))


@router.put("/v1/users/{user_id}/consent", responses=WRITE)
async def consent(user_id: Person, body: ConsentBody, reward_model: CallersModel) -> ConsentBody:
    """Set whether the person's choices may help to score answers for similar people."""
    await asyncio.to_thread(reward_model.memory.set_consent, user_id, body.consent)
    return body


@router.delete("/v1/users/{user_id}", responses=READ)
async def forget(user_id: Person, reward_model: CallersModel) -> Forgotten:
    """Remove every trace of the person."""
    return Forgotten(forgotten=await reward_model.aforget(user_id))


@router.get("/v1/prototypes", responses=READ)
async def prototypes(reward_model: CallersModel) -> PrototypesStatus:
    """Which prototypes have been learned from this tenant's users, and how stale they are."""
    found = await asyncio.to_thread(lambda: reward_model.prototypes.status())
    return PrototypesStatus(
        status="none" if found.version is None else "in_force",
        prototypes=tuple(
            PrototypeEntry(people=people, label=label)
            for people, label in zip(found.sizes, found.labels, strict=True)
        ),
        **found.model_dump(
            include={
                "version",
                "built_at",
                "embedder",
                "people",
                "joined",
                "not_members",
                "pairs_since",
            }
        ),
    )
