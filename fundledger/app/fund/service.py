"""State of one fund service worker that its HTTP handlers share: order batcher, merchants, database reads."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import asyncpg

from fundledger.app.fund.metrics import FundMetrics, FundSnapshot
from fundledger.app.http.problems import UNVERIFIED, BadRequest
from fundledger.app.http.sockets import fund_socket, fund_supervisor_socket
from fundledger.app.http.worker import AWAY, Worker, again
from fundledger.app.http.worker_stats import set_gauges
from fundledger.client.account_service import AccountService
from fundledger.client.types import Voucher
from fundledger.database.statements import load
from fundledger.fund.account_gateway import AccountGateway, GatewayFault
from fundledger.fund.agreement import Agreement
from fundledger.fund.batcher import OrderBatcher
from fundledger.fund.jobs.payout_funds import PayoutFunds
from fundledger.fund.model.change import ChangeKind
from fundledger.fund.model.ids import Ids
from fundledger.fund.model.person import is_person
from fundledger.fund.model.posting_result import PostingResult
from fundledger.fund.payout_files.export import PayoutFiles
from fundledger.fund.payout_files.results import PayoutResults
from fundledger.fund.poster import Posting
from fundledger.fund.store.changes import Changes
from fundledger.fund.store.channels import Channels, automatic
from fundledger.fund.store.holidays import apply_holidays
from fundledger.fund.store.macs import OrderMacs, Tampered
from fundledger.fund.store.merchant_changes import MerchantChanges
from fundledger.fund.store.merchants import Merchants
from fundledger.fund.store.payees import Payees
from fundledger.fund.store.persons import Persons
from fundledger.jobs.runner import JobRunner
from fundledger.outbox.feed import Feed
from fundledger.outbox.webhooks import Unverified
from fundledger.ratelimit.quota.limiter import Limiter
from fundledger.security.tokens import Tokens
from fundledger.settings import Settings

SQL: Final = load("fundledger.app.fund")
SPACE: Final = "fundledger-fund"
"""Prefix of the fund service's buckets in the rate-limit store. The buckets of the account service are separate."""
LOOK_EVERY_S: Final = 5.0
Found = TypeVar("Found")
_log = logging.getLogger(__name__)


class MeasuredGateway(AccountGateway):
    """Account gateway that measures the size and the duration of each posting call."""

    def __init__(self, accounts: AccountService, metrics: FundMetrics) -> None:
        super().__init__(accounts)
        self._metrics = metrics

    async def post_vouchers(self, vouchers: Sequence[Voucher]) -> list[PostingResult | None]:
        began = time.monotonic()
        outcome = "cancelled"
        try:
            results = await super().post_vouchers(vouchers)
            outcome = "answered"
        except GatewayFault:
            outcome = "away"
            raise
        finally:
            self._metrics.call(outcome, len(vouchers), time.monotonic() - began)
        return results


