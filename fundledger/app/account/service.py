"""State of one account-service worker that its HTTP handlers share: lanes, database reads, accounts, jobs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import asyncpg
import msgspec

from fundledger.app.account.jobs.table import Context
from fundledger.app.account.metrics import Metrics, Snapshot
from fundledger.app.http.problems import unverified
from fundledger.app.http.wire.reply import Reply
from fundledger.app.http.worker import Worker, again
from fundledger.app.http.worker_stats import set_gauges
from fundledger.database.statements import load
from fundledger.faults import Fault, Unavailable
from fundledger.hotspot.direct import Direct
from fundledger.hotspot.flusher import Flusher
from fundledger.hotspot.follower import Follower
from fundledger.hotspot.lane import Lane
from fundledger.jobs.runner import JobRunner
from fundledger.ledger.context import Books
from fundledger.ledger.model.batch import Command, Outcome
from fundledger.ledger.store.accounts import NewAccount, Opened, open_accounts
from fundledger.ledger.store.directory import AccountTampered
from fundledger.ledger.store.evidence import Found, write_findings
from fundledger.ledger.store.integrity import Tampered, record_finding
from fundledger.outbox.feed import Feed
from fundledger.ratelimit.quota.limiter import Limiter
from fundledger.security.tokens import Tokens
from fundledger.settings import Settings

SQL: Final = load("fundledger.app.account")
_log = logging.getLogger(__name__)
T = TypeVar("T")
DURABLE_ATTEMPTS = 4
FUND_MODULE: Final = "fund"
"""The module of the fund service. The fund service limits the rate of orders itself, and stores the intent of each
order before it sends the voucher.
"""


class Service(Worker):
    """One worker of the account service."""

    def __init__(
        self,
        settings: Settings,
        books: Books,
        lanes: "list[Lane | Direct]",
        jobs: Context,
        follower: Follower,
        runner: JobRunner,
        flusher: Flusher | None,
        pool: "asyncpg.Pool[asyncpg.Record]",
        tokens: Tokens,
        metrics: Metrics,
        run_dir: Path,
        ordinal: int,
        *,
        limiter: Limiter | None = None,
        feed: Feed,
    ) -> None:
        known = SQL["known_vouchers"]
        super().__init__(
            settings, pool, tokens, metrics, run_dir, ordinal, known=known, limiter=limiter, trusted=FUND_MODULE
        )
        self.layout = books.layout
        self.keys = books.keys
        self.directory = books.directory
        self.lanes = lanes
        self.jobs = jobs
        self.follower = follower
        self.runner = runner
        self.flusher = flusher
        self.metrics = metrics
        self.feed = feed
        self._opening: list[tuple[NewAccount, asyncio.Future[Opened]]] = []
        self._opener: asyncio.Task[None] | None = None

    async def ask(self, shard: int, command: Command) -> Outcome | Fault:
        """Post a command and wait for its outcome. Raises LaneFull. Cancelling does not withdraw the command."""
        future: asyncio.Future[Outcome | Fault] = asyncio.get_running_loop().create_future()

        def answer(_: int, outcome: Outcome | Fault) -> None:
            if not future.done():
                future.set_result(outcome)

        self.lanes[shard].post(command, answer)
        return await future

    async def reading_durable(self, read: Callable[[], Awaitable[T]]) -> T:
        """Run a read, then flush the commits that the read may have seen. So the answer stays true after a crash.

        Raises Unavailable.
        """
        for _ in range(DURABLE_ATTEMPTS):
            answer = await self.reading(read)
            if self.flusher is None or await self.flusher.flush():
                return answer
            # The flush failed, so the commits that the read saw may be lost: read again.
        raise Unavailable("the database does not answer")

    async def reading_verified(self, read: Callable[[], Awaitable[T]]) -> T:
        """Run a read that verifies its rows, then flush the commits that the read may have seen.

        If a row does not verify, store a finding. Raises Unavailable, Tampered.
        """
        try:
            return await self.reading_durable(read)
        except AccountTampered as error:
            found = Tampered.record(error)
        except Tampered as error:
            found = error
        await self.reading(lambda: self.record(found))
        raise found

    async def record(self, found: Tampered) -> None:
        """Store a finding and log it. If repeated reads make the same finding, it is logged once."""
        extra = {"event": "integrity_finding", "account": found.account_id, "once": str(found)}
        _log.critical("rows do not verify and are withheld: %s", found, extra=extra)
        async with self.pool.acquire() as connection:
            await record_finding(connection, self.keys, found)  # type: ignore[arg-type]

    async def unverified(self, kind: str, key: str, wrong: Exception) -> Reply:
        """Store a finding for a voucher or hold that does not verify, and return the reply to the read.

        Only a new finding is logged. Raises Unavailable.
        """
        evidence = msgspec.json.encode({"read": str(wrong)}).decode()

        async def keep() -> int:
            async with self.pool.acquire() as connection, connection.transaction():
                return await write_findings(connection, self.keys, [Found(evidence, kind, key)])  # type: ignore[arg-type]

        if await self.reading(keep):
            _log.critical("%s %s does not verify: %s", kind, key, wrong, extra={"event": "integrity_finding"})
        return unverified(str(wrong))

    async def open_account(self, request: NewAccount) -> Opened:
        """Open an account. One transaction opens the accounts of concurrent requests. Raises Unavailable."""
        future: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
        self._opening.append((request, future))
        if self._opener is None or self._opener.done():
            self._opener = asyncio.get_running_loop().create_task(self._open_waiting())
        try:
            return await future
        finally:
            # Break a reference cycle: the exception of the future refers to this frame.
            del future

    async def _open_waiting(self) -> None:
        while self._opening:
            waiting, self._opening = self._opening[:500], self._opening[500:]
            try:
                opened = await self.reading_durable(lambda w=waiting: self._open([request for request, _ in w]))  # type: ignore[misc]
            except Exception as error:
                for _, future in waiting:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(waiting, opened, strict=True):
                if not future.done():
                    future.set_result(answer)

    async def _open(self, requests: list[NewAccount]) -> list[Opened]:
        async with self.pool.acquire() as connection:
            return await open_accounts(connection, self.directory, self.keys, self.layout, requests)  # type: ignore[arg-type]

    def snapshot(self) -> Snapshot:
        """Return the counters of this worker, with its current gauges."""
        self.metrics.take_commits()
        now = self.metrics.now
        now.waiting = sum(lane.statistics().waiting for lane in self.lanes)
        now.in_flight = sum(lane.statistics().in_flight for lane in self.lanes)
        now.accounts_remembered = len(self.directory)
        now.hot = self.jobs.rebalancer.counted
        now.hot.widened = self.follower.widened
        now.buffer = self.jobs.drainer.counted
        now.jobs = self.runner.counted()
        now.feed_lag_s = self.feed.lag_s
        set_gauges(self, now)
        return now

    async def watch(self) -> None:
        """Run the background tasks of each worker (`Worker.watch`) and the follower of hot accounts."""
        async with asyncio.TaskGroup() as group:
            group.create_task(super().watch())
            group.create_task(again(self.follower.run))

    async def drain(self) -> None:
        """Wait until all accepted requests have been answered."""
        await self.spawned()
        for lane in self.lanes:
            await lane.drain()

    async def close(self) -> None:
        for lane in self.lanes:
            await lane.close()
        if self.flusher is not None:
            await self.flusher.close()
        await self.feed.close()
        await self.jobs.pool.close()
        await self.pool.close()
