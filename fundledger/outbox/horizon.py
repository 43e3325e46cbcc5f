"""Up to which seq an outbox can be read so that nothing is missed.

A seq is drawn before its transaction commits. So a row with seq 7 may become visible after one with seq 8, and a reader
that went on behind 8 has lost it. What is needed is a seq up to which nothing can come any more:

1. Read L, the last seq that was drawn.
2. Then let the database give this reader a transaction id X.
3. Once no transaction of this database with an id before X runs any more, all up to L is settled: visible, or rolled
   back.

For: whoever drew a seq up to L did so before 1. He had his transaction id by then (the column's default asks for the id
first), so his id is before X, which was given in 2. In 3 all transactions with ids before X have ended. The `xmax` of a
snapshot would not do for X: it is the one after the last id that has *ended*, and who runs may have a greater one.

For 3 the `xmin` of a snapshot is looked at first. It is that of the whole server, so a transaction that is open in
another database holds it back. Where it is before X, the transactions of this database are looked at one by one: first
those of connections, then those that are prepared (two-phase commit). In this order none is missed: a transaction is
listed as prepared before its connection lists it no more, and a prepared one never becomes a connection's again. The
two lists are no snapshot, and need not be: a transaction that began to run before X was given, and is in neither when
each is read, has ended.

A row may be visible before it is durable (`synchronous_commit = off`), and gone after a crash; its seq may then be
drawn again. So when 3 is met, the end of the log is read, which is after the commits of all that had ended; and nothing
is told before the log has been flushed that far: by whoever commits meanwhile, else by the next look itself.

A sample is only good on the connection on which it was taken: after a crash ids may be given again, too.

A transaction that is open for long and has written something holds up the feeds of its database, and nothing else
(`lag_s`). Each sample uses up a transaction id, and none is taken while nothing was drawn.
"""

import logging
import time
from collections.abc import Iterable
from typing import Final

import asyncpg

from fundledger.database.statements import load

SQL: Final = load("fundledger.outbox")
FUND: Final = "fund"
LEDGER: Final = "ledger"
RECENT_S: Final = 10.0
_log = logging.getLogger(__name__)


class Horizon:
    """One a process and outbox. `of` is FUND or LEDGER. `safe`: all up to there can be read, for ever."""

    def __init__(self, dsn: str, of: str, name: str) -> None:
        self._dsn = dsn
        self._drawn = SQL[f"drawn_{of}"]
        self._sample = SQL[f"sample_{of}"]
        self._name = f"fundledger {name}"[:63]
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._upto = 0
        self._before: int | None = None
        self._written: int | None = None
        self._since: float | None = None
        self._looked_at = 0.0
        self.safe = 0

    @property
    def lag_s(self) -> float:
        """For how long, in seconds, something has been drawn that cannot be read yet; 0 when all can, by the last look.

        It grows while a transaction of this database stays open, and while the database is away. 0 when nothing has
        looked for RECENT_S.
        """
        now = time.monotonic()
        return 0.0 if self._since is None or now - self._looked_at > RECENT_S else now - self._since

    async def look(self) -> bool:
        """Look once; whether all that had been drawn before this look is safe. Not for concurrent use.

        Raises what asyncpg raises; the next look connects again. `safe` never falls.
        """
        self._looked_at = time.monotonic()
        try:
            connection = await self._open()
            if self._pending() and not await self._settle(connection):
                return False
            if int(await connection.fetchval(self._drawn)) <= self.safe:
                self._since = None
                return True
            self._since = self._since or time.monotonic()
            row = await connection.fetchrow(self._sample)
            assert row is not None
            self._upto, self._before = row["drawn"], row["xid"]
            return await self._settle(connection)
        except BaseException:
            self.close()
            raise

    def _pending(self) -> bool:
        return self._before is not None or self._written is not None

    async def _settle(self, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        row = await connection.fetchrow(SQL["settled"])
        assert row is not None
        if self._before is not None:
            if row["xmin"] < self._before:
                if not await self._have_ended(connection, self._before):
                    return False
                # The end of the log has to be read after the last of them has ended.
                row = await connection.fetchrow(SQL["settled"])
                assert row is not None
            self._written, self._before = row["written"], None
            if row["flushed"] < self._written:
                # The next commit of anybody flushes it, most likely before the next look.
                return False
        if self._written is None:
            return False
        if row["flushed"] < self._written:
            await connection.execute(SQL["flush"])
        self._written = None
        self.safe = max(self.safe, self._upto)
        self._since = None
        return True

    async def _have_ended(self, connection: "asyncpg.Connection[asyncpg.Record]", before: int) -> bool:
        """Whether no transaction of this database runs that has an id before this one. Two statements: each has to see
        what there is when the one before it has ended.
        """
        for statement in ("running", "prepared"):
            ids = (row["xid"] for row in await connection.fetch(SQL[statement]))
            if any_precedes(ids, before):
                return False
        return True

    async def _open(self) -> "asyncpg.Connection[asyncpg.Record]":
        if self._connection is None or self._connection.is_closed():
            self._before = self._written = None
            settings = {"application_name": self._name, "jit": "off", "synchronous_commit": "on"}
            self._connection = await asyncpg.connect(
                self._dsn, server_settings=settings, timeout=10, command_timeout=10
            )
        return self._connection

    def close(self) -> None:
        """Give up the connection; the next look opens another one."""
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None
        self._before = self._written = None


def any_precedes(ids: Iterable[int], before: int) -> bool:
    """Whether one of the transaction ids (their lower 32 bits) is before `before` (all 64 bits of one).

    Ids that can be in use at the same time are less than 2^31 apart.
    """
    return any((one - before) & 0xFFFF_FFFF >= 0x8000_0000 for one in ids)
