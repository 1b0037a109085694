"""No part of a key, nor what looks like one, in what is shown of a server's words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit, urlunsplit

HIDDEN = "***"
KEY = re.compile(r"(?:api|access|secret)[ _-]?key|credential|bearer|authenticat", re.IGNORECASE)
_ABOUT_KEY = re.compile(rf"\bkey\b|{KEY.pattern}", re.IGNORECASE)
_MASKED = re.compile(
    # A word is tried from its beginning on only: from each of its letters takes minutes in a long one.
    r"(?:(?<![\w-])[\w-]+)?(?:\*{2,}|•{2,})(?:\.{3,}|…)?[\w-]*|\b[xX]{4,}[\w-]{2,}"
    r"|(?<![\w-])[\w-]+(?:\.{3,}|…)[\w-]+"
    r"|\b(?:sk|rk|pk|gsk|xai|hf|nvapi|ghp)[-_][\w-]{3,}"
)


def without_key(text: str, keys: Iterable[str] = ()) -> str:
    """Return the text without any part of the keys, and without what looks like a masked key.

    The four characters and more at a key's ends may be a word like any: they are left out where the
    text is about a key.
    """
    about_key = _ABOUT_KEY.search(text)
    for key in keys:
        if len(key) < 4:
            continue
        text = text.replace(key, HIDDEN)
        pieces = [key[start : start + 8] for start in range(len(key) - 7)]
        for piece in pieces:
            text = text.replace(piece, HIDDEN)
        sizes = range(4, 8) if about_key else range(0)
        ends = {end for size in sizes for end in (key[:size], key[-size:])}
        for end in sorted(ends, key=len, reverse=True):
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(end)}(?![A-Za-z0-9])", HIDDEN, text)
    return _MASKED.sub(HIDDEN, text)


def without_credentials(url: str) -> str:
    """Return an address without user and password, and without its query, which may hold a key."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))
