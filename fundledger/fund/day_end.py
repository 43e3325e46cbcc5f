"""Sums each day (UTC) that has ended, once: its orders by merchant, kind, currency and state.

A day is closed when it ended GRACE_S ago, and none of its orders, or of an earlier day, is unknown any more: those
could still be posted on it. Days are closed in order, one at a time.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg

from fundledger.fund.statements import SQL

GRACE_S: Final = 300.0
"""For clocks that differ, and for transactions that are open."""
CLOSE_S: Final = 600.0
"""How long summing one day may take: it reads all of that day's orders."""


async def close_day(
    pool: "asyncpg.Pool[asyncpg.Record]", guard: Callable[[Any], Awaitable[None]]
) -> tuple[int, float, bool]:
    """`(orders of the day that was closed, for how long the oldest open one has been over, whether one was closed)`.

    Safe to be repeated, and in any number. Raises what asyncpg raises, and what `guard` does.
    """
    day = await pool.fetchrow(SQL["open_day"], GRACE_S)
    if day is None:
        return 0, 0.0, False
    if day["unknown"]:
        return 0, day["ended_s"], False
    async with pool.acquire() as connection, connection.transaction():
        orders = await connection.fetchval(SQL["close_day"], day["day"], timeout=CLOSE_S)
        # Last: what it locks, others must not wait for as long as this took.
        await guard(connection)
    return orders or 0, day["ended_s"], True
