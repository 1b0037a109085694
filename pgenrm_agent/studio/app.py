"""The studio's pages and actions. Each action ends in the page that shows what came of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.errors import ConfigurationError, PGenRMError
from pgenrm_agent.integrations.slow_clients import BODY_S, WholeBody
from pgenrm_agent.schema import Scaling
from pgenrm_agent.studio.access import AuthMiddleware, form_key
from pgenrm_agent.studio.background import Workers
from pgenrm_agent.studio.forms import LARGEST, Fields, begun, criteria, first, read_form, whole
from pgenrm_agent.studio.pages import colored, run_page, visible

Form = Annotated[Fields, Depends(read_form)]
FIELDS = 3
"""So many answers, and past choices, the empty form has room for; a button makes more."""


def create_studio(
    session: DebugSession,
    *,
    token: str,
    scaling: Scaling | None = None,
    labels: dict[str, str] | None = None,
    resources: Collection[str] = (),
    body_s: float = BODY_S,
    known_users: Callable[[], Sequence[str]] = tuple,
) -> FastAPI:
    """Make the page over `session`, which stays the caller's to close, after the server has ended.

    Serve it on a loopback address: requests that name another host are refused.

    Args:
        session: Whose runs are shown, and which acts on them.
        token: Who opens the page with `?token=` may use it; everybody else is refused.
        scaling: What runs are started with where the form does not say. Left out: 8 chains of the
            user's own, and none of similar users.
        labels: Kept with the runs that are started here.
        resources: Those of the labels that say on what a run is made (its model, its memory). Runs that
            differ in them are shown here, and do not go on.
        body_s: Seconds in which a form has to come.
        known_users: Ids that the form offers, beside those of runs.
    """
    workers = Workers(session)
    default = scaling or Scaling(prototype=0)

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        yield
        workers.close()

    app = FastAPI(
        title="pgenrm studio", lifespan=running, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.token = token
    show = _renderer(token)

    def first_page(problem: str | None, values: Fields, more: str = "") -> Response:
        runs = session.runs()
        return show(
            "index.html",
            422 if problem else 200,
            runs=runs,
            problem=problem,
            values=values,
            default=default,
            users=sorted({*known_users(), *(run.user_id for run in runs if run.user_id)}),
            answers=max(FIELDS, len(values.get("answer", ()))) + (more == "answer"),
            choices=max(FIELDS, len(values.get("past_query", ()))) + (more == "choice"),
        )

    @app.get("/")
    def index() -> Response:
        return first_page(None, {})

    @app.post("/runs")
    def start(form: Form) -> Response:
        if more := first(form, "more"):
            return first_page(None, form, more)
        try:
            request, wanted, signals = begun(form, default)
            run = session.start(request, scaling=wanted, signals=signals, labels=labels)
        except PGenRMError as error:
            # With what was written, so that nobody has to write it again.
            return first_page(str(error), form)
        return _to(run)

    @app.get("/runs/{run:path}")
    def look(run: str, at: str | None = None, chain: int | None = None) -> Response:
        page = run_page(session, run, at=at, chain=chain, live=workers.busy(run))
        return show("run.html", page=page, notice=workers.notice(run))

    @app.get("/compare")
    def compare(left: str, right: str) -> Response:
        return show("compare.html", comparison=session.compare(left, right))

    @app.post("/runs/{run:path}/step")
    def step(run: str, form: Form) -> Response:
        return going_on(run, lambda: workers.step(run))

    @app.post("/runs/{run:path}/resume")
    def resume(run: str, form: Form) -> Response:
        points = [point for point in form.get("break", ()) if point]
        return going_on(run, lambda: workers.resume(run, points))

    @app.post("/runs/{run:path}/pause")
    def pause(run: str, form: Form) -> Response:
        return after(run, lambda: workers.pause(run))

    @app.post("/runs/{run:path}/rewind")
    def rewind(run: str, form: Form) -> Response:
        def back() -> str:
            session.rewind(run, first(form, "at"))
            return "rewound; what came after is kept in the time line"

        return after(run, lambda: workers.act(run, back))

    @app.post("/runs/{run:path}/fork")
    def fork(run: str, form: Form) -> Response:
        made: list[str] = []

        def branch() -> str:
            made.append(session.fork(run, first(form, "at") or None))
            return f"forked: {made[0]}"

        refused = after(run, lambda: workers.act(run, branch))
        return _to(made[0]) if made else refused

    @app.post("/runs/{run:path}/persona")
    def persona(run: str, form: Form) -> Response:
        def edit() -> str:
            session.edit_persona(run, first(form, "persona"), chain=whole(form, "chain", None))
            return "edited the persona: what follows will be written anew"

        return going_on(run, lambda: workers.act(run, edit))

    @app.post("/runs/{run:path}/rubric")
    def rubric(run: str, form: Form) -> Response:
        def edit() -> str:
            session.edit_rubric(run, criteria(form), chain=whole(form, "chain", None))
            return "edited the rubric: the marks will be given anew"

        return going_on(run, lambda: workers.act(run, edit))

    def after(run: str, action: Callable[[], None]) -> Response:
        session.labels(run)  # refuses runs that there are not
        action()
        return _to(run)

    def going_on(run: str, action: Callable[[], None]) -> Response:
        made_on, here = session.labels(run), labels or {}
        others = [name for name in resources if made_on.get(name) != here.get(name)]

        def refuse() -> str:
            told = ", ".join(
                f"{name} {made_on[name]!r}" if name in made_on else f"the default {name}"
                for name in others
            )
            raise ConfigurationError(
                f"this run was begun on {told}: start the studio so, or go on with `pgenrm debug`"
            )

        return after(run, (lambda: workers.act(run, refuse)) if others else action)

    def refused(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        words = error.detail if isinstance(error, HTTPException) else str(error)
        return show("refused.html", status, words=words)

    app.add_exception_handler(PGenRMError, refused)
    app.add_exception_handler(HTTPException, refused)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), "static")
    app.add_middleware(WholeBody, most=LARGEST, seconds=body_s)
    app.add_middleware(AuthMiddleware, token=token)
    return app


def _to(run: str) -> Response:
    return RedirectResponse(f"/runs/{quote(run, safe='')}", 303)


def _renderer(token: str) -> Callable[..., Response]:
    environment = Environment(
        loader=PackageLoader("pgenrm_agent.studio"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "colored": colored,
        "visible": visible,
        "path": lambda text: quote(text, safe=""),
    }
    key = form_key(token)

    def show(template: str, status: int = 200, **values: object) -> Response:
        return HTMLResponse(environment.get_template(template).render(key=key, **values), status)

    return show
