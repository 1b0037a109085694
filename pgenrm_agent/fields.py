"""What all models share: errors of our own, limits, and kinds of fields."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    ValidationError,
)

from pgenrm_agent.errors import InvalidInput
from pgenrm_agent.user_ids import GRAMMAR, MAX_USER_ID, normal_user_id
from pgenrm_agent.wording import place_of, said_of

MAX_TEXT = 50_000
"""Most characters of a query, an answer, a statement or a turn, however they come in."""
MAX_CANDIDATES = 1024
"""Most candidates of one request; a prompt holds a few of them, and they are judged in groups."""
NOT_DERIVED = "default_factory_not_called"
"""Pydantic's word for a field that follows from others, of which some are wrong."""
UNSHOWN = frozenset({"missing", "too_long", "string_too_long"})
"""Pydantic's words for complaints that showing the value adds nothing to."""
MAX_TURNS = 256
"""Most turns of a conversation before a query."""


def whole_characters(text: str) -> str:
    """Return the text with U+FFFD for each half of a character, as a cut through an emoji leaves it.

    Such a half (a lone surrogate) can be in no JSON and no file. So it is for NUL, which not every
    store takes.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", "\ufffd")


def _whole(value: object) -> object:
    return whole_characters(value) if isinstance(value, str) else value


# Spelled out, because what \s stands for differs between Python and ECMAScript, which is what readers of
# the OpenAPI description go by: they disagree on separators, NEL and the byte order mark.
NOT_BLANK = r"[^\s\x1c-\x1f\x85\ufeff]"


def _not_blank(text: str) -> str:
    if re.search(NOT_BLANK, text) is None:
        raise ValueError("it is blank")
    return text


WholeText = Annotated[str, BeforeValidator(_whole)]
"""Any text, with U+FFFD for halves of characters and for NUL, which not every store takes."""
_BLANK_IS_REFUSED = (
    AfterValidator(_not_blank),
    Field(json_schema_extra={"minLength": 1, "pattern": NOT_BLANK}),
)
NonBlank = Annotated[str, *_BLANK_IS_REFUSED]
Text = Annotated[
    str, StringConstraints(max_length=MAX_TEXT), *_BLANK_IS_REFUSED, BeforeValidator(_whole)
]
Identifier = Annotated[str, StringConstraints(max_length=256), *_BLANK_IS_REFUSED]
YesOrNo = Annotated[bool, Strict()]
"""True or false; a model that writes "yes" or 1 has not understood what it was asked."""
UserId = Annotated[
    str,
    Strict(),
    AfterValidator(normal_user_id),
    Field(
        description=f"Id of a user: {GRAMMAR}. Kept in Unicode's normal form C.",
        json_schema_extra={"minLength": 1, "maxLength": MAX_USER_ID, "format": "user-id"},
    ),
]


def in_utc_if_naive(time: datetime) -> datetime:
    """Return the time itself; one without a time zone is taken as UTC."""
    return time.replace(tzinfo=UTC) if time.utcoffset() is None else time


Moment = Annotated[datetime, AfterValidator(in_utc_if_naive)]
"""A time that can be compared with every other: it has a time zone."""


class Model(BaseModel):
    """Common configuration: immutable, a misspelled field is an error, and errors are ours.

    Raises:
        InvalidInput: A field is missing, unknown, or of no use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise refusal(type(self), error) from None

    # What pydantic looks at, so that it makes models inside of models without this constructor: a
    # complaint then names the whole place.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Return the model of these fields."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise refusal(cls, error) from None

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """Return the model of a JSON text."""
        try:
            return super().model_validate_json(json_data, **options)
        except ValidationError as error:
            raise refusal(cls, error) from None


def refusal(kind: type[BaseModel], error: ValidationError) -> InvalidInput:
    """Return pydantic's complaints in one line: where, what, and the value."""
    complaints = []
    problems = error.errors(include_url=False)
    for problem in [item for item in problems if item["type"] != NOT_DERIVED] or problems:
        place, said = place_of(problem["loc"]), said_of(problem)
        got = "" if problem["type"] in UNSHOWN else f" (got {_shown(problem['input'])})"
        whole = f"{place}: {said}{got}" if place else said
        complaints.append((place, said, whole))
    place, said, _ = complaints[0]
    details = "; ".join(whole for _, _, whole in complaints)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__.strip("_")).lower()
    which = "these" if name.endswith("s") else "this"
    return InvalidInput(
        f"{which} {name} cannot be used: {details}",
        place=place,
        complaint=said,
        details=details,
    )


def _shown(value: object) -> str:
    try:
        shown = json.dumps(value, default=lambda inner: type(inner).__name__, skipkeys=True)
    except (ValueError, RecursionError):  # it holds itself, or is very deep
        return type(value).__name__
    return shown if len(shown) <= 60 else shown[:57] + "..."


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)
