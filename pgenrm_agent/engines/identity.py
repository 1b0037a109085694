"""What tells the model that an engine asks from all others, as one text for caches."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic import JsonValue


def identity(*words: object, **settings: object) -> str:
    """Return the words that are not empty, and a digest of the settings where there are any.

    Secrets, and what is no data, such as clients and callbacks, do not count.
    """
    data = {name: _data(value) for name, value in settings.items()}
    given = {name: value for name, value in data.items() if value not in (None, {}, [])}
    content = json.dumps(given, sort_keys=True)
    digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return " ".join([str(word) for word in words if word] + ([digest] if given else []))


def _data(value: object) -> JsonValue:
    """The data in a value; None for what is none, and for secrets."""
    if isinstance(value, Enum):
        return _data(value.value)
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name, None) for name in type(value).model_fields}
        return _data(fields | (value.model_extra or {}))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _data(vars(value))
    if isinstance(value, Mapping):
        return {str(name): _data(content) for name, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [_data(content) for content in value]
    if isinstance(value, (set, frozenset)):
        return [*sorted(json.dumps(_data(content), sort_keys=True) for content in value)]
    return None
