"""Background job of the fund service, the MAC sweep: it migrates rows of the fund database to the current MAC layout,
in batches.

Each order is first verified in its old layout. Then its outcome is compared with its history and with the ledger. A sum
is compared with the orders that it adds up, and a payout is compared with its order. A row that differs is reported; it
is not changed and gets no new MAC. After a pass during which no row changed concurrently, the row of `fund.unswept` is
deleted. From then on, each row of an earlier layout fails verification.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any, Final
from uuid import UUID

import msgspec

from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.model.transitions import POSTED, first_of
from fundledger.fund.poster import Posting
from fundledger.fund.store import sums
from fundledger.fund.store.mac_layouts import PAYOUT, is_of, payout_fields
from fundledger.fund.store.macs import LAYOUT
from fundledger.fund.store.orders import Connection, Pool, order_from, read_orders
from fundledger.fund.store.queries import SQL

FUND_SWEEP: Final = "fund_mac_sweep"
AT_ONCE: Final = 200
ASKED_AT_ONCE: Final = 20
_FIRST_ID: Final = UUID(int=0)
_KNOWN: Final = POSTED | {State.REFUSED}
Guard = Callable[[Any], Awaitable[None]]


class FundSweep:
    """A sweep and its position. Several sweeps may run concurrently: a sweep skips each row that has changed since the
    sweep read it. `step` may be cancelled at any await, and may be repeated.
    """

    def __init__(self, pool: Pool, posting: Posting) -> None:
        self._pool = pool
        self._macs = posting.macs
        self._gateway = posting.gateway
        self.begin()

    def begin(self) -> None:
        """Restart at the first row."""
        self._order = 0
        self._payment = self._payout = _FIRST_ID
        self._day = ("", date.min)
        self._changed = False

    async def step(self, guard: Guard) -> tuple[int, bool]:
        """Migrate the next rows and return `(number of migrated rows, whether there may be more rows)`. `guard` is
        called in each transaction before the transaction writes. Raises what `guard` and asyncpg raise, and
        GatewayFault if the account service does not answer.
        """
        await self._macs.refresh(self._pool)
        if self._macs.unswept_until is None:
            return 0, False
        done, looked = await self._orders(guard)
        for sweep in (self._payments, self._days, self._payouts) if not looked else ():
            async with self._pool.acquire() as connection, connection.transaction():
                await guard(connection)
                some, there = await sweep(connection)
            done, looked = done + some, looked + there
        if looked:
            return done, True
        if not self._changed:
            async with self._pool.acquire() as connection, connection.transaction():
                await guard(connection)
                await connection.execute(SQL["end_sweep"])
            await self._macs.refresh(self._pool)
        # Rows that changed during this pass were skipped. The next pass migrates them.
        changed = self._changed
        self.begin()
        return done, changed

    async def _orders(self, guard: Guard) -> tuple[int, int]:
        rows = await self._pool.fetch(SQL["orders_to_sweep"], self._order, AT_ONCE)
        good: list[Order] = []
        for start in range(0, len(rows), ASKED_AT_ONCE):
            part = rows[start : start + ASKED_AT_ONCE]
            orders = [_order(row) for row in part]
            verified = await asyncio.gather(
                *(self._why_not(order, row) for order, row in zip(orders, part, strict=True))
            )
            for order, wrong in zip(orders, verified, strict=True):
                if wrong is None:
                    good.append(order)
                else:
                    self._macs.report("order", order.id, wrong, {"id": str(order.id), "state": str(order.state)})
        done = 0
        if good:
            new = [msgspec.structs.replace(order, layout=LAYOUT) for order in good]
            for order in new:
                self._macs.seal(order)
            found = [o.mac for o in good], [str(o.state) for o in good], [_text(o.problem) for o in good]
            stands = [o.posted_at for o in good], [o.reversed_by for o in good]
            macced = [o.id for o in new], [o.mac for o in new], self._macs.rows.version
            async with self._pool.acquire() as connection, connection.transaction():
                await guard(connection)
                done = len(await connection.fetch(SQL["sweep_orders"], *macced, *found, *stands))
            self._changed = self._changed or done < len(good)
        if rows:
            self._order = rows[-1]["seq"]
        return done, len(rows)

    async def _why_not(self, order: Order, row: Any) -> str | None:
        """Return why an order must not get a MAC of the current layout, or None if it may get one.
        Raises GatewayFault.
        """
        if not self._macs.verifies(order):
            return "terms"
        begun = first_of(order)
        if (row["last_event"] or begun) != order.state:
            return f"state {order.state}, expected {row['last_event'] or begun} by its history"
        if order.reversed_by != row["reversal"]:
            return f"reversed_by {order.reversed_by}, expected {row['reversal']} by the reversals"
        if order.state in POSTED and order.kind is not Kind.REVERSAL:
            return await self._gateway.contradiction(order)
        if order.state in _KNOWN and await self._gateway.is_posted(order) is not (order.state in POSTED):
            return f"state {order.state}, contradicted by its voucher"
        return None

    async def _payments(self, connection: Connection) -> tuple[int, int]:
        rows = await connection.fetch(SQL["payments_to_sweep"], self._payment, AT_ONCE)
        good, _ = await sums.verified(connection, self._macs, rows)
        await sums.write_payments(connection, self._macs, good.values())
        if rows:
            self._payment = max(row["order_id"] for row in rows)
        return len(good), len(rows)

    async def _days(self, connection: Connection) -> tuple[int, int]:
        rows = await connection.fetch(SQL["withdrawal_days_to_sweep"], *self._day, AT_ONCE)
        good, _ = await sums.verified_days(connection, self._macs, rows)
        await sums.write_days(connection, self._macs, good)
        if rows:
            self._day = (rows[-1]["merchant"], rows[-1]["day"])
        return len(good), len(rows)

    async def _payouts(self, connection: Connection) -> tuple[int, int]:
        rows = await connection.fetch(SQL["payouts_to_sweep"], self._payout, AT_ONCE)
        orders = await read_orders(connection, [row["order_id"] for row in rows])
        good = []
        for row in rows:
            order = orders.get(row["order_id"])
            if order is not None and self._macs.verifies(order) and is_of(row, order):
                good.append(row)
            else:
                self._macs.agrees(PAYOUT, "payout", row["order_id"], payout_fields, row)
        tags = [self._macs.rows.tag(PAYOUT, payout_fields(row))[1] for row in good]
        await connection.execute(SQL["sweep_payouts"], [r["order_id"] for r in good], tags, self._macs.rows.version)
        if rows:
            self._payout = rows[-1]["order_id"]
        return len(good), len(rows)


def _order(row: Any) -> Order:
    fields = dict(row)
    del fields["last_event"], fields["reversal"]
    return order_from(fields)


def _text(problem: bytes | None) -> str | None:
    return None if problem is None else problem.decode()
