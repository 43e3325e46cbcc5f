"""Buffer drainer of hot accounts: the background job that posts buffered credits in ordinary ledger batches.

The backlog is the number of buffered credits and the age of the oldest credit. The lease owner reads the backlog
several times a second, and drains the accounts with the oldest credits first. In addition, each worker reads the
backlog once a second (`hotspot.follower`). While the backlog is too large or too old, the worker posts credits directly
instead of buffering them. The worker buffers credits again when the number and the age are both at most half of their
limits. If the lease owner dies, the next lease owner drains the remaining credits within a second.
"""

import logging
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

import asyncpg
import msgspec

from fundledger.hotspot.rebalancer import SQL
from fundledger.jobs.job import Job, Lease, Ran
from fundledger.ledger.context import Books
from fundledger.ledger.model import clock
from fundledger.ledger.model.batch import Drain, Outcome
from fundledger.ledger.posting import post_vouchers
from fundledger.ledger.store.directory import AccountTampered
from fundledger.ledger.store.session import FencedSession
from fundledger.security.keys import KeyFault

BUFFER_DRAINER: Final = "buffer_folder"
EVERY_S: Final = 0.1
LEASE_S: Final = 0.8
"""Duration (s) of the job lease. The lease owner renews the lease four times in this duration. If the lease owner dies,
another process drains the buffer within a second."""
ALARM_S: Final = 30.0
ACCOUNTS_AT_ONCE: Final = 50
ROWS_AT_ONCE: Final = 10_000
"""Approximate maximum number of credits in one transaction. Verifying 10,000 credits takes 40 to 80 ms. During this
time the event loop cannot renew the lease."""
LAGS: Final = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1, 2, 5, 10, 30, 60)
"""Upper bounds (s) of the histogram of waits. A wait is the time from the acceptance of a credit until it is
drained."""
_log = logging.getLogger(__name__)


class Waiting(msgspec.Struct, frozen=True):
    """The backlog of one account: the number of buffered credits, and the time (us) when the oldest was accepted."""

    account_number: int
    rows: int
    oldest_us: int


class Drained(msgspec.Struct):
    """Counters of a process since its start, and the current backlog.

    - `drains`: the number of times that an account was drained; `drained`: the number of drained credits
    - `rows`, `lag_s`: the current number of buffered credits, and the age of the oldest credit
    - `direct`: 1 while the worker posts credits directly because of the backlog
    - `waits[i]`: the number of drained credits that waited at most `LAGS[i]` and longer than the bound before; the last
      element counts all longer waits
    - `waited_s`: the sum of all waits
    """

    drains: int = 0
    drained: int = 0
    rows: int = 0
    lag_s: float = 0.0
    direct: int = 0
    waits: list[int] = msgspec.field(default_factory=lambda: [0] * (len(LAGS) + 1))
    waited_s: float = 0.0

    def add(self, other: "Drained") -> None:
        """Add the counters of another worker.

        Keep the larger backlog, because all workers read the same buffer.
        """
        self.drains += other.drains
        self.drained += other.drained
        self.rows = max(self.rows, other.rows)
        self.lag_s = max(self.lag_s, other.lag_s)
        self.direct += other.direct
        self.waits = [a + b for a, b in zip(self.waits, other.waits, strict=True)]
        self.waited_s += other.waited_s


