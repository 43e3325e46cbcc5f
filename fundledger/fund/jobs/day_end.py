"""Background job of the fund service that closes each past day (UTC) once: it sums the day's orders by merchant, kind,
currency and state.

A day is closed when two conditions hold. First, the day ended at least GRACE_S seconds ago. Second, every order of this
day and of earlier days has a known outcome, because an order without a known outcome may have been posted on this day.
Days are closed in order, one at a time.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg

from fundledger.fund.store.queries import SQL

GRACE_S: Final = 300.0
"""Seconds after the end of a day in which clocks may still differ and transactions may still be open."""
CLOSE_S: Final = 600.0
"""Timeout of the query that closes a day. The query reads all orders of the day."""


async def close_day(
    pool: "asyncpg.Pool[asyncpg.Record]", guard: Callable[[Any], Awaitable[None]]
) -> tuple[int, float, bool]:
    """Close the next day. Return `(number of orders of the closed day, seconds since the end of the oldest day that is
    still open, whether a day was closed)`.

    Concurrent and repeated calls are safe. Raises what asyncpg and `guard` raise.
    """
    day = await pool.fetchrow(SQL["open_day"], GRACE_S)
    if day is None:
        return 0, 0.0, False
    if day["unknown"]:
        return 0, day["ended_s"], False
    async with pool.acquire() as connection, connection.transaction():
        orders = await connection.fetchval(SQL["close_day"], day["day"], timeout=CLOSE_S)
        # The guard is called after the sums are computed, so that its lock is not held during the computation.
        await guard(connection)
    return orders or 0, day["ended_s"], True
