"""One connection that posts: always inside a transaction, its statements prepared, re-opened after it breaks.

`COMMIT AND CHAIN` opens the next transaction with the commit of the last, so that a batch is three statements. Between
batches the connection is idle in a transaction that holds no snapshot, no lock and no transaction id.
"""

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from fundledger.ledger.statements import SQL

_SETTINGS = {
    # The statements of a lane touch rows by key only. Without statistics (a new table) the planner would scan, and a
    # cached plan would go on scanning when the table has grown.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "0",
    "lock_timeout": "10s",
}

COMMIT = "COMMIT AND CHAIN"
ROLLBACK = "ROLLBACK AND CHAIN"


class Session:
    """Not for concurrent use: one batch at a time."""

    def __init__(self, dsn: str, name: str) -> None:
        self._dsn = dsn
        self._name = name
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self.lock: PreparedStatement[asyncpg.Record]
        self.write: PreparedStatement[asyncpg.Record]

    async def open(self) -> "asyncpg.Connection[asyncpg.Record]":
        """The connection, in a transaction. Raises what asyncpg raises when the database cannot be reached."""
        if self._connection is None or self._connection.is_closed():
            settings = {**_SETTINGS, "application_name": self._name}
            connection = await asyncpg.connect(self._dsn, server_settings=settings, timeout=10)
            self.lock = await connection.prepare(SQL["lock_sub_accounts"])
            self.write = await connection.prepare(SQL["write_batch"])
            await connection.execute("BEGIN")
            self._connection = connection
        return self._connection

    def is_broken(self) -> bool:
        return self._connection is None or self._connection.is_closed()

    async def rollback(self) -> None:
        """Give up what the transaction did; a connection that cannot even do that is dropped."""
        if self._connection is None:
            return
        try:
            await self._connection.execute(ROLLBACK)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            self.drop()

    def drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            await connection.close(timeout=5)
