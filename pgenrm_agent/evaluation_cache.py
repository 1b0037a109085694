"""Evaluations kept on disk: the same question about the same person is not paid for twice.

The same are: what is known of the user, query, candidates, conversation, format, model, scaling
and seed. Whatever changes one of them, a new choice of the user for instance, is another evaluation.
An evaluation in which similar users may take part is neither kept nor looked up.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from pgenrm_agent.arguments import model_of, path_of, refuse_other
from pgenrm_agent.errors import ConfigurationError, InvalidInput, MemoryStoreError
from pgenrm_agent.files import private_file
from pgenrm_agent.schema import Evaluation, Usage
from pgenrm_agent.user_ids import valid_user_id

logger = logging.getLogger(__name__)

DAY_S = 86_400.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS evaluations (
    key TEXT PRIMARY KEY, user TEXT NOT NULL, created REAL NOT NULL, content BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_user ON evaluations (user);
CREATE INDEX IF NOT EXISTS by_age ON evaluations (created);
"""


def cache_key(parts: Mapping[str, object]) -> str:
    """Return the key of an evaluation: equal for equal JSON data."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class EvaluationCache:
    """A SQLite file of evaluations, which several processes may share.

    path: the file, made when missing, for its owner alone to read: it holds what users asked.
    max_bytes: most bytes of evaluations kept; beyond, the oldest go.
    max_age_s: seconds after which one is not used any more.

    Raises:
        ConfigurationError: the file cannot be opened or is no such cache, or a number is not above 0.
    """

    def __init__(
        self, path: str | Path, *, max_bytes: int = 256 * 2**20, max_age_s: float = 30 * DAY_S
    ) -> None:
        for name, value in (("max_bytes", max_bytes), ("max_age_s", max_age_s)):
            refuse_other(value, (int, float), name, "a number above 0")
            if not value > 0:
                raise ConfigurationError(f"{name} is {value}: pass more than 0")
        self.path = path_of(path, "path")
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(
                f"{self.path} cannot be used as a cache of evaluations ({error}): name another file"
            ) from error

    def _open(self) -> None:
        private_file(self.path)
        self._file, self._closed = _opened(self.path), False
        self._place = _place(self.path)

    def _current(self) -> sqlite3.Connection:
        """Return the open file; another one where its path leads elsewhere by now, as if it was deleted."""
        if not self._closed and _place(self.path) != self._place:
            self._file.close()
            self._open()
        return self._file

    def get(self, key: str) -> Evaluation | None:
        """Return the evaluation, with no usage; None where there is none that counts."""
        refuse_other(key, str, "key", "a text")
        oldest = time.time() - self._max_age_s
        try:
            with self._lock:
                row = (
                    self._current()
                    .execute(
                        "SELECT content FROM evaluations WHERE key = ? AND created >= ?",
                        (key, oldest),
                    )
                    .fetchone()
                )
            if row is None:
                return None
            evaluation = Evaluation.model_validate_json(row[0])
        except (OSError, sqlite3.Error, InvalidInput) as error:
            logger.warning("the cache %s cannot be read: %s", self.path, error)
            return None
        free = Usage(model=evaluation.usage.model)
        return evaluation.model_copy(update={"usage": free, "cached": True})

    def forgets(self) -> int:
        """Return how often anybody was forgotten in this file, by whatever process; see `put`."""
        try:
            with self._lock:
                return _forgets(self._current())
        except (OSError, sqlite3.Error) as error:
            logger.warning("the cache %s cannot be read: %s", self.path, error)
            return -1

    def put(self, key: str, evaluation: Evaluation, *, forgets: int | None = None) -> None:
        """Keep an evaluation. Those that are too old go, and the oldest beyond `max_bytes`.

        A file that cannot be written costs no evaluation: that is a warning in the log.

        forgets: What `forgets()` was when the evaluation began. Where it is another number now, nothing
            is kept: it may be the evaluation of somebody who was forgotten meanwhile.
        """
        refuse_other(key, str, "key", "a text")
        evaluation = model_of(Evaluation, evaluation, "evaluation")
        user = _hashed(evaluation.request.user_id)
        content = evaluation.model_dump_json().encode()
        try:
            self._put(key, user, content, forgets)
        except (OSError, sqlite3.Error) as error:
            logger.warning("the cache %s cannot be written: %s", self.path, error)

    def _put(self, key: str, user: str, content: bytes, forgets: int | None) -> None:
        now = time.time()
        with self._lock, self._current():
            # Nobody is forgotten between the look and the writing.
            self._file.execute("BEGIN IMMEDIATE")
            if forgets is not None and forgets != _forgets(self._file):
                return
            self._file.execute(
                "INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?, ?)", (key, user, now, content)
            )
            self._file.execute(
                "DELETE FROM evaluations WHERE created < ?", (now - self._max_age_s,)
            )
            self._file.execute(
                "DELETE FROM evaluations WHERE key IN (SELECT key FROM (SELECT key, SUM(LENGTH(content))"
                " OVER (ORDER BY created DESC, key) AS size FROM evaluations) WHERE size > ?)",
                (self._max_bytes,),
            )

    def forget(self, user_id: str) -> int:
        """Remove what was kept about a user; returns how many evaluations that were.

        It works on a closed cache, too: its memory may be open for longer.

        Raises MemoryStoreError where the file cannot be written.
        """
        user = _hashed(valid_user_id(user_id))
        if not self.path.exists():
            return 0
        try:
            with closing(_opened(self.path)) as file, file:
                file.execute("BEGIN IMMEDIATE")
                file.execute(f"PRAGMA user_version = {(_forgets(file) + 1) % 2**31}")
                return file.execute("DELETE FROM evaluations WHERE user = ?", (user,)).rowcount
        except sqlite3.Error as error:
            raise MemoryStoreError(
                f"what the cache {self.path} keeps of a user could not be removed ({error}): make the"
                " file writable, or delete it, and forget them again"
            ) from error

    def close(self) -> None:
        """Close the file. Calling it again does nothing."""
        with self._lock:
            self._closed = True
            self._file.close()


def _place(path: Path) -> tuple[int, int] | None:
    """Return which file is there, whatever it is called."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _opened(path: Path) -> sqlite3.Connection:
    file = sqlite3.connect(path, check_same_thread=False, timeout=30)
    # What a user is forgotten with is overwritten, not left in free pages.
    file.execute("PRAGMA secure_delete = ON")
    file.executescript(_SCHEMA)
    return file


def _forgets(file: sqlite3.Connection) -> int:
    """Return the number that SQLite keeps for applications, which is no row to be deleted with others."""
    ((count,),) = file.execute("PRAGMA user_version")
    return int(count)


def _hashed(user_id: str) -> str:
    return hashlib.sha256(user_id.encode("utf-8", "surrogatepass")).hexdigest()
