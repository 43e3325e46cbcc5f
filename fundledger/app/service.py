"""What every request handler works with: the worker's lanes, its reads, its memory of accounts."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import msgspec

from fundledger.app.gate import Gate
from fundledger.app.hotkeys import HotKeys
from fundledger.app.lag import LoopLag
from fundledger.app.limits import watch_policies
from fundledger.app.metrics import Metrics
from fundledger.app.repeats import Repeats
from fundledger.app.settings import Settings
from fundledger.app.sockets import worker_socket
from fundledger.daemons.roster import Roster
from fundledger.database.statements import load
from fundledger.hotspot.direct import Direct
from fundledger.hotspot.flusher import Flusher
from fundledger.hotspot.folder import Folder
from fundledger.hotspot.keeper import Keeper
from fundledger.hotspot.lane import Lane
from fundledger.ledger.accounts import Layout, NewAccount, Opened, open_accounts
from fundledger.ledger.batch import Command, Outcome
from fundledger.ledger.directory import Directory
from fundledger.ledger.fault import Fault, Unavailable
from fundledger.outbox.feed import Feed
from fundledger.ratelimit.limiter import Limiter
from fundledger.ratelimit.shedding import WINDOW_S, Shedder
from fundledger.security.keys import Keys
from fundledger.security.tokens import Tokens

SQL = load("fundledger.app")
T = TypeVar("T")
DURABLE_ATTEMPTS = 4
_log = logging.getLogger("fundledger.requests")
_AWAY = (OSError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError, asyncpg.InternalClientError)
"""What a read meets when the database is gone or going."""


class Daemons(msgspec.Struct, frozen=True):
    """What a worker does by itself."""

    keeper: Keeper
    folder: Folder


class Service:
    """One worker's share of the account service."""

    def __init__(
        self,
        settings: Settings,
        layout: Layout,
        keys: Keys,
        directory: Directory,
        lanes: "list[Lane | Direct]",
        daemons: "Daemons",
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
        self.settings = settings
        self.layout = layout
        self.keys = keys
        self.directory = directory
        self.lanes = lanes
        self.daemons = daemons
        self.flusher = flusher
        self.pool = pool
        self.metrics = metrics
        self.hot_keys = HotKeys()
        shedder = Shedder(settings.latency_target_ms / 1000, settings.concurrency_max, on=settings.shedding == "on")
        self.gate = Gate(limiter, shedder, self.hot_keys)
        self.repeats = Repeats(pool)
        self.lag = LoopLag(metrics.now.loop_lag)
        self.draining = False
        self.feed = feed
        self.roster: Roster
        self.run_dir = run_dir
        self._until_logged = settings.log_sample
        self._ordinal = ordinal
        self._tokens = tokens
        self._modules: dict[str, str] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._opening: list[tuple[NewAccount, asyncio.Future[Opened]]] = []
        self._opener: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[bool] | None = None

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
        self, route: str, status: int, seconds: float, method: str = "POST", api_class: str = "", shed: bool = False
    ) -> None:
        """Count an answer; log one of so many, and each that is our fault."""
        self.metrics.request(route, method, status, seconds, api_class, shed)
        self._until_logged -= 1
        if self._until_logged <= 0 or status >= 500:
            self._until_logged = self.settings.log_sample
            level = logging.WARNING if status >= 500 else logging.INFO
            _log.log(level, "answered", extra={"route": route, "status": status, "ms": round(seconds * 1000, 3)})

    def socket_path(self) -> Path:
        """Where this worker tells the supervisor what it has counted."""
        return worker_socket(self.run_dir, self._ordinal)

    async def watch(self) -> None:
        """For ever: what the limiter and the shedder do beside requests. Cancelling ends it."""
        limiter = self.gate.limiter
        async with asyncio.TaskGroup() as group:
            group.create_task(_again(self._shed))
            if limiter is not None:
                group.create_task(_again(limiter.store.run))
                group.create_task(_again(limiter.run))
                group.create_task(_again(lambda: watch_policies(self.settings, limiter)))

    async def _shed(self) -> None:
        while True:
            await asyncio.sleep(WINDOW_S)
            self.gate.shedder.tick(time.monotonic(), self.lag.recent_s)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ask(self, shard: int, command: Command) -> Outcome | Fault:
        """Post a command and wait for its answer. Raises LaneFull. Cancelling does not withdraw it."""
        future: asyncio.Future[Outcome | Fault] = asyncio.get_running_loop().create_future()

        def answer(_: int, outcome: Outcome | Fault) -> None:
            if not future.done():
                future.set_result(outcome)

        self.lanes[shard].post(command, answer)
        return await future

    async def reading(self, read: Callable[[], Awaitable[T]]) -> T:
        """Run a read; a database that cannot be reached is a fault that a caller may retry. Raises Unavailable."""
        try:
            return await read()
        except (*_AWAY, TimeoutError) as error:
            raise Unavailable("the database does not answer") from error
        except asyncpg.InterfaceError as error:
            if isinstance(error, ValueError):
                raise
            raise Unavailable("the database does not answer") from error

    async def reading_durable(self, read: Callable[[], Awaitable[T]]) -> T:
        """Run a read whose answer stays true whatever fails: what it saw is flushed first. Raises Unavailable."""
        for _ in range(DURABLE_ATTEMPTS):
            answer = await self.reading(read)
            if self.flusher is None or await self.flusher.flush():
                return answer
            # What was seen may be gone: look again.
        raise Unavailable("the database does not answer")

    async def database_answers(self, within_s: float) -> bool:
        """Whether a read comes back in time. One probe is out at a time: to cancel a read is to wait for the server."""
        if self._probe is None or self._probe.done():
            self._probe = asyncio.get_running_loop().create_task(self._ping())
        await asyncio.wait([self._probe], timeout=within_s)
        return self._probe.done() and self._probe.result()

    async def _ping(self) -> bool:
        try:
            await self.pool.fetchval(SQL["ping"])
        except (*_AWAY, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            return False
        return True

    async def open_account(self, request: NewAccount) -> Opened:
        """Open one account, together with all that are asked for meanwhile. Raises Unavailable."""
        future: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
        self._opening.append((request, future))
        if self._opener is None or self._opener.done():
            self._opener = asyncio.get_running_loop().create_task(self._open_waiting())
        return await future

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

    async def drain(self) -> None:
        """Wait until everything accepted has been answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        for lane in self.lanes:
            await lane.drain()

    async def close(self) -> None:
        for lane in self.lanes:
            await lane.close()
        if self.flusher is not None:
            await self.flusher.close()
        await self.feed.close()
        await self.roster.pool.close()
        await self.pool.close()


async def _again(work: Callable[[], Awaitable[None]]) -> None:
    """Work that never ends, begun again after a bug: nothing beside requests may stay undone for ever."""
    while True:
        try:
            await work()
        except Exception:
            _log.critical("work beside requests failed, and begins again", exc_info=True)
            await asyncio.sleep(1)
