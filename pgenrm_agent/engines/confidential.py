"""Keeps confidential prompts and their answers away from whatever watches a model's calls.

A LangChain model tells callbacks, tracers (`LANGSMITH_TRACING`), caches and consoles (`set_debug`)
whatever it is asked, and clients of servers write whole requests into the log at level DEBUG.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.language_models import BaseChatModel

T = TypeVar("T")

SPAN = "chains of similar users"
"""What traces call the calls that they do not see."""
WITHHELD_WORDS = "the server's words are withheld: they may quote a similar user"
WITHHELD_RECORD = "(withheld: this tells of a request made of a similar user's words)"

_quiet: contextvars.ContextVar[bool] = contextvars.ContextVar("pgenrm_confidential", default=False)


# --- logs ---


@contextmanager
def unlogged(confidential: bool = True) -> Iterator[None]:
    """Withhold the words of every log record that is made in this context; its level and logger stay."""
    if not confidential:
        yield
        return
    _withhold_records()
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


class _Withholding:
    """A factory of log records around the one that was there."""

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self._make = make

    def __call__(self, *args: object, **further: object) -> logging.LogRecord:
        record = self._make(*args, **further)
        if _quiet.get():
            record.msg, record.args = WITHHELD_RECORD, ()
            record.exc_info = record.exc_text = record.stack_info = None
        return record


def _withhold_records() -> None:
    # Not a filter: a filter sees the records of loggers and handlers that are there already.
    make = logging.getLogRecordFactory()
    if not isinstance(make, _Withholding):
        logging.setLogRecordFactory(_Withholding(make))


# --- LangChain ---


def unwatched(model: BaseChatModel) -> BaseChatModel:
    """Return the model without callbacks of its own and without a cache."""
    return model.model_copy(update={"callbacks": None, "cache": False, "verbose": False})


async def unseen(work: Callable[[], Coroutine[object, object, T]]) -> T:
    """Await `work()` where nothing of LangChain's or LangSmith's is inherited."""
    context = contextvars.copy_context()
    context.run(_cut_off)

    async def untraced() -> T:
        from langsmith.run_helpers import tracing_context

        with tracing_context(enabled=False, parent=False):
            return await work()

    return await asyncio.get_running_loop().create_task(untraced(), context=context)


@cache
def silent() -> BaseCallbackHandler:
    """Return a handler that hears nothing, to stand where LangChain would add one by itself."""
    from langchain_core.tracers.stdout import ConsoleCallbackHandler

    class Silent(ConsoleCallbackHandler):  # the kind that `set_debug` adds where there is none
        ignore_llm = ignore_chat_model = ignore_chain = ignore_agent = ignore_retriever = True
        ignore_retry = ignore_custom_event = True

    return Silent()


def _cut_off() -> None:
    from langchain_core.runnables.config import var_child_runnable_config
    from langchain_core.tracers.context import _configure_hooks, tracing_v2_callback_var

    var_child_runnable_config.set(None)
    tracing_v2_callback_var.set(None)
    for handler, *_ in _configure_hooks:  # of `register_configure_hook`
        handler.set(silent())


@asynccontextmanager
async def counted_span(chains: int) -> AsyncIterator[dict[str, int]]:
    """Show in traces that so many chains are sampled, and at the end what was put into the dict."""
    counts: dict[str, int] = {}
    if not chains:
        yield counts
        return
    from langchain_core.runnables.config import ensure_config, get_async_callback_manager_for_config

    manager = get_async_callback_manager_for_config(ensure_config())
    span = await manager.on_chain_start(None, {"chains": chains}, name=SPAN)
    try:
        yield counts
    except BaseException as error:
        await span.on_chain_error(error)
        raise
    await span.on_chain_end(counts)
