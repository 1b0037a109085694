"""The studio on a port of its own over a scripted model, and a real Chromium in front of it."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright
from studio_server import TOKEN, GatedEngine, Studio, until

from pgenrm_agent.debugging import DebugSession
from pgenrm_agent.studio import create_studio


@pytest.fixture
def studio() -> Iterator[Studio]:
    engine = GatedEngine()
    with DebugSession(engine=engine) as session, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(create_studio(session, token=TOKEN), log_level="error")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive())
            yield Studio(f"http://127.0.0.1:{listening.getsockname()[1]}", session, engine)
        finally:
            engine.open.set()
            server.should_exit = True
            thread.join(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, studio: Studio) -> Iterator[Page]:
    """The studio's first page, opened as a person does; no page may make a console error."""
    opened = browser.new_page(viewport={"width": 1100, "height": 500})
    opened.set_default_timeout(30_000)
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    opened.goto(studio.entry)
    yield opened
    opened.close()
    assert wrong == []


@pytest.fixture(scope="session")
def keep(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Page, str], None]:
    """Keep a picture of a page: in the folder PGENRM_SCREENSHOTS, else in pytest's own."""
    named = os.environ.get("PGENRM_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)

    def shoot(page: Page, name: str) -> None:
        # Hiding the caret would put a style into the page, which its policy forbids.
        page.screenshot(path=folder / f"{name}.png", full_page=True, caret="initial")

    return shoot
