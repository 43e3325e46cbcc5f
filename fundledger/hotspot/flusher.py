"""Early lock release for hot accounts: batches commit without waiting for the disk and are answered after a flush.

A batch that commits with `synchronous_commit=off` releases its row locks immediately. The flusher makes synchronous
commits, called flushes, on its own connections. There are several connections, because commits that arrive while the
disk is busy share the next write. The write-ahead log is ordered: when a synchronous commit is durable, every earlier
commit of any worker is durable too. If there is a synchronous standby, these commits are durable there too. A batch is
answered only after a flush. If the server crashes before the flush, the batch may be lost, but its callers have not
been answered. No answered batch can depend on a lost batch (ADR 0013).
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import asyncpg

from fundledger.database.failures import PASSING
from fundledger.database.statements import load
from fundledger.ledger.store.session import Commits, Connection, Statement, connect

SQL: Final = load("fundledger.hotspot")
CONNECTIONS: Final = 3
FLUSH_S: Final = 60.0
Then = Callable[[bool], None]
"""Callback that is called once, with True if all earlier commits are durable, or with False if their state is
unknown."""

_log = logging.getLogger(__name__)


class Flusher:
    """The WAL flusher for all lanes of a worker.

    The flusher appends the duration of each successful flush to `commits`.
    """

    def __init__(self, dsn: str, name: str, commits: Commits | None = None) -> None:
        self._commits: Commits = deque(maxlen=0) if commits is None else commits
        self._waiting: list[Then] = []
        self._idle: list[_Connection] = [_Connection(dsn, f"{name}.{i}") for i in range(CONNECTIONS)]
        self._all = list(self._idle)
        self._flushing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Open the connections. A flush covers only commits that were made while its connection was open."""
        for connection in self._all:
            await connection.open()

    def after(self, then: Then) -> None:
        """Call `then(True)` when all commits made until now are durable, or `then(False)` if their state is unknown."""
        self._waiting.append(then)
        if self._idle and len(self._waiting) == 1:
            # The flush is deferred, so that it covers all commits of this iteration of the event loop.
            asyncio.get_running_loop().call_soon(self._start)

    async def flush(self) -> bool:
        """Wait until all commits made until now are durable. Return True, or False if their state is unknown."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def then(durable: bool) -> None:
            if not future.done():
                future.set_result(durable)

        self.after(then)
        return await future

    async def close(self) -> None:
        """Wait for the running flushes and their callbacks, then close the connections."""
        while self._flushing:
            await asyncio.wait(self._flushing)
        for connection in self._all:
            await connection.close()

    def _start(self) -> None:
        if self._waiting and self._idle:
            task = asyncio.get_running_loop().create_task(self._flush(self._idle.pop()))
            self._flushing.add(task)
            task.add_done_callback(self._flushing.discard)

    async def _flush(self, connection: "_Connection") -> None:
        waiting, self._waiting = self._waiting, []
        began = time.perf_counter()
        durable = await connection.flush()
        if durable:
            self._commits.append(("flush", time.perf_counter() - began))
        self._idle.append(connection)
        self._start()
        for then in waiting:
            try:
                then(durable)
            except Exception:
                _log.exception("delivering outcomes after a flush failed", extra={"event": "answer_failed"})


class _Connection:
    """A connection that flushes the WAL.

    A flush covers only commits that were made while the connection was open. After a restart of the server or a
    failover to a standby, earlier commits may be lost although a flush succeeds.
    """

    def __init__(self, dsn: str, name: str) -> None:
        self._dsn = dsn
        self._name = name
        self._connection: Connection | None = None
        self._statement: Statement | None = None

    async def open(self) -> None:
        """Connect and prepare the query. Raises asyncpg errors."""
        self._connection = await connect(self._dsn, self._name, command_timeout=FLUSH_S)
        self._statement = await self._connection.prepare(SQL["flush"])

    async def flush(self) -> bool:
        """Flush the WAL. Return True if all earlier commits are durable.

        Return False if their state is unknown. Never raises.
        """
        try:
            if self._statement is None or self._connection is None or self._connection.is_closed():
                await self.open()
                return False
            await self._statement.fetch()
        except (*PASSING, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            _log.warning("WAL flush failed: %s", error, extra={"event": "flush_failed"})
            await asyncio.sleep(random.uniform(0.02, 0.2))  # noqa: S311 - jitter
        except Exception:
            _log.critical("WAL flush: unexpected error", exc_info=True, extra={"event": "flush_failed"})
        else:
            return True
        if self._connection is not None:
            self._connection.terminate()
        self._connection = self._statement = None
        return False

    async def close(self) -> None:
        if self._connection is not None and not self._connection.is_closed():
            await self._connection.close(timeout=5)
