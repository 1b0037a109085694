"""Score and rerank."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel, BeforeValidator
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from pgenrm_agent.errors import PGenRMError
from pgenrm_agent.evaluation_run import OnProgress, Progress
from pgenrm_agent.fields import UserId
from pgenrm_agent.integrations.server.errors import error_of, errors
from pgenrm_agent.integrations.server.schemas import (
    RerankBody,
    RerankResponse,
    ScoreBody,
    ScoreResponse,
    rerank_response,
    score_response,
)
from pgenrm_agent.integrations.server.service import CallersModel, TheService
from pgenrm_agent.integrations.server.tasks import gone, start, while_connected
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Evaluation, UserSignals

router = APIRouter(tags=["evaluation"])

# What a stream's description describes is one event; its data is JSON, as text.
ONE_EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["progress", "result", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}

ERRORS = errors(401, 408, 409, 413, 422, 429, 502, 503, 504)
USER_HEADER = "X-PGenRM-User"
KEEP_ALIVE_S = 10.0
UNKNOWN = UserSignals(user_id="somebody")


def _utf8(value: object) -> object:
    """Return a header's text; Starlette reads its bytes as Latin-1."""
    return value.encode("latin-1").decode() if isinstance(value, str) else value


UserHeader = Annotated[
    Annotated[UserId, BeforeValidator(_utf8)] | None,
    Header(alias=USER_HEADER, description="The id itself, in UTF-8; nothing in it is decoded."),
]
NOBODY = "no user was named (field `user` or header X-PGenRM-User): judged for somebody unknown"


@router.post("/v1/score", responses=ERRORS)
async def score(
    body: ScoreBody, request: Request, service: TheService, reward_model: CallersModel
) -> ScoreResponse:
    """Score candidate answers for one user."""
    task = start(service, _scoring(reward_model, body))
    return score_response(await while_connected(request, task), include_chains=body.include_chains)


@router.post(
    "/v1/score/stream",
    responses={
        **ERRORS,
        200: {
            "description": "Server-sent events: `progress` after each stage, at the end `result` "
            "(what /v1/score answers) or `error`.",
            "content": {"text/event-stream": {"schema": ONE_EVENT}},
        },
    },
    response_class=StreamingResponse,
)
async def score_stream(
    body: ScoreBody, request: Request, service: TheService, reward_model: CallersModel
) -> StreamingResponse:
    """Score candidate answers for one user, and tell how far it is meanwhile."""
    told: asyncio.Queue[Progress] = asyncio.Queue()
    task = start(service, _scoring(reward_model, body, told.put_nowait))
    return StreamingResponse(
        _events(request, task, told, body.include_chains),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@router.post("/v1/rerank", responses=ERRORS)
@router.post("/v2/rerank", responses=ERRORS)
async def rerank(
    body: RerankBody,
    request: Request,
    service: TheService,
    reward_model: CallersModel,
    header: UserHeader = None,
) -> RerankResponse:
    """Order documents by what one user would like: v1 in the shape of Cohere v1 and Jina, v2 of Cohere v2."""
    if len(request.headers.getlist(USER_HEADER)) > 1:
        raise HTTPException(409, "the header X-PGenRM-User is there twice: send it once")
    if body.user and header and body.user != header:
        raise HTTPException(409, "the field `user` and the header X-PGenRM-User name two users")
    user = body.user or header
    work = (
        reward_model.arerank(user, body.query, body.texts(), timeout=body.timeout_s)
        if user
        else reward_model.arerank(
            UNKNOWN.user_id, body.query, body.texts(), signals=UNKNOWN, timeout=body.timeout_s
        )
    )
    result = await while_connected(request, start(service, work))
    version: Literal["1", "2"] = "2" if request.scope["route"].path.startswith("/v2") else "1"
    warnings = result.evaluation.evidence.warnings
    if not user:
        warnings = (NOBODY, *(told for told in warnings if UNKNOWN.user_id not in told))
    return rerank_response(result, body, version, list(warnings))


def _scoring(
    reward_model: PGenRM, body: ScoreBody, on_progress: OnProgress | None = None
) -> Coroutine[object, object, Evaluation]:
    return reward_model.ascore(
        body.user_id,
        body.query,
        body.candidates,
        conversation=[turn.message() for turn in body.conversation],
        scaling=body.scaling.over(reward_model.scaling),
        signals=None if body.signals is None else body.signals.of(body.user_id),
        timeout=body.timeout_s,
        on_progress=on_progress,
    )


async def _events(
    request: Request,
    task: asyncio.Task[Evaluation],
    told: asyncio.Queue[Progress],
    include_chains: bool,
) -> AsyncIterator[str]:
    """Yield the evaluation as server-sent events. Ends, and ends the task, when the client hangs up."""
    watch = asyncio.create_task(gone(request))
    news = asyncio.create_task(told.get())
    try:
        while not task.done() or not told.empty() or news.done():
            await asyncio.wait(
                {task, watch, news}, timeout=KEEP_ALIVE_S, return_when=asyncio.FIRST_COMPLETED
            )
            if watch.done():
                return
            if news.done():
                yield _event("progress", news.result())
                news = asyncio.create_task(told.get())
                await asyncio.sleep(0)  # lets the new task take what is there already
            elif not task.done():
                yield ": still at it\n\n"
        try:
            answer = score_response(task.result(), include_chains=include_chains)
            yield _event("result", answer)
        except PGenRMError as error:
            yield _event("error", error_of(error)[1])
    finally:
        for pending in (watch, news, task):
            pending.cancel()


def _event(name: str, data: BaseModel) -> str:
    return f"event: {name}\ndata: {data.model_dump_json()}\n\n"
