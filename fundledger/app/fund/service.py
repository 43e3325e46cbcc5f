"""What every handler of the fund service works with: one worker's desk, its merchants, its reads."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import asyncpg

from fundledger.app.fund.metrics import FundMetrics, FundSnapshot
from fundledger.app.fund.parts import Feed
from fundledger.app.meta import show_gauges
from fundledger.app.problems import UNVERIFIED, BadRequest
from fundledger.app.repeats import Repeats
from fundledger.app.served import AWAY, Worker, again
from fundledger.app.settings import Settings
from fundledger.app.sockets import fund_socket, fund_supervisor_socket
from fundledger.client.account_service import AccountService
from fundledger.client.types import Voucher
from fundledger.daemons.roster import Roster
from fundledger.database.statements import load
from fundledger.fund.desk import Desk
from fundledger.fund.ids import Ids
from fundledger.fund.link import AccountLink, Away, Verdict
from fundledger.fund.macs import OrderMacs, Tampered
from fundledger.fund.merchants import Merchants
from fundledger.fund.posting import Posting
from fundledger.outbox.webhooks import Unverified
from fundledger.ratelimit.limiter import Limiter
from fundledger.security.tokens import Tokens

SQL: Final = load("fundledger.app.fund")
SPACE: Final = "fundledger-fund"
"""Of its buckets in the limiter's store: a payment that passes both services is charged once by each."""
LOOK_EVERY_S: Final = 5.0
Found = TypeVar("Found")
_log = logging.getLogger(__name__)


class MeasuredLink(AccountLink):
    """Counts how many vouchers a call posts, and how long it takes."""

    def __init__(self, accounts: AccountService, metrics: FundMetrics) -> None:
        super().__init__(accounts)
        self._metrics = metrics

    async def post_vouchers(self, vouchers: Sequence[Voucher]) -> list[Verdict | None]:
        began = time.monotonic()
        outcome = "cancelled"
        try:
            verdicts = await super().post_vouchers(vouchers)
            outcome = "answered"
        except Away:
            outcome = "away"
            raise
        finally:
            self._metrics.call(outcome, len(vouchers), time.monotonic() - began)
        return verdicts


class FundService(Worker):
    """One worker's share of the fund service. From `open` to `close`, in the loop that serves."""

    def __init__(
        self,
        settings: Settings,
        pool: "asyncpg.Pool[asyncpg.Record]",
        accounts: AccountService,
        tokens: Tokens,
        run_dir: Path,
        ordinal: int,
        ids: Ids,
        macs: OrderMacs,
        *,
        batch_max: int,
        wait_s: float,
        due_s: float,
        feed: Feed | None = None,
        limiter: Limiter | None = None,
    ) -> None:
        self.metrics = FundMetrics()
        super().__init__(settings, pool, tokens, self.metrics, run_dir, ordinal, limiter=limiter)
        self.feed = feed
        self.link = MeasuredLink(accounts, self.metrics)
        self.macs = macs
        self.merchants = Merchants(pool, self.link, macs)
        self.ids = ids
        self.posting = Posting(pool, self.link, ids, macs)
        self.desk = Desk(pool, self.posting, self.merchants, batch_max=batch_max, wait_s=wait_s, due_s=due_s)
        self.repeats = Repeats(pool, SQL["known_orders"])
        # Runs none: it watches those that others run, so that their silence is told though all of these are gone.
        self.roster = Roster(pool, [], f"fund-{ordinal}", retires=False)
        self._accounts = accounts

    async def reading(self, read: Callable[[], Awaitable[Found]]) -> Found:
        """As of Worker. Raises BadRequest (500) where a row that is read does not match its MAC."""
        try:
            return await super().reading(read)
        except (Tampered, Unverified) as found:
            raise BadRequest(500, "integrity", UNVERIFIED, str(found)) from None

    def socket_path(self) -> Path:
        return fund_socket(self.run_dir, self.ordinal)

    def supervisor_path(self) -> Path:
        return fund_supervisor_socket(self.run_dir)

    async def open(self) -> None:
        """Raises what asyncpg raises. The account service need not be there."""
        await self._accounts.open()
        await self.merchants.look()

    async def watch(self) -> None:
        """As of every worker; and for new fee rules, orders that are not known yet, and daemons that are overdue."""
        async with asyncio.TaskGroup() as group:
            group.create_task(super().watch())
            group.create_task(again(self._watch_merchants))
            group.create_task(again(self._look))
            group.create_task(self.roster.run())
            group.create_task(again(lambda: self.macs.watch(self.pool)))

    async def _watch_merchants(self) -> None:
        try:
            await self.merchants.watch()
        except (*AWAY, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            _log.warning("merchants cannot be looked at: %s", error)
            await asyncio.sleep(1)

    async def _look(self) -> None:
        while True:
            try:
                row = await self.pool.fetchrow(SQL["outstanding"])
                assert row is not None
                self.metrics.now.outstanding, self.metrics.now.outstanding_age_s = row["orders"], row["age_s"]
                self.metrics.now.stuck = row["stuck"]
            except (*AWAY, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                pass
            await asyncio.sleep(LOOK_EVERY_S)

    def snapshot(self) -> FundSnapshot:
        """What this worker has counted, with its gauges as they are now."""
        now = self.metrics.now
        now.posting = self.posting.counted
        now.waiting = self.desk.waiting
        now.daemons = self.roster.counted()
        now.feed_lag_s = 0.0 if self.feed is None else self.feed.lag_s
        show_gauges(self, now)
        return now

    async def drain(self) -> None:
        """Wait until everything accepted has been answered."""
        await self.spawned()
        await self.desk.drain()

    async def close(self) -> None:
        await self._accounts.close()
        await self.pool.close()
