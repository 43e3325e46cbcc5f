"""How one worker of the fund service is put together, and how it ends without losing what it accepted:
`python -m fundledger.app.fund.server`, with a FundOrder on its standard input.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import msgspec
import uvloop
from aiohttp import web
from aiohttp.web_request import BaseRequest

from fundledger.app import limits, meta
from fundledger.app.children import hide_memory
from fundledger.app.connections import raise_descriptor_limit
from fundledger.app.draining import finish_connections
from fundledger.app.fund import openapi
from fundledger.app.fund.order_line import FundOrder
from fundledger.app.fund.orders import SHORT_PATH
from fundledger.app.fund.parts import Feed
from fundledger.app.fund.routes import ROUTES
from fundledger.app.fund.service import SPACE, FundService
from fundledger.app.logs import configure_logs
from fundledger.app.protocol import KEEPALIVE_S, PaymentProtocol
from fundledger.app.routing import Router, answer
from fundledger.app.server import a_listener, until_closed
from fundledger.app.settings import Settings
from fundledger.client.account_service import AccountService
from fundledger.fund.desk import BATCHES_AT_ONCE
from fundledger.fund.events import Pages, fund_feed
from fundledger.fund.ids import open_ids
from fundledger.fund.macs import open_macs
from fundledger.fund.pool import open_pool
from fundledger.security.keys import FileKeys, KeyFault
from fundledger.security.tokens import Tokens

_log = logging.getLogger(__name__)


async def build(order: FundOrder, settings: Settings, *, feed: Feed | None = None) -> FundService:
    """A service on a migrated database. Raises what asyncpg raises when it cannot be reached, KeyFault, BadSetting."""
    size = settings.read_connections + 2 * BATCHES_AT_ONCE
    keys = FileKeys(settings.data_dir / "fund-keys")
    pool = await open_pool(order.fund_dsn, f"fundledger fund {order.ordinal}", size)
    name = f"{socket.gethostname()}:{order.run_dir}:fund-{order.ordinal}:{os.getpid()}"
    return FundService(
        settings,
        pool,
        AccountService(order.account_url, order.token),
        Tokens.of({order.api_token: "dev"} if order.api_token else {}),
        Path(order.run_dir),
        order.ordinal,
        await open_ids(pool, keys),
        await open_macs(pool, keys),
        batch_max=settings.fund_batch_max,
        wait_s=settings.fund_wait_ms / 1000,
        due_s=settings.recover_after_s,
        feed=feed,
        limiter=limits.build_limiter(settings, order.redis_url, name, settings.fund_workers, SPACE),
    )


@contextlib.asynccontextmanager
async def serving(service: FundService, listener: socket.socket) -> AsyncIterator[None]:
    """Serve on a listening socket; leaving drains for `drain_s`, and closes the service."""
    loop = asyncio.get_running_loop()
    router = Router(ROUTES)
    openapi.PAGES.make(service.settings)

    async def handle(request: BaseRequest) -> web.StreamResponse:
        return await answer(service, router, request)

    manager = web.Server(handler=handle)

    def protocol() -> PaymentProtocol[FundService]:
        return PaymentProtocol(
            service,
            SHORT_PATH,
            manager,
            loop=loop,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE_S,
        )

    await service.open()
    watching = loop.create_task(service.watch())
    told = await meta.tell_supervisor(service, service.snapshot)
    service.lag.start()
    server = await loop.create_server(protocol, sock=listener, backlog=1024)
    try:
        yield
    finally:
        try:
            async with asyncio.timeout(service.settings.drain_s):
                await finish_connections(service, server, listener, manager, protocol)
        except TimeoutError:
            _log.error("worker gave up draining", extra={"worker": service.ordinal})
        told.close()
        watching.cancel()
        service.lag.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.wait([watching])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await service.close()


async def serve(order: FundOrder, lifeline: asyncio.StreamReader) -> None:
    """Serve until SIGTERM or until the supervisor is gone; then finish what was accepted."""
    settings = Settings.model_validate_json(order.settings)
    service = await build(order, settings)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    for number in (signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None)
    service.feed = pages = Pages(fund_feed(order.fund_dsn, service.pool, service.macs, str(order.ordinal)))
    async with serving(service, a_listener(settings.host, settings.fund_port)):
        gc.collect()
        gc.freeze()
        gc.set_threshold(200_000, 20, 100)
        _log.info("worker is ready", extra={"worker": order.ordinal, "port": settings.fund_port})
        gone = loop.create_task(until_closed(lifeline, stopping))
        await stopping.wait()
        _log.info("worker drains", extra={"worker": order.ordinal})
        await pages.close()
        gone.cancel()


async def _run() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    order = msgspec.json.decode(await reader.readline(), type=FundOrder)
    settings = Settings.model_validate_json(order.settings)
    configure_logs(settings.log_level, {"worker": f"fund-{order.ordinal}"}, settings.log_format)
    try:
        await serve(order, reader)
    except (OSError, KeyFault, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        _log.error("worker cannot start: %s", error)
        logging.shutdown()
        os._exit(1)


def main() -> None:
    hide_memory()
    raise_descriptor_limit()
    uvloop.run(_run())


if __name__ == "__main__":
    main()
