"""Decode JSON as models write it."""

from __future__ import annotations

import json


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object, in which a key that stands twice with different values has none of them."""
    members: dict[str, object] = {}
    for key, value in pairs:
        members[key] = value if members.setdefault(key, value) == value else None
    return members


# Models write real line breaks inside strings.
DECODER = json.JSONDecoder(strict=False, object_pairs_hook=unique)
