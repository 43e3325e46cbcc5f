"""The Redis stream of events: it has each event once, in order, also if the publisher or Redis fails."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import redis.asyncio as redis

from fundledger.fund.store.events import fund_feed
from fundledger.outbox.stream import SQL, Publisher
from tests.support.fund_ids import MACS
from tests.support.orders import orders

KEY = "test:events"
Pool = asyncpg.Pool


class Away(Exception):
    pass


async def nobody_else(connection: Any) -> None:
    """Do nothing: no other process takes the lease."""


async def dies(connection: Any) -> None:
    raise Away


@pytest.fixture
async def pool(fund_database: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(fund_database, min_size=1, max_size=4) as pool:
        yield pool


@pytest.fixture
async def store(valkey: str) -> AsyncIterator["redis.Redis"]:
    store = redis.Redis.from_url(valkey)
    await store.flushall()
    yield store
    await store.aclose()


@pytest.fixture
async def publisher(fund_database: str, pool: Pool, store: "redis.Redis") -> AsyncIterator[Publisher]:
    feed = fund_feed(fund_database, pool, MACS, "stream")
    yield Publisher(feed, pool, store, KEY)
    await feed.close()


async def streamed(store: "redis.Redis") -> list[int]:
    return [int(id_.partition(b"-")[0]) for id_, _ in await store.xrange(KEY)]


async def test_events_are_streamed_in_order_from_where_it_stopped(
    pool: Pool, store: "redis.Redis", publisher: Publisher
) -> None:
    told = await orders(pool, 3)
    assert (await publisher.publish(nobody_else)).done == 3
    assert (await publisher.publish(nobody_else)).done == 0
    told += await orders(pool, 2)
    await publisher.publish(nobody_else)
    assert await streamed(store) == told
    ((_, fields), *_) = await store.xrange(KEY)
    assert set(fields) == {b"id", b"type", b"event"}


async def test_one_that_dies_before_it_records_adds_nothing_twice(
    pool: Pool, store: "redis.Redis", publisher: Publisher
) -> None:
    told = await orders(pool, 3)
    with pytest.raises(Away):
        await publisher.publish(dies)
    assert await streamed(store) == told
    told += await orders(pool, 1)
    assert (await publisher.publish(nobody_else)).done == 3, "again, and refused"
    await publisher.publish(nobody_else)
    assert await streamed(store) == told


async def test_an_emptied_redis_goes_on_from_the_cursor(pool: Pool, store: "redis.Redis", publisher: Publisher) -> None:
    await orders(pool, 2)
    await publisher.publish(nobody_else)
    await store.flushall()
    told = await orders(pool, 2)
    await publisher.publish(nobody_else)
    assert await streamed(store) == told


async def test_while_redis_is_away_nothing_is_lost(
    pool: Pool, store: "redis.Redis", publisher: Publisher, fund_database: str
) -> None:
    told = await orders(pool, 2)
    feed = fund_feed(fund_database, pool, MACS, "away")
    away = redis.Redis(port=1, socket_connect_timeout=1)
    with pytest.raises(redis.ConnectionError):
        await Publisher(feed, pool, away, KEY).publish(nobody_else)
    await away.aclose()
    await feed.close()
    await publisher.publish(nobody_else)
    assert await streamed(store) == told


async def test_a_cursor_never_goes_back(pool: Pool) -> None:
    for after in (5, 3):
        await pool.execute(SQL["move_cursor"], "c", after)
    assert await pool.fetchval(SQL["read_cursor"], "c") == 5
