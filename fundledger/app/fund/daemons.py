"""A process of daemons of the fund service: `python -m fundledger.app.fund.daemons`, with a FundOrder on its input.

Any number of them may run: each daemon is run by one, which holds its lease.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time as clock
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import time
from pathlib import Path
from typing import Final

import asyncpg
import msgspec
import redis.asyncio as redis
import uvloop
from redis.exceptions import RedisError

from fundledger.app.children import hide_memory
from fundledger.app.fund.order_line import FundOrder
from fundledger.app.logs import Format, configure_logs, dropped_lines
from fundledger.client.account_service import AccountService
from fundledger.daemons.daemon import Daemon, Ran, Turn
from fundledger.daemons.roster import Roster
from fundledger.daemons.watch import Counted
from fundledger.fund import recover, settle
from fundledger.fund.channels.http import HttpChannel
from fundledger.fund.channels.payouts import Payouts
from fundledger.fund.day_end import close_day
from fundledger.fund.desk import Desk
from fundledger.fund.events import fund_feed
from fundledger.fund.ids import open_ids
from fundledger.fund.link import AccountLink, Away
from fundledger.fund.macs import open_macs
from fundledger.fund.merchants import Merchants
from fundledger.fund.pool import BY_INDEX
from fundledger.fund.posting import Posting
from fundledger.fund.recover import Recoverer
from fundledger.fund.settle import Settler
from fundledger.fund.sweep import FUND_SWEEP, FundSweep
from fundledger.outbox.deliveries import Deliverer
from fundledger.outbox.destination import allows_private
from fundledger.outbox.feed import Feed
from fundledger.outbox.stream import Publisher, Sent
from fundledger.security.keys import FileKeys, KeyFault

STREAM: Final = "fundledger:events:fund"
CONNECTIONS: Final = 16
_log = logging.getLogger(__name__)


class Chosen(msgspec.Struct):
    """As much of the settings as daemons need."""

    data_dir: str
    profile: str = "dev"
    webhooks_private: str = "auto"
    stream: str = "off"
    log_level: str = "info"
    log_format: Format = "json"
    recover_after_s: float = 5.0
    settle_at: time = time(2, 0)
    fund_batch_max: int = 500
    fund_wait_ms: int = 800


class Told(msgspec.Struct):
    """What this process tells the supervisor: a part of the fund service's snapshot."""

    worker: str
    daemons: Counted
    log_lines_dropped: int
    workers: int = 0


class Context(msgspec.Struct):
    """What daemons are made of. `desk` posts orders; `feed` reads events."""

    order: FundOrder
    chosen: Chosen
    pool: "asyncpg.Pool[asyncpg.Record]"
    desk: Desk
    posting: Posting
    feed: Feed
    store: "redis.Redis | None"
    deliverer: Deliverer
    payouts: Payouts


def daemons_of(context: Context) -> list[Daemon]:
    """All that this version has; who adds one adds a line here, and one in docs/daemons.md."""
    recoverer = Recoverer(context.posting, context.chosen.recover_after_s)
    settler = Settler(context.pool, context.desk, context.chosen.settle_at)
    deliverer = context.deliverer
    found = [
        Daemon("recoverer", _counting(recoverer.recover_some, recover.AT_ONCE), 0.5),
        Daemon("payouts", _paying(context.payouts), 0.5),
        Daemon("settlement", _counting(settler.settle_some, settle.AT_ONCE), 10.0),
        Daemon("webhooks", _sending(deliverer.deliver), 0.25, ended=deliverer.stop),
        Daemon("day_end", _closing(context.pool), 60.0, alarm_after_s=600.0),
        _sweeping(FundSweep(context.pool, context.posting)),
    ]
    if context.store is not None:
        publisher = Publisher(context.feed, context.pool, context.store, STREAM)
        found.append(Daemon("stream", _sending(publisher.publish), 0.2))
    return found


def _counting(some: Callable[[], Awaitable[tuple[int, float]]], at_once: int) -> Callable[[Turn], Awaitable[Ran]]:
    """Of work that answers `(done, lag_s)`, and does at most `at_once`."""

    async def run(turn: Turn) -> Ran:
        turn.check()
        try:
            done, lag_s = await some()
        except Away as away:
            raise OSError(str(away)) from away
        return Ran(done, lag_s, more=done == at_once)

    return run


def _paying(payouts: Payouts) -> Callable[[Turn], Awaitable[Ran]]:
    async def run(turn: Turn) -> Ran:
        done, lag_s = await payouts.pay_out_some(turn.check)
        return Ran(done, lag_s)

    return run


def _sending(send: Callable[[Callable[..., Awaitable[None]]], Awaitable[Sent]]) -> Callable[[Turn], Awaitable[Ran]]:
    async def run(turn: Turn) -> Ran:
        try:
            sent = await send(turn.hold)
        except RedisError as error:
            raise OSError(f"Redis does not answer: {error}") from error
        return Ran(sent.done, sent.lag_s, sent.more)

    return run


