"""What the page's forms send, read into what a session takes."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.evaluation_input import evaluation_request
from pgenrm_agent.schema import EvaluationRequest, PreferencePair, Scaling, UserSignals
from pgenrm_agent.studio.access import form_key

LARGEST = 8 * 1024 * 1024
"""Bytes that a form may have."""
MOST_FIELDS = 1000

Fields = Mapping[str, Sequence[str]]
"""All values by name, blank ones too, in the order sent."""


async def read_form(request: Request) -> Fields:
    """Return the form of a request; refuses one that no page of this studio made."""
    try:
        fields = parse_qs(
            (await request.body()).decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS
        )
    except ValueError as error:
        raise HTTPException(400, f"this is no form: {error}") from None
    key = form_key(request.app.state.token)
    if not hmac.compare_digest(first(fields, "key").encode(), key.encode()):
        raise HTTPException(403, "this form is not from this studio: reload the page")
    return fields


def first(fields: Fields, name: str) -> str:
    """Return a field's first value, line breaks as they are on Unix; "" for none."""
    return next(iter(fields.get(name, ())), "").replace("\r\n", "\n")


def whole(fields: Fields, name: str, default: int | None) -> int | None:
    """Return a field's whole number; `default` for none."""
    text = first(fields, name).strip()
    if not text:
        return default
    if not text.isascii() or not text.lstrip("-").isdigit():
        raise ConfigurationError(f"{name} is {text[:40]!r}: write a whole number")
    return int(text)


def begun(
    fields: Fields, default: Scaling
) -> tuple[EvaluationRequest, Scaling, UserSignals | None]:
    """Return request, scaling and signals of the form for a new run; None: ask the memory.

    Raises:
        ConfigurationError: A field cannot be used.
    """
    texts = [text.replace("\r\n", "\n") for text in fields.get("answer", ()) if text.strip()]
    choices = zip(
        *(fields.get(name, ()) for name in ("past_query", "past_chosen", "past_rejected")),
        strict=False,
    )
    request = evaluation_request(first(fields, "user").strip(), first(fields, "query"), texts)
    try:
        scaling = Scaling.model_validate(
            default.model_dump()
            | {
                "individual": whole(fields, "chains", default.individual),
                "seed": whole(fields, "seed", default.seed),
            }
        )
        history = tuple(
            PreferencePair(query=query, chosen=chosen, rejected=rejected)
            for query, chosen, rejected in choices
            if query.strip() or chosen.strip() or rejected.strip()
        )
    except ValueError as error:
        raise ConfigurationError(f"this run cannot be started: {error}") from None
    return (
        request,
        scaling,
        UserSignals(user_id=request.user_id, history=history) if history else None,
    )


def criteria(fields: Fields) -> list[tuple[str, float, str]]:
    """Return the rows of the rubric's form; rows without a name are left out."""
    named = []
    rows = zip(*(fields.get(name, ()) for name in ("name", "weight", "reason")), strict=False)
    for name, weight, reason in rows:
        if not name.strip():
            continue
        try:
            named.append((name, float(weight or 0), reason))
        except ValueError:
            raise ConfigurationError(
                f"the weight of {name[:80]!r} is {weight[:40]!r}: write a number from 0 to 100"
            ) from None
    return named
