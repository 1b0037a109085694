"""Score and rerank."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel, BeforeValidator
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from pgenrm_agent.errors import PGenRMError
from pgenrm_agent.evaluation_run import OnProgress, Progress
from pgenrm_agent.fields import UserId
from pgenrm_agent.graphs.results import withheld, withheld_failure
from pgenrm_agent.integrations.server.errors import error_of, errors
from pgenrm_agent.integrations.server.rerank import (
    PlainRerankBody,
    RerankBody,
    RerankResponse,
    ScoredText,
    rerank_response,
    scored_texts,
)
from pgenrm_agent.integrations.server.schemas import (
    EvaluationBody,
    ScoreBody,
    ScoreResponse,
    score_response,
)
from pgenrm_agent.integrations.server.service import CallersModel, Service, TheService
from pgenrm_agent.integrations.server.tasks import gone, start, while_connected
from pgenrm_agent.ranking import RerankResult
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.schema import Evaluation, UserSignals

logger = logging.getLogger(__name__)

router = APIRouter(tags=["evaluation"])
Answer: TypeAlias = Callable[[Evaluation], BaseModel]

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
LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
"""What JSON leaves as it is in a text, and many clients' readers of lines, httpx's too, end a line at."""
UNKNOWN = UserSignals(user_id="somebody")


def _utf8(value: object) -> object:
    """Return a header's text; Starlette reads its bytes as Latin-1."""
    return value.encode("latin-1").decode() if isinstance(value, str) else value


UserHeader = Annotated[
    Annotated[UserId, BeforeValidator(_utf8)] | None,
    Header(alias=USER_HEADER, description="The id itself, in UTF-8; nothing in it is decoded."),
]
NOBODY = "no user was named (field `user` or header X-PGenRM-User): judged for somebody unknown"


def _streaming(route: str) -> dict[str, Any]:
    """Describe a route that streams what another one answers."""
    told = {
        "description": "Server-sent events: `progress` after each stage, at the end `result` "
        f"(what {route} answers) or `error`.",
        "content": {"text/event-stream": {"schema": ONE_EVENT}},
    }
    return {"responses": {**ERRORS, 200: told}, "response_class": StreamingResponse}


@router.post("/v1/score", responses=ERRORS)
async def score(
    body: ScoreBody, request: Request, service: TheService, reward_model: CallersModel
) -> ScoreResponse:
    """Score candidate answers for one user."""
    task = start(service, _scoring(reward_model, body))
    return score_response(await while_connected(request, task), include_chains=body.include_chains)


@router.post("/v1/evaluations", responses=ERRORS)
async def evaluate(
    body: EvaluationBody, request: Request, service: TheService, reward_model: CallersModel
) -> Evaluation:
    """Score candidate answers for one user, and return the whole `Evaluation`, as Python does."""
    return _sendable(await while_connected(request, start(service, _scoring(reward_model, body))))


@router.post("/v1/score/stream", **_streaming("/v1/score"))
async def score_stream(
    body: ScoreBody, request: Request, service: TheService, reward_model: CallersModel
) -> StreamingResponse:
    """Score candidate answers for one user, and tell how far it is meanwhile."""

    def answer(evaluation: Evaluation) -> ScoreResponse:
        return score_response(evaluation, include_chains=body.include_chains)

    return _stream(request, service, reward_model, body, answer)


@router.post("/v1/evaluations/stream", **_streaming("/v1/evaluations"))
async def evaluate_stream(
    body: EvaluationBody, request: Request, service: TheService, reward_model: CallersModel
) -> StreamingResponse:
    """Do as /v1/evaluations does, and tell how far it is meanwhile."""
    return _stream(request, service, reward_model, body, _sendable)


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
    result, warnings = await _reranked(body, request, service, reward_model, header)
    version: Literal["1", "2"] = "2" if request.scope["route"].path.startswith("/v2") else "1"
    return rerank_response(result, body, version, warnings)


@router.post("/rerank", responses=ERRORS)
async def plain_rerank(
    body: PlainRerankBody,
    request: Request,
    service: TheService,
    reward_model: CallersModel,
    header: UserHeader = None,
) -> RerankResponse | list[ScoredText]:
    """Do as /v1/rerank does, which vLLM has here, too; given `texts`, as text-embeddings-inference does."""
    given = body.with_documents()
    result, warnings = await _reranked(given, request, service, reward_model, header)
    return (
        scored_texts(result, given) if body.texts else rerank_response(result, given, "1", warnings)
    )


async def _reranked(
    body: RerankBody, request: Request, service: Service, reward_model: PGenRM, header: str | None
) -> tuple[RerankResult, list[str]]:
    """Return the documents in order, and what to warn of."""
    if len(request.headers.getlist(USER_HEADER)) > 1:
        raise HTTPException(409, "the header X-PGenRM-User is there twice: send it once")
    if body.user and header and body.user != header:
        raise HTTPException(409, "the field `user` and the header X-PGenRM-User name two users")
    user = body.user or header
    work = reward_model.arerank(
        user or UNKNOWN.user_id,
        body.query,
        body.texts_to_judge(),
        signals=None if user else UNKNOWN,
        timeout=body.timeout,
        fallback=body.fallback,
    )
    result = await while_connected(request, start(service, work))
    warnings = result.evaluation.evidence.warnings
    if not user:
        warnings = (NOBODY, *(told for told in warnings if UNKNOWN.user_id not in told))
    return result, list(warnings)


def _scoring(
    reward_model: PGenRM, body: EvaluationBody, on_progress: OnProgress | None = None
) -> Coroutine[object, object, Evaluation]:
    return reward_model.ascore(
        body.user_id,
        body.query,
        body.candidates,
        conversation=[turn.message() for turn in body.conversation],
        scaling=body.scaling_over(reward_model.scaling),
        signals=None if body.signals is None else body.signals.of(body.user_id),
        timeout=body.timeout,
        on_progress=on_progress,
    )


def _sendable(evaluation: Evaluation) -> Evaluation:
    """Return what a caller may see of an evaluation: similar users' texts are theirs."""
    return evaluation.model_copy(
        update={
            "chains": tuple(map(withheld, evaluation.chains)),
            "failures": tuple(map(withheld_failure, evaluation.failures)),
        }
    )


def _stream(
    request: Request, service: Service, reward_model: PGenRM, body: EvaluationBody, answer: Answer
) -> StreamingResponse:
    told: asyncio.Queue[Progress] = asyncio.Queue()
    task = start(service, _scoring(reward_model, body, told.put_nowait))
    return StreamingResponse(
        _events(request, task, told, answer),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(
    request: Request, task: asyncio.Task[Evaluation], told: asyncio.Queue[Progress], answer: Answer
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
            yield _event("result", answer(task.result()))
        except Exception as error:
            if not isinstance(error, PGenRMError):
                logger.exception("an evaluation failed")
            yield _event("error", error_of(error)[1])
    finally:
        for pending in (watch, news, task):
            pending.cancel()


def _event(name: str, data: BaseModel) -> str:
    return f"event: {name}\ndata: {data.model_dump_json().translate(LINE_ENDS)}\n\n"
