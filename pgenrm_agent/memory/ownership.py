"""One owner process for an embedded store: a lock that ends with its owner."""

from __future__ import annotations

import os
import socket
import sys
import weakref
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from pgenrm_agent.errors import MemoryStoreError
from pgenrm_agent.files import write_text

LOCK_FILE = "owner.lock"
OWNER_FILE = "owner.json"


class Owner(BaseModel):
    """Who holds the lock: written for people, never used to decide anything."""

    pid: int
    host: str
    started: datetime


class DirectoryLock:
    """Held from `acquire` until `release` or the death of the process, SIGKILL included.

    It belongs to the descriptor (flock): a POSIX record lock would be lost as soon as anything in
    this process closes another descriptor of the file, as a copy of the directory does. A forked
    child closes its copy of the descriptor at once, so a child that outlives its parent does not keep
    the directory locked.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None
        _locks.add(self)

    def acquire(self) -> None:
        """Take the lock or raise MemoryStoreError that names the owner."""
        descriptor = os.open(self._directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise MemoryStoreError(self._taken()) from error
        self._descriptor = descriptor
        owner = Owner(pid=os.getpid(), host=socket.gethostname(), started=datetime.now(UTC))
        write_text(self._directory / OWNER_FILE, owner.model_dump_json())

    def release(self) -> None:
        """Give the lock back, also while a program that is being started has a copy of the descriptor."""
        if self._descriptor is not None:
            _unlock(self._descriptor)
            self.drop()

    def drop(self) -> None:
        """Close a forked child's copy of the descriptor: the lock stays the parent's."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _taken(self) -> str:
        return (
            f"the memory in {self._directory} is in use by {describe_owner(self._directory)}; an "
            "embedded memory has one owner process. If that is `pgenrm serve`, set PGENRM_SERVER to "
            "its address, and ask it. Else close that one, or share the memory through "
            f"a Chroma server: stop that process, run `chroma run --path {self._directory}/chroma "
            "--host 127.0.0.1 --port 8000`, and open UserMemory(url='http://127.0.0.1:8000', "
            f"vault='{self._directory}/vault.sqlite3') in every process"
        )


def describe_owner(directory: Path) -> str:
    """Say which process owns the memory in a folder, and since when."""
    try:
        owner = Owner.model_validate_json((directory / OWNER_FILE).read_bytes())
    except (OSError, ValueError):
        return "another process (it left no name)"
    started = owner.started.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"process {owner.pid} on {owner.host}, which opened it at {started}"


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


_locks: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()


def _forked() -> None:
    for lock in list(_locks):
        lock.drop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
