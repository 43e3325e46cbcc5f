"""Next steps of an existing order of the fund service: end an order, retry a stuck order. `fund.approvals` has the
steps of orders under dual control.

Each step is recorded first and executed second. If the process dies in between, the recoverer executes the step.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from uuid import UUID

import asyncpg
import msgspec

from fundledger.database.failures import was_rolled_back
from fundledger.fund.account_gateway import GatewayFault
from fundledger.fund.jobs import stuck
from fundledger.fund.model import split
from fundledger.fund.model.answer import Answer, OrderFault, Taken
from fundledger.fund.model.flows import END_VOUCHER_TYPES, Ending, bounced_credits
from fundledger.fund.model.order import RECEIPTS, REFUNDS, Kind, Order, State, has_end
from fundledger.fund.model.refusal import Code, Refusal, Refused
from fundledger.fund.model.transitions import RELEASED, may_become
from fundledger.fund.poster import Overtaken, Posting
from fundledger.fund.store import debts, orders, split_parts
from fundledger.fund.store.decisions import receipt_booked
from fundledger.fund.store.macs import OrderMacs, Tampered
from fundledger.fund.store.orders import AnyConnection, Pool, order_from
from fundledger.fund.store.queries import SQL

FAULTS: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
ATTEMPTS_MAX: Final = 5
_MAY_RETRY: Final = frozenset({State.STUCK, State.POSTING})
NOT_POSTED: Final = {
    Kind.WITHDRAWAL: Code.WITHDRAWAL_NOT_POSTED,
    **dict.fromkeys(REFUNDS, Code.REFUND_NOT_POSTED),
}
ENDED: Final = {
    (Kind.WITHDRAWAL, "paid"): Code.WITHDRAWAL_PAID,
    (Kind.WITHDRAWAL, "bounced"): Code.WITHDRAWAL_BOUNCED,
    **{(kind, "paid"): Code.REFUND_PAID for kind in REFUNDS},
    **{(kind, "bounced"): Code.REFUND_BOUNCED for kind in REFUNDS},
}
"""NOT_POSTED and ENDED: the refusals of an end that an order cannot have, by its kind and its recorded end."""
_log = logging.getLogger(__name__)


class NextSteps:
    """The steps of an order after its insert. `wait_s`: the seconds for which a caller waits for an outcome. `due_s`:
    the seconds until the recoverer takes a step that is recorded but not executed.

    If a call is cancelled, the recoverer completes the step. Each step may be requested again: the answer is the
    current order.
    """

    def __init__(self, pool: Pool, posting: Posting, *, wait_s: float, due_s: float) -> None:
        self._pool = pool
        self._posting = posting
        self._wait_s = wait_s
        self._due_s = due_s

    @property
    def macs(self) -> OrderMacs:
        """The MACs of orders."""
        return self._posting.macs

    async def end(
        self,
        id_: UUID,
        ending: Ending,
        channel_ref: str | None,
        reason: str | None,
        module: str,
        *,
        unsent: bool = False,
    ) -> Answer:
        """End an order. Returns the order, a fault, or a refusal. The refusal is one of ENDED, or ORDER_ENDED, if the
        other end is already recorded. Otherwise it is ORDER_NOT_FOUND, RECEIPT_ALREADY_BOOKED, one of NOT_POSTED, or
        ORDER_NOT_POSTED. A refund that an earlier version posted has no end: it is refused as REFUND_PAID. `unsent`:
        end the order only if its payout was not sent.
        """
        _log.debug("order %s: %s reports %s", id_, module, ending, extra={"event": "order_end_reported"})

        async def begin() -> Order | None:
            for _ in range(ATTEMPTS_MAX):
                order = await self._read(id_)
                if order is None or order.ending not in (None, ending) or has_other_ref(order):
                    return None
                is_late = unsent and order.state is not State.POSTED
                if is_late or not has_end(order) or not may_become(order.kind, order.state, ending):
                    return None
                new = msgspec.structs.replace(order, ending=ending)
                new.channel_ref, new.reason = channel_ref or order.channel_ref, reason or order.reason
                with contextlib.suppress(Overtaken):
                    return await self._begin_end(order, new)
            return None

        def has_other_ref(order: Order) -> bool:
            return order.ending in ("paid", "lost") and None is not channel_ref != order.channel_ref is not None

        def otherwise(order: Order) -> Answer:
            words = order.kind.replace("_", " ")
            if (order.kind, ending) not in END_VOUCHER_TYPES:
                return Refusal(Code.ORDER_NOT_FOUND, f"{words} {id_} cannot end as {ending}")
            if not has_end(order) and order.state is State.POSTED:
                return Refusal(Code.REFUND_PAID, "the voucher of this refund has credited the bank account")
            if order.ending is None:
                return Refusal(NOT_POSTED.get(order.kind, Code.ORDER_NOT_POSTED), f"the {words} is {order.state}")
            code = ENDED.get((order.kind, order.ending), Code.ORDER_ENDED)
            if has_other_ref(order):
                detail = f"the {words} is already {order.ending} under the reference {order.channel_ref}"
                return Refusal(code, detail, "channel_ref")
            if order.ending == ending:
                return Taken(order, replay=True)
            return Refusal(code, f"the {words} is already {order.ending}")

        return await self._go_on(id_, begin, otherwise, self._posting.end)

    async def _begin_end(self, order: Order, new: Order) -> Order:
        """Record the end of an order: `new` is `order` with the end. Reserve the set-off of the amount that returns to
        the merchant from its debt. Return the order. Raises Overtaken if the order has changed since it was read,
        Refused if another order has the receipt.
        """
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                if order.ending is None:
                    new.end_voucher_id = self._posting.ids.voucher(order.id, "end", order.attempt)
                    credits_ = bounced_credits(order) if new.ending in RELEASED else {}
                    if credits_:
                        split.end_set_off(new, await debts.set_offs(connection, self.macs, credits_))
                if new.channel_ref is not None and order.channel_ref is None:
                    await self._require_unbooked(connection, new)
                self.macs.seal(new)
                changed = new.channel_ref, new.reason, self._due_s, new.end_voucher_id, new.mac, new.mac_key
                reserved = new.end_set_off, orders.parts_text(new)
                row = await connection.fetchrow(SQL["begin_end"], order.id, new.ending, *changed, order.mac, *reserved)
                if row is None:
                    raise Overtaken
                await split_parts.rewrite(connection, self.macs, [new])
        except asyncpg.UniqueViolationError as error:
            await self._require_unbooked(self._pool, new)
            raise Overtaken from error
        return order_from(row)

    async def _require_unbooked(self, connection: AnyConnection, order: Order) -> None:
        """Raise Refused if another order has the receipt of an order. The unique index of receipts does not have the
        references of own money at the channel that it leaves.
        """
        receipt = order.channel or "", order.channel_ref or "", RECEIPTS[order.kind]
        for there in await connection.fetch(SQL["booked_receipts"], *([part] for part in receipt)):
            if there["id"] != order.id:
                raise Refused(receipt_booked(receipt, there))

    async def retry(self, id_: UUID, module: str, reason: str | None = None) -> Answer:
        """Return a stuck order to its state before `stuck`, and execute its next step. Release a parked order. If an
        order waits for the recoverer, execute its next step now. Any other order is returned unchanged. `module` is the
        requester. `reason` (how the cause was removed) is stored in the history. The only refusal is ORDER_NOT_FOUND.
        """

        async def begin() -> Order | None:
            for _ in range(ATTEMPTS_MAX):
                order = await orders.read_order(self._pool, id_)
                if order is None or order.state is State.PARKED:
                    return order
                new = await stuck.retry(self._pool, self.macs, order, module, reason, self._due_s)
                if new is not None or order.state not in _MAY_RETRY:
                    return new
            return None

        async def go_on(order: Order) -> None:
            self._posting.macs.check(order)
            if order.state is State.PARKED:
                await self._posting.release(order, self._due_s)
            elif order.state is State.POSTING:
                await self._post(order)
            elif order.ending is not None:
                await self._posting.end(order)

        return await self._go_on(id_, begin, lambda order: Taken(order, replay=True), go_on)

    async def contradiction(self, order: Order) -> str | None:
        """Return how the posted voucher of an order differs from the order, or None if they agree.
        Raises GatewayFault.
        """
        try:
            self.macs.check(order)
        except Tampered:
            return "the order does not match its MAC"
        return await self._posting.gateway.contradiction(order)

    async def _read(self, id_: UUID) -> Order | None:
        """Return the order with this id, or None if it does not exist. Raises Tampered."""
        order = await orders.read_order(self._pool, id_)
        if order is not None:
            self._posting.macs.check(order)
        return order

    async def _begun(self, begin: Callable[[], Awaitable[Order | Answer | None]]) -> Order | Answer | None:
        """Return what `begin` returns, or None if the order was changed concurrently. Repeat `begin` after a
        deadlock.
        """
        for attempt in range(ATTEMPTS_MAX):
            try:
                return await begin()
            except Overtaken:
                return None
            except asyncpg.DeadlockDetectedError:
                if attempt == ATTEMPTS_MAX - 1:
                    raise
        raise AssertionError

    async def _post(self, order: Order) -> None:
        await self._posting.post([order])

    async def _go_on(
        self,
        id_: UUID,
        begin: Callable[[], Awaitable[Order | None]],
        otherwise: Callable[[Order], Answer],
        go_on: Callable[[Order], Awaitable[None]],
    ) -> Answer:
        """Record the next step of an order with `begin`, then execute it with `go_on`. If `begin` returns None, the
        order has no such step: return the answer of `otherwise`.
        """
        begun = await self._record_step(id_, begin, otherwise)
        if not isinstance(begun, Order):
            return begun
        return await self._execute([begun], lambda: go_on(begun)) or Taken(begun)

    async def _record_step(
        self, id_: UUID, begin: Callable[[], Awaitable[Order | Answer | None]], otherwise: Callable[[Order], Answer]
    ) -> Order | Answer:
        """Record the next step of an order with `begin`. Return the order, or the answer that `begin` returns. If
        `begin` returns None, the order has no such step: return the answer of `otherwise`.
        """
        try:
            begun = await self._begun(begin)
            if begun is not None:
                return begun
            there = await self._read(id_)
            if there is None:
                return Refusal(Code.ORDER_NOT_FOUND, f"there is no order {id_}")
            return otherwise(there)
        except Refused as no:
            return no.refusal
        except Tampered as found:
            return OrderFault(str(found), tampered=True)
        except FAULTS as error:
            _log.warning("recording the next step of an order failed: %s", error, extra={"event": "order_step_failed"})
            return OrderFault("the fund database does not answer", undone=was_rolled_back(error))

    async def _execute(self, orders_: Sequence[Order], go_on: Callable[[], Awaitable[None]]) -> OrderFault | None:
        """Execute the recorded next step of orders with `go_on`. Return None: each order shows its current outcome.
        Return a fault if a row does not match its MAC.
        """
        try:
            async with asyncio.timeout(self._wait_s):
                await go_on()
        except (GatewayFault, Overtaken):
            pass
        except Tampered as found:
            return OrderFault(str(found), tampered=True)
        except FAULTS as error:
            _log.warning(
                "the next step of an order is left to the recoverer: %s",
                error or "timeout",
                extra={"event": "order_step_deferred", "order": ", ".join(str(order.id) for order in orders_[:10])},
            )
        return None
