"""What tells the model that an engine asks from all others, as one text for caches."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic import JsonValue


DEEPEST = 16
"""Levels of settings within settings that count; one may contain itself."""


def identity(*words: object, **settings: object) -> str:
    """Return the words that are not empty, and a digest of the settings where there are any.

    Secrets, and what is no data, such as clients and callbacks, do not count.
    """
    data = {name: _data(value) for name, value in settings.items()}
    given = {name: value for name, value in data.items() if value not in (None, {}, [])}
    content = json.dumps(given, sort_keys=True)
    digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return " ".join([str(word) for word in words if word] + ([digest] if given else []))


def _data(value: object, depth: int = 0) -> JsonValue:
    """The data in a value; None for what is none, for secrets, and for what lies too deep."""
    if depth > DEEPEST:
        return None
    data = partial(_data, depth=depth + 1)
    if isinstance(value, Enum):
        return data(value.value)
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name, None) for name in type(value).model_fields}
        return data(fields | (value.model_extra or {}))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return data(
            {part.name: getattr(value, part.name, None) for part in dataclasses.fields(value)}
        )
    if isinstance(value, Mapping):
        return {str(name): data(content) for name, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [data(content) for content in value]
    if isinstance(value, (set, frozenset)):
        return [*sorted(json.dumps(data(content), sort_keys=True) for content in value)]
    return None