class FundService(Worker):
    """One worker of the fund service. Call `open` before and `close` after serving, in the same event loop."""

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
        feed: Feed,
        limiter: Limiter | None = None,
    ) -> None:
        self.metrics = FundMetrics()
        known = SQL["known_orders"]
        super().__init__(settings, pool, tokens, self.metrics, run_dir, ordinal, known=known, limiter=limiter)
        self.feed = feed
        self.gateway = MeasuredGateway(accounts, self.metrics)
        self.macs = macs
        self.agreement = Agreement(pool, self.gateway, macs)
        weekend = settings.weekend_days()
        self.merchants = Merchants(pool, self.gateway, macs, weekend=weekend, ensure=self.agreement.ensure)
        self.merchant_changes = MerchantChanges(pool, macs, self.merchants, self.gateway)
        self.persons = Persons(pool, macs)
        self.ids = ids
        self.posting = Posting(pool, self.gateway, ids, macs)
        self.channels = Channels(pool, macs, automatic(settings.channel_urls()))
        cooling = timedelta(hours=settings.payee_cooling_h)
        self.payees = Payees(pool, macs, ids, cooling)
        self.changes = Changes(
            pool,
            macs,
            {
                ChangeKind.CHANNEL: self.channels.apply,
                ChangeKind.PAYEE: self.payees.apply,
                ChangeKind.MERCHANT: self.merchant_changes.apply_patch,
                ChangeKind.FEE_RULE: self.merchant_changes.apply_fee_rule,
                ChangeKind.HOLIDAYS: partial(apply_holidays, macs=macs),
            },
        )
        self.batcher = OrderBatcher(
            pool, self.posting, self.merchants, self.channels, batch_max=batch_max, wait_s=wait_s, due_s=due_s
        )
        funds = PayoutFunds(pool, self.gateway, self.channels)
        self.payout_files = PayoutFiles(pool, macs, self.batcher, self.channels, funds)
        self.payout_results = PayoutResults(pool, macs, self.batcher, wait_s)
        # This runner runs no jobs. It reports overdue jobs even if no background job process runs any more.
        self.runner = JobRunner(pool, [], f"fund-{ordinal}", retires=False)
        self._accounts = accounts

    def module(self, authorization: str | None) -> str | None:
        """Return the identity of the caller: a module, or `person:NAME`. Raises Unavailable."""
        return super().module(authorization) or self.persons.identity(authorization)

    def permits(self, module: str, role: str) -> bool:
        """Return whether a caller may send a request for which a person needs `role`, or one of `ROLE or ROLE`."""
        return not is_person(module) or any(self.persons.has_role(module, each) for each in role.split(" or "))

    async def reading(self, read: Callable[[], Awaitable[Found]]) -> Found:
        """Run a read of the database.

        Raises Unavailable if the database cannot be reached, BadRequest (500) if a row does not match its MAC.
        """
        try:
            return await super().reading(read)
        except (Tampered, Unverified) as found:
            raise BadRequest(500, "integrity", UNVERIFIED, str(found)) from None

    def socket_path(self) -> Path:
        return fund_socket(self.run_dir, self.ordinal)

    def supervisor_path(self) -> Path:
        return fund_supervisor_socket(self.run_dir)

    async def open(self) -> None:
        """Open the account client, compare the calendars, and read recent fee rules, all persons and all channels.

        The account service need not be available. Raises CalendarDiffers, KeyFault, and asyncpg's errors.
        """
        await self._accounts.open()
        await self.agreement.begin()
        await self.merchants.look()
        await self.persons.look()
        await self.channels.look()

    async def watch(self) -> None:
        """Run the background tasks of each worker (`Worker.watch`) and those of the fund service.

        The tasks of the fund service read changes of merchants, fee rules, persons and channels, compare the calendars,
        count outstanding orders, report overdue jobs and store findings.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(super().watch())
            group.create_task(again(lambda: _watch("merchants", self.merchants.watch)))
            group.create_task(again(lambda: _watch("persons", self.persons.watch)))
            group.create_task(again(lambda: _watch("channels", self.channels.watch)))
            group.create_task(again(self.agreement.watch))
            group.create_task(again(self._look))
            group.create_task(self.runner.run())
            group.create_task(again(lambda: self.macs.watch(self.pool)))

    async def _look(self) -> None:
        while True:
            try:
                row = await self.pool.fetchrow(SQL["outstanding"])
                assert row is not None
                self.metrics.now.outstanding, self.metrics.now.outstanding_age_s = row["orders"], row["age_s"]
                self.metrics.now.stuck = row["stuck"]
                self.metrics.now.parked, self.metrics.now.parked_age_s = row["parked"], row["parked_age_s"]
                self.metrics.now.own_transfer_age_s = row["own_transfer_age_s"]
                self.metrics.now.dispute_age_s = row["dispute_age_s"]
            except (*AWAY, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                pass
            await asyncio.sleep(LOOK_EVERY_S)

    def snapshot(self) -> FundSnapshot:
        """Return the counters of this worker, with the current values of its gauges."""
        now = self.metrics.now
        now.posting = self.posting.counted
        now.waiting = self.batcher.waiting
        now.calendar_differs = int(self.agreement.differs)
        now.jobs = self.runner.counted()
        now.feed_lag_s = self.feed.lag_s
        set_gauges(self, now)
        return now

    async def drain(self) -> None:
        """Wait until every accepted request has been answered."""
        await self.spawned()
        await self.batcher.drain()

    async def close(self) -> None:
        await self.feed.close()
        await self._accounts.close()
        await self.pool.close()


async def _watch(what: str, watch: Callable[[], Awaitable[None]]) -> None:
    """Run a task that refreshes a cache. If the database does not answer, log this and end after a second."""
    try:
        await watch()
    except (*AWAY, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        _log.warning("cannot read %s, retry in 1 s: %s", what, error, extra={"event": "cache_unread", "cache": what})
        await asyncio.sleep(1)
