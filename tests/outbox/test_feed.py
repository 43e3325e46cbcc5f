"""Readers of an outbox miss no event, neither of a late commit nor of a time at which they did not read."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import asyncpg
import pytest

from fundledger.database.statements import load
from fundledger.fund.store.events import fund_feed
from fundledger.fund.store.queries import ORDER_COLUMNS
from fundledger.fund.store.queries import SQL as FUND_SQL
from fundledger.outbox import feed as feed_module
from fundledger.outbox import watermark as horizon
from fundledger.outbox.feed import CallerWaitsTooMuch, Event, Feed, TooManyWait
from fundledger.outbox.watermark import FUND, VisibilityWatermark
from tests.support.fund_ids import MACS
from tests.support.orders import an_order, orders
from tests.support.waiting import eventually

Pool = asyncpg.Pool


@pytest.fixture
async def pool(fund_database: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(fund_database, min_size=1, max_size=8) as pool:
        yield pool


@pytest.fixture
async def feed(fund_database: str, pool: Pool) -> AsyncIterator[Feed]:
    feed = fund_feed(fund_database, pool, MACS, "test")
    yield feed
    await feed.close()


@pytest.fixture
async def line(fund_database: str) -> AsyncIterator[VisibilityWatermark]:
    line = VisibilityWatermark(fund_database, FUND, "test")
    yield line
    line.close()


def seqs(events: list[Event]) -> list[int]:
    return [event.seq for event in events]


@pytest.mark.parametrize("package", ["jobs", "outbox", "fund"])
async def test_every_statement_can_be_prepared_and_says_what_it_does(pool: Pool, package: str) -> None:
    for name, statement in load(f"fundledger.{package}", order=ORDER_COLUMNS).items():
        assert statement.startswith("-- "), name
        if not name.endswith("_ledger") and not name.startswith("migration_"):
            async with pool.acquire() as connection:
                await connection.prepare(statement)


async def late_and_early(pool: Pool) -> tuple[asyncpg.Connection, object, int, int]:
    """Insert events in two transactions. The one with the lower seq is still open; the other one is committed."""
    late = await pool.acquire()
    transaction = late.transaction()
    await transaction.start()
    first = await an_order(late)
    second = await an_order(pool)
    assert first < second
    return late, transaction, first, second


async def test_what_commits_late_is_not_skipped(pool: Pool, feed: Feed) -> None:
    late, transaction, first, second = await late_and_early(pool)
    events, after = await feed.read(0, 100, 0)
    assert events == []
    waiting = asyncio.create_task(feed.read(after, 100, 30))
    await eventually(lambda: feed.waiting, "it waits")
    await transaction.commit()
    await pool.release(late)
    events, _ = await waiting
    assert seqs(events) == [first, second]


async def test_a_naive_reader_loses_it(pool: Pool) -> None:
    """The broken twin of the reader: it assumes that all rows below the last visible one are visible."""
    late, transaction, first, second = await late_and_early(pool)
    read = await pool.fetch(FUND_SQL["read_events"], 0, 2**62, 100)
    assert [row["event_seq"] for row in read] == [second]
    await transaction.commit()
    await pool.release(late)
    assert await pool.fetch(FUND_SQL["read_events"], second, 2**62, 100) == []
    assert first < second


async def test_the_end_of_a_snapshot_is_no_bound_for_those_who_run(
    pool: Pool, line: VisibilityWatermark, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: its bound is the id after the last ended transaction. The open transaction has a higher id."""
    careless = horizon.SQL["sample_fund"].replace(
        "pg_current_xact_id()::text", "pg_snapshot_xmax(pg_current_snapshot())::text"
    )
    assert careless != horizon.SQL["sample_fund"]
    monkeypatch.setattr(line, "_sample", careless)
    async with pool.acquire() as late, late.transaction():
        seq = await an_order(late)
        await eventually(line.look, "it looks safe")
        assert line.safe >= seq, "and so its event would be lost"


async def test_an_open_transaction_is_waited_for_with_our_bound(pool: Pool, line: VisibilityWatermark) -> None:
    async with pool.acquire() as late:
        async with late.transaction():
            seq = await an_order(late)
            assert await line.look() is False
            assert await line.look() is False
            assert line.safe < seq
        await eventually(line.look, "it has ended")
    assert line.safe == seq


async def test_a_transaction_has_its_id_before_it_draws_a_seq(pool: Pool) -> None:
    """An identity column draws the seq first: the transaction might have no id yet when a reader reads the bound."""
    async with pool.acquire() as connection, connection.transaction():
        drawn = await connection.fetchrow(
            """SELECT pg_current_xact_id_if_assigned() AS before, pg_get_expr(adbin, adrelid) AS expression
               FROM pg_attrdef WHERE adrelid = 'fund.events'::regclass"""
        )
        assert drawn["before"] is None
        id_ = await connection.fetchval(
            f"SELECT pg_current_xact_id_if_assigned() FROM (SELECT {drawn['expression']} AS seq OFFSET 0) d WHERE d.seq > 0"
        )
        assert id_ is not None


