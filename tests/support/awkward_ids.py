"""User ids that some door or other once refused, and texts that none may take."""

from __future__ import annotations

USABLE = (
    "auth0|123",
    "用户一",
    "jos\u00e9",
    "ada.lovelace+tests@example.org",
    "3f8a6c1e-52c4-4d8e-9a3b-0d1f5f4f7e21",
    "team/ada",
    "a//b/",
    "/",
    "../../etc/passwd",
    "ada/preferences",
    "ada/consent",
    "100%",
    "a%2Fb",
    "%00",
    "who?",
    "#1",
    "Ada Lovelace",
    "a&b=c;d",
    "a\\b",
    "[red]ada[/red]",
    "{user_id}",
    "'; DROP TABLE users; --",
    '"quoted"',
    "<b>ada</b>",
    "$ne",
    "null",
    "0",
    "-v",
    "@file",
    "\N{FOX FACE}",
    "x" * 256,
)

UNUSABLE = (
    "",
    " ",
    " ada",
    "ada ",
    "a\nb",
    "a\tb",
    "a\0b",
    "a\x1b[31mb",
    "a\u00a0b",
    "a\u200bb",
    "a\u202eb",
    "a\u2028b",
    "a\ud800b",
    "a\ufffdb",
    ".",
    "..",
    "x" * 257,
)

TYPED_ANOTHER_WAY = "jose\u0301"
"""The id "josé" with its accent as a character of its own, as some keyboards and file systems have it."""
