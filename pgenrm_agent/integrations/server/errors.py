"""How errors are told: one shape, a status by kind, all of them in the OpenAPI description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from pgenrm_agent.errors import (
    ChainError,
    ConfigurationError,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    EntryConflict,
    EntryRefused,
    MemoryStoreError,
    PGenRMError,
)
from pgenrm_agent.integrations.server.schemas import ErrorBody

# Most particular first.
STATUS_OF: tuple[tuple[type[PGenRMError], int, str], ...] = (
    (ConfigurationError, 422, "unusable_request"),
    (ChainError, 502, "no_usable_chain"),
    (EngineTimeout, 504, "engine_timeout"),
    (EngineUnavailable, 503, "engine_unavailable"),
    (EngineError, 502, "engine_error"),
    (EntryConflict, 409, "entry_conflict"),
    (EntryRefused, 422, "entry_refused"),
    (MemoryStoreError, 503, "memory_unavailable"),
)
CODES = {
    401: "no_valid_key",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_too_slow",
    409: "contradiction",
    413: "body_too_large",
    422: "invalid_request",
    429: "overloaded",
    503: "keys_unavailable",
}
MEANINGS = {
    401: "No key in force came with the request.",
    404: "There is no such entry.",
    408: "The body did not come in time.",
    409: "The request contradicts itself, or an entry of its id.",
    413: "The body is larger than the server takes.",
    422: "The request cannot be used; the message says where and why.",
    429: "Too many evaluations are running and waiting; the header Retry-After says when to come back.",
    502: "The model failed, or wrote nothing that could be read as an evaluation.",
    503: "The model, the memory or the keys cannot be reached, or the server is being stopped.",
    504: "The model did not answer in time.",
}


class UnknownEntry(HTTPException):
    """404, and another code than that of a path that there is not."""

    code = "entry_unknown"

    def __init__(self, entry_id: str) -> None:
        super().__init__(404, f"nothing with the id {entry_id!r} is remembered of this user")


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: what it answers when it does not succeed."""
    return {status: {"model": ErrorBody, "description": MEANINGS[status]} for status in statuses}


def error_response(
    status: int, message: str, headers: Mapping[str, str] | None = None, *, code: str | None = None
) -> JSONResponse:
    """Return an error as it is sent. code: where it is another than the status has in `CODES`."""
    body = ErrorBody(code=code or CODES.get(status, "refused"), message=message)
    return JSONResponse(body.model_dump(), status, headers)


def error_of(error: Exception) -> tuple[int, ErrorBody]:
    """Status and body of an error."""
    for kind, status, code in STATUS_OF:
        if isinstance(error, kind):
            return status, ErrorBody(code=code, message=str(error))
    return 500, ErrorBody(code="internal_error", message="the server failed; its log says how")
