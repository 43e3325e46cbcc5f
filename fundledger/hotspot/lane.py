"""Group commit: one queue per shard and worker; while a batch is in the database, the next one gathers.

While a batch is written, the callers of the one before are answered; and as soon as as many commands wait as are being
written, they become the next batch, which is decided meanwhile (ADR 0011). There is no timer: at light load a batch is
one command and its latency one transaction; under load batches grow to what arrives during one. If the process dies
with a full queue, nothing of it was answered: each caller asks again with the same id and learns what is true.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Protocol

import msgspec

from fundledger.hotspot.flusher import Flusher
from fundledger.hotspot.heat import Thermometer
from fundledger.ledger.batch import AtomicGroup, Command, Outcome
from fundledger.ledger.books import Books
from fundledger.ledger.fault import Fault, GuardHit, OutcomeUnknown, Unavailable
from fundledger.ledger.posting import post_vouchers
from fundledger.ledger.session import Session
from fundledger.ledger.unlocked import Prepared, prepare
from fundledger.ledger.voucher import Voucher

_log = logging.getLogger(__name__)

Answer = Callable[[int, Outcome | Fault], None]
"""Called once, with the index that the command was posted under, after its batch was committed durably."""

PostBatch = Callable[..., Awaitable[list[Outcome | Fault]]]
"""As `post_vouchers`."""

Item = tuple[Command, Answer, int]


CRASHED = "internal error: nothing was written, or asking again with the same id tells what was"
LATE_S = 0.005
"""How long a committed batch waits at most for the next one to be on its way, before its callers are answered."""


LINES_MAX = 4_000
"""Lines of vouchers in one batch: to decide and encode a batch blocks the loop for 5 us a line. Each METADATA_BYTES of
metadata count as a line. One command may have more.
"""
METADATA_BYTES = 512
FEW = 50
"""So many vouchers never have more than LINES_MAX: one has 64 lines and 4 KB of metadata at most."""
FLUSH_ATTEMPTS = 5
"""After so many flushes that failed, callers are told that the outcome is unknown."""


class LaneFull(Unavailable):
    """As many commands are waiting as may wait: this one was not accepted, and nothing was written."""


class Meter(Protocol):
    """Who wants to know of each batch."""

    def batch(self, size: int, seconds: float) -> None: ...


class Statistics(msgspec.Struct, frozen=True):
    """Of a lane, now: commands waiting, commands in the database."""

    waiting: int
    in_flight: int


class _Unflushed(msgspec.Struct, frozen=True):
    """A batch that was committed, and may not be durable."""

    items: list[Item]
    outcomes: Sequence[Outcome | Fault]
    attempts: int = 0


class Lane:
    """The queue of one shard in one worker.

    `post` accepts or raises LaneFull at once. What was accepted is posted even if its caller goes away; `drain` waits
    until everything accepted has been answered.
    """

    def __init__(
        self,
        session: Session,
        books: Books,
        meter: Meter,
        depth_max: int,
        batch_size_max: int,
        post_batch: PostBatch = post_vouchers,
        thermometer: Thermometer | None = None,
        flusher: Flusher | None = None,
    ) -> None:
        self._session = session
        self._books = books
        self._meter = meter
        self._depth_max = depth_max
        self._batch_size_max = batch_size_max
        self._post_batch = post_batch
        self._thermometer = thermometer or Thermometer()
        self._flusher = flusher
        self._unflushed = 0
        self._unflushed_items = 0
        self._lost: deque[_Unflushed] = deque()
        self._queue: deque[Item] = deque()
        self._in_flight = 0
        self._may_prepare = False
        self._next: list[Item] = []
        self._preparing: asyncio.Task[Prepared | None] | None = None
        self._committed: Sequence[Item] = ()
        self._outcomes: Sequence[Outcome | Fault] = ()
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def post(self, command: Command, answer: Answer, index: int = 0) -> None:
        """Accept a command; `answer(index, outcome)` follows after the commit. Raises LaneFull."""
        if len(self._queue) + self._unflushed_items >= self._depth_max:
            raise LaneFull("too many vouchers are waiting")
        self._queue.append((command, answer, index))
        if self._in_flight == 0:
            self._wake.set()
        elif self._may_prepare and len(self._queue) == self._in_flight:
            asyncio.get_running_loop().call_soon(self._prepare_next)

    def free(self) -> int:
        """How many more commands would be accepted now."""
        return self._depth_max - len(self._queue) - self._unflushed_items

    def statistics(self) -> Statistics:
        return Statistics(len(self._queue) + len(self._next), self._in_flight)

    async def drain(self) -> None:
        """Wait until every accepted command has been answered."""
        if self._queue or self._in_flight or self._unflushed:
            self._empty.clear()
            await self._empty.wait()

    async def close(self) -> None:
        await self.drain()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._session.close()

    async def _run(self) -> None:
        while True:
            while self._lost:
                self._answer()
                await self._post_again(self._lost.popleft())
            if not self._queue and not self._next:
                self._in_flight = 0
                if self._unflushed == 0:
                    self._empty.set()
                self._wake.clear()
                await self._wake.wait()
                continue
            items, preparing = self._next or self._take(), self._preparing
            self._next, self._preparing = [], None
            await self._post_items(items, preparing)

    async def _post_items(self, items: list[Item], preparing: asyncio.Task[Prepared | None] | None) -> None:
        loop = asyncio.get_running_loop()
        self._in_flight = len(items)
        # Alone, one commit that waits for the disk is sooner done than one that does not and a flush.
        early = self._flusher is not None and (len(items) > 1 or bool(self._queue) or self._unflushed > 0)
        self._session.unflushed = False
        started = loop.time()
        late = loop.call_later(LATE_S, self._answer) if self._committed else None
        commands = [command for command, _, _ in items]
        outcomes = await self._post(commands, preparing, early)
        self._may_prepare = False
        if late is not None:
            late.cancel()
        self._measure(commands, loop.time() - started)
        self._answer()
        unflushed = self._session.unflushed
        if self._flusher is not None and (unflushed or any(_is_read(outcome) for outcome in outcomes)):
            self._unflushed += 1
            self._unflushed_items += len(items)
            self._after_flush(self._flusher, _Unflushed(items, outcomes))
            return
        self._committed, self._outcomes = items, outcomes
        if not self._queue and not self._next:
            self._answer()

    def _measure(self, commands: Sequence[Command], elapsed: float) -> None:
        try:
            self._meter.batch(len(commands), elapsed)
            self._thermometer.batch(commands, elapsed)
        except Exception:
            # Nobody's answer hangs on a number.
            _log.exception("a batch could not be counted")

    def _after_flush(self, flusher: Flusher, batch: "_Unflushed") -> None:
        def then(durable: bool) -> None:
            if durable:
                self._unflushed -= 1
                self._unflushed_items -= len(batch.items)
                _deliver(batch.items, batch.outcomes)
            else:
                self._lost.append(batch)
            self._wake.set()

        flusher.after(then)

    async def _post_again(self, batch: "_Unflushed") -> None:
        """A batch of which nobody knows whether it is durable: each id counts once, so posting it again finds out; and
        what it finds has to be flushed as well.
        """
        commands = [command for command, _, _ in batch.items]
        if batch.attempts >= FLUSH_ATTEMPTS:
            outcomes: Sequence[Outcome | Fault] = [OutcomeUnknown("the database does not answer")] * len(commands)
        else:
            outcomes = await self._post_once_more(commands)
        for before, now in zip(batch.outcomes, outcomes, strict=True):
            _is_no_repeat(before, now)
        again = _Unflushed(batch.items, outcomes, batch.attempts + 1)
        if self._flusher is not None and batch.attempts < FLUSH_ATTEMPTS:
            self._after_flush(self._flusher, again)
            return
        self._unflushed -= 1
        self._unflushed_items -= len(batch.items)
        _deliver(batch.items, outcomes)

    async def _post_once_more(self, commands: Sequence[Command]) -> Sequence[Outcome | Fault]:
        try:
            return await self._post_batch(self._session, self._books, commands, sent_before=True, locked=True)
        except Exception:
            _log.critical("posting a batch of %d again failed", len(commands), exc_info=True)
            self._session.drop()
            return [OutcomeUnknown(CRASHED)] * len(commands)

    def _sent(self, may_prepare: bool) -> None:
        # While a batch is written and committed, this process has nothing to do but answer the one before and read what
        # its callers send next: measured, 1.3 times the throughput of answering first.
        self._may_prepare = may_prepare
        asyncio.get_running_loop().call_soon(self._while_written)

    def _while_written(self) -> None:
        self._answer()
        if len(self._queue) >= self._in_flight:
            self._prepare_next()

    def _prepare_next(self) -> None:
        """Decide the next batch while this one is written: fewer commands than that are worth waiting for more."""
        if not self._may_prepare or not self._queue:
            return
        self._may_prepare = False
        self._next = self._take()
        commands = [command for command, _, _ in self._next]
        preparing = prepare(self._session, self._books, commands)
        self._preparing = asyncio.get_running_loop().create_task(preparing)

    def _answer(self) -> None:
        """Answer the last batch that was committed."""
        items, outcomes = self._committed, self._outcomes
        self._committed = self._outcomes = ()
        _deliver(items, outcomes)

    def _take(self) -> list[Item]:
        if len(self._queue) <= min(FEW, self._batch_size_max) and not any(
            type(command) is AtomicGroup for command, _, _ in self._queue
        ):
            items = list(self._queue)
            self._queue.clear()
            return items
        size = lines = 0
        count = 0
        for command, _, _ in self._queue:
            if type(command) is Voucher:
                size += 1
                lines += len(command.lines)
                if command.metadata is not None:
                    lines += len(command.metadata) // METADATA_BYTES
            elif type(command) is AtomicGroup:
                size += len(command.vouchers)
                lines += sum(len(voucher.lines) for voucher in command.vouchers)
            else:
                size += 1
            if count and (size > self._batch_size_max or lines > LINES_MAX):
                break
            count += 1
        items = list(islice(self._queue, count))
        if count == len(self._queue):
            self._queue.clear()
        else:
            for _ in range(count):
                self._queue.popleft()
        return items

    async def _post(
        self, commands: Sequence[Command], preparing: asyncio.Task[Prepared | None] | None, early: bool
    ) -> Sequence[Outcome | Fault]:
        try:
            prepared = None if preparing is None else await preparing
            return await self._post_batch(
                self._session,
                self._books,
                commands,
                self._sent,
                prepared=prepared,
                early=early,
                locked=preparing is not None and prepared is None,
            )
        except Exception:
            # A bug. The transaction is dropped with its connection, so that nothing of it can be committed later.
            _log.critical("posting a batch of %d failed", len(commands), exc_info=True)
            self._session.drop()
            return [GuardHit(CRASHED)] * len(commands)


def _deliver(items: Sequence[Item], outcomes: Sequence[Outcome | Fault]) -> None:
    for (_, answer, index), outcome in zip(items, outcomes, strict=True):
        try:
            answer(index, outcome)
        except Exception:
            _log.exception("an answer could not be delivered")


def _is_read(outcome: Outcome | Fault) -> bool:
    """Whether it tells of something that somebody else may have committed, and nobody flushed."""
    if not isinstance(outcome, Outcome):
        return False
    return outcome.replay or outcome.refusal is not None or any(map(_is_read, outcome.parts or ()))


def _is_no_repeat(before: Outcome | Fault, now: Outcome | Fault) -> None:
    """Who asked first is told so, also by a lane that had to ask the database twice."""
    if isinstance(before, Outcome) and isinstance(now, Outcome):
        now.replay = now.replay and before.replay
        for part_before, part in zip(before.parts or (), now.parts or (), strict=False):
            _is_no_repeat(part_before, part)
