"""Store of the fund service: the ends of orders, in fund.ends, and the days in whose sums they count."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from fundledger.fund.model.days import day_after
from fundledger.fund.model.order import Order
from fundledger.fund.store.mac_layouts import END, end_fields
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.orders import Connection, order_from
from fundledger.fund.store.queries import SQL


async def day_of_end(connection: Connection, macs: OrderMacs, at: datetime) -> date:
    """Return the day in whose sums an end counts that was posted at the time `at`: the day of this time, or the first
    day that is not being closed. Until the transaction ends, the closing of no day begins. Raises what asyncpg raises.
    """
    await connection.execute(SQL["share_closings"])
    last = await connection.fetchval(SQL["last_closing"], macs.days.day_of(datetime.now(UTC)))
    day = macs.days.day_of(at)
    return day if last is None else max(day, day_after(last))


def end_mac(macs: OrderMacs, order: Order, day: date, at: datetime) -> bytes:
    """Return the MAC of the fund.ends row of an ended order."""
    row: Mapping[str, Any] = {"order_id": order.id, "ending": str(order.state), "day": day, "at": at}
    return macs.rows.tag(END, end_fields(row))[1]


async def mark_ended(connection: Connection, macs: OrderMacs, order: Order, ended: Order, at: datetime) -> bool:
    """Record the end of an order: `ended` is `order` with the state that is its end, and with its new MAC. `at`:
    the posting time of the end. Return False if this is recorded already, or if the order has changed since it was
    read. Call this in a transaction. Raises what asyncpg raises.
    """
    day = await day_of_end(connection, macs, at)
    changed = ended.mac, ended.mac_key, order.mac, day, at, end_mac(macs, ended, day, at)
    return await connection.fetchrow(SQL["mark_ended"], order.id, *changed) is not None


async def begin(connection: Connection, macs: OrderMacs) -> None:
    """Insert the rows of orders that ended after the last closed day, so that the sums of later days have them.
    Call this in the transaction of the migration. An end that is older is in no sum. An order that does not match its
    MAC gets no row. Raises what asyncpg raises.
    """
    last = await connection.fetchval(SQL["last_closing"], macs.days.day_of(datetime.now(UTC)))
    since = None if last is None else macs.days.beginning_of(day_after(last))
    rows = []
    for row in await connection.fetch(SQL["ended_orders"], since):
        order = order_from(row)
        if macs.verifies(order):
            at = row["ended_at"]
            day = macs.days.day_of(at)
            mac = end_mac(macs, order, day, at)
            rows.append((order.id, str(order.state), day, at, macs.rows.version, mac))
    await connection.executemany(SQL["insert_end"], rows)
