"""OpenTelemetry spans: what was done, how long it took, and how much of it there was.

Only the API of OpenTelemetry is used: nothing is recorded until the application sets up its SDK.

A span carries no text. Its attributes are numbers and the name of a model, and an exception is told by
its type alone, because its words may quote a user.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

Counts: TypeAlias = Mapping[str, int | float | bool]
"""The attributes of a span."""


def span(name: str, counts: Counts | None = None) -> AbstractContextManager[Span]:
    """Show what is done in the block as a span of that name; spans within it are its children."""
    return _opened(name, counts or {})


def model_span(engine: str, counts: Counts) -> AbstractContextManager[Span]:
    """Show a call of a model as a span, named as OpenTelemetry's conventions for GenAI have it.

    engine: its name, such as "openai:gpt-5": who provides the model, and which it is.
    """
    provider, _, model = engine.partition(":")
    names = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model or engine,
    }
    return _opened(f"chat {model or engine}", {**names, **counts}, of_client=True)


@contextmanager
def _opened(
    name: str, attributes: Mapping[str, str | int | float | bool], *, of_client: bool = False
) -> Iterator[Span]:
    from opentelemetry.trace import SpanKind, StatusCode

    with _tracer().start_as_current_span(
        name,
        kind=SpanKind.CLIENT if of_client else SpanKind.INTERNAL,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as opened:
        try:
            yield opened
        except BaseException as error:
            opened.set_attribute("error.type", type(error).__qualname__)
            opened.set_status(StatusCode.ERROR)
            raise


@cache
def _tracer() -> Tracer:
    from opentelemetry.trace import get_tracer

    from pgenrm_agent import __version__

    return get_tracer("pgenrm_agent", __version__)
