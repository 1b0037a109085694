"""What is remembered of users."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query

from pgenrm_agent.fields import UserId
from pgenrm_agent.integrations.server.errors import errors
from pgenrm_agent.integrations.server.schemas import (
    ConsentBody,
    Forgotten,
    PreferenceBody,
    StatementBody,
    Stored,
    UserList,
    UserResponse,
)
from pgenrm_agent.integrations.server.service import CallersModel
from pgenrm_agent.prototypes import PrototypeStatus

router = APIRouter(tags=["memory"])

READ = errors(401, 422, 503)
WRITE = errors(401, 408, 413, 422, 503)
# An id may hold "/" (as %2F): what is done with a user stands last in a path, and every method that
# has no such end takes the whole rest as the id.
UserPath = Annotated[UserId, Path()]


@router.get("/v1/users", responses=READ)
async def users(
    reward_model: CallersModel,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[UserId | None, Query()] = None,
) -> UserList:
    """Everyone of whom anything is remembered, by id, `limit` at a time."""
    known = await asyncio.to_thread(reward_model.memory.users)
    later = [user for user in known if after is None or user.user_id > after]
    shown = later[:limit]
    return UserList(users=shown, next=shown[-1].user_id if len(later) > limit else None)


@router.get("/v1/users/{user_id:path}", responses=READ)
async def user(user_id: UserPath, reward_model: CallersModel) -> UserResponse:
    """Everything that is remembered of one user."""

    def read() -> UserResponse:
        memory = reward_model.memory
        return UserResponse(
            user_id=user_id,
            history=list(memory.history(user_id)),
            stated=list(memory.recall(user_id, limit=0).stated),
            consent=memory.consent(user_id),
        )

    return await asyncio.to_thread(read)


@router.post(
    "/v1/users/{user_id:path}/preferences", status_code=201, responses={**WRITE, **errors(409)}
)
async def remember(user_id: UserPath, body: PreferenceBody, reward_model: CallersModel) -> Stored:
    """Remember that the user preferred one answer to another."""
    return Stored(id=await reward_model.aremember(user_id, body.pair()))


@router.post("/v1/users/{user_id:path}/statements", status_code=201, responses=WRITE)
async def state(user_id: UserPath, body: StatementBody, reward_model: CallersModel) -> Stored:
    """Remember what the user says they want."""
    return Stored(id=await reward_model.astate_preference(user_id, body.statement()))


@router.put("/v1/users/{user_id:path}/consent", responses=WRITE)
async def consent(user_id: UserPath, body: ConsentBody, reward_model: CallersModel) -> ConsentBody:
    """Set whether the user's choices may help to score answers for similar users."""
    await asyncio.to_thread(reward_model.memory.set_consent, user_id, body.consent)
    return body


@router.delete("/v1/users/{user_id:path}", responses=READ)
async def forget(user_id: UserPath, reward_model: CallersModel) -> Forgotten:
    """Remove every trace of the user."""
    return Forgotten(forgotten=await reward_model.aforget(user_id))


@router.get("/v1/prototypes", responses=READ)
async def prototypes(reward_model: CallersModel) -> PrototypeStatus:
    """Which prototypes have been learned from this tenant's users, and how stale they are."""
    return await asyncio.to_thread(lambda: reward_model.prototypes.status())
