"""The connections of a lane, their statements prepared, re-opened after they break.

The one that locks is always inside a transaction: `COMMIT AND CHAIN` opens the next with the commit of the last, so
that a batch is three statements (lock and read, write, commit). Between batches it is idle in a transaction that holds
no snapshot, no lock and no transaction id. The other two read without a lock, and write what was decided without one;
each statement is a transaction of its own. They are two because the next batch is read while the last one is written.
"""

import socket
from collections import deque
from typing import TypeAlias

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from fundledger.ledger.account import SubAccount
from fundledger.ledger.memory import Memory
from fundledger.ledger.statements import SQL

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Statement: TypeAlias = "PreparedStatement[asyncpg.Record]"
Commits: TypeAlias = deque[tuple[str, float]]
"""How long (s) each commit took, and what kind it was: `commit` by itself, `write` that commits itself, `flush`."""

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
    # A worker's host that went away: its locks end with its connection, within a minute instead of two hours.
    "tcp_keepalives_idle": "20",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60000",
}

COMMIT = "COMMIT AND CHAIN"
ROLLBACK = "ROLLBACK AND CHAIN"


async def connect(dsn: str, name: str, command_timeout: float | None = None) -> Connection:
    """A connection that notices within a minute when the host of its database is gone. Raises what asyncpg raises."""
    settings = {**_SETTINGS, "application_name": name}
    connection = await asyncpg.connect(dsn, server_settings=settings, timeout=10, command_timeout=command_timeout)
    _notice_a_dead_peer(connection)
    return connection


class Session:
    """Not for concurrent use: one batch at a time. `memory` is what it remembers of its last batches; `widened` counts,
    by account number, those for which one slot of an account was not enough. `unflushed`: something was committed
    that may not be durable yet; whoever flushes it resets this. `buffering` are slots 0 of accounts that were seen to
    take buffered credits. To `commits` it tells how long each commit took, for whoever takes that away.
    """

    def __init__(self, dsn: str, name: str, memory: Memory | None = None, commits: Commits | None = None) -> None:
        self._dsn = dsn
        self._name = name
        self._locking: Connection | None = None
        self._unlocked: Connection | None = None
        self._unlocked_write: Statement
        self._reading: Connection | None = None
        self._unlocked_read: Statement
        self.memory = memory or Memory()
        self.widened: dict[int, int] = {}
        self.unflushed = False
        self.commits: Commits = deque(maxlen=0) if commits is None else commits
        self.buffering: dict[int, SubAccount] = {}
        self.lock: Statement
        self.write: Statement

    async def open(self) -> Connection:
        """The connection that locks, in a transaction. Raises what asyncpg raises when the database is away."""
        if self._locking is None or self._locking.is_closed():
            connection = await self._connect(self._name)
            self.lock = await connection.prepare(SQL["lock_sub_accounts"])
            self.write = await connection.prepare(SQL["write_batch"])
            await connection.execute("BEGIN")
            self._locking = connection
        return self._locking

    async def unlocked(self) -> Statement:
        """The write as a transaction of its own, on a connection of its own. Raises as `open`."""
        if self._unlocked is None or self._unlocked.is_closed():
            connection = await self._connect(f"{self._name} (unlocked)")
            self._unlocked_write = await connection.prepare(SQL["write_batch"])
            self._unlocked = connection
        return self._unlocked_write

    async def reading(self) -> Statement:
        """The read without locks, on a connection of its own. Raises as `open`."""
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
        """Give up what the transaction did; a connection that cannot even do that is dropped."""
        if self._locking is None:
            return
        try:
            await self._locking.execute(ROLLBACK)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            self.drop()

    def drop(self) -> None:
        """Cut the connections: nothing that was not committed can be committed any more."""
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


def _notice_a_dead_peer(connection: Connection) -> None:
    """No timer is armed on a commit, so it is the socket that tells of a database whose host went away."""
    peer = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
    if peer is None or peer.family == socket.AF_UNIX:
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 60_000)):
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
