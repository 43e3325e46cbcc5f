"""Buffer drainer of hot accounts: posts buffered credits by ordinary batches of the ledger.

Every worker runs one drainer. An advisory lock elects the leader, which reads the backlog several times a second and
drains it account by account. The other drainers read the backlog once a second. Each drainer also decides whether its
own worker may buffer credits: while the backlog is too large or too old, that worker posts credits directly. Buffering
resumes at half of the limits. If the leader dies, the buffered credits remain and the next leader continues.
"""

import asyncio
import logging
import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec

from fundledger.hotspot.rebalancer import SQL
from fundledger.jobs.job import Ran
from fundledger.jobs.tally import Tally
from fundledger.ledger.context import Books
from fundledger.ledger.model import clock
from fundledger.ledger.model.batch import Fold, Outcome
from fundledger.ledger.posting import post_vouchers
from fundledger.ledger.store.directory import AccountTampered
from fundledger.ledger.store.session import Session, connect
from fundledger.security.keys import KeyFault

EVERY_S: Final = 0.1
FOLLOW_EVERY_S: Final = 1.0
ALARM_S: Final = 30.0
ACCOUNTS_AT_ONCE: Final = 50
LAGS: Final = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1, 2, 5, 10, 30, 60)
"""Upper bounds (s) of the histogram of the time between accepting and draining a credit."""
_LEADER = 0x666F6C64  # "fold": key of the advisory lock that the leader holds
_log = logging.getLogger(__name__)


class Waiting(msgspec.Struct, frozen=True):
    """The backlog of one account: number of buffered credits, and when the oldest one was accepted (us)."""

    account_number: int
    rows: int
    oldest_us: int


class Drained(msgspec.Struct):
    """Counters since this drainer started.

    `rows` and `lag_s` are the current backlog and the age of its oldest credit. `waits[i]` counts drained credits that
    waited up to `LAGS[i]`, the last element those that waited longer; `waited_s` is the sum of all waits.
    """

    folds: int = 0
    folded: int = 0
    rows: int = 0
    lag_s: float = 0.0
    direct: int = 0
    waits: list[int] = msgspec.field(default_factory=lambda: [0] * (len(LAGS) + 1))
    waited_s: float = 0.0

    def add(self, other: "Drained") -> None:
        """Add the counters of another worker. The backlog is not summed: all workers see the same buffer."""
        self.folds += other.folds
        self.folded += other.folded
        self.rows = max(self.rows, other.rows)
        self.lag_s = max(self.lag_s, other.lag_s)
        self.direct += other.direct
        self.waits = [a + b for a, b in zip(self.waits, other.waits, strict=True)]
        self.waited_s += other.waited_s


class BufferDrainer:
    """The buffer drainer of one worker.

    With more than `rows_max` buffered credits, or one older than `lag_max_s`, this worker posts directly. Cancelling
    ends `run`.
    """

    def __init__(self, dsn: str, name: str, books: Books, rows_max: int, lag_max_s: float) -> None:
        self._dsn = dsn
        self._name = name
        self._books = books
        self._rows_max = rows_max
        self._lag_max_s = lag_max_s
        self._session = Session(dsn, f"fundledger fold {name}"[:63])
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._leads = False
        self._stuck: set[int] = set()
        self.counted = Drained()
        self.tally = Tally("buffer_folder")

    async def run(self) -> None:
        """Drain repeatedly until cancelled."""
        try:
            while True:
                began = time.monotonic()
                try:
                    await self.tick()
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
                    _log.warning(
                        "buffer drainer: database unreachable: %s",
                        error,
                        extra={"event": "buffer_drainer_disconnected"},
                    )
                    self._failed(error)
                except (AccountTampered, KeyFault) as error:
                    extra = {"event": "integrity_finding", "once": f"folder {error}"}
                    _log.critical("buffer drainer: a record could not be verified: %s", error, extra=extra)
                    self.tally.failed(error)
                except Exception as error:
                    _log.exception("buffer drainer: unexpected error", extra={"event": "buffer_drainer_failed"})
                    self._failed(error)
                every = EVERY_S if self._leads else FOLLOW_EVERY_S
                await asyncio.sleep(max(0.0, every - (time.monotonic() - began)))
        finally:
            self._drop()

    async def tick(self) -> None:
        """Read the backlog, and drain it if this drainer is the leader. Raises what asyncpg raises."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._dsn, f"fundledger buffer {self._name}"[:63], command_timeout=30)
            self._leads = False
        self._leads = self._leads or bool(await self._connection.fetchval(SQL["lead"], _LEADER))
        rows = await self._connection.fetch(SQL["backlog"])
        waiting = [Waiting(row["account_number"], row["waiting"], clock.us(row["oldest"])) for row in rows]
        waiting = [w for w in waiting if w.account_number not in self._stuck]
        self._watch(waiting)
        if self._leads:
            self.tally.started()
            before = self.counted.folded
            await self._fold(self._connection, sorted(waiting, key=lambda w: w.oldest_us))
            self.tally.ran(Ran(self.counted.folded - before, self.counted.lag_s))

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

    async def _fold(self, connection: "asyncpg.Connection[asyncpg.Record]", waiting: Sequence[Waiting]) -> None:
        for start in range(0, len(waiting), ACCOUNTS_AT_ONCE):
            numbers = [w.account_number for w in waiting[start : start + ACCOUNTS_AT_ONCE]]
            commands = []
            for number in numbers:
                try:
                    found = await self._books.directory.by_number(connection, [number])
                except (AccountTampered, KeyFault) as error:
                    # The credits of other accounts are drained. This account is retried on the next connection.
                    self._stuck.add(number)
                    extra = {"event": "buffer_drain_skipped", "account_number": number}
                    _log.critical("buffered credits of an account are not drained: %s", error, extra=extra)
                    continue
                commands += [Fold(account) for account in found.values()]
            if commands:
                self._count(await post_vouchers(self._session, self._books, commands))

    def _count(self, outcomes: Sequence[object]) -> None:
        now = clock.now_us()
        for outcome in outcomes:
            if not isinstance(outcome, Outcome) or outcome.refusal is not None:
                _log.warning("draining buffered credits failed: %s", outcome, extra={"event": "buffer_drain_failed"})
                continue
            for accepted_us in outcome.folded or ():
                waited = (now - accepted_us) / 1e6
                self.counted.waited_s += waited
                self.counted.waits[bisect_left(LAGS, waited)] += 1
            self.counted.folds += bool(outcome.folded)
            self.counted.folded += len(outcome.folded or ())

    def _failed(self, error: Exception) -> None:
        if self._leads:
            self.tally.failed(error)
        self._drop()

    def _drop(self) -> None:
        """Drop the connections. The advisory lock ends with its connection, so another drainer can lead."""
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None
        self._leads = False
        self._stuck.clear()
        self._session.drop()
