"""Calls in two forms: they say the same everywhere, and the plain ones are safe to make."""

from __future__ import annotations

import ast
import asyncio
import inspect
import threading
import time
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import pgenrm_agent
from pgenrm_agent.background_loop import BackgroundLoop
from pgenrm_agent.errors import EngineError, EngineUnavailable

PACKAGE = Path(pgenrm_agent.__file__).parent


def bound_in(body: list[ast.stmt]) -> set[str]:
    """The public names that a class or module body defines or assigns."""
    names: set[str] = set()
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def pairs_in(names: set[str]) -> list[str]:
    return sorted(name for name in names if f"a{name}" in names)


@cache
def pairs() -> dict[str, object]:
    """The owner of every pair of public calls in the package, a class or a module, by its name."""
    owners: dict[str, object] = {}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        module = ".".join(part for part in parts if part != "__init__")
        scopes = {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}
        for scope, body in {"": tree.body, **scopes}.items():
            for name in pairs_in(bound_in(body)):
                owner = import_module(module)
                owners[f"{module}:{scope}.{name}"] = getattr(owner, scope) if scope else owner
    return owners


def test_the_calls_that_come_in_pairs_are_known() -> None:
    classes = {key.partition(":")[2].partition(".")[0] for key in pairs()}
    assert {"PGenRM", "DebugSession", "PersonalReranker", "EvaluationNode"} <= classes
    assert len(pairs()) >= 30


def test_both_forms_of_every_call_have_the_same_signature_and_say_the_same() -> None:
    wrong = []
    for key, owner in pairs().items():
        name = key.rpartition(".")[2]
        plain, awaited = getattr(owner, name), getattr(owner, f"a{name}")
        assert not inspect.iscoroutinefunction(plain), key
        assert inspect.iscoroutinefunction(awaited), key
        if inspect.signature(plain) != inspect.signature(awaited):
            wrong.append(f"{key}: {inspect.signature(plain)} and {inspect.signature(awaited)}")
        # LangChain documents its own pair, `invoke` and `ainvoke`, in its base classes.
        if name != "close" and inspect.getdoc(plain) != inspect.getdoc(awaited):
            wrong.append(f"{key}: {inspect.getdoc(plain)!r} and {inspect.getdoc(awaited)!r}")
        if plain.__name__ != name or plain.__qualname__.rpartition(".")[2] != name:
            wrong.append(f"{key} is called {plain.__qualname__}")
    assert wrong == []


def test_no_public_call_of_the_facades_is_without_its_twin() -> None:
    # Local by nature: attribute access, and objects that serve both kinds of callers.
    without = {
        "PGenRM": {"memory", "prototypes", "scaling", "with_memory"},
        "DebugSession": {"nodes"},
    }
    from pgenrm_agent.debugging.session import DebugSession
    from pgenrm_agent.reward_model import PGenRM

    for facade in (PGenRM, DebugSession):
        public = {name for name in dir(facade) if not name.startswith("_")}
        awaited = {
            name
            for name in public
            if name.startswith("a") and inspect.iscoroutinefunction(getattr(facade, name))
        }
        plain = public - awaited - without[facade.__name__]
        assert {f"a{name}" for name in plain} == awaited


@pytest.fixture
def loop() -> Iterator[BackgroundLoop]:
    background = BackgroundLoop("tester")
    yield background
    background.close()


async def add(left: int, right: int) -> int:
    await asyncio.sleep(0)
    return left + right


def test_a_plain_call_inside_its_own_run_is_refused_instead_of_waiting_for_ever(
    loop: BackgroundLoop,
) -> None:
    async def nested() -> int:
        return loop.run_blocking(lambda: add(1, 2))

    with pytest.raises(EngineError, match="would wait for itself"):
        loop.run_blocking(nested)
    assert loop.run_blocking(lambda: add(1, 2)) == 3


@pytest.mark.parametrize("awaited", [False, True])
def test_closing_ends_the_calls_that_run_with_an_error_of_the_library(
    loop: BackgroundLoop, awaited: bool
) -> None:
    begun = threading.Event()
    errors: list[BaseException] = []

    async def work() -> None:
        begun.set()
        await asyncio.sleep(60)

    def call() -> None:
        try:
            asyncio.run(loop.run(work)) if awaited else loop.run_blocking(work)
        except BaseException as error:
            errors.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    assert begun.wait(10)
    started = time.monotonic()
    loop.close()
    caller.join(10)
    assert time.monotonic() - started < 5
    assert [type(error) for error in errors] == [EngineUnavailable]
    assert "tester was closed during this call" in str(errors[0])


def test_what_is_cancelled_may_still_wait_while_it_winds_up(loop: BackgroundLoop) -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            steps.append("given back")

    async def last() -> None:
        steps.append("closed")

    async def main() -> None:
        calling = asyncio.create_task(loop.run(work))
        await asyncio.sleep(0.05)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling

    asyncio.run(main())
    loop.close(last)
    assert steps == ["given back", "closed"]


def test_a_closed_loop_refuses_and_its_thread_is_gone(loop: BackgroundLoop) -> None:
    loop.run_blocking(lambda: add(1, 2))
    loop.close()
    loop.close()
    with pytest.raises(EngineUnavailable, match="tester is closed"):
        loop.run_blocking(lambda: add(1, 2))
    assert not any("tester" in thread.name for thread in threading.enumerate())
