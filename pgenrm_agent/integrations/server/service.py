"""What the routes work with, and how a request gets at it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from pgenrm_agent.integrations.keys import KeyRing
from pgenrm_agent.integrations.server.admission import Admission
from pgenrm_agent.integrations.server.metrics import Metrics
from pgenrm_agent.integrations.server.tenants import Tenants
from pgenrm_agent.reward_model import PGenRM

ONLY_TENANT = "default"

logger = logging.getLogger(__name__)

_bearer = HTTPBearer(auto_error=False, description="A key made by `pgenrm keys add`.")


@dataclass
class Service:
    """One server's parts. `ready` is whether the model is loaded."""

    base: PGenRM
    keys: KeyRing | None
    tenants: Tenants
    admission: Admission
    metrics: Metrics
    ready: bool = False


def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


TheService = Annotated[Service, Depends(_service)]


async def _callers_model(
    request: Request,
    service: TheService,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> PGenRM:
    """Return the reward model of the tenant whose key came with the request.

    `KeyMiddleware` has looked it up; `credentials` are for the OpenAPI description.
    """
    tenant = ONLY_TENANT if service.keys is None else request.state.tenant
    return await service.tenants.reward_model(tenant)


CallersModel = Annotated[PGenRM, Depends(_callers_model)]
