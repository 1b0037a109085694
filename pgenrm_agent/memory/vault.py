"""The vault: each user's key, and which pseudonym is whose.

What a user wrote or chose is sealed with a key of their own wherever it rests, and the rows that hold it
carry a random pseudonym. Only the vault leads from there to the user. Forgetting somebody ends with
their key: whatever copy of a row is left anywhere can then be neither read nor traced.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pgenrm_agent.errors import MemoryStoreError

NONCE_BYTES = 12
KEY_BYTES = 32
ASKED_AT_ONCE = 500

Value: TypeAlias = str | bytes
Answer: TypeAlias = list[tuple[Value | None, ...]]


@dataclass(frozen=True)
class UserKey:
    """A user's key, which seals their texts and names their rows.

    pseudonym: what rows carry instead of the user id. secret: two keys, one to seal and one to name.
    """

    user_id: str
    pseudonym: str
    secret: bytes = field(repr=False)

    def seal(self, text: str, place: str) -> str:
        """Return the text as only this key opens it, and at this place alone (such as a row's id).

        The same text at the same place is sealed alike: what a node of a graph gives again is the same.
        So the nonce follows from both, and never serves for two contents.
        """
        nonce = bytes.fromhex(self.name("nonce", place, text))[:NONCE_BYTES]
        sealed = self._cipher.encrypt(nonce, text.encode(), place.encode())
        return base64.b64encode(nonce + sealed).decode("ascii")

    def open(self, sealed: str, place: str) -> str:
        """Return what was sealed at this place.

        Raises:
            ValueError: It was sealed with another key or at another place, or was changed.
        """
        content = base64.b64decode(sealed, validate=True)
        nonce, rest = content[:NONCE_BYTES], content[NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, rest, place.encode()).decode()
        except InvalidTag:
            raise ValueError("it was sealed with another key, or changed") from None

    def name(self, *parts: str) -> str:
        """Return a name for what `parts` say: always the same, and nobody without the key can guess it."""
        said = json.dumps(parts).encode()
        return hmac.digest(self.secret[KEY_BYTES:], said, hashlib.sha256).hex()

    @cached_property
    def _cipher(self) -> AESGCM:
        return AESGCM(self.secret[:KEY_BYTES])


def new_key(user_id: str) -> UserKey:
    """Return a key that nobody has yet."""
    return UserKey(user_id, secrets.token_hex(16), os.urandom(2 * KEY_BYTES))


class Vault(ABC):
    """The keys of one memory's users. Safe to use from several threads.

    Every method raises MemoryStoreError when the keys cannot be read or written.

    Attributes:
        where: The file or the database, for messages.
        id: A random name; the memory notes which vault it was made with.
    """

    where: str
    id: str

    # --- reading ---

    def key_of(self, user_id: str) -> UserKey | None:
        """Return the user's key; None for somebody of whom nothing is known."""
        return self.keys_of([user_id]).get(user_id)

    def keys_of(self, user_ids: Iterable[str]) -> dict[str, UserKey]:
        """Return the keys by user id, of those who have one."""
        return {key.user_id: key for key in self._keys("user_id", set(user_ids))}

    def keys_behind(self, pseudonyms: Iterable[str]) -> dict[str, UserKey]:
        """Return the keys by pseudonym; those of forgotten users are missing."""
        return {key.pseudonym: key for key in self._keys("pseudonym", set(pseudonyms))}

    def everybody(self) -> list[UserKey]:
        """Return everybody's key."""
        return _keys_in(self._run("SELECT user_id, pseudonym, secret FROM pgenrm_users"))

    # --- writing ---

    def keys_for(self, user_ids: Iterable[str]) -> dict[str, UserKey]:
        """Return the keys by user id, made where there was none; made keys outlive a kill from here on."""
        wanted = set(user_ids)
        keys = self.keys_of(wanted)
        if missing := sorted(wanted - keys.keys()):
            made = map(new_key, missing)
            self._insert([(key.user_id, key.pseudonym, key.secret) for key in made])
            keys |= self.keys_of(missing)  # another process may have been faster
        return keys

    def remove(self, user_id: str) -> None:
        """Delete a user's key, and with it whose pseudonym it was."""
        self._run("DELETE FROM pgenrm_users WHERE user_id = ?", user_id)

    @abstractmethod
    def writing(self, *, alone: bool) -> AbstractContextManager[object]:
        """Keep other processes from forgetting somebody while rows of them are written.

        alone: to forget, while nobody else writes.
        """

    def bind(self, memory: str) -> None:
        """Serve this memory alone, from the first one on.

        Raises:
            MemoryStoreError: The keys are another memory's.
        """
        self._run("UPDATE pgenrm_vault SET memory = ? WHERE memory IS NULL", memory)
        ((bound,),) = self._run("SELECT memory FROM pgenrm_vault")
        if bound != memory:
            raise MemoryStoreError(
                f"the keys in {self.where} belong to another memory; forgetting somebody here would "
                "leave their rows there: give each memory a vault of its own"
            )

    @abstractmethod
    def close(self) -> None:
        """Close the file or the connections. Calling it again does nothing."""

    # --- inside ---

    @abstractmethod
    def _run(self, statement: str, *values: Value) -> Answer:
        """Run one SQL statement with `?` for each value, and return its rows."""

    @abstractmethod
    def _insert(self, rows: Sequence[tuple[Value, ...]]) -> None:
        """Insert keys, all or none; whoever has one keeps it."""

    def _keys(self, column: str, values: Collection[str]) -> Iterator[UserKey]:
        every = list(values)
        for start in range(0, len(every), ASKED_AT_ONCE):
            some = every[start : start + ASKED_AT_ONCE]
            marks = ", ".join("?" * len(some))
            yield from _keys_in(
                self._run(
                    f"SELECT user_id, pseudonym, secret FROM pgenrm_users WHERE {column} IN ({marks})",
                    *some,
                )
            )


SCHEMA = (
    "CREATE TABLE IF NOT EXISTS pgenrm_vault "
    "(number INTEGER PRIMARY KEY, vault TEXT NOT NULL, memory TEXT)",
    "CREATE TABLE IF NOT EXISTS pgenrm_users "
    "(user_id TEXT PRIMARY KEY, pseudonym TEXT NOT NULL UNIQUE, secret {bytes} NOT NULL)",
)
INSERT_VAULT = "INSERT INTO pgenrm_vault VALUES (1, ?, NULL) ON CONFLICT DO NOTHING"
INSERT_KEY = "INSERT INTO pgenrm_users VALUES (?, ?, ?) ON CONFLICT DO NOTHING"


def _keys_in(rows: Answer) -> list[UserKey]:
    return [
        UserKey(str(user_id), str(pseudonym), secret)
        for user_id, pseudonym, secret in rows
        if isinstance(secret, bytes)
    ]
