"""Background job of the fund service that closes each past day once: it sums the day's orders by merchant, kind,
currency and state, and the orders that ended on the day.

A day is closed when two conditions hold. First, the day ended at least GRACE_S seconds ago. Second, every order of this
day and of earlier days has a known outcome, because an order without a known outcome may have been posted on this day.
Days are closed in order, one at a time.

An order belongs to the day on which it was posted. The end of an order belongs to the day on which it was posted,
unless that day is being closed when the end is recorded: then it belongs to the first open day.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg

from fundledger.fund.model.days import Days, day_after
from fundledger.fund.store.queries import SQL

GRACE_S: Final = 300.0
"""Seconds after the end of a day in which clocks may still differ and transactions may still be open."""
CLOSE_S: Final = 600.0
"""Timeout of the query that closes a day. The query reads all orders of the day."""


async def close_day(
    pool: "asyncpg.Pool[asyncpg.Record]", days: Days, guard: Callable[[Any], Awaitable[None]]
) -> tuple[int, float, bool]:
    """Close the next day. Return `(number of orders of the closed day, seconds since the end of the oldest day that is
    still open, whether a day was closed)`.

    Concurrent and repeated calls are safe. Raises what asyncpg and `guard` raise.
    """
    found = await pool.fetchrow(SQL["open_day"])
    assert found is not None
    if found["closed"] is not None:
        day = day_after(found["closed"])
    elif found["first_at"] is not None:
        day = days.day_of(found["first_at"])
    else:
        return 0, 0.0, False
    begins, ends = days.beginning_of(day), days.beginning_of(day_after(day))
    ended_s = (found["now"] - ends).total_seconds()
    if ended_s < GRACE_S:
        return 0, 0.0, False
    if await pool.fetchval(SQL["unknown_orders"], ends):
        return 0, ended_s, False
    async with pool.acquire() as connection, connection.transaction():
        # From here on, no end is assigned to the day. The lock is released before the sums are computed.
        await connection.execute(SQL["lock_closings"])
        await connection.execute(SQL["begin_closing"], day)
        await guard(connection)
    async with pool.acquire() as connection, connection.transaction():
        orders = await connection.fetchval(SQL["close_day"], day, begins, ends, timeout=CLOSE_S)
        # The guard is called after the sums are computed, so that its lock is not held during the computation.
        await guard(connection)
    return orders or 0, ended_s, True
