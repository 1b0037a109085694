"""The FastAPI application: who may call, what is called, and how its errors are told."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from pgenrm_agent.arguments import items_of
from pgenrm_agent.errors import ConfigurationError, PGenRMError
from pgenrm_agent.integrations.keys import KeyRing
from pgenrm_agent.integrations.loopback import LoopbackOnly
from pgenrm_agent.integrations.server.admission import Admission, Limits, OverloadedError
from pgenrm_agent.integrations.server.docs import add_docs
from pgenrm_agent.integrations.server.errors import error_of, error_response
from pgenrm_agent.integrations.server.metrics import Metrics
from pgenrm_agent.integrations.server.middleware import (
    BodyLimitMiddleware,
    KeyMiddleware,
    MetricsMiddleware,
    StoppingMiddleware,
)
from pgenrm_agent.integrations.server.routes import evaluations, memory, operation
from pgenrm_agent.integrations.server.service import Service
from pgenrm_agent.integrations.server.tasks import ClientGoneError
from pgenrm_agent.integrations.server.tenants import Tenants
from pgenrm_agent.reward_model import PGenRM
from pgenrm_agent.wording import place_of, said_of

logger = logging.getLogger(__name__)

ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
METHODS = ("GET", "POST", "PUT", "DELETE")
HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "X-PGenRM-User")


def create_app(
    reward_model: PGenRM,
    *,
    keys: KeyRing | None = None,
    tenants_folder: Path | str | None = None,
    limits: Limits | None = None,
    cors: Sequence[str] = (),
    on_prepared: Callable[[PGenRMError | None], None] | None = None,
) -> FastAPI:
    """Make the server around a reward model.

    The model is loaded while the server answers already: /healthz says ok, /readyz 503, and an
    evaluation waits.

    Args:
        reward_model: What judges and remembers; stays the caller's to close.
        keys: Who may call, and for which tenant. None lets in whoever is on this machine, as one
            tenant whose memory is the reward model's own: requests that name another host, and
            changes from another site's page, are refused (see `LoopbackOnly`). Listen on a loopback
            address then.
        tenants_folder: With keys, the folder of the tenants' memories, one folder each.
        limits: How much may be asked of it; see `Limits`.
        cors: Sites whose pages may call it from a browser, such as "https://app.example.com"; "*" for
            all of them, with keys only.
        on_prepared: Called once, when the model is loaded (None) or could not be (why, which is
            logged where nobody is called).

    Raises:
        ConfigurationError: `keys` and `tenants_folder` do not come together, or an origin is none.
    """
    if (keys is None) != (tenants_folder is None):
        raise ConfigurationError(
            "keys and tenants_folder go together: a key opens one tenant's folder, and without "
            "keys there is one tenant, with the reward model's own memory"
        )
    origins = _checked_origins(cors, keyless=keys is None)
    limits = limits or Limits()
    folder = None if tenants_folder is None else Path(tenants_folder)

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        # Made here, because it belongs to the loop that serves.
        admission = Admission(limits)
        app.state.service = service = Service(
            base=reward_model,
            keys=keys,
            tenants=Tenants(reward_model, folder),
            admission=admission,
            metrics=Metrics(admission),
        )
        preparing = asyncio.create_task(prepare(service))
        try:
            yield
        finally:
            service.ready = False
            preparing.cancel()
            await service.tenants.aclose()

    async def prepare(service: Service) -> None:
        failure: PGenRMError | None = None
        try:
            await reward_model.aprepare(memory=keys is None)
            service.ready = True
        except PGenRMError as error:
            failure = error
        if on_prepared is not None:
            on_prepared(failure)
        elif failure is not None:
            logger.error("the model cannot be loaded: %s", failure)

    app = FastAPI(
        title="pgenrm-agent",
        version=version("pgenrm-agent"),
        summary="How much would one particular user like each candidate answer?",
        lifespan=running,
        docs_url=None,
        redoc_url=None,
    )
    add_docs(app)
    for router in (evaluations, memory, operation):
        app.include_router(router)
    app.add_exception_handler(PGenRMError, _failed)
    app.add_exception_handler(OverloadedError, _overloaded)
    app.add_exception_handler(ClientGoneError, _nobody_listens)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(BodyLimitMiddleware, most=limits.body_bytes, seconds=limits.body_s)
    if keys is not None:
        app.add_middleware(KeyMiddleware, keys=keys)
    app.add_middleware(StoppingMiddleware)
    app.add_middleware(MetricsMiddleware)
    if origins:  # before the key is asked for: a browser asks first whether it may send it
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=HEADERS,
            expose_headers=["Retry-After"],
        )
    if keys is None:
        app.add_middleware(LoopbackOnly, origins=origins)  # added last, so it stands first
    return app


def _checked_origins(origins: Sequence[str], *, keyless: bool) -> tuple[str, ...]:
    """Return the origins as browsers send them."""
    for origin in items_of(origins, "cors", "origins"):
        if origin == "*" and not keyless:
            continue
        if not isinstance(origin, str) or not ORIGIN.fullmatch(origin):
            raise ConfigurationError(
                f"cors has {origin!r:.80}: name sites as https://app.example.com, without a path"
                + (
                    ", and no *, since without keys every page could read what people chose"
                    * keyless
                )
            )
    return tuple(origins)


async def _failed(request: Request, error: Exception) -> Response:
    status, body = error_of(error)
    return error_response(status, body.message, code=body.code)


async def _overloaded(request: Request, error: Exception) -> Response:
    seconds = error.retry_after if isinstance(error, OverloadedError) else 1
    return error_response(429, str(error), {"Retry-After": str(seconds)})


async def _nobody_listens(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


async def _invalid(request: Request, error: Exception) -> Response:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    if not first:
        return error_response(422, str(error))
    where = first["loc"]
    if first["type"] == "json_invalid":
        where = where[:1]  # behind it is how far JSON could be read
    # The value itself is left out: it can be long, and it can be a user's.
    return error_response(422, f"{place_of(where)}: {said_of(first)}")


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code = getattr(error, "code", None)
    return error_response(error.status_code, str(error.detail), error.headers, code=code)
