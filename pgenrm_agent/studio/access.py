"""Who may use the page: this machine's browser, once it has shown the token.

Other pages open in the same browser must not be able to act here or read anything. So the host has
to be this machine's (or a name could be pointed at it), the cookie is not sent along from elsewhere,
and each form carries a value that only a page of the studio knows.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pgenrm_agent.integrations.loopback import names_this_machine

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def form_key(token: str) -> str:
    """Return the value that forms carry; does not give the token away."""
    return hmac.new(token.encode(), b"pgenrm studio form", hashlib.sha256).hexdigest()


class AuthMiddleware:
    """Lets requests through that carry the token in their cookie; sets it from the URL's `token`."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it: 421 for another host, 403 without the token."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Cache-Control"] = "no-store"
            await send(message)

        refusal = self._refusal(Request(scope))
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        if not names_this_machine(request.scope):
            return PlainTextResponse("The studio answers to this machine's names only.", 421)
        cookie = f"pgenrm_studio_{request.url.port or 80}"  # cookies are shared by all ports
        given = request.query_params.get("token")
        if given is not None and request.method == "GET" and self._is(given):
            rest = [pair for pair in request.query_params.multi_items() if pair[0] != "token"]
            where = request.url.path + (f"?{urlencode(rest)}" if rest else "")
            # Not to another host: a path may begin with two slashes.
            answer = RedirectResponse(f"/{where.lstrip('/')}", 303)
            answer.set_cookie(cookie, self._token, httponly=True, samesite="strict")
            return answer
        if not self._is(request.cookies.get(cookie, "")):
            return PlainTextResponse(
                "Open the address that `pgenrm studio` printed: it ends in ?token=...", 403
            )
        return None

    def _is(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())
