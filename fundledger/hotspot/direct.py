"""Direct posting to hot accounts: each command is its own transaction, for comparison (`FUNDLEDGER_POSTING=direct`)."""

import asyncio
import logging
from collections.abc import Sequence

from fundledger.faults import GuardHit
from fundledger.hotspot.lane import CRASHED, Answer, LaneFull, Meter, Statistics
from fundledger.ledger.context import Books
from fundledger.ledger.model.batch import Command
from fundledger.ledger.posting import post_vouchers
from fundledger.ledger.store.session import Session

_log = logging.getLogger(__name__)
CONNECTIONS = 16


class Direct:
    """A replacement for Lane with the same guarantees.

    Each command is posted in its own transaction on one of `sessions`.
    """

    def __init__(self, sessions: Sequence[Session], books: Books, meter: Meter, depth_max: int) -> None:
        self._free: asyncio.LifoQueue[Session] = asyncio.LifoQueue()
        for session in sessions:
            self._free.put_nowait(session)
        self._books = books
        self._meter = meter
        self._depth_max = depth_max
        self._posting: set[asyncio.Task[None]] = set()

    def post(self, command: Command, answer: Answer, index: int = 0) -> None:
        if len(self._posting) >= self._depth_max:
            raise LaneFull("too many vouchers are waiting")
        task = asyncio.get_running_loop().create_task(self._post(command, answer, index))
        self._posting.add(task)
        task.add_done_callback(self._posting.discard)

    def free(self) -> int:
        return self._depth_max - len(self._posting)

    def statistics(self) -> Statistics:
        in_flight = CONNECTIONS - self._free.qsize()
        return Statistics(max(0, len(self._posting) - in_flight), in_flight)

    async def drain(self) -> None:
        while self._posting:
            await asyncio.wait(self._posting)

    async def close(self) -> None:
        await self.drain()
        while not self._free.empty():
            await self._free.get_nowait().close()

    async def _post(self, command: Command, answer: Answer, index: int) -> None:
        session = await self._free.get()
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            outcomes = await post_vouchers(session, self._books, [command])
        except Exception:
            _log.critical("posting a command failed", exc_info=True, extra={"event": "posting_failed"})
            session.drop()
            outcomes = [GuardHit(CRASHED)]
        finally:
            self._free.put_nowait(session)
        self._meter.batch(1, loop.time() - started)
        answer(index, outcomes[0])
