"""Store of the fund service: the reserves of merchants, and the holds of the rolling reserve of a merchant."""

from collections.abc import Collection, Iterable
from datetime import date, timedelta
from uuid import UUID

import msgspec

from fundledger.fund.model.days import Days, day_after
from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.model.rolling import day_of_hold
from fundledger.fund.store.decisions import Reserve
from fundledger.fund.store.macs import OrderMacs, Tampered
from fundledger.fund.store.orders import AnyConnection, order_from
from fundledger.fund.store.queries import SQL


class HoldsOfDay(msgspec.Struct):
    """The holds of the rolling reserve for the credits of a day. `held`: the posted amount, in minor units. `count`:
    the number of orders, also refused ones. `undecided`: the id of an order without a known outcome, or None.
    """

    held: int = 0
    count: int = 0
    undecided: UUID | None = None


async def reserves_of(connection: AnyConnection, orders: Iterable[Order]) -> dict[str, Reserve]:
    """Return the reserves of the merchants of releases, by merchant. The caller holds their locks. MACs are not
    verified: the account service never releases more than was held.
    """
    merchants = sorted({order.merchant for order in orders if order.kind is Kind.RESERVE_RELEASE})
    rows = await connection.fetch(SQL["reserve_of_merchants"], merchants) if merchants else []
    return {row["merchant"]: Reserve(int(row["by_amount"])) for row in rows}


async def closed_days(connection: AnyConnection, since: date) -> tuple[set[date], date | None]:
    """Return `(the closed days since a day, the last closed day or None)`. No order is posted on a closed day any more.
    A later reversal still reduces its credits.
    """
    rows = await connection.fetch(SQL["closed_days"], since)
    days = {row["day"] for row in rows}
    return days, max(days, default=None)


async def credits_of(connection: AnyConnection, days: Days, merchant: str, day: date) -> int:
    """Return the credits of a merchant on a day, in minor units, before fees. Their MACs are not verified."""
    ends = days.beginning_of(day_after(day))
    return int(await connection.fetchval(SQL["reserve_credits"], merchant, days.beginning_of(day), ends))


async def holds_of(
    connection: AnyConnection, macs: OrderMacs, merchant: str, days: Collection[date]
) -> dict[date, HoldsOfDay]:
    """Return the holds of the rolling reserve of a merchant, for each of these days. Raises Tampered if one of them
    does not match its MAC.
    """
    found = {day: HoldsOfDay() for day in days}
    # Clocks of processes may differ, so a hold may be created shortly before its day.
    first = macs.days.beginning_of(min(days)) - timedelta(hours=1)
    for row in await connection.fetch(SQL["reserve_holds"], merchant, first):
        order = order_from(row)
        day = day_of_hold(order.order_no)
        if day not in found:
            continue
        if not macs.verifies(order):
            raise Tampered(str(order.kind), order.id)
        of_day = found[day]
        of_day.count += 1
        if order.state is State.POSTED:
            of_day.held += order.amount
        elif order.state is not State.REFUSED:
            of_day.undecided = order.id
    return found
