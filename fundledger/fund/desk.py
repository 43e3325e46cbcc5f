"""Takes orders: those that wait are written ahead together, posted together and marked together; each caller gets its
own answer. While some batches are on their way, the next one gathers; no timer.

What if the process dies: an order that was not written ahead was not taken, and its number is free. One that was is
`posting`, and the recoverer asks for its voucher until it is known. A caller who got no answer asks again with the same
number, and is told what became of it.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from fundledger.database.failures import was_rolled_back
from fundledger.fund import orders, reserve
from fundledger.fund.answer import Answer, Answering, Away, Taken
from fundledger.fund.drafts import Draft, draft_of
from fundledger.fund.link import Away as AccountsAway
from fundledger.fund.macs import Tampered
from fundledger.fund.merchants import Merchants, utc_now
from fundledger.fund.next_steps import FAULTS, NextSteps
from fundledger.fund.order import PLATFORM, Kind, Order, State
from fundledger.fund.orders import Pool
from fundledger.fund.posting import Posting
from fundledger.fund.refusal import Code, Refusal
from fundledger.fund.requests import Request

BATCHES_AT_ONCE: Final = 3
WAITING_MAX: Final = 20_000
PROBE_S: Final = 0.25
"""How long a batch waits for an account service that did not answer the one before."""
ATTEMPTS_MAX: Final = 6
_log = logging.getLogger(__name__)


_OTHERS = Away("another order of this number was asked for at the same time, and there is none now")


class _Overtaken(Exception):
    """An order was written by somebody else meanwhile: begin again, and find it."""


class _NothingKept(Exception):
    """Orders could not be written, and it is certain that none of them was."""


class _Waiting:
    """An order and who waits for it: the first one, and those who asked for the same meanwhile."""

    __slots__ = ("answers", "draft")

    def __init__(self, draft: Draft, answer: Answering) -> None:
        self.draft = draft
        self.answers: list[tuple[bytes, Answering]] = [(draft.order.digest, answer)]

    def tell(self, answer: Answer) -> None:
        """The first one hears it; the others are repeats, or want something else."""
        for i, (digest, tell) in enumerate(self.answers):
            told = answer
            if digest != self.draft.order.digest:
                told = reused(self.draft.order) if isinstance(answer, Taken) else _OTHERS
            elif i and isinstance(answer, Taken):
                told = Taken(answer.order, replay=True)
            tell(told)


class Desk(NextSteps):
    """Of one worker. `batch_max` orders are in one transaction; a caller waits `wait_s` for what is not certain, and
    is then told so; `due_s` after it was written somebody looks after an order that nobody has marked. `now` is the
    source of `created_at`, which decides the fee rule of an order and the day of a withdrawal limit.
    """

    def __init__(
        self,
        pool: Pool,
        posting: Posting,
        merchants: Merchants,
        *,
        batch_max: int,
        wait_s: float,
        due_s: float,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        super().__init__(pool, posting, wait_s=wait_s, due_s=due_s)
        self._link = posting.link
        self._ids, self._macs = posting.ids, posting.macs
        self._merchants = merchants
        self._now = now
        self._batch_max = batch_max
        self._queue: deque[_Waiting] = deque()
        self._known: dict[UUID, _Waiting] = {}
        self._batches = 0
        self._probing = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Orders that are not answered yet."""
        return len(self._known)

    def post(self, request: Request, module: str, answer: Answering) -> None:
        """Take an order; `answer` is called once, now or later. Never raises, never waits.

        A refusal, or `Away` that is undone, kept nothing. `Away` that is not: the same request tells what became of it.
        """
        whose = request.whose
        merchant = self._merchants.known(whose)
        channel = getattr(request, "channel", None)
        opened = merchant is not None and (channel is None or self._link.is_open(channel, merchant.currency))
        if opened and request.kind is not Kind.CHARGEBACK:
            self._take(draft_of(request, merchant, module, self._now(), self._due_s, self._ids), answer)
        else:
            self._spawn(self._look_up(request, module, answer))

    async def ask(self, request: Request, module: str) -> Answer:
        """As `post`. Cancelling does not withdraw the order."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def answer(answered: Answer) -> None:
            if not future.done():
                future.set_result(answered)

        self.post(request, module, answer)
        return await future

    async def _look_up(self, request: Request, module: str, answer: Answering) -> None:
        """What an order needs that this worker does not know: its merchant, the accounts of its channel."""
        try:
            merchant = None if request.whose == PLATFORM else await self._merchants.get(request.whose)
            draft = draft_of(request, merchant, module, self._now(), self._due_s, self._ids)
            if isinstance(draft, Draft):
                order = draft.order
                if order.channel is not None and not self._link.is_open(order.channel, order.currency):
                    await self._link.open_channel(order.channel, order.currency)
                if order.kind is Kind.CHARGEBACK:
                    await self._posting.prepare_chargeback(order)
        except Tampered as found:
            answer(Away(str(found), tampered=True))
        except AccountsAway as away:
            answer(Away(f"the account service does not answer: {away}"))
        except FAULTS as error:
            _log.warning("an order could not be looked up: %s", error)
            answer(Away("the fund database does not answer"))
        except Exception:
            _log.exception("an order could not be looked up")
            answer(Away("something is wrong on our side"))
        else:
            self._take(draft, answer)

    def _take(self, draft: Draft | Refusal, answer: Answering) -> None:
        if isinstance(draft, Refusal):
            answer(draft)
            return
        there = self._known.get(draft.order.id)
        if there is not None:
            there.answers.append((draft.order.digest, answer))
            return
        if len(self._known) >= WAITING_MAX:
            answer(Away("too many orders are waiting"))
            return
        waiting = self._known[draft.order.id] = _Waiting(draft, answer)
        self._queue.append(waiting)
        self._begin()

    def _begin(self) -> None:
        while self._queue and self._batches < BATCHES_AT_ONCE:
            batch = self._next()
            self._batches += 1
            self._spawn(self._run(batch))

    def _next(self) -> list[_Waiting]:
        """The next that are written together: those that reserve nothing, or those that do; a settlement by itself."""
        first = self._queue[0].draft.order.kind
        if first is Kind.SETTLEMENT:
            return [self._queue.popleft()]
        reserving = first in reserve.RESERVING
        batch: list[_Waiting] = []
        while self._queue and len(batch) < self._batch_max:
            kind = self._queue[0].draft.order.kind
            if kind is Kind.SETTLEMENT or (kind in reserve.RESERVING) != reserving:
                break
            batch.append(self._queue.popleft())
        return batch

    async def _run(self, batch: list[_Waiting]) -> None:
        told: Answer = Away("something is wrong on our side", undone=False)
        try:
            written = await self._write(batch)
            if written:
                await self._settle([waiting.draft.order for waiting in written])
                for waiting in written:
                    self._tell(waiting, Taken(waiting.draft.order))
        except FAULTS as error:
            _log.warning("orders could not be written: %s", error)
            told = Away("the fund database does not answer", undone=False)
        except _NothingKept as error:
            _log.warning("orders could not be written: %s", error)
            told = Away("the fund database cannot write now")
        except Exception:
            _log.exception("a batch of orders failed")
        finally:
            for waiting in batch:
                if waiting.draft.order.id in self._known:
                    self._tell(waiting, told)
            self._batches -= 1
            self._begin()

    def _tell(self, waiting: _Waiting, answer: Answer) -> None:
        if self._known.pop(waiting.draft.order.id, None) is not None:
            waiting.tell(answer)

    async def _write(self, batch: list[_Waiting]) -> list[_Waiting]:
        """Write ahead what is new, and answer what is not; the new ones. Raises what asyncpg raises."""
        for attempt in range(ATTEMPTS_MAX):
            try:
                return await self._write_once(batch)
            except (_Overtaken, asyncpg.DeadlockDetectedError):
                if attempt == ATTEMPTS_MAX - 1:
                    raise
        raise AssertionError

    async def _write_once(self, batch: list[_Waiting]) -> list[_Waiting]:
        drafts = [waiting.draft for waiting in batch]
        refusals: dict[UUID, Refusal | Away] = {}
        may_be_committed = is_committed = False
        try:
            async with self._pool.acquire() as connection:
                if drafts[0].order.kind in reserve.RESERVING:
                    async with connection.transaction():
                        there, refusals = await self._reserve(connection, drafts)
                        wanted = [d for d in drafts if d.find(there) is None and d.order.id not in refusals]
                        new = await self._write_ahead(connection, wanted) if wanted else set()
                        if len(new) < len(wanted):
                            raise _Overtaken
                        may_be_committed = True
                else:
                    # One statement is a transaction.
                    may_be_committed = True
                    new = await self._write_ahead(connection, drafts)
                    is_committed = bool(new)
                    old = [draft for draft in drafts if draft.order.id not in new]
                    there = await _read(connection, old) if old else {}
        except asyncpg.DeadlockDetectedError:
            raise
        except FAULTS as error:
            if not is_committed and (not may_be_committed or was_rolled_back(error)):
                raise _NothingKept(str(error)) from error
            raise
        written = []
        for waiting in batch:
            order = waiting.draft.order
            if order.id in new:
                written.append(waiting)
            elif (found := waiting.draft.find(there)) is not None:
                self._tell(waiting, self._checked(found) or repeated(order, found))
            else:
                self._tell(waiting, refusals[order.id])
        return written

    async def _write_ahead(self, connection: orders.Connection, drafts: Sequence[Draft]) -> set[UUID]:
        for draft in drafts:
            self._macs.seal(draft.order)
        former = [draft.former for draft in drafts if draft.former is not None]
        return await orders.write_ahead(connection, [draft.order for draft in drafts], former)

    async def _reserve(
        self, connection: orders.Connection, drafts: list[Draft]
    ) -> tuple[dict[UUID, Order], dict[UUID, Refusal | Away]]:
        """Which orders are there already, and which cannot be, under the locks of what they take of."""
        locked = await reserve.lock(connection, drafts, self._macs)
        there = await _read(connection, drafts)
        fresh = [draft for draft in drafts if draft.find(there) is None]
        answers = await reserve.reserve(connection, fresh, locked, self._macs)
        no = {draft.order.id: answer for draft, answer in zip(fresh, answers, strict=True) if answer is not None}
        return there, no

    def _checked(self, order: Order) -> Away | None:
        """The answer of whatever depends on an order that does not match its MAC, None if it does."""
        try:
            self._macs.check(order)
        except Tampered as found:
            return Away(str(found), tampered=True)
        return None

    async def _settle(self, written: Sequence[Order]) -> None:
        """Post what was written ahead, as far as that is possible before its callers should know more."""
        posting = [order for order in written if order.state is State.POSTING]
        if not posting:
            return
        # One at a time finds out whether it is back, and may take as long as any; the others do not wait for that.
        probes = self._link.is_away and not self._probing
        self._probing = self._probing or probes
        try:
            await self._post_within(posting, PROBE_S if self._link.is_away and not probes else self._wait_s)
        finally:
            if probes:
                self._probing = False

    async def _post_within(self, posting: list[Order], wait_s: float) -> None:
        give_up_at = time.monotonic() + wait_s
        try:
            async with asyncio.timeout(wait_s):
                pause_s = 0.02
                while True:
                    try:
                        await self._posting.post(posting)
                    except AccountsAway:
                        if self._link.is_away and time.monotonic() + pause_s >= give_up_at:
                            return
                    if all(order.state is not State.POSTING for order in posting):
                        return
                    posting = [order for order in posting if order.state is State.POSTING]
                    await asyncio.sleep(pause_s)
                    pause_s *= 2
        except TimeoutError:
            self._link.is_away = True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Until every order that was taken has been answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)


async def _read(connection: orders.Connection, drafts: Sequence[Draft]) -> dict[UUID, Order]:
    """The orders of the same names, by id."""
    former = [draft.former for draft in drafts if draft.former is not None]
    return await orders.read_orders(connection, [draft.order.id for draft in drafts] + former)


def repeated(asked: Order, there: Order) -> Answer:
    """What is answered when an order of this number is there: itself, unless something else was asked for."""
    return Taken(there, replay=True) if there.digest == asked.digest else reused(there)


def reused(there: Order) -> Refusal:
    detail = f"{there.kind} {there.order_no} of {there.merchant} exists, and is not what is asked for now"
    return Refusal(Code.ORDER_NO_REUSED, detail, "order_no")
