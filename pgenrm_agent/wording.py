"""Words for people: how many there are, what a value is, and what pydantic sees wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_KINDS = ("str", "int", "float", "bool")
_NEEDED = {
    "missing": "it is missing",
    "extra_forbidden": "there is no such field",
    "string_type": "a text is needed",
    "int_type": "a whole number is needed",
    "int_parsing": "a whole number is needed",
    "int_from_float": "a whole number is needed",
    "float_type": "a number is needed",
    "float_parsing": "a number is needed",
    "finite_number": "a finite number is needed",
    "bool_type": "true or false is needed",
    "bool_parsing": "true or false is needed",
    "list_type": "a list is needed",
    "tuple_type": "a list is needed",
    "dict_type": "an object with fields is needed",
    "mapping_type": "an object with fields is needed",
    "model_type": "an object with fields is needed",
    "model_attributes_type": "an object with fields is needed",
    "is_instance_of": "a {class} is needed",
    "literal_error": "use {expected}",
    "greater_than_equal": "use {ge} or more",
    "greater_than": "use more than {gt}",
    "less_than_equal": "use {le} or less",
    "less_than": "use less than {lt}",
    "string_too_long": "it is longer than {max_length:,} characters",
    "string_too_short": "it is shorter than {min_length:,} characters",
    "too_long": "it has more than {max_length:,} entries",
    "json_invalid": "it is not JSON ({error})",
    "union_tag_not_found": "it has no field {discriminator}",
    "union_tag_invalid": "{discriminator} is '{tag}': use {expected_tags}",
}
_A_TIME = "a date and time is needed, such as 2026-11-28T12:00:00Z"


def plural(noun: str, count: int) -> str:
    """Return the noun as it stands behind the count."""
    if count == 1:
        return noun
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


def counted(count: int, noun: str) -> str:
    """Return how many there are, such as "1 choice" or "1,024 choices"."""
    return f"{count:,} {plural(noun, count)}"


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; its kind where it says nothing."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def kind_of(value: object) -> str:
    """Return the type of a value with its article, such as "an int"."""
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"


def said_of(problem: Mapping[str, Any]) -> str:
    """Return what is wrong, without the place and the value. problem: an entry of pydantic's `errors()`."""
    kind = str(problem["type"])
    context = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in (problem.get("ctx") or {}).items()
    }
    if kind == "too_short":
        least = context["min_length"]
        return (
            "it is empty" if not context.get("actual_length") else f"use {least:,} or more entries"
        )
    if kind.startswith("datetime"):
        return _A_TIME
    try:
        return _NEEDED[kind].format(**context)
    except KeyError:
        return str(problem["msg"]).removeprefix("Value error, ")


def place_of(parts: Iterable[str | int]) -> str:
    """Return where it is wrong, as `candidates.1.text`, without pydantic's names of types in between."""
    return ".".join(
        str(part)
        for part in parts
        if isinstance(part, int) or ("[" not in part and part not in _KINDS)
    )
