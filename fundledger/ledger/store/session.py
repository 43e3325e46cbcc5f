"""Database sessions of the ledger's store. A session consists of the connections and prepared queries of one lane.

A connection that has failed is opened again when it is next needed.

The locking connection is always inside a transaction: `COMMIT AND CHAIN` begins the next transaction. A batch is
therefore three queries: lock and read, write, commit. Between batches the connection is idle in a transaction that has
no snapshot, no locks and no transaction id.

The optimistic path has two other connections, one to read without locks and one to write. Each query on these
connections is a transaction of its own. Reading and writing have separate connections, because the rows of the next
batch are read while the previous batch is written.
"""

import socket
from collections import deque
from typing import TypeAlias

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from fundledger.jobs.job import Lease
from fundledger.ledger.model.account import SubAccount
from fundledger.ledger.store.queries import SQL
from fundledger.ledger.store.write_cache import WriteCache

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Statement: TypeAlias = "PreparedStatement[asyncpg.Record]"
Commits: TypeAlias = deque[tuple[str, float]]
"""Kind and duration (s) of each commit. The kinds are: `commit`, a COMMIT after a write; `write`, a write that is a
transaction of its own; `flush`, a flush of the WAL."""

SETTINGS = {
    # The queries of a lane access rows by key only. Without statistics, as on a new table, the planner would choose a
    # scan, and the cached plan would still scan after the table has grown.
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
    # If the host of a worker fails, the worker's connection and locks end within a minute instead of two hours.
    "tcp_keepalives_idle": "20",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60000",
}

COMMIT = "COMMIT AND CHAIN"
ROLLBACK = "ROLLBACK AND CHAIN"


async def connect(dsn: str, name: str, command_timeout: float | None = None) -> Connection:
    """Return a new connection, which detects a failure of the database host within a minute. Raises asyncpg errors."""
    settings = {**SETTINGS, "application_name": name}
    connection = await asyncpg.connect(dsn, server_settings=settings, timeout=10, command_timeout=command_timeout)
    _notice_a_dead_peer(connection)
    return connection


class Session:
    """The database connections of a lane. One batch at a time is posted on these connections.

    - `memory`: the write cache
    - `widened[number]`: the number of batches that needed more than one slot of this account
    - `unflushed`: True if a commit may not be durable yet; the caller resets this flag
    - `buffering[number]`: the cached slot 0 of this account, which takes buffered credits
    - `commits`: receives the kind and duration of each commit
    """

    def __init__(self, dsn: str, name: str, memory: WriteCache | None = None, commits: Commits | None = None) -> None:
        self._dsn = dsn
        self._name = name
        self._locking: Connection | None = None
        self._unlocked: Connection | None = None
        self._unlocked_write: Statement
        self._reading: Connection | None = None
        self._unlocked_read: Statement
        self.memory = memory or WriteCache()
        self.widened: dict[int, int] = {}
        self.unflushed = False
        self.commits: Commits = deque(maxlen=0) if commits is None else commits
        self.buffering: dict[int, SubAccount] = {}
        self.lock: Statement
        self.write: Statement

    async def open(self) -> Connection:
        """Return the locking connection, in a transaction. Raises asyncpg errors."""
        if self._locking is None or self._locking.is_closed():
            connection = await self._connect(self._name)
            self.lock = await connection.prepare(SQL["lock_sub_accounts"])
            self.write = await connection.prepare(SQL["write_batch"])
            await connection.execute("BEGIN")
            self._locking = connection
        return self._locking

    async def unlocked(self) -> Statement:
        """Return the prepared write query of the optimistic path. Raises asyncpg errors."""
        if self._unlocked is None or self._unlocked.is_closed():
            connection = await self._connect(f"{self._name} (unlocked)")
            self._unlocked_write = await connection.prepare(SQL["write_batch"])
            self._unlocked = connection
        return self._unlocked_write

    async def reading(self) -> Statement:
        """Return the prepared read query of the optimistic path. Raises asyncpg errors."""
        if self._reading is None or self._reading.is_closed():
            connection = await self._connect(f"{self._name} (reading)")
            self._unlocked_read = await connection.prepare(SQL["read_sub_accounts"])
            self._reading = connection
        return self._unlocked_read

    async def _connect(self, name: str) -> Connection:
        return await connect(self._dsn, name)

    def is_broken(self) -> bool:
        return self._locking is None or self._locking.is_closed()

    async def rollback(self) -> None:
        """Roll back the transaction. If the rollback fails, drop the connections."""
        if self._locking is None:
            return
        try:
            await self._locking.execute(ROLLBACK)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            self.drop()

    def drop(self) -> None:
        """Terminate the connections, so that an open transaction cannot be committed later."""
        for connection in (self._locking, self._unlocked, self._reading):
            if connection is not None:
                connection.terminate()
        self._locking = self._unlocked = self._reading = None

    async def close(self) -> None:
        connections = (self._locking, self._unlocked, self._reading)
        self._locking = self._unlocked = self._reading = None
        for connection in connections:
            if connection is not None and not connection.is_closed():
                await connection.close(timeout=5)


class FencedSession(Session):
    """The session of a background job. No transaction of the session commits after the job lease has been lost.

    The caller sets `lease` before posting. All batches are posted under locks, because the optimistic path does not
    check the lease.
    """

    def __init__(self, dsn: str, name: str) -> None:
        super().__init__(dsn, name, WriteCache(0))
        self.lease: Lease

    async def open(self) -> Connection:
        """Return the locking connection, in a transaction that has checked the lease. Raises LeaseLost, asyncpg errors.

        The lease stays locked until the transaction ends.
        """
        connection = await super().open()
        await self.lease.hold(connection)
        return connection


def _notice_a_dead_peer(connection: Connection) -> None:
    """Set keepalives on the socket. Commits have no timeout, so only the socket can detect a failed database host."""
    peer = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
    if peer is None or peer.family == socket.AF_UNIX:
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 60_000)):
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
