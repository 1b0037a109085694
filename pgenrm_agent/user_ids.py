"""What a user's id may be: one grammar, for the library, the shell, HTTP, MCP and LangChain."""

from __future__ import annotations

import unicodedata
from numbers import Integral
from uuid import UUID

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.wording import kind_of

MAX_USER_ID = 256
GRAMMAR = (
    f'1 to {MAX_USER_ID} printable characters, with blanks only between others, and not "." or ".."'
)
# A path of a URL cannot name them: clients and proxies read them as folders.
FOLDERS = (".", "..")


def normal_user_id(text: str) -> str:
    """Return the id in Unicode's normal form C, so that "é" is one id however it was typed.

    Raises:
        ValueError: It is no usable id; what is wrong with it.
    """
    normal = unicodedata.normalize("NFC", text)
    unprintable = [character for character in normal if not character.isprintable()]
    if not normal.strip():
        raise ValueError("it is blank")
    if normal != normal.strip():
        raise ValueError("it begins or ends with white space")
    if unprintable:
        raise ValueError(f"it holds {unprintable[0]!a}, which cannot be printed")
    if "\ufffd" in normal:
        raise ValueError("it holds U+FFFD, which stands for bytes that could not be read")
    if normal in FOLDERS:
        raise ValueError(f"a URL cannot name {normal!r}")
    if len(normal) > MAX_USER_ID:
        raise ValueError(f"it has {len(normal)} characters")
    return normal


def valid_user_id(text: object, where: str = "user_id") -> str:
    """Return the id in its normal form.

    Args:
        text: What was given as the id.
        where: What it was given as, which opens the error.

    Raises:
        ConfigurationError: It is no text, or no usable id.
    """
    if not isinstance(text, str):
        raise ConfigurationError(
            f"{where} is {_shown(text)}, {kind_of(text)} and no text: pass the id of a user,"
            f" {GRAMMAR}"
        )
    try:
        return normal_user_id(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{where} {_shown(text)} is no usable id, {error}: use {GRAMMAR}"
        ) from None


def user_id_of(value: object, where: str) -> str:
    """Return the id that an application keeps as a text, a whole number or a UUID.

    Raises:
        ConfigurationError: It is something else, or no usable id.
    """
    numbered = isinstance(value, Integral) and not isinstance(value, bool)
    return valid_user_id(str(value) if numbered or isinstance(value, UUID) else value, where)


def _shown(value: object) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 80 else shown[:80] + "..."
