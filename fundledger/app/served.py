"""What both services are to those who let requests in, count and shed them: one worker that listens on a port."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import asyncpg

from fundledger.app.connections import Connections, connections_for
from fundledger.app.gate import Gate
from fundledger.app.hotkeys import HotKeys
from fundledger.app.lag import LoopLag
from fundledger.app.limits import watch_policies
from fundledger.app.metrics import Requests
from fundledger.app.peers import Peers
from fundledger.app.readiness import Readiness
from fundledger.app.settings import Settings
from fundledger.app.sockets import supervisor_socket, worker_socket
from fundledger.app.under_way import BodiesUnderWay
from fundledger.database.failures import PASSING
from fundledger.database.statements import load
from fundledger.ledger.fault import Unavailable
from fundledger.ratelimit.limiter import Limiter
from fundledger.ratelimit.shedding import WINDOW_S, Shedder
from fundledger.security.tokens import Tokens

T = TypeVar("T")
SQL: Final = load("fundledger.app")
AWAY: Final = (*PASSING, asyncpg.TransactionRollbackError)
"""What a read meets when the database is gone or going, and a small write when it cannot be written."""
_log = logging.getLogger("fundledger.requests")


class Served(Protocol):
    """What a request needs on its way to its handler and back."""

    settings: Settings
    gate: Gate
    draining: bool
    connections: Connections
    bodies: BodiesUnderWay
    peers: Peers

    def module(self, authorization: str | None) -> str | None:
        """The module that a request comes from, None when it is nobody's."""

    def answered(
        self,
        route: str,
        status: int,
        seconds: float,
        method: str = "POST",
        api_class: str = "",
        shed: bool = False,
        request_id: str = "",
    ) -> None:
        """Count an answer."""

    def aborted(self, route: str) -> None:
        """Log that a client closed its connection before its request was read."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Work that a drain waits for."""


class Worker:
    """One worker's share of a service: who asks, what was counted, whether its database is there. A `Served`.

    `trusted`: the module whose requests were limited at a door of its own.
    """

    def __init__(
        self,
        settings: Settings,
        pool: "asyncpg.Pool[asyncpg.Record]",
        tokens: Tokens,
        requests: Requests,
        run_dir: Path,
        ordinal: int,
        *,
        limiter: Limiter | None = None,
        trusted: str | None = None,
    ) -> None:
        self.settings = settings
        self.pool = pool
        self.hot_keys = HotKeys()
        shedder = Shedder(settings.latency_target_ms / 1000, settings.concurrency_max, on=settings.shedding == "on")
        self.gate = Gate(limiter, shedder, self.hot_keys, trusted)
        most = connections_for(settings.connections_max, pool.get_max_size())
        self.connections = Connections(most, min(most, settings.connections_per_peer_max))
        self.bodies = BodiesUnderWay(settings.bodies_mb_max << 20)
        self.peers = Peers(settings.unauthenticated_per_s)
        self.lag = LoopLag(requests.counted.loop_lag)
        self.draining = False
        self.run_dir = run_dir
        self.ordinal = ordinal
        self._requests = requests
        self._until_logged = settings.log_sample
        self._aborted = 0
        self._aborted_logged = 0.0
        self._tokens = tokens
        self._modules: dict[str, str] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.readiness = Readiness(pool)

    def module(self, authorization: str | None) -> str | None:
        """The module that a request comes from, None when it is nobody's. Remembers the few headers that are valid."""
        if authorization is None:
            return None
        module = self._modules.get(authorization)
        if module is None:
            module = self._tokens.module(authorization)
            if module is not None and len(self._modules) < 1024:
                self._modules[authorization] = module
        return module

    def answered(
        self,
        route: str,
        status: int,
        seconds: float,
        method: str = "POST",
        api_class: str = "",
        shed: bool = False,
        request_id: str = "",
    ) -> None:
        """Count an answer; log one of so many, and each that is our fault."""
        self._requests.request(route, method, status, seconds, api_class, shed)
        self._until_logged -= 1
        if self._until_logged <= 0 or status >= 500:
            self._until_logged = self.settings.log_sample
            level = logging.WARNING if status >= 500 else logging.INFO
            about = {"route": route, "status": status, "ms": round(seconds * 1000, 3), "request_id": request_id}
            _log.log(level, "answered", extra=about)

    def aborted(self, route: str) -> None:
        """Log one line that a client closed its connection before its request was read; one a second at most."""
        self._aborted += 1
        now = time.monotonic()
        if now >= self._aborted_logged + 1:
            self._aborted_logged = now
            _log.info("request aborted", extra={"event": "request_aborted", "route": route, "count": self._aborted})
            self._aborted = 0

    def socket_path(self) -> Path:
        """Where this worker tells the supervisor what it has counted."""
        return worker_socket(self.run_dir, self.ordinal)

    def supervisor_path(self) -> Path:
        """Where the supervisor tells what all workers of this service have counted."""
        return supervisor_socket(self.run_dir)

    async def watch(self) -> None:
        """For ever: what the limiter and the shedder do beside requests. Cancelling ends it."""
        limiter = self.gate.limiter
        async with asyncio.TaskGroup() as group:
            group.create_task(again(self._shed))
            if limiter is not None:
                group.create_task(again(limiter.store.run))
                group.create_task(again(limiter.run))
                group.create_task(again(lambda: watch_policies(self.settings, limiter)))

    async def _shed(self) -> None:
        while True:
            await asyncio.sleep(WINDOW_S)
            self.gate.shedder.tick(time.monotonic(), self.lag.recent_s)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def spawned(self) -> None:
        """Wait until all that was spawned has ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def reading(self, read: Callable[[], Awaitable[T]]) -> T:
        """Run a read; a database that cannot be reached is a fault that a caller may retry. Raises Unavailable."""
        try:
            return await read()
        except (*AWAY, TimeoutError) as error:
            raise Unavailable("the database does not answer") from error
        except asyncpg.InterfaceError as error:
            if isinstance(error, ValueError):
                raise
            raise Unavailable("the database does not answer") from error


async def again(work: Callable[[], Awaitable[None]]) -> None:
    """Work that never ends, begun again after a bug: nothing beside requests may stay undone for ever."""
    while True:
        try:
            await work()
        except Exception:
            _log.critical("work beside requests failed, and begins again", exc_info=True)
            await asyncio.sleep(1)
