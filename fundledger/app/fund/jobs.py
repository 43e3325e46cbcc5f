"""Entry point of a background job process of the fund service: `python -m fundledger.app.fund.jobs`.

The process reads its configuration from standard input. Any number of these processes may run: each job runs only in
the process that holds the job's lease.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time as clock
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import time
from pathlib import Path
from typing import Final

import asyncpg
import msgspec
import redis.asyncio as redis
from redis.exceptions import RedisError

from fundledger.app.console.logs import Format, dropped_lines
from fundledger.app.fund.config import FundProcessConfig
from fundledger.app.http.process import LogOptions, run_process
from fundledger.app.http.sockets import answer_with, jobs_socket
from fundledger.client.account_service import AccountService
from fundledger.fund.account_gateway import AccountGateway, GatewayFault
from fundledger.fund.agreement import Agreement
from fundledger.fund.approvals import EXPIRED_AT_ONCE
from fundledger.fund.batcher import OrderBatcher
from fundledger.fund.channels.http import HttpChannel
from fundledger.fund.jobs import closing, recover, release, reserves, settle
from fundledger.fund.jobs.closing import Closer
from fundledger.fund.jobs.day_end import close_day
from fundledger.fund.jobs.payout_funds import PayoutFunds
from fundledger.fund.jobs.payouts import Payouts
from fundledger.fund.jobs.recover import Recoverer
from fundledger.fund.jobs.release import Releaser
from fundledger.fund.jobs.reserves import ReserveJob
from fundledger.fund.jobs.settle import Settler
from fundledger.fund.jobs.sweep import FUND_SWEEP, FundSweep
from fundledger.fund.model.days import Days
from fundledger.fund.payout_files.results import PayoutResults
from fundledger.fund.poster import Posting
from fundledger.fund.store.changes import Changes
from fundledger.fund.store.channels import Channels, automatic
from fundledger.fund.store.events import fund_feed
from fundledger.fund.store.macs import open_macs
from fundledger.fund.store.merchant_changes import MerchantChanges
from fundledger.fund.store.merchants import Merchants
from fundledger.fund.store.open_ids import open_ids
from fundledger.fund.store.pool import BY_INDEX
from fundledger.jobs.job import Job, Lease, Ran
from fundledger.jobs.runner import JobRunner
from fundledger.jobs.watch import Counted
from fundledger.outbox.deliveries import Deliverer
from fundledger.outbox.destination import allows_private
from fundledger.outbox.feed import Feed
from fundledger.outbox.stream import Publisher, Sent
from fundledger.security.keys import FileKeys, KeyFault
from fundledger.security.process_memory import hide_memory
from fundledger.settings import weekend_of

STREAM: Final = "fundledger:events:fund"
CONNECTIONS: Final = 16
_log = logging.getLogger(__name__)


class Chosen(msgspec.Struct):
    """The settings that background jobs need."""

    data_dir: str
    profile: str = "dev"
    webhooks_private: str = "auto"
    stream: str = "off"
    log_level: str = "info"
    log_format: Format = "json"
    recover_after_s: float = 5.0
    settle_at: time = time(2, 0)
    weekend: str = "sat,sun"
    fund_batch_max: int = 500
    fund_wait_ms: int = 800


class JobsSnapshot(msgspec.Struct):
    """Metrics that this process reports to the supervisor. `FundSnapshot` has the same members, and more."""

    worker: str
    jobs: Counted
    log_lines_dropped: int
    workers: int = 0


class Context(msgspec.Struct):
    """Shared resources of the background jobs. `batcher` posts orders; `feed` reads events."""

    config: FundProcessConfig
    chosen: Chosen
    pool: "asyncpg.Pool[asyncpg.Record]"
    batcher: OrderBatcher
    posting: Posting
    feed: Feed
    store: "redis.Redis | None"
    deliverer: Deliverer
    payouts: Payouts
    merchants: Merchants
    changes: MerchantChanges
    results: PayoutResults


def jobs_of(context: Context) -> list[Job]:
    """Return all background jobs of this version. List a new job in docs/reference/background-jobs.md, too."""
    recoverer = Recoverer(context.posting, context.chosen.recover_after_s)
    releaser = Releaser(context.posting, context.chosen.recover_after_s)
    settler = Settler(context.pool, context.batcher, context.merchants, context.chosen.settle_at)
    closer = Closer(context.pool, context.batcher, context.merchants, context.changes)
    reserver = ReserveJob(context.pool, context.batcher, context.merchants)
    deliverer = context.deliverer
    found = [
        Job("recoverer", _counting(recoverer.recover_some, recover.AT_ONCE), 0.5),
        Job("payouts", _paying(context.payouts, context.results), 0.5),
        Job("release", _counting(releaser.release_some, release.AT_ONCE), 5.0),
        Job("settlement", _counting(settler.settle_some, settle.AT_ONCE), 10.0),
        Job("reserves", _counting(reserver.run_some, reserves.AT_ONCE), 10.0),
        Job("closing", _counting(closer.close_some, closing.AT_ONCE), 5.0),
        Job("webhooks", _sending(deliverer.deliver), 0.25, ended=deliverer.stop),
        Job("approvals", _counting(_expiring(context), EXPIRED_AT_ONCE), 60.0, alarm_after_s=600.0),
        Job("day_end", _closing_days(context.pool, context.posting.macs.days), 60.0, alarm_after_s=600.0),
        _sweeping(FundSweep(context.pool, context.posting)),
    ]
    if context.store is not None:
        publisher = Publisher(context.feed, context.pool, context.store, STREAM)
        found.append(Job("stream", _sending(publisher.publish), 0.2))
    return found


def _counting(some: Callable[[], Awaitable[tuple[int, float]]], at_once: int) -> Callable[[Lease], Awaitable[Ran]]:
    """Return the run function of a job. `some` processes up to `at_once` items a call, and returns `(done, lag_s)`."""

    async def run(lease: Lease) -> Ran:
        lease.check()
        try:
            done, lag_s = await some()
        except GatewayFault as fault:
            raise OSError(str(fault)) from fault
        return Ran(done, lag_s, more=done == at_once)

    return run


def _expiring(context: Context) -> Callable[[], Awaitable[tuple[int, float]]]:
    changes = Changes(context.pool, context.posting.macs, {})

    async def expire() -> tuple[int, float]:
        await changes.expire_some()
        return await context.batcher.expire_some()

    return expire


def _paying(payouts: Payouts, results: PayoutResults) -> Callable[[Lease], Awaitable[Ran]]:
    async def run(lease: Lease) -> Ran:
        ended, _ = await results.end_some()
        done, lag_s = await payouts.pay_out_some(lease.check)
        return Ran(done + ended, lag_s)

    return run


def _sending(send: Callable[[Callable[..., Awaitable[None]]], Awaitable[Sent]]) -> Callable[[Lease], Awaitable[Ran]]:
    async def run(lease: Lease) -> Ran:
        try:
            sent = await send(lease.hold)
        except RedisError as error:
            raise OSError(f"Redis does not answer: {error}") from error
        return Ran(sent.done, sent.lag_s, sent.more)

    return run


def _sweeping(sweep: FundSweep) -> Job:
    async def run(lease: Lease) -> Ran:
        lease.check()
        try:
            done, more = await sweep.step(lease.hold)
        except GatewayFault as fault:
            raise OSError(str(fault)) from fault
        return Ran(done, 0.0, more)

    return Job(FUND_SWEEP, run, 60.0, alarm_after_s=600.0, ended=sweep.begin)


def _closing_days(pool: "asyncpg.Pool[asyncpg.Record]", days: Days) -> Callable[[Lease], Awaitable[Ran]]:
    async def run(lease: Lease) -> Ran:
        orders, lag_s, more = await close_day(pool, days, lease.hold)
        return Ran(orders, lag_s, more)

    return run


@contextlib.asynccontextmanager
async def context_of(config: FundProcessConfig) -> AsyncIterator[Context]:
    """Open all resources of the background jobs, and close them on exit.

    Raises CalendarDiffers, KeyFault, and asyncpg's errors. Redis and the account service need not be available.
    """
    chosen = msgspec.json.decode(config.settings, type=Chosen)
    pool = await asyncpg.create_pool(
        config.fund_dsn,
        min_size=1,
        max_size=CONNECTIONS,
        command_timeout=30,
        server_settings={
            "application_name": f"fundledger jobs {config.ordinal}",
            **BY_INDEX,
            # A process that is suspended inside a transaction must not keep the rows of its leases locked.
            "idle_in_transaction_session_timeout": "10s",
        },
    )
    accounts = AccountService(config.account_url, config.token)
    gateway = AccountGateway(accounts)
    keys = FileKeys(Path(chosen.data_dir) / "fund-keys")
    ids, macs = await open_ids(pool, keys), await open_macs(pool, keys)
    weekend = weekend_of(chosen.weekend)
    posting, merchants = Posting(pool, gateway, ids, macs), Merchants(pool, gateway, macs, weekend=weekend)
    wait_s, due_s = chosen.fund_wait_ms / 1000, chosen.recover_after_s
    registry = Channels(pool, macs, automatic(config.channels))
    batch_max = chosen.fund_batch_max
    batcher = OrderBatcher(pool, posting, merchants, registry, batch_max=batch_max, wait_s=wait_s, due_s=due_s)
    feed = fund_feed(config.fund_dsn, pool, macs, f"jobs {config.ordinal}")
    # With its own time limit for a write, the library may swallow a cancellation (Python 3.11).
    store = redis.Redis.from_url(config.redis_url, socket_timeout=None) if chosen.stream == "on" else None
    deliverer = Deliverer(feed, pool, macs, private=allows_private(chosen.webhooks_private, chosen.profile))
    tokens = config.channel_tokens
    channels = {name: HttpChannel(url, token=tokens.get(name)) for name, url in config.channels.items()}
    await accounts.open()
    await Agreement(pool, gateway, macs).begin()
    watching = asyncio.get_running_loop().create_task(macs.watch(pool))
    try:
        payouts = Payouts(pool, batcher, channels, funds=PayoutFunds(pool, gateway, registry))
        changes = MerchantChanges(pool, macs, merchants, gateway)
        results = PayoutResults(pool, macs, batcher, wait_s)
        yield Context(
            config, chosen, pool, batcher, posting, feed, store, deliverer, payouts, merchants, changes, results
        )
    finally:
        watching.cancel()
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, KeyFault):
            await macs.write_found(pool)
        for channel in channels.values():
            await channel.close()
        await batcher.drain()
        await deliverer.close()
        await feed.close()
        if store is not None:
            await store.aclose()
        await accounts.close()
        await pool.close()


def holder_name(config: FundProcessConfig) -> str:
    return f"{socket.gethostname()}:{os.getpid()}:jobs {config.ordinal}"


async def serve(config: FundProcessConfig, stopping: asyncio.Event) -> None:
    """Run background jobs until `stopping` is set, then release the leases."""
    loop = asyncio.get_running_loop()
    async with context_of(config) as context:
        runner = JobRunner(context.pool, jobs_of(context), holder_name(config))
        name = f"{os.getpid()}:{clock.time_ns()}"
        socket_path = jobs_socket(Path(config.run_dir), config.ordinal)
        reporting = await answer_with(socket_path, lambda: JobsSnapshot(name, runner.counted(), dropped_lines()))
        running = loop.create_task(runner.run())
        _log.info("background jobs are ready", extra={"event": "jobs_ready"})
        await stopping.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        reporting.close()


def _log_options(config: FundProcessConfig) -> LogOptions:
    chosen = msgspec.json.decode(config.settings, type=Chosen)
    return LogOptions(f"jobs-{config.ordinal}", chosen.log_level, chosen.log_format)


def main() -> None:
    hide_memory()
    run_process(FundProcessConfig, _log_options, serve)


if __name__ == "__main__":
    main()
