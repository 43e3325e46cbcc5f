"""Visibility watermark of an outbox: the seq up to which rows can be read without missing a row.

A seq is drawn before its transaction commits. So the row with seq 7 may become visible after the row with seq 8. A
reader that has continued after 8 never reads row 7. The watermark is a seq up to which no further row can appear. It is
found in three steps:

1. Read L, the last drawn seq.
2. Then draw a transaction id X for this reader.
3. Once no transaction of this database with an id before X is running, all seqs up to L are settled: visible, or rolled
   back.

Proof: a transaction that drew a seq up to L drew it before step 1. The column's default draws the transaction id before
the seq, so the transaction had its id by then. X was drawn later, in step 2, so the id of the transaction is before X.
After step 3 all transactions with ids before X have ended. The `xmax` of a snapshot cannot serve as X: `xmax` follows
the greatest id of an *ended* transaction, and a running transaction may have a greater id.

Step 3 reads the `xmin` of a snapshot first. This `xmin` covers the whole server, so an open transaction in another
database holds it back. If `xmin` is before X, step 3 then reads two lists of the open
transactions of this database. The first list has the
transactions that run on connections, the second list has the prepared transactions (two-phase commit). This order
misses no transaction: a transaction is listed as prepared before it disappears from its connection, and a prepared
transaction never returns to a connection. So the two lists need not come from one snapshot: a transaction with an id
before X that is in neither list has ended.

With `synchronous_commit = off`, a row may be visible before it is durable. If a crash loses the row, its seq may be
drawn again. So after step 3 the end of the WAL is read. The commits of all ended transactions are before this end. The
watermark rises only after the WAL is flushed up to this end, by a concurrent commit or by the next call of `look`.

The pair of L and X is a sample. A sample is valid only on its connection, because after a crash transaction ids may be
drawn again, too.

A long transaction that has written something delays the feeds of its database, and nothing else. `lag_s` is this delay.
Each sample uses up a transaction id. If no new seq was drawn, no sample is taken.
"""

import time
from collections.abc import Iterable
from typing import Final

import asyncpg

from fundledger.database.statements import load

SQL: Final = load("fundledger.outbox")
FUND: Final = "fund"
LEDGER: Final = "ledger"
RECENT_S: Final = 10.0


class VisibilityWatermark:
    """The watermark of one outbox in one process. `of`: FUND or LEDGER. `safe`: the watermark, a seq up to which no
    further row can appear.
    """

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
        """The seconds for which a seq that was drawn has been unreadable. 0 if the last call of `look` found no such
        seq.

        The value grows while a transaction of this database stays open, and while the database is unavailable. It is 0
        if `look` was not called for RECENT_S.
        """
        now = time.monotonic()
        return 0.0 if self._since is None or now - self._looked_at > RECENT_S else now - self._since

    async def look(self) -> bool:
        """Update `safe` once. Return whether all seqs that were drawn before this call are safe. Not for concurrent
        use.

        Raises what asyncpg raises; the next call reconnects. `safe` never decreases.
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
                # The end of the WAL has to be read after the last of the transactions has ended.
                row = await connection.fetchrow(SQL["settled"])
                assert row is not None
            self._written, self._before = row["written"], None
            if row["flushed"] < self._written:
                # Do not flush yet: the next commit of any transaction flushes the WAL, most likely before the next
                # call.
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
        """Return whether all transactions of this database with ids before `before` have ended. This takes two queries,
        because the second query has to read the state after the first query has ended.
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
        """Close the connection. The next call of `look` opens another connection."""
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None
        self._before = self._written = None


def any_precedes(ids: Iterable[int], before: int) -> bool:
    """Return whether one of `ids` is before `before`. `ids`: the lower 32 bits of transaction ids. `before`: 64 bits.

    Transaction ids in use at the same time are less than 2^31 apart.
    """
    return any((one - before) & 0xFFFF_FFFF >= 0x8000_0000 for one in ids)
