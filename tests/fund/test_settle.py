"""Settlements by calendar: the pending amount of each merchant is settled once for each day of its calendar."""

import asyncio
from datetime import UTC, datetime, time, timedelta

import msgspec
import pytest

from fundledger.fund.jobs.settle import Settler, due
from fundledger.fund.model.requests import Settlement
from fundledger.fund.store import settling
from tests.support.fund_books import prove_fund
from tests.support.fund_worker import FundWorker
from tests.support.running import RunningService

# It is later than any posting of these tests, because a settlement covers earlier postings only.
MONDAY = datetime(2126, 7, 8, 2, 30, tzinfo=UTC)
NUMBERS = "SELECT array_agg(order_no ORDER BY seq) FROM fund.orders WHERE kind = 'settlement' AND merchant = $1"


@pytest.mark.parametrize(
    ("now", "daily", "weekly", "monthly"),
    [
        ("2026-06-01T02:30", "2026-06-01", "2026-06-01", "2026-06-01"),
        ("2026-06-02T02:00", "2026-06-02", "2026-06-01", "2026-06-01"),
        ("2026-06-08T23:00", "2026-06-08", "2026-06-08", "2026-06-01"),
        ("2026-06-08T01:59", "2026-06-07", "2026-06-01", "2026-06-01"),
        ("2026-07-01T01:59", "2026-06-30", "2026-06-29", "2026-06-01"),
        ("2026-07-01T02:00", "2026-07-01", "2026-06-29", "2026-07-01"),
    ],
)
def test_when_each_calendar_was_due_the_last_time(now: str, daily: str, weekly: str, monthly: str) -> None:
    at = datetime.fromisoformat(f"{now}+00:00")
    days = {calendar: f"{when:%Y-%m-%d}" for calendar, when in due(at, time(2)).items()}
    assert days == {"daily": daily, "weekly": weekly, "monthly": monthly}


async def test_each_merchant_is_settled_once_on_its_day(fund_database: str, service: RunningService) -> None:
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        daily = await worker.merchant("daily", settlement="daily")
        weekly = await worker.merchant("weekly", settlement="weekly")
        manual = await worker.merchant("manual")
        merchants = (daily, weekly, manual)
        for merchant in merchants:
            await worker.pay(merchant, "1", 100, settle="later")
        settlers = [Settler(worker.pool, worker.batcher, time(2)) for _ in range(3)]
        await asyncio.gather(*(settler.settle_some(MONDAY) for settler in settlers))
        assert [await worker.of(m) for m in merchants] == [(100, 0, 0), (100, 0, 0), (0, 100, 0)]
        for merchant in merchants:
            await worker.pay(merchant, "2", 50, settle="later")
        assert await settlers[0].settle_some(MONDAY) == (0, 0.0)
        for days, done in ((1, 1), (6, 0), (7, 1)):
            assert await settlers[0].settle_some(MONDAY + timedelta(days=days)) == (done, 0.0), days
        assert [await worker.of(m) for m in merchants] == [(150, 0, 0), (150, 0, 0), (0, 150, 0)]
    await prove_fund(fund_database, service.dsn, worker.salt)


async def test_a_day_on_which_nothing_ran_is_made_up_for_under_its_number(
    fund_database: str, service: RunningService
) -> None:
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        merchants = {name: await worker.merchant(name, settlement=name) for name in ("daily", "weekly", "monthly")}
        for merchant in merchants.values():
            await worker.pay(merchant, "1", 100, settle="later")
        settler = Settler(worker.pool, worker.batcher, time(2))
        wednesday = MONDAY + timedelta(days=2)
        assert await settler.settle_some(wednesday) == (3, 0.0)
        numbers = {name: await worker.value(NUMBERS, merchant) for name, merchant in merchants.items()}
        assert numbers == {"daily": ["auto-2126-07-10"], "weekly": ["auto-2126-07-08"], "monthly": ["auto-2126-07-01"]}
        assert await settler.settle_some(wednesday) == (0, 0.0)


async def test_what_was_posted_after_the_day_alone_waits_for_the_next_one(
    fund_database: str, service: RunningService
) -> None:
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        merchant = await worker.merchant(settlement="weekly")
        await worker.pay(merchant, "1", 100, settle="later")
        settler = Settler(worker.pool, worker.batcher, time(2))
        now = datetime.now(UTC)
        assert await settler.settle_some(now - timedelta(days=8)) == (0, 0.0)
        assert (await settler.settle_some(now + timedelta(days=8)))[0] == 1


async def test_a_settlement_of_all_has_so_many_payments_at_most_and_the_settler_goes_on(
    fund_database: str, service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "PAYMENTS_MAX", 2)
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        merchant = await worker.merchant(settlement="daily")
        for i in range(8):
            await worker.pay(merchant, str(i), 10, settle="later")
        asked = await worker.done("settlement", merchant=merchant, order_no="all")
        assert asked.amount == 20
        assert await worker.of(merchant) == (20, 60, 0)
        asked = await worker.done("settlement", merchant=merchant, order_no="some", amount=30)
        assert await worker.of(merchant) == (50, 30, 0)
        settler = Settler(worker.pool, worker.batcher, time(2), payments_max=2)
        assert [(await settler.settle_some(MONDAY))[0] for _ in range(3)] == [1, 1, 0]
        assert await worker.of(merchant) == (80, 0, 0)
        assert (await worker.value(NUMBERS, merchant))[2:] == ["auto-2126-07-08", "auto-2126-07-08-2"]
        await worker.pay(merchant, "late", 10, settle="later")
        assert await settler.settle_some(MONDAY) == (0, 0.0)
    await prove_fund(fund_database, service.dsn, worker.salt)


async def test_the_numbers_of_automatic_settlements_are_not_available_to_front_ends() -> None:
    with pytest.raises(msgspec.ValidationError, match="order_no"):
        msgspec.convert({"merchant": "m", "order_no": "auto-2026-06-01"}, Settlement)
    assert msgspec.convert({"merchant": "m", "order_no": "automatic"}, Settlement).order_no == "automatic"
