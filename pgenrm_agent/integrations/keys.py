"""API keys: made here, shown once, kept as hashes, each bound to one tenant."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from filelock import FileLock
from pydantic import StringConstraints, TypeAdapter, ValidationError

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.fields import Model
from pgenrm_agent.files import write_text

# A tenant's name is also the name of its folder, so it holds nothing that a path could mean.
Tenant = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
_TENANT = TypeAdapter[str](Tenant)
PREFIX = "pgenrm_"
KEYS_UNREADABLE = "the server cannot read its keys; its log says how"


class IssuedKey(Model):
    """One key as it is kept. `id` names it to people; `digest` is the SHA-256 of the key, in hex."""

    id: str
    tenant: Tenant
    digest: str
    created_at: datetime


def valid_tenant(name: str) -> str:
    """Return the name itself; raises ConfigurationError for one that cannot be used."""
    try:
        return _TENANT.validate_python(name)
    except ValidationError:
        raise ConfigurationError(
            f"tenant {name!r} cannot be used: take 1 to 63 of a-z, 0-9, _ and -, and start with a "
            "letter or digit"
        ) from None


class KeyRing:
    """The keys in one file (one JSON object a line, readable by its owner only).

    Another process may add and revoke keys meanwhile: a change of the file is seen by the next
    look-up. A missing file holds no keys.

    A plain hash is enough: a key is 256 random bits, so there is nothing to guess that a slow hash
    would protect, and every request has to be looked up.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).expanduser()
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._by_digest: dict[str, IssuedKey] = {}

    def tenant_of(self, key: str) -> str | None:
        """Return whose key this is; None for one that was never issued or is revoked."""
        digest = _digest(key)
        with self._lock:
            self._reread()
            issued = self._by_digest.get(digest)
        return None if issued is None else issued.tenant

    def issued(self) -> list[IssuedKey]:
        """Return all keys in force, in the order they were made."""
        with self._lock:
            self._reread()
            return list(self._by_digest.values())

    def issue(self, tenant: str) -> tuple[str, IssuedKey]:
        """Make a key for `tenant`. The key itself is returned here and kept nowhere."""
        key = PREFIX + secrets.token_urlsafe(32)
        issued = IssuedKey(
            id=secrets.token_hex(4),
            tenant=valid_tenant(tenant),
            digest=_digest(key),
            created_at=datetime.now(UTC),
        )
        with self._changing():
            self._write([*self.issued(), issued])
        return key, issued

    def revoke(self, identity: str) -> IssuedKey:
        """Take the key with this id out of force; raises ConfigurationError when there is none."""
        with self._changing():
            kept = self.issued()
            revoked = [key for key in kept if key.id == identity]
            if not revoked:
                raise ConfigurationError(
                    f"{self.path} has no key {identity!r}: `pgenrm keys list` shows the ids"
                )
            self._write([key for key in kept if key.id != identity])
        return revoked[0]

    def _changing(self) -> FileLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path.with_name(self.path.name + ".lock"), timeout=10)

    def _write(self, keys: list[IssuedKey]) -> None:
        """Replace the file in one step, so that a reader sees the old keys or the new ones."""
        lines = (key.model_dump_json() + "\n" for key in keys)
        write_text(self.path, "".join(lines), private=True)

    def _lines(self) -> list[str]:
        try:
            return self.path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ConfigurationError(
                f"{self.path} is no text ({error}): restore it, or make new keys"
            ) from error

    def _reread(self) -> None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._stamp, self._by_digest = None, {}
            return
        # The inode, too: the file is replaced, perhaps twice within the clock's resolution.
        stamp = status.st_mtime_ns, status.st_size, status.st_ino
        if stamp == self._stamp:
            return
        by_digest: dict[str, IssuedKey] = {}
        for number, line in enumerate(self._lines(), start=1):
            if not line.strip():
                continue
            try:
                issued = IssuedKey.model_validate(json.loads(line))
            except ValueError as error:
                raise ConfigurationError(
                    f"{self.path}, line {number} is no key: {str(error).splitlines()[0]}; mend or "
                    "remove the line"
                ) from error
            by_digest[issued.digest] = issued
        self._stamp, self._by_digest = stamp, by_digest


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