def _sweeping(sweep: FundSweep) -> Daemon:
    async def run(turn: Turn) -> Ran:
        turn.check()
        try:
            done, more = await sweep.step(turn.hold)
        except Away as away:
            raise OSError(str(away)) from away
        return Ran(done, 0.0, more)

    return Daemon(FUND_SWEEP, run, 60.0, alarm_after_s=600.0, ended=sweep.begin)


def _closing(pool: "asyncpg.Pool[asyncpg.Record]") -> Callable[[Turn], Awaitable[Ran]]:
    async def run(turn: Turn) -> Ran:
        orders, lag_s, more = await close_day(pool, turn.hold)
        return Ran(orders, lag_s, more)

    return run


@contextlib.asynccontextmanager
async def context_of(order: FundOrder) -> AsyncIterator[Context]:
    """Everything open. Raises what asyncpg raises; neither Redis nor the account service need be there."""
    chosen = msgspec.json.decode(order.settings, type=Chosen)
    pool = await asyncpg.create_pool(
        order.fund_dsn,
        min_size=1,
        max_size=CONNECTIONS,
        command_timeout=30,
        server_settings={
            "application_name": f"fundledger daemons {order.ordinal}",
            **BY_INDEX,
            # Whoever is stopped within a transaction must not keep others from its leases for ever.
            "idle_in_transaction_session_timeout": "10s",
        },
    )
    accounts = AccountService(order.account_url, order.token)
    link = AccountLink(accounts)
    keys = FileKeys(Path(chosen.data_dir) / "fund-keys")
    ids, macs = await open_ids(pool, keys), await open_macs(pool, keys)
    posting, merchants = Posting(pool, link, ids, macs), Merchants(pool, link, macs)
    wait_s, due_s = chosen.fund_wait_ms / 1000, chosen.recover_after_s
    desk = Desk(pool, posting, merchants, batch_max=chosen.fund_batch_max, wait_s=wait_s, due_s=due_s)
    feed = fund_feed(order.fund_dsn, pool, macs, f"daemons {order.ordinal}")
    store = redis.Redis.from_url(order.redis_url) if chosen.stream == "on" else None
    deliverer = Deliverer(feed, pool, macs, private=allows_private(chosen.webhooks_private, chosen.profile))
    tokens = order.channel_tokens
    channels = {name: HttpChannel(url, token=tokens.get(name)) for name, url in order.channels.items()}
    await accounts.open()
    watching = asyncio.get_running_loop().create_task(macs.watch(pool))
    try:
        payouts = Payouts(pool, desk, channels)
        yield Context(order, chosen, pool, desk, posting, feed, store, deliverer, payouts)
    finally:
        watching.cancel()
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, KeyFault):
            await macs.write_found(pool)
        for channel in channels.values():
            await channel.close()
        await desk.drain()
        await deliverer.close()
        await feed.close()
        if store is not None:
            await store.aclose()
        await accounts.close()
        await pool.close()


def holder_name(order: FundOrder) -> str:
    return f"{socket.gethostname()}:{os.getpid()}:daemons {order.ordinal}"


async def serve(order: FundOrder, lifeline: asyncio.StreamReader) -> None:
    """Run daemons until SIGTERM or until the supervisor is gone; then give the leases back."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    for number in (signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None)
    async with context_of(order) as context:
        roster = Roster(context.pool, daemons_of(context), holder_name(order))
        told = await _tell(Path(order.run_dir) / f"daemons-{order.ordinal}.sock", roster)
        running = loop.create_task(roster.run())
        gone = loop.create_task(_until_closed(lifeline, stopping))
        _log.info("daemons are ready", extra={"worker": order.ordinal})
        await stopping.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        gone.cancel()
        told.close()


async def _tell(path: Path, roster: Roster) -> asyncio.Server:
    name = f"{os.getpid()}:{clock.time_ns()}"

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        with contextlib.suppress(ConnectionError):
            writer.write(msgspec.json.encode(Told(name, roster.counted(), dropped_lines())))
            await writer.drain()
        writer.close()

    path.unlink(missing_ok=True)  # noqa: ASYNC240 - before anything is served
    return await asyncio.start_unix_server(tell, str(path))


async def _until_closed(lifeline: asyncio.StreamReader, stopping: asyncio.Event) -> None:
    await lifeline.read()
    stopping.set()


async def _run() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    order = msgspec.json.decode(await reader.readline(), type=FundOrder)
    chosen = msgspec.json.decode(order.settings, type=Chosen)
    configure_logs(chosen.log_level, {"worker": f"daemons-{order.ordinal}"}, chosen.log_format)
    try:
        await serve(order, reader)
    except (OSError, KeyFault, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        _log.error("daemons cannot start: %s", error)
        logging.shutdown()
        os._exit(1)


def main() -> None:
    hide_memory()
    uvloop.run(_run())


if __name__ == "__main__":
    main()
