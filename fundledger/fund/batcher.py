"""Order batcher of the fund service, a group commit: insert a batch of orders as `posting`, post their vouchers in one
call, record the outcomes, and answer each caller. New orders are queued while BATCHES_AT_ONCE batches are in progress.
No batch waits for a timer.

If the process dies, an order that was not inserted does not exist, and its number is free. An order that was inserted
is `posting`: the recoverer repeats the request to post its voucher until the outcome is known. A caller that got no
answer retries with the same order number and gets the outcome.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from fundledger.database.failures import was_rolled_back
from fundledger.fund.account_gateway import AccountGateway, GatewayFault
from fundledger.fund.approvals import Approvals
from fundledger.fund.channel_check import ChannelCheck, Registry
from fundledger.fund.model.answer import Answer, Answering, OrderFault, Taken
from fundledger.fund.model.drafts import Draft, draft_of
from fundledger.fund.model.merchant import Merchant, refusal_in
from fundledger.fund.model.order import CHARGING, PLATFORM, SPLITS, Kind, Order, State
from fundledger.fund.model.refusal import Refusal
from fundledger.fund.model.requests import Request, Withdrawal
from fundledger.fund.model.split_requests import SplitPayment
from fundledger.fund.next_steps import FAULTS
from fundledger.fund.platform_check import TAKING, PlatformCheck
from fundledger.fund.poster import Posting
from fundledger.fund.rolling import RollingReserves
from fundledger.fund.store import orders, split_parts
from fundledger.fund.store import reservations as reserve
from fundledger.fund.store.macs import Tampered
from fundledger.fund.store.merchants import Merchants, utc_now
from fundledger.fund.store.orders import Pool
from fundledger.fund.store.withdrawal_decisions import rule_of, take_all
from fundledger.fund.waiting import Waiting, repeated

BATCHES_AT_ONCE: Final = 3
WAITING_MAX: Final = 20_000
PROBE_S: Final = 0.25
"""The maximum time for which a batch waits for the account service if it did not answer the previous batch."""
ATTEMPTS_MAX: Final = 6
_log = logging.getLogger(__name__)
_LOOKED_UP: Final = (
    CHARGING | TAKING | SPLITS | {Kind.TRANSFER, Kind.RESERVE_HOLD, Kind.RESERVE_RELEASE, Kind.CHANNEL_INVOICE}
)
"""Kinds of orders that need more than their merchant and channel before they are queued."""
_HELD_BEFORE: Final = frozenset({Kind.WITHDRAWAL, Kind.TRANSFER})
"""Kinds of orders before which the rolling reserve of the merchant is held."""


class _Overtaken(Exception):
    """Another process has concurrently inserted one of the orders of the batch. The next attempt finds that order."""


class _NothingKept(Exception):
    """The insert failed, and it is certain that no order of the batch is stored."""


class OrderBatcher(Approvals):
    """The order batcher of one worker.

    `batch_max`: the maximum number of orders in one transaction. `wait_s`: the seconds for which a caller waits for an
    outcome; after that the caller gets the order as `posting`. `due_s`: the seconds from the insert of an order until
    the recoverer takes it if its outcome is still unknown. `now`: the clock for `created_at`, which determines the fee
    rule of an order and the day of a withdrawal.
    """

    def __init__(
        self,
        pool: Pool,
        posting: Posting,
        merchants: Merchants,
        channels: Registry,
        *,
        batch_max: int,
        wait_s: float,
        due_s: float,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        platform = PlatformCheck(channels, merchants, posting.gateway, posting.macs)
        super().__init__(pool, posting, platform, wait_s=wait_s, due_s=due_s, now=now)
        self._gateway = posting.gateway
        self._ids, self._macs = posting.ids, posting.macs
        self._merchants = merchants
        self._check = ChannelCheck(channels, posting.gateway)
        self.rolling = RollingReserves(pool, posting.macs, posting.gateway, self.ask, now)
        self._batch_max = batch_max
        self._queue: deque[Waiting] = deque()
        self._known: dict[UUID, Waiting] = {}
        self._batches = 0
        self._probing = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def gateway(self) -> AccountGateway:
        """The gateway to the account service."""
        return self._gateway

    @property
    def waiting(self) -> int:
        """The number of orders whose callers have not been answered yet."""
        return len(self._known)

    def post(self, request: Request, module: str, answer: Answering) -> None:
        """Queue an order. Never raises, and never waits. The batcher calls `answer` once, during this call or later.

        After a refusal, or an `OrderFault` with `undone`, the order is not stored; holds of a rolling reserve that were
        posted before it are kept. After any other `OrderFault` the outcome is unknown. A retry of the same request
        returns the outcome.
        """
        whose = request.whose
        merchant = self._merchants.known(whose)
        is_ready = merchant is not None and self._check.is_ready(request, merchant.currency)
        if is_ready and (request.kind is Kind.PAYMENT or not _is_looked_up(request, merchant)):
            self._take(self._draft(request, merchant, module), answer)
        else:
            self._spawn(self._look_up(request, module, answer))

    def _draft(
        self, request: Request, merchant: Merchant | None, module: str, parties: Mapping[str, Merchant] | None = None
    ) -> Draft | Refusal:
        made = self._now(), self._due_s, self._ids, self._merchants.dates
        return draft_of(request, merchant, module, *made, parties or {})

    async def ask(self, request: Request, module: str) -> Answer:
        """Queue an order and return its answer, as described at `post`. A cancellation does not withdraw the order."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def answer(answered: Answer) -> None:
            if not future.done():
                future.set_result(answered)

        self.post(request, module, answer)
        return await future

    async def _look_up(self, request: Request, module: str, answer: Answering) -> None:
        """Load the merchant of a request and open the accounts of its channel, as far as this worker has not cached
        them. Then queue the order.
        """
        try:
            merchant = None if request.whose == PLATFORM else await self._merchants.get(request.whose)
            draft = self._draft(request, merchant, module, await self._parties(request))
            answered = await self._prepare(draft, merchant) if isinstance(draft, Draft) else None
        except Tampered as found:
            answer(OrderFault(str(found), tampered=True))
        except GatewayFault as fault:
            answer(OrderFault(f"the account service does not answer: {fault}"))
        except FAULTS as error:
            _log.warning("preparing an order failed: %s", error, extra={"event": "order_prepare_failed"})
            answer(OrderFault("the fund database does not answer"))
        except Exception:
            _log.exception("preparing an order failed", extra={"event": "order_prepare_failed"})
            answer(OrderFault("internal error"))
        else:
            self._take(draft, answer) if answered is None else answer(answered)

    async def _prepare(self, draft: Draft, merchant: Merchant | None) -> Answer | None:
        """Do what an order needs before it is queued. Return its answer if it is not queued: the order if it exists, a
        refusal, or a fault. An existing order is answered, although its channel would refuse a new one.
        """
        order = draft.order
        if order.kind in _HELD_BEFORE and merchant is not None and merchant.rolling is not None:
            there = await self._existing(draft)
            no = there or refusal_in(merchant.state, merchant.id, order.kind, order.module)
            no = no or await self._check.refusal_of(draft) or await self.rolling.hold(merchant)
            if no is not None:
                return no
        if (order.kind in CHARGING and order.kind not in SPLITS) or order.takes_all:
            draft.debitable = await self._posting.debitable(order.merchant)
        # The reservation decides the amount of a withdrawal of all again.
        refusal = take_all(order, rule_of(draft), draft.debitable, 0) if order.takes_all else None
        refusal = refusal or await self._check.refusal_of(draft)
        refusal = refusal or await self._platform.refusal_of_draft(self._pool, draft)
        return None if refusal is None else await self._existing(draft) or refusal

    async def _existing(self, draft: Draft) -> Answer | None:
        found = draft.find(await _read(self._pool, [draft]))
        return None if found is None else self._checked(found) or repeated(draft.order, found)

    async def _parties(self, request: Request) -> dict[str, Merchant]:
        """Return the merchants of the parts of a split payment, as far as they exist."""
        parts = request.parts if isinstance(request, SplitPayment) else ()
        found = {part.merchant: await self._merchants.get(part.merchant) for part in parts}
        return {id_: merchant for id_, merchant in found.items() if merchant is not None}

    def _take(self, draft: Draft | Refusal, answer: Answering) -> None:
        if isinstance(draft, Refusal):
            answer(draft)
            return
        there = self._known.get(draft.order.id)
        if there is not None:
            there.answers.append((draft.order.digest, answer))
            return
        if len(self._known) >= WAITING_MAX:
            answer(OrderFault("the order queue is full"))
            return
        draft.reserves = reserve.reserves(draft.order)
        waiting = self._known[draft.order.id] = Waiting(draft, answer)
        self._queue.append(waiting)
        self._begin()

    def _begin(self) -> None:
        while self._queue and self._batches < BATCHES_AT_ONCE:
            batch = self._next()
            self._batches += 1
            self._spawn(self._run(batch))

    def _next(self) -> list[Waiting]:
        """Return the next batch. Either all orders of a batch reserve shared amounts, or none does. A settlement and
        the reversal of one are always alone in their batch.
        """
        first = self._queue[0].draft
        if reserve.is_large(first.order):
            return [self._queue.popleft()]
        batch: list[Waiting] = []
        while self._queue and len(batch) < self._batch_max:
            draft = self._queue[0].draft
            if reserve.is_large(draft.order) or draft.reserves != first.reserves:
                break
            batch.append(self._queue.popleft())
        return batch

    async def _run(self, batch: list[Waiting]) -> None:
        outcome: Answer = OrderFault("internal error", undone=False)
        try:
            written = await self._write(batch)
            # The orders that have to reserve need not wait until this batch is posted.
            self._begin()
            if written:
                await self._settle([waiting.draft.order for waiting in written])
                for waiting in written:
                    self._tell(waiting, Taken(waiting.draft.order))
        except FAULTS as error:
            _log.warning("inserting a batch of orders failed: %s", error, extra={"event": "order_batch_failed"})
            outcome = OrderFault("the fund database does not answer", undone=False)
        except _NothingKept as error:
            _log.warning("a batch of orders was rolled back: %s", error, extra={"event": "order_batch_rolled_back"})
            outcome = OrderFault("the fund database cannot write now")
        except Exception:
            _log.exception("a batch of orders failed", extra={"event": "order_batch_failed"})
        finally:
            for waiting in batch:
                if waiting.draft.order.id in self._known:
                    self._tell(waiting, outcome)
            self._batches -= 1
            self._begin()

    def _tell(self, waiting: Waiting, answer: Answer) -> None:
        if self._known.pop(waiting.draft.order.id, None) is not None:
            waiting.tell(answer)

    async def _write(self, batch: list[Waiting]) -> list[Waiting]:
        """Insert the new orders of a batch. Answer the callers of orders that exist or are refused. Return the new
        orders. An order that has to reserve is moved from the batch back to the queue. Raises what asyncpg raises.
        """
        for attempt in range(ATTEMPTS_MAX):
            try:
                return await self._write_once(batch)
            except (_Overtaken, asyncpg.DeadlockDetectedError):
                if attempt == ATTEMPTS_MAX - 1:
                    raise
        raise AssertionError

    async def _write_once(self, batch: list[Waiting]) -> list[Waiting]:
        drafts = [waiting.draft for waiting in batch]
        refusals: dict[UUID, Refusal | OrderFault] = {}
        reserves = drafts[0].reserves
        may_be_committed = is_committed = False
        try:
            async with self._pool.acquire() as connection:
                if reserves:
                    async with connection.transaction():
                        there, refusals = await self._reserve(connection, drafts)
                        wanted = [d for d in drafts if d.find(there) is None and d.order.id not in refusals]
                        new = await self._write_ahead(connection, wanted, decided=True) if wanted else set()
                        if len(new) < len(wanted):
                            raise _Overtaken
                        await split_parts.insert(connection, self._macs, [draft.order for draft in wanted])
                        may_be_committed = True
                else:
                    # A query outside a transaction block is a transaction of its own.
                    may_be_committed = True
                    new = await self._write_ahead(connection, drafts, decided=False)
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
        for waiting in list(batch):
            order = waiting.draft.order
            if order.id in new:
                written.append(waiting)
            elif (found := waiting.draft.find(there)) is not None:
                self._tell(waiting, self._checked(found) or repeated(order, found))
            elif not reserves:
                # The merchant owes, or another order has the receipt. Only a batch that reserves can distinguish them.
                waiting.draft.reserves = True
                batch.remove(waiting)
                self._queue.append(waiting)
            else:
                self._tell(waiting, refusals[order.id])
        return written

    async def _write_ahead(self, connection: orders.Connection, drafts: Sequence[Draft], *, decided: bool) -> set[UUID]:
        for draft in drafts:
            self._macs.seal(draft.order)
        former = [draft.former for draft in drafts if draft.former is not None]
        return await orders.write_ahead(connection, [draft.order for draft in drafts], former, decided=decided)

    async def _reserve(
        self, connection: orders.Connection, drafts: list[Draft]
    ) -> tuple[dict[UUID, Order], dict[UUID, Refusal | OrderFault]]:
        """Lock the shared amounts of these drafts and reserve from them. Return `(existing orders by id, refusals and
        faults by id of the draft)`.
        """
        locked = await reserve.lock(connection, drafts, self._macs)
        there = await _read(connection, drafts)
        fresh = [draft for draft in drafts if draft.find(there) is None]
        answers = await reserve.reserve(connection, fresh, locked, self._macs)
        no = {draft.order.id: answer for draft, answer in zip(fresh, answers, strict=True) if answer is not None}
        return there, no

    def _checked(self, order: Order) -> OrderFault | None:
        """Return a fault if an order does not match its MAC, or None if it matches."""
        try:
            self._macs.check(order)
        except Tampered as found:
            return OrderFault(str(found), tampered=True)
        return None

    async def _settle(self, written: Sequence[Order]) -> None:
        """Post the vouchers of inserted orders. Stop after the time for which the callers wait."""
        posting = [order for order in written if order.state is State.POSTING]
        if not posting:
            return
        # This is a half-open circuit breaker: while the account service does not answer, one batch at a time waits for
        # the full timeout, and the other batches wait for PROBE_S.
        probes = self._gateway.is_away and not self._probing
        self._probing = self._probing or probes
        try:
            await self._post_within(posting, PROBE_S if self._gateway.is_away and not probes else self._wait_s)
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
                    except GatewayFault:
                        if self._gateway.is_away and time.monotonic() + pause_s >= give_up_at:
                            return
                    if all(order.state is not State.POSTING for order in posting):
                        return
                    posting = [order for order in posting if order.state is State.POSTING]
                    await asyncio.sleep(pause_s)
                    pause_s *= 2
        except TimeoutError:
            self._gateway.is_away = True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Wait until every queued order has been answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)


def _is_looked_up(request: Request, merchant: Merchant | None) -> bool:
    """Return whether an order needs more than its merchant and its channel before it is queued."""
    is_bound = merchant is not None and merchant.rolling is not None and request.kind in _HELD_BEFORE
    return is_bound or request.kind in _LOOKED_UP or (isinstance(request, Withdrawal) and request.all)


async def _read(connection: orders.AnyConnection, drafts: Sequence[Draft]) -> dict[UUID, Order]:
    """Return the stored orders whose id is the id or the former id of a draft. The keys are the ids of the stored
    orders.
    """
    former = [draft.former for draft in drafts if draft.former is not None]
    return await orders.read_orders(connection, [draft.order.id for draft in drafts] + former)
