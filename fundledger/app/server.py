"""How one worker is put together: keys, database, lanes, HTTP; and how it ends without losing what it accepted."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from datetime import time
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg
import msgspec
import uvloop
from aiohttp import web
from aiohttp.web_request import BaseRequest

from fundledger.app import accounts, events, holds, limits, meta, openapi, vouchers
from fundledger.app.children import hide_memory
from fundledger.app.connections import raise_descriptor_limit
from fundledger.app.draining import finish_connections
from fundledger.app.home_page import Home
from fundledger.app.logs import configure_logs
from fundledger.app.metrics import Metrics
from fundledger.app.protocol import KEEPALIVE_S, PaymentProtocol
from fundledger.app.routing import BATCH_BODY_BYTES_MAX, Route, Router, answer
from fundledger.app.service import Daemons, Service
from fundledger.app.settings import Settings
from fundledger.app.sweep import Sweeper
from fundledger.daemons.roster import Roster
from fundledger.hotspot import folder as folders
from fundledger.hotspot import keeper as keepers
from fundledger.hotspot.detector import Thresholds
from fundledger.hotspot.direct import CONNECTIONS, Direct
from fundledger.hotspot.flusher import Flusher
from fundledger.hotspot.folder import Folder
from fundledger.hotspot.heat import Thermometer
from fundledger.hotspot.keeper import Keeper
from fundledger.hotspot.lane import Lane
from fundledger.ledger.books import Books
from fundledger.ledger.clock import AccountingCalendar
from fundledger.ledger.directory import Directory
from fundledger.ledger.keys import open_keys
from fundledger.ledger.memory import Memory
from fundledger.ledger.migrate import read_layout
from fundledger.ledger.session import Session
from fundledger.ratelimit.classes import ApiClass
from fundledger.security.keys import KeyFault
from fundledger.security.tokens import Tokens

_log = logging.getLogger(__name__)
HOME = Home("fundledger account service")
STATEMENT = ("limit", "cursor", "from", "to", "level")
ROUTES: list[Route[Service]] = [
    Route("POST", "/v1/accounts", accounts.open_account, api_class=ApiClass.PAYMENT),
    Route("GET", "/v1/accounts", accounts.list_accounts, query=accounts.LIST, api_class=ApiClass.LIST),
    Route("GET", "/v1/accounts/{id}", accounts.get_account, api_class=ApiClass.QUERY, whose=accounts.whose),
    Route(
        "GET",
        "/v1/accounts/{id}/entries",
        accounts.get_entries,
        query=STATEMENT,
        api_class=ApiClass.LIST,
        whose=accounts.whose,
    ),
    Route(
        "GET",
        "/v1/accounts/{id}/balance",
        accounts.get_balance,
        query=("at",),
        api_class=ApiClass.QUERY,
        whose=accounts.whose,
    ),
    # What stops money is as urgent as what moves it, and is refused neither while limits cannot be counted, nor because
    # so much has been moved already.
    Route("POST", "/v1/accounts/{id}/freeze", accounts.freeze, api_class=ApiClass.WITHDRAW),
    Route("POST", "/v1/accounts/{id}/unfreeze", accounts.unfreeze, api_class=ApiClass.ADMIN, whose=accounts.whose),
    Route("POST", "/v1/accounts/{id}/close", accounts.close, api_class=ApiClass.ADMIN, whose=accounts.whose),
    Route("POST", "/v1/accounts/{id}/policy", accounts.set_policy, api_class=ApiClass.ADMIN, whose=accounts.whose),
    Route("POST", "/v1/vouchers", vouchers.post_one, api_class=ApiClass.PAYMENT, enters=True, by_body=True),
    Route(
        "POST",
        "/v1/vouchers/batch",
        vouchers.post_batch,
        body_bytes_max=BATCH_BODY_BYTES_MAX,
        api_class=ApiClass.BATCH,
        enters=True,
    ),
    Route("GET", "/v1/vouchers/{id}", vouchers.get_voucher, api_class=ApiClass.QUERY),
    Route("POST", "/v1/vouchers/{id}/reverse", vouchers.reverse_voucher, api_class=ApiClass.REFUND, enters=True),
    Route("POST", "/v1/holds", holds.place_hold, api_class=ApiClass.PAYMENT, enters=True),
    Route("GET", "/v1/holds/{id}", holds.get_hold, api_class=ApiClass.QUERY),
    Route("POST", "/v1/holds/{id}/capture", holds.capture_hold, api_class=ApiClass.CONFIRM, enters=True),
    Route("POST", "/v1/holds/{id}/release", holds.release_hold, api_class=ApiClass.CONFIRM, enters=True),
    Route("GET", "/v1/events", events.get_events, query=events.QUERY, api_class=ApiClass.LIST, enters=True),
    Route("GET", "/", HOME.get, public=True),
    Route("GET", "/healthz", meta.healthz, public=True),
    Route("GET", "/readyz", meta.readyz, public=True),
    Route("GET", "/metrics", meta.get_metrics, public=True, cost=1),
    Route("GET", "/debug/hotkeys", meta.get_hot_keys, api_class=ApiClass.QUERY),
    Route(
        "GET",
        "/debug/limits",
        limits.get_limits,
        query=("caller", "class", "merchant", "account"),
        api_class=ApiClass.QUERY,
    ),
    Route("GET", "/openapi.json", openapi.PAGES.get_document, public=True, cost=5),
    Route("GET", "/docs", openapi.PAGES.get_page, public=True, cost=5),
]


class WorkerOrder(msgspec.Struct):
    """What the supervisor tells a worker, as one line of JSON on its standard input."""

    ordinal: int
    dsn: str
    run_dir: str
    settings: str
    redis_url: str
    modules: dict[str, str] = {}
    """Which module a token is of."""


async def build(
    settings: Settings,
    dsn: str,
    ordinal: int,
    run_dir: Path,
    *,
    redis_url: str = "",
    modules: Mapping[str, str] | None = None,
) -> Service:
    """A service on a migrated database; `modules` says which module a token is of.

    Raises what asyncpg raises when it cannot be reached, SchemaFault, KeyFault.
    """
    connection = await asyncpg.connect(dsn)
    try:
        layout = await read_layout(connection)
        keys = await open_keys(connection, settings.data_dir / "keys")
    finally:
        await connection.close()
    pool = await asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=settings.read_connections,
        command_timeout=30,
        server_settings={"application_name": f"fundledger reads {ordinal}", "jit": "off"},
    )
    own = await asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=1,
        command_timeout=5,
        server_settings={"application_name": f"fundledger daemons {ordinal}", "jit": "off"},
    )
    directory = Directory(keys)
    calendar = AccountingCalendar(ZoneInfo(settings.accounting_timezone), settings.accounting_cut or time(0))
    books = Books(keys, directory, layout, calendar, ordinal, settings.journal == "summary")
    metrics = Metrics()
    lanes: list[Lane | Direct] = []
    thermometer = Thermometer()
    sessions: list[Session] = []
    flusher: Flusher | None = None
    if settings.posting == "direct":
        sessions = [
            Session(dsn, f"fundledger direct {ordinal}.{i}", Memory(0), metrics.commits) for i in range(CONNECTIONS)
        ]
        lanes = [Direct(sessions, books, metrics, settings.buffer_depth_max)] * layout.shards
    else:
        flusher = (
            Flusher(dsn, f"fundledger flush {ordinal}", metrics.commits) if settings.early_release == "on" else None
        )
        if flusher is not None:
            await flusher.open()
        for shard in range(layout.shards):
            session = Session(dsn, f"fundledger lane {ordinal}.{shard}", commits=metrics.commits)
            await session.open()
            depth, size = settings.buffer_depth_max, settings.batch_size_max
            lanes.append(Lane(session, books, metrics, depth, size, thermometer=thermometer, flusher=flusher))
            sessions.append(session)
    thresholds = Thresholds(
        settings.heat_promote,
        settings.heat_promote_s,
        settings.heat_demote,
        settings.heat_demote_s,
        settings.heat_share,
    )
    name = f"{socket.gethostname()}:{run_dir}:{ordinal}"
    keeper = Keeper(dsn, name, books, thermometer, sessions, thresholds, acts=settings.splitting == "auto")
    folder = Folder(dsn, name, books, settings.buffered_max, settings.buffered_lag_max_s)
    daemons = Daemons(keeper, folder)
    name = f"{socket.gethostname()}:{run_dir}:{ordinal}:{os.getpid()}"
    limiter = limits.build_limiter(settings, redis_url, name)
    service = Service(
        settings,
        layout,
        keys,
        directory,
        lanes,
        daemons,
        flusher,
        pool,
        Tokens.of(dict(modules or {})),
        metrics,
        run_dir,
        ordinal,
        limiter=limiter,
        feed=events.account_feed(dsn, pool, directory, str(ordinal)),
    )
    led = [(keeper.tally, keepers.ALARM_S), (folder.tally, folders.ALARM_S)]
    sweeper = Sweeper(pool, directory, layout)
    service.roster = Roster(own, [holds.Expiry(service).daemon(), sweeper.daemon()], name, led=led)
    return service


def listen(service: Service) -> tuple[web.Server, socket.socket]:
    """The HTTP server and its socket, one of several on the port."""
    router = Router(ROUTES)
    openapi.PAGES.make(service.settings)

    async def handle(request: BaseRequest) -> web.StreamResponse:
        return await answer(service, router, request)

    manager = web.Server(handler=handle)
    return manager, a_listener(service.settings.host, service.settings.port)


def a_listener(host: str, port: int) -> socket.socket:
    """One of several on the port. Raises OSError."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    listener.setblocking(False)
    return listener