async def test_an_event_that_is_visible_but_not_flushed_is_not_reported(
    pool: Pool, line: VisibilityWatermark, monkeypatch: pytest.MonkeyPatch
) -> None:
    seq = await an_order(pool)
    settled = horizon.SQL["settled"]
    unflushed = settled.replace(
        "(pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS flushed", "0::bigint AS flushed"
    )
    assert unflushed != settled
    monkeypatch.setitem(horizon.SQL, "settled", unflushed)
    assert await line.look() is False
    assert line.safe < seq
    monkeypatch.setitem(horizon.SQL, "settled", settled)
    await eventually(line.look, "it is flushed")
    assert line.safe >= seq


async def test_a_seq_that_was_rolled_back_delays_no_reader(pool: Pool, feed: Feed) -> None:
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        lost = await an_order(connection)
        await transaction.rollback()
    events, after = await feed.read(0, 10, 0)
    assert (events, after) == ([], lost)
    seq = await an_order(pool)
    assert seqs((await feed.read(after, 10, 5))[0]) == [seq]


async def test_a_consumer_that_was_away_loses_nothing(pool: Pool, feed: Feed, fund_database: str) -> None:
    told = await orders(pool, 7)
    events, after = await feed.read(0, 3, 0)
    assert seqs(events) == told[:3]
    told += await orders(pool, 5)
    another_process = fund_feed(fund_database, pool, MACS, "another")
    read: list[Event] = []
    while True:
        events, after = await another_process.read(after, 4, 0)
        if not events:
            break
        read += events
    assert seqs(read) == told[3:]
    assert len({event.id for event in read}) == len(read)
    await another_process.close()


async def test_concurrent_writers_are_all_read_once_in_the_order_of_their_seqs(pool: Pool, feed: Feed) -> None:
    async def write() -> list[int]:
        found = []
        for _ in range(10):
            async with pool.acquire() as connection, connection.transaction():
                found.append(await an_order(connection))
                await asyncio.sleep(0)
        return found

    writing = [asyncio.create_task(write()) for _ in range(4)]
    read: list[int] = []
    after = 0
    while len(read) < 40:
        events, after = await feed.read(after, 7, 5)
        read += seqs(events)
    assert read == sorted(itertools.chain.from_iterable(await asyncio.gather(*writing)))


async def test_who_waits_is_woken_when_something_happens(pool: Pool, feed: Feed) -> None:
    waiting = [asyncio.create_task(feed.read(0, 10, 30)) for _ in range(3)]
    await eventually(lambda: feed.waiting == 3, "they wait")
    seq = await an_order(pool)
    assert [seqs((await task)[0]) for task in waiting] == [[seq]] * 3
    await eventually(feed._watching.done, "nobody is waited for, and nobody looks")


async def test_no_more_wait_than_may(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "WAITERS_MAX", 1)
    waiting = asyncio.create_task(feed.read(0, 10, 30))
    await eventually(lambda: feed.waiting, "it waits")
    with pytest.raises(TooManyWait):
        await feed.read(0, 10, 30)
    feed.stop()
    assert await waiting == ([], 0)


async def test_one_caller_has_a_share_of_those_that_may_wait(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "WAITERS_OF_CALLER_MAX", 2)
    waiting = [asyncio.create_task(feed.read(0, 10, 30, "greedy")) for _ in range(2)]
    await eventually(lambda: feed.waiting == 2, "they wait")
    with pytest.raises(CallerWaitsTooMuch):
        await feed.read(0, 10, 30, "greedy")
    waiting.append(asyncio.create_task(feed.read(0, 10, 30, "other")))
    await eventually(lambda: feed.waiting == 3, "another one waits")
    waiting.pop(0).cancel()
    await eventually(lambda: feed.waiting == 2, "one has gone")
    waiting.append(asyncio.create_task(feed.read(0, 10, 30, "greedy")))
    await eventually(lambda: feed.waiting == 3, "there is room for another one")
    feed.stop()
    assert await asyncio.gather(*waiting) == [([], 0)] * 3
    assert feed._of_callers == {}


async def test_an_event_has_the_order_as_it_was_then(pool: Pool, feed: Feed) -> None:
    import msgspec

    await an_order(pool, "m7", "paid", kind="withdrawal", amount=500, fee=5)
    await pool.execute(
        "INSERT INTO fund.events (order_id, merchant, kind, state, at) SELECT id, merchant, kind, 'sent', now() FROM fund.orders"
    )
    await an_order(pool, "m7", "refused")
    told = [msgspec.json.decode(event.body) for event in (await feed.read(0, 10, 0))[0]]
    assert [event["type"] for event in told] == ["withdrawal.paid", "withdrawal.sent", "payment.refused"]
    assert [event["order"]["state"] for event in told] == ["paid", "sent", "refused"]
    assert [event["order"]["net"] for event in told] == [-505, -505, 99]
    assert told[2]["order"]["problem"] == {"type": "x"}
    assert told[0]["id"] == f"{told[0]['order']['id']}:paid"
