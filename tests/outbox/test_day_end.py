"""A day is summed once, when nothing of it can change any more."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from fundledger.fund.day_end import close_day
from tests.support.orders import an_order

Pool = asyncpg.Pool
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


async def nobody_else(connection: Any) -> None:
    """The lease stands."""


@pytest.fixture
async def pool(fund_database: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(fund_database, min_size=1, max_size=4) as pool:
        yield pool


async def close_all(pool: Pool) -> list[int]:
    closed = []
    while True:
        orders, _, more = await close_day(pool, nobody_else)
        if not more:
            return closed
        closed.append(orders)


async def test_each_finished_day_is_summed_once(pool: Pool) -> None:
    three_days_ago, yesterday = TODAY - timedelta(days=3), TODAY - timedelta(days=1)
    for at in (three_days_ago, yesterday, yesterday + timedelta(hours=23, minutes=59)):
        await an_order(pool, posted_at=at)
    await an_order(pool, posted_at=TODAY)
    await an_order(pool, posted_at=yesterday, kind="refund", amount=30)
    assert await close_all(pool) in ([1, 0, 3], [1, 0]), "yesterday is open for another while after midnight"
    assert await close_all(pool) == []
    rows = await pool.fetch(
        "SELECT kind, orders, amount, fee FROM fund.day_sums WHERE day = $1 ORDER BY kind", yesterday.date()
    )
    if rows:
        assert [tuple(row) for row in rows] == [("payment", 2, 200, 2), ("refund", 1, 30, 1)]


async def test_a_day_with_an_order_that_is_not_known_stays_open(pool: Pool) -> None:
    await an_order(pool, posted_at=TODAY - timedelta(days=2))
    await an_order(pool, state="posting", posted_at=TODAY - timedelta(days=2), told=False)
    await pool.execute("UPDATE fund.orders SET due_at = now() WHERE state = 'posting'")
    orders, lag_s, more = await close_day(pool, nobody_else)
    assert (orders, more) == (0, False)
    assert lag_s > 80_000
    await pool.execute(
        "UPDATE fund.orders SET state = 'posted', posted_at = created_at, due_at = NULL WHERE state = 'posting'"
    )
    assert (await close_all(pool))[0] == 2