class BufferDrainer:
    """The buffer drainer of one process.

    The worker of this process posts credits directly while there are more than `rows_max` buffered credits, or while
    the oldest credit is older than `lag_max_s`.
    """

    def __init__(
        self, dsn: str, pool: "asyncpg.Pool[asyncpg.Record]", books: Books, rows_max: int, lag_max_s: float
    ) -> None:
        self._pool = pool
        self._books = books
        self._rows_max = rows_max
        self._lag_max_s = lag_max_s
        self._session = FencedSession(dsn, f"fundledger drain {books.ordinal}")
        self._stuck: set[int] = set()
        self.counted = Drained()

    def job(self) -> Job:
        return Job(BUFFER_DRAINER, self.run, EVERY_S, LEASE_S, ALARM_S, self.stop)

    async def run(self, lease: Lease) -> Ran:
        """Drain the backlog. Raises LeaseLost, asyncpg errors. A retry is always safe."""
        self._session.lease = lease
        before = self.counted.drained
        waiting = sorted(await self.read_backlog(), key=lambda w: w.oldest_us)
        await self._drain(waiting)
        drained = self.counted.drained - before
        more = drained > 0 and any(w.rows > ROWS_AT_ONCE for w in waiting)
        return Ran(drained, self.counted.lag_s, more)

    def stop(self) -> None:
        """Drop the connections.

        Clear the set of accounts that could not be drained, so that a later run retries them.
        """
        self._stuck.clear()
        self._session.drop()

    async def read_backlog(self) -> list[Waiting]:
        """Return the backlog of each account. Start or stop buffering in this worker as needed.

        Raises asyncpg errors.
        """
        rows = await self._pool.fetch(SQL["backlog"])
        waiting = [Waiting(row["account_number"], row["waiting"], clock.us(row["oldest"])) for row in rows]
        waiting = [w for w in waiting if w.account_number not in self._stuck]
        self._watch(waiting)
        return waiting

    def _watch(self, waiting: Sequence[Waiting]) -> None:
        counted = self.counted
        counted.rows = sum(w.rows for w in waiting)
        oldest = min((w.oldest_us for w in waiting), default=clock.now_us())
        counted.lag_s = max(0.0, (clock.now_us() - oldest) / 1e6)
        share = 1.0 if self._books.buffering else 0.5
        may = counted.rows <= share * self._rows_max and counted.lag_s <= share * self._lag_max_s
        if may != self._books.buffering:
            event = "buffering_resumed" if may else "buffering_suspended"
            extra = {"event": event, "rows": counted.rows, "lag_s": round(counted.lag_s, 3)}
            _log.warning(
                "buffering resumed" if may else "buffer backlog above its limit: posting directly", extra=extra
            )
        self._books.buffering = may
        counted.direct = int(not may)

    async def _drain(self, waiting: Sequence[Waiting]) -> None:
        for numbers in _groups(waiting):
            commands = []
            for number in numbers:
                try:
                    found = await self._books.directory.by_number(self._pool, [number])
                except (AccountTampered, KeyFault) as error:
                    # The credits of the other accounts are still drained. This account is retried under the next lease.
                    self._stuck.add(number)
                    extra = {"event": "integrity_finding", "account_number": number, "once": f"drain {error}"}
                    _log.critical("buffered credits of an account are not drained: %s", error, extra=extra)
                    continue
                commands += [Drain(account, ROWS_AT_ONCE) for account in found.values()]
            if commands:
                self._count(await post_vouchers(self._session, self._books, commands))

    def _count(self, outcomes: Sequence[object]) -> None:
        now = clock.now_us()
        for outcome in outcomes:
            if not isinstance(outcome, Outcome) or outcome.refusal is not None:
                _log.warning("draining buffered credits failed: %s", outcome, extra={"event": "buffer_drain_failed"})
                continue
            for accepted_us in outcome.drained or ():
                waited = (now - accepted_us) / 1e6
                self.counted.waited_s += waited
                self.counted.waits[bisect_left(LAGS, waited)] += 1
            self.counted.drains += bool(outcome.drained)
            self.counted.drained += len(outcome.drained or ())


def _groups(waiting: Sequence[Waiting]) -> Iterator[list[int]]:
    """Yield groups of account numbers. Each group is drained in one transaction."""
    group: list[int] = []
    rows = 0
    for w in waiting:
        if group and (len(group) == ACCOUNTS_AT_ONCE or rows + w.rows > ROWS_AT_ONCE):
            yield group
            group, rows = [], 0
        group.append(w.account_number)
        rows += w.rows
    if group:
        yield group
