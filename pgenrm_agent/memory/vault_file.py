"""A vault in a SQLite file: the keys of a memory that one machine uses."""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock

from pgenrm_agent.errors import MemoryStoreError
from pgenrm_agent.files import private_file
from pgenrm_agent.memory.vault import INSERT_KEY, INSERT_VAULT, SCHEMA, Answer, Value, Vault

PATIENCE_S = 30


class FileVault(Vault):
    """Keys in a SQLite file that its owner alone can read, and that keeps nothing of deleted ones.

    path: the file. make: whether it may be made; else a missing or emptied file is refused.
    shared: whether several processes of this machine use it, as with a Chroma server.
    """

    def __init__(self, path: Path, *, make: bool = True, shared: bool = False) -> None:
        self.where = str(path)
        self._lock = threading.Lock()
        self._between = FileLock(f"{path}.lock") if shared else None
        with self._reported("opened"):
            if not make and not (path.exists() and path.stat().st_size):
                raise MemoryStoreError(
                    f"the keys in {path} are gone, and what users wrote and chose is sealed with them:"
                    " restore the file from a backup"
                )
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            private_file(path)
            self._file = sqlite3.connect(
                path, check_same_thread=False, timeout=PATIENCE_S, isolation_level=None
            )
            # A deleted key is overwritten, and a journal with its old page is gone from the folder
            # when the statement returns.
            self._file.execute("PRAGMA secure_delete = ON")
            self._file.execute("PRAGMA journal_mode = DELETE")
            self._file.execute("PRAGMA synchronous = EXTRA")
            for statement in SCHEMA:
                self._file.execute(statement.format(bytes="BLOB"))
        self._run(INSERT_VAULT, secrets.token_hex(16))
        ((name,),) = self._run("SELECT vault FROM pgenrm_vault")
        self.id = str(name)

    def writing(self, *, alone: bool) -> AbstractContextManager[object]:
        """See `Vault`. In one process the store's own lock suffices."""
        return nullcontext() if self._between is None else self._locked(self._between)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def _run(self, statement: str, *values: Value) -> Answer:
        with self._lock, self._reported("read or written"):
            return self._file.execute(statement, values).fetchall()

    def _insert(self, rows: Sequence[tuple[Value, ...]]) -> None:
        with self._lock, self._reported("written"):
            self._file.execute("BEGIN IMMEDIATE")
            try:
                self._file.executemany(INSERT_KEY, rows)
                self._file.execute("COMMIT")
            except BaseException:
                self._file.execute("ROLLBACK")
                raise

    @contextmanager
    def _locked(self, between: FileLock) -> Iterator[None]:
        with self._reported("locked"):
            between.acquire()
        try:
            yield
        finally:
            between.release()

    @contextmanager
    def _reported(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise MemoryStoreError(
                f"the keys in {self.where} cannot be {doing} ({error}): check that the file is "
                "writable and its disk has free space; if it is damaged, restore it from a backup"
            ) from error
