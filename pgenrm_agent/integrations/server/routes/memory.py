"""What is remembered of users."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query
from pydantic import StringConstraints
from starlette.exceptions import HTTPException

from pgenrm_agent.errors import ConfigurationError, EntryConflict
from pgenrm_agent.fields import UserId
from pgenrm_agent.integrations.server.errors import UnknownEntry, errors
from pgenrm_agent.integrations.server.schemas import (
    ConsentBody,
    EntryBody,
    Forgotten,
    PreferenceBody,
    PreferenceChange,
    StatementBody,
    StatementChange,
    Stored,
    UserList,
    UserResponse,
)
from pgenrm_agent.integrations.server.service import CallersModel
from pgenrm_agent.prototypes import PrototypeStatus
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import PreferencePair, StatedPreference

router = APIRouter(tags=["memory"])

READ = errors(401, 422, 503)
WRITE = errors(401, 408, 413, 422, 503)
# An id may hold "/" (as %2F): what is done with a user stands last in a path, and every method that
# has no such end takes the whole rest as the id.
UserPath = Annotated[UserId, Path()]
IdempotencyKey = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=256)] | None,
    Header(alias="Idempotency-Key", description="The same for a request and its repetitions."),
]


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
        entries = memory.entries(user_id)
        return UserResponse(
            user_id=user_id,
            history=[entry.pair for entry in entries if entry.pair],
            stated=[e.stated for e in entries if e.stated and e.overruled_by is None],
            entries=list(entries),
            consent=memory.consent(user_id),
        )

    return await asyncio.to_thread(read)


@router.post(
    "/v1/users/{user_id:path}/preferences", status_code=201, responses={**WRITE, **errors(409)}
)
async def remember(
    user_id: UserPath, body: PreferenceBody, reward_model: CallersModel, key: IdempotencyKey = None
) -> Stored:
    """Remember that the user preferred one answer to another.

    A request that is sent again with the same Idempotency-Key, or the same `id`, is remembered once.
    """
    pair = body.pair()
    if key is None or body.id is not None:
        return Stored(id=await reward_model.aremember(user_id, pair))
    # The key becomes the choice's id, so the memory itself tells a repeated request, also after a
    # restart and in another process.
    pair = pair.model_copy(update={"id": f"key-{hashlib.sha256(key.encode()).hexdigest()}"})
    try:
        return Stored(id=await reward_model.aremember(user_id, pair))
    except EntryConflict as error:
        raise HTTPException(
            409, "this Idempotency-Key came with another choice before: send a new one"
        ) from error


@router.post("/v1/users/{user_id:path}/statements", status_code=201, responses=WRITE)
async def state(user_id: UserPath, body: StatementBody, reward_model: CallersModel) -> Stored:
    """Remember what the user says they want."""
    return Stored(id=await reward_model.astate_preference(user_id, body.statement()))


@router.put("/v1/users/{user_id:path}/preferences", responses={**WRITE, **errors(404, 409)})
async def correct_preference(
    user_id: UserPath, body: PreferenceChange, reward_model: CallersModel
) -> Stored:
    """Put another choice in the place of one; it keeps an id that it was given."""
    return await _corrected(reward_model, user_id, body.id, body.pair())


@router.put("/v1/users/{user_id:path}/statements", responses={**WRITE, **errors(404)})
async def correct_statement(
    user_id: UserPath, body: StatementChange, reward_model: CallersModel
) -> Stored:
    """Put another statement in the place of one; it has another id."""
    return await _corrected(reward_model, user_id, body.id, body.statement())


@router.post("/v1/users/{user_id:path}/forget", responses={**WRITE, **errors(404)})
async def forget_entry(user_id: UserPath, body: EntryBody, reward_model: CallersModel) -> Forgotten:
    """Remove one choice or statement of the user."""
    if not await reward_model.aforget_entry(user_id, body.id):
        raise UnknownEntry(body.id)
    return Forgotten(forgotten=1)


@router.put("/v1/users/{user_id:path}/consent", responses=WRITE)
async def consent(user_id: UserPath, body: ConsentBody, reward_model: CallersModel) -> ConsentBody:
    """Set whether the user's choices may help to score answers for similar users."""
    await asyncio.to_thread(reward_model.memory.set_consent, user_id, body.consent)
    return body


@router.delete("/v1/users/{user_id:path}", responses=READ)
async def forget(user_id: UserPath, reward_model: CallersModel) -> Forgotten:
    """Remove every trace of the user."""
    return Forgotten(forgotten=await reward_model.aforget(user_id))


async def _corrected(
    reward_model: PGenRM, user_id: str, entry_id: str, new: PreferencePair | StatedPreference
) -> Stored:
    try:
        return Stored(id=await reward_model.acorrect(user_id, entry_id, new))
    except ConfigurationError:
        entries = await reward_model.aentries(user_id)
        if any(entry.id == entry_id for entry in entries):
            raise
        raise UnknownEntry(entry_id) from None


@router.get("/v1/prototypes", responses=READ)
async def prototypes(reward_model: CallersModel) -> PrototypeStatus:
    """Which prototypes have been learned from this tenant's users, and how stale they are."""
    return await asyncio.to_thread(lambda: reward_model.prototypes.status())
