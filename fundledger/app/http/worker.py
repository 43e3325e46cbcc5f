"""HTTP worker of a service: its limits, its connections, its reads, and the count of its answers."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import asyncpg

from fundledger.app.http.admission.controller import AdmissionController
from fundledger.app.http.admission.hot_keys import HotKeys
from fundledger.app.http.admission.limiter import watch_policies
from fundledger.app.http.admission.replays import Replays
from fundledger.app.http.metrics.counters import Requests
from fundledger.app.http.metrics.loop_lag import LoopLag
from fundledger.app.http.readiness import Readiness
from fundledger.app.http.sockets import supervisor_socket, worker_socket
from fundledger.app.http.wire.body_memory import BodiesUnderWay
from fundledger.app.http.wire.connections import Connections, connections_for
from fundledger.app.http.wire.peers import Peers
from fundledger.database.failures import PASSING
from fundledger.faults import Unavailable
from fundledger.ratelimit.quota.limiter import Limiter
from fundledger.ratelimit.shedding.shedder import WINDOW_S, Shedder
from fundledger.security.tokens import Tokens
from fundledger.settings import Settings

T = TypeVar("T")
AWAY: Final = (*PASSING, asyncpg.TransactionRollbackError)
"""Errors after which a read or a small write may succeed later: an unreachable database, or a failed transaction."""
_log = logging.getLogger("fundledger.requests")


class Served(Protocol):
    """The members of a worker that the protocol, routing and handlers of both services use."""

    settings: Settings
    controller: AdmissionController
    draining: bool
    connections: Connections
    bodies: BodiesUnderWay
    peers: Peers
    replays: Replays

    def module(self, authorization: str | None) -> str | None:
        """Return the module to which the token in an `Authorization` header belongs, None without a valid token. For a
        person's token, return the identity of the person. Raises Unavailable.
        """

    def permits(self, module: str, role: str) -> bool:
        """Return whether a caller may send a request for which a person needs a role. Modules need no role."""

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
        """Count an answer in the metrics of this worker."""

    def aborted(self, route: str) -> None:
        """Log that a client closed its connection before its request was read."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a background task. A drain waits until the task has ended."""


class Worker:
    """One worker of a service: authentication, statistics, readiness. Implements `Served`.

    `known`: the SQL by which `Replays` finds recorded ids. `trusted`: the module that limits its own callers.
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
        known: str,
        limiter: Limiter | None = None,
        trusted: str | None = None,
    ) -> None:
        self.settings = settings
        self.pool = pool
        self.hot_keys = HotKeys()
        shedder = Shedder(settings.latency_target_ms / 1000, settings.concurrency_max, on=settings.shedding == "on")
        self.controller = AdmissionController(limiter, shedder, self.hot_keys, trusted)
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
        self.replays = Replays(pool, known)

    def module(self, authorization: str | None) -> str | None:
        """Return the module to which the API token in an `Authorization` header belongs, None without a valid token.

        Valid headers are cached.
        """
        if authorization is None:
            return None
        module = self._modules.get(authorization)
        if module is None:
            module = self._tokens.module(authorization)
            if module is not None and len(self._modules) < 1024:
                self._modules[authorization] = module
        return module

    def permits(self, module: str, role: str) -> bool:
        """Return whether a caller may send a request for which a person needs a role. Modules need no role."""
        del module, role
        return True

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
        """Count an answer. Log one of every `log_sample` answers, and each answer with a status of 500 or more."""
        self._requests.request(route, method, status, seconds, api_class, shed)
        self._until_logged -= 1
        if self._until_logged <= 0 or status >= 500:
            self._until_logged = self.settings.log_sample
            level = logging.WARNING if status >= 500 else logging.INFO
            about = {"route": route, "status": status, "ms": round(seconds * 1000, 3), "request_id": request_id}
            _log.log(level, "request answered", extra={"event": "request_answered", **about})

    def aborted(self, route: str) -> None:
        """Log that clients closed connections before their requests were read: at most one line a second."""
        self._aborted += 1
        now = time.monotonic()
        if now >= self._aborted_logged + 1:
            self._aborted_logged = now
            _log.info("request aborted", extra={"event": "request_aborted", "route": route, "count": self._aborted})
            self._aborted = 0

    def socket_path(self) -> Path:
        """Return the socket on which this worker reports its statistics to the supervisor."""
        return worker_socket(self.run_dir, self.ordinal)

    def supervisor_path(self) -> Path:
        """Return the socket on which the supervisor reports the statistics of all workers of this service."""
        return supervisor_socket(self.run_dir)

    async def watch(self) -> None:
        """Run the background tasks of the limiter and of the shedder, until cancelled."""
        limiter = self.controller.limiter
        async with asyncio.TaskGroup() as group:
            group.create_task(again(self._shed))
            if limiter is not None:
                group.create_task(again(limiter.store.run))
                group.create_task(again(limiter.run))
                group.create_task(again(lambda: watch_policies(self.settings, limiter)))

    async def _shed(self) -> None:
        while True:
            await asyncio.sleep(WINDOW_S)
            self.controller.shedder.tick(time.monotonic(), self.lag.recent_s)

    async def drain(self) -> None:
        """Wait until all accepted requests are answered."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close the connections of the service."""
        raise NotImplementedError

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def spawned(self) -> None:
        """Wait until all spawned tasks have ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def reading(self, read: Callable[[], Awaitable[T]]) -> T:
        """Run a read and return its result. Raises Unavailable if the database cannot be reached; a retry is safe."""
        try:
            return await read()
        except (*AWAY, TimeoutError) as error:
            raise Unavailable("the database does not answer") from error
        except asyncpg.InterfaceError as error:
            if isinstance(error, ValueError):
                raise
            raise Unavailable("the database does not answer") from error


async def again(work: Callable[[], Awaitable[None]]) -> None:
    """Run work that never ends. After an unexpected exception, run the work again, so that no background task stops."""
    while True:
        try:
            await work()
        except Exception:
            _log.critical(
                "background task failed and is restarted", exc_info=True, extra={"event": "background_task_failed"}
            )
            await asyncio.sleep(1)