async def serve(order: WorkerOrder, lifeline: asyncio.StreamReader) -> None:
    """Serve until SIGTERM or until the supervisor is gone; then finish what was accepted."""
    settings = Settings.model_validate_json(order.settings)
    service = await build(
        settings, order.dsn, order.ordinal, Path(order.run_dir), redis_url=order.redis_url, modules=order.modules
    )
    loop = asyncio.get_running_loop()
    manager, listener = listen(service)

    def protocol() -> PaymentProtocol[Service]:
        return PaymentProtocol(
            service,
            vouchers.SHORT_PATH,
            manager,
            loop=loop,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE_S,
        )

    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    for number in (signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None)
    works = (service.roster.run(), service.daemons.keeper.run(), service.daemons.folder.run())
    daemons = [loop.create_task(work) for work in works]
    watching = loop.create_task(service.watch())
    told = await meta.tell_supervisor(service, lambda: meta.snapshot(service))
    service.lag.start()
    server = await loop.create_server(protocol, sock=listener, backlog=1024)
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
    _log.info("worker is ready", extra={"worker": order.ordinal, "port": settings.port})
    gone = loop.create_task(until_closed(lifeline, stopping))
    await stopping.wait()
    _log.info("worker drains", extra={"worker": order.ordinal})
    service.feed.stop()
    for daemon in daemons:
        daemon.cancel()
    try:
        async with asyncio.timeout(settings.drain_s):
            await finish_connections(service, server, listener, manager, protocol)
    except TimeoutError:
        _log.error("worker gave up draining", extra={"worker": order.ordinal})
    told.close()
    watching.cancel()
    service.lag.stop()
    gone.cancel()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            # They give their leases back, for which they need the connections that are closed next.
            await asyncio.wait(daemons)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            await service.close()


async def until_closed(lifeline: asyncio.StreamReader, stopping: asyncio.Event) -> None:
    """Stop when the supervisor is gone."""
    await lifeline.read()
    _log.warning("the supervisor is gone")
    stopping.set()


async def _run() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    order = msgspec.json.decode(await reader.readline(), type=WorkerOrder)
    settings = Settings.model_validate_json(order.settings)
    configure_logs(settings.log_level, {"worker": order.ordinal}, settings.log_format)
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
