"""What a state and an exported run must be, before anything of them is stored or shown."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal

from langgraph.graph import START
from pydantic import AfterValidator, Field, JsonValue, TypeAdapter, ValidationError

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.fields import Model
from pgenrm_agent.graphs.state import EvaluationState
from pgenrm_agent.schema import (
    ChainFailure,
    Evaluation,
    EvaluationRequest,
    PreferencePair,
    Scaling,
    StatedPreference,
    UserSignals,
)
from pgenrm_agent.user_ids import normal_user_id

_STATE = TypeAdapter(EvaluationState)

VERSION = r"^\d{1,32}(\.[\d.e+-]{1,40})?$"


def _canonical(text: str) -> str:
    if str(uuid.UUID(text)) != text:
        raise ValueError("it is no UUID as LangGraph writes them")
    return text


def _moment(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Id = Annotated[str, AfterValidator(_canonical)]
Version = Annotated[str, Field(pattern=VERSION)] | Annotated[int, Field(ge=0, lt=2**53)]


class Saved(Model):
    """A checkpoint as LangGraph writes it."""

    v: int
    id: Id
    ts: Annotated[str, AfterValidator(_moment)]
    channel_values: dict[str, JsonValue]
    channel_versions: dict[str, Version]
    versions_seen: dict[str, dict[str, Version]]
    updated_channels: list[str] | None = None
    pending_sends: list[JsonValue] | None = None


class Described(Model, extra="allow"):
    """A checkpoint's metadata: LangGraph's own, and our labels and edits."""

    __pydantic_extra__: dict[str, str | int | bool | None]

    source: Literal["input", "loop", "update", "fork"]
    step: Annotated[int, Field(ge=-1, lt=2**31)]
    parents: dict[str, str] = Field(default_factory=dict)


class Kept(Model):
    """A checkpoint, the one before it, and its metadata."""

    parent: Id | None
    checkpoint: Saved
    metadata: Described


class Exported(Model):
    """checkpoints: oldest first, so that parents come before what follows from them."""

    format: Literal["pgenrm-run"]
    version: Literal[1]
    run: Annotated[str, Field(min_length=1, max_length=256)]
    checkpoints: Annotated[tuple[Kept, ...], Field(min_length=1)]


def refuse_other_order(checkpoints: Sequence[Kept]) -> None:
    """Raises ConfigurationError for checkpoints that do not follow from one beginning, one by one."""
    known: set[str] = set()
    newest = ""
    for number, kept in enumerate(checkpoints):
        name = kept.checkpoint.id
        if name <= newest:
            raise ConfigurationError(
                f"checkpoint {number} ({name}) is not newer than the one before it, {newest}"
            )
        if kept.parent is None and known:
            raise ConfigurationError(f"checkpoint {number} ({name}) is a second beginning")
        if kept.parent is not None and kept.parent not in known:
            raise ConfigurationError(
                f"checkpoint {number} ({name}) follows from {kept.parent}, which is not before it"
            )
        known.add(name)
        newest = name


def refuse_other_users(checkpoints: Sequence[Kept]) -> None:
    """Raises ConfigurationError for checkpoints that are not all about whom the first one names.

    The first is what the run was started with, and by it `forget` finds the run.
    """
    first = checkpoints[0]
    user = _user_of(first.checkpoint.channel_values.get(START))
    if first.metadata.source != "input" or user is None:
        raise ConfigurationError("its first checkpoint does not say whom it was started for")
    if normal_user_id(user) != user:
        raise ConfigurationError(f"the user {user!a} is not in Unicode's normal form C")
    for number, kept in enumerate(checkpoints):
        values = kept.checkpoint.channel_values
        for named in (_user_of(values.get(START)), _user_of(values)):
            if named not in (None, user):
                raise ConfigurationError(f"checkpoint {number} is about another user, {named!a}")


def _user_of(values: object) -> str | None:
    request = values.get("request") if isinstance(values, Mapping) else None
    user = request.get("user_id") if isinstance(request, Mapping) else None
    return user if isinstance(user, str) else None


def check_state(values: Mapping[str, object]) -> None:
    """Raises ConfigurationError for values that no run of the evaluation graph has had.

    values: those of any step; {} before the first.
    """
    if not values:
        return
    try:
        state = _STATE.validate_python(dict(values), strict=True)
        request = EvaluationRequest.model_validate(state["request"])
        Scaling.model_validate(state.get("scaling") or {})
        for pair in state.get("history") or ():
            PreferencePair.model_validate(pair)
        for statement in state.get("stated") or ():
            StatedPreference.model_validate(statement)
        signals = state.get("signals", {})
        for owner, known in signals.items():
            told = {name: value for name, value in known.items() if name != "sealed"}
            if told:
                UserSignals.model_validate(told)
            elif not isinstance(known.get("sealed"), str) or owner == request.user_id:
                raise ValueError(f"signals.{owner} are missing")
        if signals and request.user_id not in signals:
            raise ValueError(f"the signals of {request.user_id} are missing")
        for number, draft in enumerate(state.get("chains", ())):
            if draft["signals_of"] not in signals:
                raise ValueError(f"chains.{number} is of somebody without signals")
            if not set(draft["order"]) <= set(range(len(request.candidates))):
                raise ValueError(f"chains.{number} has an answer that is no candidate")
        for failure in state.get("failures", ()):
            ChainFailure.model_validate(failure)
        if not all(math.isfinite(seconds) for seconds in state.get("timings", {}).values()):
            raise ValueError("timings hold what is no number of seconds")
        evaluation = state.get("evaluation")
        if evaluation is not None:
            Evaluation.model_validate(evaluation)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise ConfigurationError(f"a state is wrong at {place}: {problem['msg']}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(f"a state is wrong: {error}") from None
