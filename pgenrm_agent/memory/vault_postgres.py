"""A vault in PostgreSQL: the keys of a memory that several machines share."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pgenrm_agent.errors import MemoryStoreError
from pgenrm_agent.extras import require
from pgenrm_agent.memory.vault import INSERT_KEY, INSERT_VAULT, SCHEMA, Answer, Value, Vault

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool

LOCK = int.from_bytes(b"pgenrm")
PATIENCE_S = 30


class PostgresVault(Vault):
    """Keys in a PostgreSQL database, or in the schema that its URL names. Nothing is kept in memory.

    Writers hold a shared lock of the database, and who forgets somebody the exclusive one. A lock ends
    with its process.
    """

    def __init__(self, url: str) -> None:
        require("keeping keys in PostgreSQL", "psycopg", "psycopg_pool", extra="postgres")
        from psycopg import connect
        from psycopg_pool import ConnectionPool

        address = urlsplit(url)
        self.where = f"the PostgreSQL database {address.path.strip('/') or address.hostname}"
        self._pool: ConnectionPool = ConnectionPool(
            url,
            min_size=1,
            max_size=16,
            timeout=PATIENCE_S,
            open=False,
            check=ConnectionPool.check_connection,
            kwargs={"autocommit": True},
        )
        try:
            with self._reported("opened"):
                # A pool tries for as long as it may, and does not say what was in its way.
                connect(url).close()
                self._pool.open(wait=True, timeout=PATIENCE_S)
            with self.writing(alone=True):  # two processes may meet here
                for statement in SCHEMA:
                    self._run(statement.format(bytes="BYTEA"))
                self._run(INSERT_VAULT, secrets.token_hex(16))
                ((name,),) = self._run("SELECT vault FROM pgenrm_vault")
        except BaseException:
            self._pool.close()
            raise
        self.id = str(name)

    @contextmanager
    def writing(self, *, alone: bool) -> Iterator[None]:
        """See `Vault`."""
        function = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
        with self._reported("locked"):
            holding = self._pool.getconn()
        try:
            with self._reported("locked"), holding.transaction():
                holding.execute(f"SELECT {function}(%s)", (LOCK,))
                yield
        finally:
            self._pool.putconn(holding)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def _run(self, statement: str, *values: Value) -> Answer:
        with self._reported("read or written"), self._pool.connection() as connection:
            cursor = connection.execute(statement.replace("?", "%s"), values)
            return cursor.fetchall() if cursor.description else []

    def _insert(self, rows: Sequence[tuple[Value, ...]]) -> None:
        with (
            self._reported("written"),
            self._pool.connection() as connection,
            connection.transaction(),
        ):
            connection.cursor().executemany(INSERT_KEY.replace("?", "%s"), rows)

    @contextmanager
    def _reported(self, doing: str) -> Iterator[None]:
        import psycopg
        from psycopg_pool import PoolClosed, PoolTimeout

        try:
            yield
        except (psycopg.Error, PoolClosed, PoolTimeout) as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise MemoryStoreError(
                f"the keys in {self.where} cannot be {doing} ({said}): check the URL and that "
                "PostgreSQL is running"
            ) from error
