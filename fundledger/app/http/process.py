"""Life cycle of an HTTP worker process that the supervisor starts: configuration, signals, shutdown.

The supervisor writes the configuration as one line of JSON to the process's standard input and keeps the input open.
The end of the input means that the supervisor has ended. On SIGTERM the process finishes its accepted requests and
ends. SIGINT and SIGHUP are ignored: a terminal sends both signals to all processes, and the supervisor handles both.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import asyncpg
import msgspec
import uvloop
from aiohttp import web
from aiohttp.web_request import BaseRequest

from fundledger.accounting_days import CalendarDiffers
from fundledger.app.console.logs import Format, configure_logs
from fundledger.app.http.metrics.counters import Answered
from fundledger.app.http.routing import Router, answer
from fundledger.app.http.sockets import answer_with
from fundledger.app.http.wire.draining import finish_connections
from fundledger.app.http.wire.protocol import KEEPALIVE_S, FastPath, PaymentProtocol
from fundledger.app.http.worker import Worker
from fundledger.security.keys import KeyFault

CANNOT_START: Final = (OSError, KeyFault, CalendarDiffers, asyncpg.PostgresError, asyncpg.InterfaceError)
CONFIG_BYTES_MAX: Final = 1 << 20
BACKLOG: Final = 1024
END_S: Final = 5.0
"""Time limit in seconds for the end of background tasks. The closing of database connections has the same limit."""
_log = logging.getLogger(__name__)
C = TypeVar("C")
S = TypeVar("S", bound=Worker)


class LogOptions(msgspec.Struct, frozen=True):
    """Log configuration of a process. `name`: the name of the process, which each log line contains."""

    name: str
    level: str
    format: Format


def run_process(
    type_: type[C],
    log_options: Callable[[C], LogOptions],
    serve: Callable[[C, asyncio.Event], Awaitable[None]],
) -> None:
    """Read a configuration of `type_` from standard input, and run `serve` with two arguments.

    The first argument is the configuration. The second is an event that is set when the process must end. A fault of
    the database, of keys or of the operating system is logged in one line and ends the process with status 1.
    """

    async def run() -> None:
        loop = asyncio.get_running_loop()
        lifeline = asyncio.StreamReader(limit=CONFIG_BYTES_MAX)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lifeline), sys.stdin)
        config = msgspec.json.decode(await lifeline.readline(), type=type_)
        options = log_options(config)
        configure_logs(options.level, {"worker": options.name}, options.format)
        try:
            async with _stop_event(lifeline) as stopping:
                await serve(config, stopping)
        except CANNOT_START as error:
            _log.error("the process cannot start: %s", error, extra={"event": "worker_start_failed"})
            logging.shutdown()
            os._exit(1)

    uvloop.run(run())


@contextlib.asynccontextmanager
async def _stop_event(lifeline: asyncio.StreamReader) -> AsyncIterator[asyncio.Event]:
    """Yield an event that is set on SIGTERM, or when the supervisor has ended."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    async def until_closed() -> None:
        await lifeline.read()
        _log.warning("the supervisor has ended; this process stops", extra={"event": "supervisor_lost"})
        stopping.set()

    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    for number in (signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None)
    watching = loop.create_task(until_closed())
    try:
        yield stopping
    finally:
        watching.cancel()


def freeze_memory() -> None:
    """Exclude all existing objects from garbage collection. Call this function when a process has started."""
    gc.collect()
    gc.freeze()


def open_listener(host: str, port: int) -> socket.socket:
    """Return a bound socket that shares its port with other workers (SO_REUSEPORT). Raises OSError."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    listener.setblocking(False)
    return listener


@contextlib.asynccontextmanager
async def serving(
    service: S,
    router: Router[S],
    short: FastPath[S],
    listener: socket.socket,
    snapshot: Callable[[], Answered],
    jobs: Sequence["asyncio.Task[Any]"] = (),
) -> AsyncIterator[None]:
    """Serve HTTP on a bound socket. On exit, answer the accepted requests and close the service.

    Answering takes at most `drain_s` seconds (a setting). `jobs`: background tasks, which the caller cancels. The
    service is closed after these tasks have ended.
    """
    loop = asyncio.get_running_loop()

    async def handle(request: BaseRequest) -> web.StreamResponse:
        return await answer(service, router, request)

    manager = web.Server(handler=handle)

    def protocol() -> PaymentProtocol[S]:
        return PaymentProtocol(
            service,
            short,
            manager,
            loop=loop,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE_S,
        )

    watching = loop.create_task(service.watch())
    service.lag.start()
    server = await loop.create_server(protocol, sock=listener, backlog=BACKLOG)
    # An answer on this socket proves to the supervisor that the worker serves. So the HTTP port is already open.
    reporting = await answer_with(service.socket_path(), snapshot)
    try:
        yield
    finally:
        try:
            async with asyncio.timeout(service.settings.drain_s):
                await finish_connections(service, server, listener, manager, protocol)
        except TimeoutError:
            _log.error("the drain timed out: requests may be unanswered", extra={"event": "drain_timeout"})
        reporting.close()
        watching.cancel()
        service.lag.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                # Jobs release their leases over the database connections that `close` closes next.
                await asyncio.wait([watching, *jobs])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await service.close()
