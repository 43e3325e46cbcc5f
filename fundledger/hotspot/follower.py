"""Follower of hot accounts: reports the load of one worker to the database, and applies changes of the slot map."""

import asyncio
import logging
import time
from collections.abc import Sequence

import asyncpg
import msgspec

from fundledger.hotspot.buffer_drainer import BufferDrainer
from fundledger.hotspot.heat import HeatSampler
from fundledger.hotspot.rebalancer import EVERY_S, SQL
from fundledger.jobs.runner import AWAY
from fundledger.ledger.context import Books
from fundledger.ledger.store.session import Session
from fundledger.ledger.store.slot_map import follow, read_routes

_log = logging.getLogger(__name__)


class Follower:
    """The follower of one worker. Every worker runs a follower.

    In contrast, only one process at a time runs the rebalancer, and only one runs the buffer drainer.

    `sessions` are the sessions of the worker's lanes. `follow` reads and resets `widened` of each session.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        name: str,
        books: Books,
        sampler: HeatSampler,
        sessions: Sequence[Session],
        drainer: BufferDrainer,
    ) -> None:
        self._pool = pool
        self._name = name
        self._books = books
        self._sampler = sampler
        self._sessions = sessions
        self._drainer = drainer
        self._epochs: dict[int, int] = {}
        self._reported = False
        self._told_at = time.monotonic()
        self.widened = 0

    async def run(self) -> None:
        """Run `follow` once a second until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.follow()
            except AWAY as error:
                extra = {"event": "follower_disconnected"}
                _log.warning("hot accounts are not followed: %s", error, extra=extra)

    async def follow(self) -> None:
        """Report the load, apply the slot map, and set whether this worker buffers credits. Raises asyncpg errors."""
        await self._report()
        await follow(self._pool, self._books.directory, self._epochs, await read_routes(self._pool))
        await self._drainer.read_backlog()

    async def _report(self) -> None:
        widened: dict[int, int] = {}
        for session in self._sessions:
            for number, count in session.widened.items():
                widened[number] = widened.get(number, 0) + count
            session.widened.clear()
            session.buffering.clear()
        now = time.monotonic()
        report = self._sampler.report(now - self._told_at, widened)
        self._told_at = now
        self.widened += sum(widened.values())
        if report.arrivals or self._reported:
            await self._pool.execute(SQL["tell_heat"], self._name, msgspec.json.encode(report).decode())
        self._reported = bool(report.arrivals)
