"""Whether a voucher that would be refused for its quota was recorded before: then it is a repeat, and costs nothing.

A flood of refusals must not become a flood of reads: the ids that wait are looked up together, a few times a second.
"""

import asyncio
from typing import Any, Final

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger.statements import load
from fundledger.ratelimit.pacer import Pacer, TooMuch

SQL = load("fundledger.app")
READS_PER_S: Final = 20
IDS_AT_ONCE: Final = 64


class Repeats:
    """Of one worker: at most `READS_PER_S` reads a second of `IDS_AT_ONCE` ids. What does not fit is not looked up."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool
        self._pacer = Pacer(READS_PER_S, waiters_max=1)
        self._asked: dict[UUID, asyncio.Future[bool]] = {}
        self._reading: asyncio.Task[None] | None = None

    def has_room(self) -> bool:
        """Whether one more id would be looked up."""
        return len(self._asked) < IDS_AT_ONCE

    async def known(self, id_: UUID) -> bool:
        """Whether this id is recorded, posted or refused; False also when nobody could look: there was no room, or the
        database does not answer. Never raises. Cancelling leaves the read to those who wait for the same.
        """
        if not self.has_room():
            return False
        future = self._asked.get(id_)
        if future is None:
            future = self._asked[id_] = asyncio.get_running_loop().create_future()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read())
        return await asyncio.shield(future)

    async def _read(self) -> None:
        while self._asked:
            found: set[Any] = set()
            asked: dict[UUID, asyncio.Future[bool]] = {}
            try:
                await self._pacer.turn()
                asked, self._asked = self._asked, {}
                rows = await self._pool.fetch(SQL["known_vouchers"], list(asked))
                found = {row["id"] for row in rows}
            except (TooMuch, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                if not asked:
                    asked, self._asked = self._asked, {}
            for id_, future in asked.items():
                if not future.done():
                    future.set_result(id_ in found)
