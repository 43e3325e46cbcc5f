"""Ends of withdrawals in the sums of days: an end counts on its own day, once, and never in a day that is closed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from fundledger.database import migrations
from fundledger.fund.jobs.day_end import GRACE_S, close_day
from fundledger.fund.model.answer import Taken
from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.model.posting_result import PostingResult
from fundledger.fund.store import sums
from fundledger.fund.store.day_sums import DaySum, read_day
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.migrate import PACKAGE, migrate
from fundledger.fund.store.orders import read_order
from fundledger.fund.store.queries import SQL
from fundledger.security.keys import make_keys
from tests.fund.test_upgrades import nothing_to_seal, write
from tests.support.database import Databases
from tests.support.fund_books import prove_fund
from tests.support.fund_worker import FundWorker
from tests.support.fund_world import an_order
from tests.support.running import RunningService

DAY = timedelta(days=1)
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
SHANGHAI = "Asia/Shanghai", time(23)
"""With this calendar, noon in UTC is 20:00 of the same day, and a day ends at 15:00 in UTC."""


async def nobody_else(connection: Any) -> None:
    """Do nothing: no other process takes the lease."""


class Ending(FundWorker):
    """A fund worker whose orders are created at the time `at`, and whose vouchers are answered as if they were posted
    at this time.
    """

    at = NOON

    def now(self) -> datetime:
        return self.at

    async def start_worker(self) -> None:
        await super().start_worker()
        real = self.gateway.post_vouchers

        async def post(vouchers: Sequence[Any]) -> list[PostingResult | None]:
            results = await real(vouchers)
            return [each and msgspec.structs.replace(each, at=self.at) for each in results]

        self.gateway.post_vouchers = post  # type: ignore[method-assign]

    async def withdraw(self, merchant: str, number: str, amount: int) -> Order:
        members = {"merchant": merchant, "order_no": number, "amount": amount, "channel": f"c-{self.salt}"}
        return await self.done("withdrawal", **members)

    async def end(self, order: Order, ending: Any = "paid") -> None:
        ended = await self.batcher.end(order.id, ending, None, "r", "bank")
        assert isinstance(ended, Taken)
        assert ended.order.state == ending

    async def close(self) -> int:
        """Close the days that can be closed, and return their number."""
        closed = 0
        while (await close_day(self.pool, self.macs.days, nobody_else))[2]:
            closed += 1
        return closed

    async def sums(self, day: date) -> dict[str, tuple[int, ...]]:
        """Return the sums of the withdrawals of a day by state: orders, amount, fee, ended, their amount, their fee."""
        found = await read_day(self.pool, self.macs.days, day, None, 100)
        assert found.closed_at is not None
        assert found.ends == sum(each.ended for each in found.sums)
        return {each.state: _numbers(each) for each in found.sums if each.kind == "withdrawal"}


def _numbers(each: DaySum) -> tuple[int, ...]:
    return each.orders, each.amount, each.fee, each.ended, each.ended_amount, each.ended_fee


@pytest.fixture
async def worker(fund_database: str, service: RunningService) -> AsyncIterator[Ending]:
    worker = Ending(fund_database, service.base_url, service.fund_token)
    worker.calendar = SHANGHAI
    async with worker:
        yield worker
    # The vouchers have other times in the ledger.
    await prove_fund(fund_database, service.dsn, worker.salt, same_days=False)


async def test_an_end_counts_on_the_day_on_which_it_was_posted(worker: Ending) -> None:
    merchant = await worker.merchant()
    worker.at = NOON - 6 * DAY
    await worker.pay(merchant, "p", 2_000)
    same, next_, bounced, open_ = [await worker.withdraw(merchant, str(n), 10**n) for n in range(4)]
    await worker.end(same)
    worker.at = NOON - 5 * DAY
    await worker.end(next_)
    # This is 23:00 in Shanghai, when the day after begins.
    worker.at = (NOON - 5 * DAY).replace(hour=15)
    await worker.end(bounced, "bounced")
    assert await worker.close() >= 3
    first = (NOON - 6 * DAY).date()
    # The states are those at the closing. Only one withdrawal ended on the day itself.
    assert await worker.sums(first) == {
        "paid": (2, 11, 0, 1, 1, 0),
        "bounced": (1, 100, 0, 0, 0, 0),
        "posted": (1, 1_000, 0, 0, 0, 0),
    }
    assert await worker.sums(first + DAY) == {"paid": (0, 0, 0, 1, 10, 0)}
    assert await worker.sums(first + 2 * DAY) == {"bounced": (0, 0, 0, 1, 100, 0)}
    assert open_.state is State.POSTED


async def test_an_end_of_a_day_that_is_closed_counts_on_the_first_open_day(worker: Ending) -> None:
    merchant = await worker.merchant()
    worker.at = NOON - 6 * DAY
    await worker.pay(merchant, "p", 1_000)
    orders = [await worker.withdraw(merchant, str(n), 10**n) for n in range(3)]
    await worker.end(orders[0])
    closed = await worker.close()
    first = (NOON - 6 * DAY).date()
    before = await worker.sums(first)
    await worker.end(orders[1])
    open_day = await worker.value("SELECT max(day) + 1 FROM fund.day_ends")
    assert open_day == first + closed * DAY
    assert await worker.value("SELECT day FROM fund.ends WHERE order_id = $1", orders[1].id) == open_day
    assert await worker.value("SELECT at FROM fund.ends WHERE order_id = $1", orders[1].id) == worker.at
    assert await worker.sums(first) == before
    worker.at = NOON + 3 * DAY
    await worker.end(orders[2])
    assert await worker.value("SELECT day FROM fund.ends WHERE order_id = $1", orders[2].id) == worker.at.date()


async def test_an_end_that_is_being_recorded_holds_the_closing_up_and_is_in_the_sums(
    worker: Ending, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant = await worker.merchant()
    worker.at = NOON - 3 * DAY
    await worker.pay(merchant, "p", 1_000)
    order = await worker.withdraw(merchant, "w", 70)
    give_back, marked, go_on = sums.give_back_days, asyncio.Event(), asyncio.Event()

    async def slow(*arguments: Any) -> None:
        # The transaction that recorded the end is still open.
        marked.set()
        await go_on.wait()
        await give_back(*arguments)

    monkeypatch.setattr(sums, "give_back_days", slow)
    ending = asyncio.create_task(worker.end(order, "bounced"))
    await marked.wait()
    closing = asyncio.create_task(worker.close())
    done, _ = await asyncio.wait([closing], timeout=0.3)
    assert not done, "the day is closed although an end is being recorded"
    go_on.set()
    await ending
    assert await closing >= 1
    assert await worker.sums(worker.at.date()) == {"bounced": (1, 70, 0, 1, 70, 0)}


async def test_an_end_that_is_recorded_while_its_day_is_summed_counts_on_the_next_day(worker: Ending) -> None:
    merchant = await worker.merchant()
    worker.at = NOON - 3 * DAY
    await worker.pay(merchant, "p", 1_000)
    order = await worker.withdraw(merchant, "w", 70)
    calls = 0

    async def meanwhile(connection: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            # The sums are computed, and not committed.
            await worker.end(order)

    assert (await close_day(worker.pool, worker.macs.days, meanwhile))[2]
    await worker.close()
    assert await worker.sums(worker.at.date()) == {"posted": (1, 70, 0, 0, 0, 0)}
    assert await worker.sums(worker.at.date() + DAY) == {"paid": (0, 0, 0, 1, 70, 0)}


async def test_a_repeated_end_counts_once(worker: Ending) -> None:
    merchant = await worker.merchant()
    worker.at = NOON - 3 * DAY
    await worker.pay(merchant, "p", 1_000)
    order = await worker.withdraw(merchant, "w", 70)
    await asyncio.gather(*(worker.end(order) for _ in range(5)))
    await worker.end(order)
    there = await read_order(worker.pool, order.id)
    assert there is not None
    await worker.posting.end(there)
    assert await worker.value("SELECT count(*) FROM fund.ends") == 1
    await worker.close()
    assert await worker.sums(worker.at.date()) == {"paid": (1, 70, 0, 1, 70, 0)}


async def test_a_day_stays_open_until_some_time_after_the_cut(worker: Ending) -> None:
    now = datetime.now(UTC)
    begins = worker.macs.days.beginning_of(worker.macs.days.day_of(now))
    merchant = await worker.merchant()
    worker.at = begins - timedelta(seconds=1)
    await worker.pay(merchant, "p", 1_000)
    closed = await worker.close()
    assert closed == (1 if (datetime.now(UTC) - begins).total_seconds() >= GRACE_S else 0)


# --- Upgrades ---


EMPTY = 13
"""A migration before those that read orders."""
BEFORE = 20
"""The last migration before ends had rows."""
OLD_SUMS = """INSERT INTO fund.day_sums (day, merchant, kind, currency, state, orders, amount, fee)
              VALUES ('2026-03-01', 'm', 'withdrawal', 'CNY', 'paid', 1, 10, 0)"""


async def test_days_and_ends_of_before(postgres: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days that were closed in UTC keep their sums. Ends after them get rows, and count in the days in UTC that follow."""
    dsn = await postgres.empty()
    fund = await asyncpg.connect(dsn)
    all_, folder = migrations.migrations, tmp_path / "fund-keys"
    with monkeypatch.context() as older:
        # Statements of this version read columns and tables that earlier ones did not have. The database has no rows yet.
        older.setattr("fundledger.fund.store.migrate.seal_first", nothing_to_seal)
        older.setattr(migrations, "migrations", lambda package: [one for one in all_(package) if one[0] <= EMPTY])
        await migrate(fund, folder)
        older.setattr(migrations, "migrations", lambda package: [one for one in all_(package) if one[0] <= BEFORE])
        await migrations.apply(fund, PACKAGE, SQL)
    keys = make_keys(folder)
    macs = OrderMacs(keys)
    at = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
    orders = [
        an_order(Kind.WITHDRAWAL, "same", 10, State.PAID, ending="paid", posted_at=at, created_at=at),
        an_order(Kind.WITHDRAWAL, "next", 20, State.PAID, ending="paid", posted_at=at, created_at=at),
        an_order(Kind.WITHDRAWAL, "late", 40, State.BOUNCED, ending="bounced", posted_at=at + DAY, created_at=at + DAY),
        an_order(Kind.WITHDRAWAL, "open", 80, State.SENT, posted_at=at, created_at=at),
        an_order(Kind.WITHDRAWAL, "edited", 160, State.PAID, ending="paid", posted_at=at, created_at=at),
    ]
    await write(fund, macs, *orders)
    for order, days in zip(orders, (0, 1, 2, 0, 1), strict=True):
        if order.ending:
            await fund.execute(
                "INSERT INTO fund.events (order_id, merchant, kind, state, at) VALUES ($1, 'm', 'withdrawal', $2, $3)",
                *(order.id, str(order.state), at + days * DAY),
            )
    await fund.execute("UPDATE fund.orders SET module = 'thief' WHERE order_no = 'edited'")
    await fund.execute("INSERT INTO fund.day_ends (day, orders) VALUES ('2026-03-01', 4)")
    await fund.execute(OLD_SUMS)
    await migrate(fund, folder)
    rows = await fund.fetch(
        "SELECT o.order_no, e.ending, e.day::text FROM fund.ends e JOIN fund.orders o ON o.id = e.order_id ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [("late", "bounced", "2026-03-03"), ("next", "paid", "2026-03-02")]
    async with asyncpg.create_pool(dsn, min_size=1, max_size=2) as pool:
        found = await read_day(pool, macs.days, date(2026, 3, 1), None, 10)
        assert (found.ends, found.begins_at) == (None, datetime(2026, 3, 1, tzinfo=UTC))
        assert [_numbers(each) for each in found.sums] == [(1, 10, 0, 0, 0, 0)]
        while (await close_day(pool, macs.days, nobody_else))[2]:
            pass
        second, third = [(await read_day(pool, macs.days, date(2026, 3, day), None, 10)).sums for day in (2, 3)]
    assert [(each.state, *_numbers(each)) for each in second] == [
        ("bounced", 1, 40, 0, 0, 0, 0),
        ("paid", 0, 0, 0, 1, 20, 0),
    ]
    assert [(each.state, *_numbers(each)) for each in third] == [("bounced", 0, 0, 0, 1, 40, 0)]
    await fund.close()
    await postgres.drop(dsn)
