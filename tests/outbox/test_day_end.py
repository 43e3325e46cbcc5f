"""Day ends: the sums of a day are written once, when the orders of the day can no longer change."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from fundledger.fund.jobs.day_end import close_day
from fundledger.fund.model.days import Days
from fundledger.fund.store.queries import SQL
from tests.support.orders import an_order
from tests.support.plans import plan_of, scanned

Pool = asyncpg.Pool
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


async def nobody_else(connection: Any) -> None:
    """Do nothing: no other process takes the lease."""


@pytest.fixture
async def pool(fund_database: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(fund_database, min_size=1, max_size=4) as pool:
        yield pool


async def close_all(pool: Pool) -> list[int]:
    closed = []
    while True:
        orders, _, more = await close_day(pool, Days(), nobody_else)
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
    orders, lag_s, more = await close_day(pool, Days(), nobody_else)
    assert (orders, more) == (0, False)
    assert lag_s > 80_000
    await pool.execute(
        "UPDATE fund.orders SET state = 'posted', posted_at = created_at, due_at = NULL WHERE state = 'posting'"
    )
    assert (await close_all(pool))[0] == 2


@pytest.mark.parametrize("name", ["open_day", "unknown_orders", "close_day"])
async def test_closing_a_day_does_not_read_all_orders(pool: Pool, name: str) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off")
        # A scan of the closed days is acceptable: they are few.
        assert "orders" not in scanned(await plan_of(connection, SQL[name], like_a_lane=False))


async def test_the_first_day_is_that_of_the_oldest_orders_whatever_their_numbers(pool: Pool) -> None:
    await pool.execute("ALTER SEQUENCE fund.orders_seq_seq RESTART 5000")
    two_days_ago = TODAY - timedelta(days=2)
    await an_order(pool, posted_at=two_days_ago + timedelta(days=1))
    await an_order(pool, posted_at=two_days_ago)
    assert (await close_all(pool))[0] == 1
    assert await pool.fetchval("SELECT min(day) FROM fund.day_ends") == two_days_ago.date()


async def test_a_day_that_takes_long_to_sum_is_not_given_up(pool: Pool, fund_database: str) -> None:
    await an_order(pool, posted_at=TODAY - timedelta(days=2))
    async with (
        asyncpg.create_pool(fund_database, min_size=1, max_size=1, command_timeout=0.2) as hasty,
        pool.acquire() as other,
    ):
        held = other.transaction()
        await held.start()
        await other.execute("LOCK TABLE fund.day_sums")
        closing = asyncio.create_task(close_day(hasty, Days(), nobody_else))
        done, _ = await asyncio.wait([closing], timeout=0.5)
        assert not done
        await held.rollback()
        assert (await closing)[0] == 1
