"""For those who run the server, and /v1/models. They tell nothing about tenants or users."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from pgenrm_agent.integrations.server.errors import errors
from pgenrm_agent.integrations.server.schemas import ModelList, Ready
from pgenrm_agent.integrations.server.service import CallersModel, TheService

router = APIRouter(tags=["operation"])


@router.get("/healthz")
async def health() -> Ready:
    """The process answers."""
    return Ready(status="ok")


@router.get(
    "/readyz", response_model=Ready, responses={503: {"model": Ready, "description": "Not ready."}}
)
async def ready(service: TheService) -> JSONResponse:
    """The model is loaded: an evaluation starts at once."""
    state = Ready(status="ok" if service.ready else "not_ready")
    return JSONResponse(state.model_dump(), 200 if service.ready else 503)


@router.get("/v1/models", responses=errors(401, 503))
async def models(reward_model: CallersModel) -> ModelList:
    """The model that judges, as OpenAI's clients and rerank clients ask for it."""
    return ModelList()


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(service: TheService) -> Response:
    """Metrics in Prometheus' text format."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
