"""Up to which seq an outbox can be read so that nothing is missed.

A seq is drawn before its transaction commits. So a row with seq 7 may become visible after one with seq 8, and a reader
that went on behind 8 has lost it. What is needed is a seq up to which nothing can come any more:

1. Read L, the last seq that was drawn.
2. Then let the database give this reader a transaction id X.
3. Once the oldest transaction that still runs is X or later, all up to L is settled: visible, or rolled back.

For: whoever drew a seq up to L did so before 1. He had his transaction id by then (the column's default asks for the id
first), so his id is before X, which was given in 2. In 3 all transactions with ids before X have ended. The `xmax` of a
snapshot would not do for X: it is the one after the last id that has *ended*, and who runs may have a greater one.

A row may be visible before it is durable (`synchronous_commit = off`), and gone after a crash; its seq may then be
drawn again. So when 3 is met, the end of the log is read, which is after the commits of all that had ended; and nothing
is told before the log has been flushed that far: by whoever commits meanwhile, else by the next look itself.

A sample is only good on the connection on which it was taken: after a crash ids may be given again, too.

What is open for long holds up the feed of its server, in whichever database it writes, and nothing else. Each sample
uses up a transaction id, and none is taken while nothing was drawn.
"""

import logging
from typing import Final

import asyncpg

from fundledger.database.statements import load

SQL: Final = load("fundledger.outbox")
FUND: Final = "fund"
LEDGER: Final = "ledger"
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
        self.safe = 0

    async def look(self) -> bool:
        """Look once; whether all that had been drawn before this look is safe. Not for concurrent use.

        Raises what asyncpg raises; the next look connects again. `safe` never falls.
        """
        try:
            connection = await self._open()
            if self._pending() and not await self._settle(connection):
                return False
            if int(await connection.fetchval(self._drawn)) <= self.safe:
                return True
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
        if self._before is not None and row["xmin"] >= self._before:
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
