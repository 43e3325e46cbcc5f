"""Approvals of the fund service: orders under dual control wait as `created` until a second identity approves them.

An order that waits reserves nothing. Its approval reserves what the order needs, and records the approval, in one
transaction. If the reservation is refused, the order still waits. An order that is not approved in time expires.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from fundledger.fund.account_gateway import GatewayFault
from fundledger.fund.model.answer import Answer, OrderFault, Taken
from fundledger.fund.model.drafts import Draft
from fundledger.fund.model.order import Order, State
from fundledger.fund.model.person import may_approve
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.transitions import APPROVE_WITHIN, DUAL_CONTROL, may_become
from fundledger.fund.next_steps import NextSteps
from fundledger.fund.platform_check import PlatformCheck, may_take
from fundledger.fund.poster import Posting
from fundledger.fund.store import orders
from fundledger.fund.store import reservations as reserve
from fundledger.fund.store.macs import OrderMacs, Tampered
from fundledger.fund.store.orders import AnyConnection, Pool, order_from
from fundledger.fund.store.queries import SQL

APPROVALS_AT_ONCE: Final = 4
PLATFORM_S: Final = 10.0
"""The number of transactions in which a request with many approvals runs concurrently."""
POSTED_AT_ONCE: Final = 500
EXPIRED_AT_ONCE: Final = 200
_URN: Final = "urn:fundledger:problem:"


class _NotApproved(Exception):
    """The transaction of an approval has to be rolled back. `answer`: why, or None if the order has changed."""

    def __init__(self, answer: Answer | None) -> None:
        super().__init__()
        self.answer = answer


class Approvals(NextSteps):
    """The steps of orders under dual control. `platform`: the check of accounts of the platform. `now`: the clock that
    determines whether an order has expired.
    """

    def __init__(
        self,
        pool: Pool,
        posting: Posting,
        platform: PlatformCheck,
        *,
        wait_s: float,
        due_s: float,
        now: Callable[[], datetime],
    ) -> None:
        super().__init__(pool, posting, wait_s=wait_s, due_s=due_s)
        self._platform = platform
        # An approval has a connection while it waits, so other requests need the rest.
        self._gate = asyncio.Semaphore(APPROVALS_AT_ONCE)
        self._now = now

    async def approve(self, id_: UUID, approver: str) -> Answer:
        """Approve and post an order. `approver`: IDENTITY or IDENTITY/NOTE. Returns the order, a fault, or a refusal:
        ORDER_NOT_FOUND, APPROVAL_NEEDS_ANOTHER, ORDER_REJECTED, ORDER_EXPIRED, or a refusal of the reservation.
        """
        return (await self.approve_many([id_], approver))[0]

    async def approve_many(self, ids: Sequence[UUID], approver: str) -> list[Answer]:
        """Approve and post orders, each independently. Return one answer for each id, as described at `approve`."""

        async def begin(id_: UUID) -> Order | Answer:
            async with self._gate:
                return await self._record_step(id_, lambda: self._approve_one(id_, approver), otherwise)

        def otherwise(order: Order) -> Answer:
            if order.kind not in DUAL_CONTROL:
                return Refusal(Code.ORDER_NOT_FOUND, f"the {_words(order)} {order.id} needs no approval")
            if order.state is State.REJECTED:
                return Refusal(Code.ORDER_REJECTED, f"the {_words(order)} {order.id} is rejected")
            if order.state is State.EXPIRED or (order.state is State.CREATED and self._is_late(order)):
                return Refusal(Code.ORDER_EXPIRED, f"the {_words(order)} {order.id} was not approved in time")
            if order.state is State.CREATED and not may_approve(order.module, approver):
                detail = (
                    f"{order.module} requested this {_words(order)}; a different module or person has to approve it"
                )
                return Refusal(Code.APPROVAL_NEEDS_ANOTHER, detail)
            if order.state is State.CREATED:
                return OrderFault("the order was changed concurrently; send this request again")
            return Taken(order, replay=True)

        begun = await asyncio.gather(*(begin(id_) for id_ in ids))
        approved = [order for order in begun if isinstance(order, Order)]
        for start in range(0, len(approved), POSTED_AT_ONCE):
            part = approved[start : start + POSTED_AT_ONCE]
            await self._execute(part, lambda part=part: self._posting.post(part))  # type: ignore[misc]
        return [Taken(order) if isinstance(order, Order) else order for order in begun]

    async def _approve_one(self, id_: UUID, approver: str) -> Order | Answer | None:
        """Reserve what an order needs, and record its approval, in one transaction. Return the order, None if it cannot
        be approved, or the refusal of the reservation. Raises Tampered, and what asyncpg raises.
        """
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                order = await orders.read_order(connection, id_)
                if order is None:
                    return None
                self.macs.check(order)
                if not self._may_be_approved(order, approver):
                    return None
                if may_take(order):
                    await self._check_platform(connection, order)
                new = msgspec.structs.replace(order, approved_by=approver, state=State.POSTING)
                # The reservation is the same as for an order that is inserted as `posting`.
                draft = Draft(new, None)
                locked = await reserve.lock(connection, [draft], self.macs)
                # A concurrent approval of the order may have held these locks.
                again = await orders.read_order(connection, id_)
                _roll_back_if(again is None or again.mac != order.mac)
                (answer,) = await reserve.reserve(connection, [draft], locked, self.macs)
                _roll_back_if(answer is not None, answer)
                self.macs.seal(new)
                changed = approver, self._due_s, new.mac, new.mac_key
                row = await connection.fetchrow(SQL["approve_order"], id_, *changed, order.mac, new.set_off)
                _roll_back_if(row is None)
                return order_from(row)
        except _NotApproved as not_approved:
            return not_approved.answer
        except GatewayFault as fault:
            return OrderFault(f"the account service does not answer: {fault}")

    async def _check_platform(self, connection: Any, order: Order) -> None:
        """Lock accounts of the platform, and check what an order takes from them. Raises _NotApproved, GatewayFault,
        and what asyncpg raises. No rows are locked while the account service is asked.
        """
        try:
            async with asyncio.timeout(PLATFORM_S):
                await self._platform.lock(connection, order)
                # A concurrent approval of the order may have held this lock. Then the order itself counts as taken.
                again = await orders.read_order(connection, order.id)
                _roll_back_if(again is None or again.mac != order.mac)
                no = await self._platform.refusal_of(connection, order)
        except TimeoutError:
            raise _NotApproved(OrderFault("other approvals, or the account service, take too long")) from None
        _roll_back_if(no is not None, no)

    def _may_be_approved(self, order: Order, approver: str) -> bool:
        waits = order.state is State.CREATED and may_become(order.kind, order.state, State.POSTING)
        return waits and not self._is_late(order) and may_approve(order.module, approver)

    def _is_late(self, order: Order) -> bool:
        return order.created_at + APPROVE_WITHIN <= self._now()

    async def reject(self, id_: UUID, reason: str, checker: str) -> Answer:
        """Reject an order that waits for approval. Returns the order, a fault, or a refusal: ORDER_NOT_FOUND,
        ORDER_EXPIRED, or ORDER_APPROVED if the order was approved before.
        """

        async def begin() -> Order | None:
            order = await self._read(id_)
            if order is None or order.state is not State.CREATED:
                return None
            problem = {"type": f"{_URN}order-rejected", "title": "Order is rejected", "status": 422}
            problem |= {"detail": reason, "rejected_by": checker}
            return await _close_one(self._pool, self.macs, order, State.REJECTED, problem)

        def otherwise(order: Order) -> Answer:
            if order.kind not in DUAL_CONTROL:
                return Refusal(Code.ORDER_NOT_FOUND, f"the {_words(order)} {order.id} needs no approval")
            if order.state is State.EXPIRED:
                return Refusal(Code.ORDER_EXPIRED, f"the {_words(order)} {order.id} was not approved in time")
            if order.state is State.CREATED:
                return OrderFault("the order was changed concurrently; send this request again")
            if order.state is not State.REJECTED:
                return Refusal(Code.ORDER_APPROVED, f"the {_words(order)} {order.id} is {order.state}")
            return Taken(order, replay=True)

        begun = await self._record_step(id_, begin, otherwise)
        return Taken(begun) if isinstance(begun, Order) else begun

    async def expire_some(self) -> tuple[int, float]:
        """Expire orders that were not approved in time, at most EXPIRED_AT_ONCE. Return `(number of expired orders,
        seconds since the oldest of the others should have expired)`. An order that does not match its MAC is left as it
        is. Raises what asyncpg raises.
        """
        late = self._now() - APPROVE_WITHIN
        waiting: list[Order] = []
        found: list[Order] = []
        after = datetime.fromtimestamp(0, UTC), UUID(int=0)
        while not found:
            # Orders that do not match their MACs must not hide later ones.
            rows = await self._pool.fetch(SQL["orders_not_approved"], late, EXPIRED_AT_ONCE, *after)
            waiting += map(order_from, rows)
            found = [order for order in waiting if self._is_verified(order)]
            if len(rows) < EXPIRED_AT_ONCE:
                break
            after = rows[-1]["created_at"], rows[-1]["id"]
        detail = f"the order was not approved within {APPROVE_WITHIN.days} days"
        problem = {"type": f"{_URN}order-expired", "title": "Order has expired", "status": 422, "detail": detail}
        closed = await _close(self._pool, self.macs, found, State.EXPIRED, problem)
        left = [order for order in waiting if order.id not in closed]
        return len(closed), max(((late - order.created_at).total_seconds() for order in left), default=0.0)

    def _is_verified(self, order: Order) -> bool:
        try:
            self.macs.check(order)
        except Tampered:
            return False
        return True


def _words(order: Order) -> str:
    return order.kind.replace("_", " ")


def _roll_back_if(is_wrong: bool, answer: Answer | None = None) -> None:
    if is_wrong:
        raise _NotApproved(answer)


async def _close_one(
    connection: AnyConnection, macs: OrderMacs, order: Order, state: State, problem: dict[str, Any]
) -> Order | None:
    closed = await _close(connection, macs, [order], state, problem)
    return closed.get(order.id)


async def _close(
    connection: AnyConnection, macs: OrderMacs, found: Sequence[Order], state: State, problem: dict[str, Any]
) -> dict[UUID, Order]:
    """Change orders that wait for approval to a final state, with a problem as the reason. Return the orders that were
    changed. An order that has changed since it was read is left out. Raises what asyncpg raises.
    """
    if not found:
        return {}
    text = msgspec.json.encode(problem)
    closed = [msgspec.structs.replace(order, state=state, problem=text) for order in found]
    for order in closed:
        macs.seal(order)
    read = [order.mac for order in found]
    columns = [order.id for order in closed], state, text.decode(), [order.mac for order in closed]
    rows = await connection.fetch(SQL["close_unapproved"], *columns, macs.rows.version, read)
    done = {row["id"] for row in rows}
    return {order.id: order for order in closed if order.id in done}
