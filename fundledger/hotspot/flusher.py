"""Early lock release: a batch that locks commits without waiting for the disk, and is answered after a flush.

A batch that commits with `synchronous_commit=off` frees its row locks at once, for whoever waits for them. The flusher
makes synchronous commits on connections of its own, a few at a time, since one that comes while the disk is busy goes
with the next. The write-ahead log is ordered, so when such a commit is durable (on a synchronous standby too, where
there is one), so is everything that had committed before it began, in this worker and in all others. Nothing is
answered before. If the machine fails in between, what was not answered may be gone, and nothing that was answered can
depend on it (ADR 0013).
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
from fundledger.ledger.session import Commits, Connection, Statement, connect

SQL: Final = load("fundledger.hotspot")
CONNECTIONS: Final = 3
FLUSH_S: Final = 60.0
Then = Callable[[bool], None]
"""Called once: with True when all that was committed before is durable, with False when nobody knows."""

_log = logging.getLogger(__name__)


class Flusher:
    """One for all lanes of a worker. To `commits` it tells how long each flush took, for whoever takes that away."""

    def __init__(self, dsn: str, name: str, commits: Commits | None = None) -> None:
        self._commits: Commits = deque(maxlen=0) if commits is None else commits
        self._waiting: list[Then] = []
        self._idle: list[_Connection] = [_Connection(dsn, f"{name}.{i}") for i in range(CONNECTIONS)]
        self._all = list(self._idle)
        self._flushing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Connect. What was committed before cannot be vouched for."""
        for connection in self._all:
            await connection.open()

    def after(self, then: Then) -> None:
        """Call back when what is committed now is durable."""
        self._waiting.append(then)
        if self._idle and len(self._waiting) == 1:
            # Whatever else was committed in this turn of the loop goes with it.
            asyncio.get_running_loop().call_soon(self._start)

    async def flush(self) -> bool:
        """Wait until what is committed now is durable; False when that cannot be known."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def then(durable: bool) -> None:
            if not future.done():
                future.set_result(durable)

        self.after(then)
        return await future

    async def close(self) -> None:
        """After the last one was called back."""
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
                _log.exception("an answer could not be delivered")


class _Connection:
    """Its flush says something only about what was committed while it was open: a server that was restarted, or another
    that took over, may have lost what was committed before, and flushes all the same.
    """

    def __init__(self, dsn: str, name: str) -> None:
        self._dsn = dsn
        self._name = name
        self._connection: Connection | None = None
        self._statement: Statement | None = None

    async def open(self) -> None:
        """Raises what asyncpg raises."""
        self._connection = await connect(self._dsn, self._name, command_timeout=FLUSH_S)
        self._statement = await self._connection.prepare(SQL["flush"])

    async def flush(self) -> bool:
        """Whether all that was committed before is durable. Never raises."""
        try:
            if self._statement is None or self._connection is None or self._connection.is_closed():
                await self.open()
                return False
            await self._statement.fetch()
        except (*PASSING, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            _log.warning("what was committed could not be flushed: %s", error)
            await asyncio.sleep(random.uniform(0.02, 0.2))  # noqa: S311 - jitter
        except Exception:
            _log.critical("flushing failed", exc_info=True)
        else:
            return True
        if self._connection is not None:
            self._connection.terminate()
        self._connection = self._statement = None
        return False

    async def close(self) -> None:
        if self._connection is not None and not self._connection.is_closed():
            await self._connection.close(timeout=5)
