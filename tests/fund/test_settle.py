"""What is pending is settled by each merchant's calendar, once."""

import asyncio
from datetime import UTC, datetime, time

import pytest

from fundledger.fund.settle import Settler, due
from tests.support.desk import FundDesk
from tests.support.fund_books import prove_fund
from tests.support.running import RunningService

MONDAY = datetime(2026, 6, 1, 2, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "calendars"),
    [
        (MONDAY, ["daily", "weekly", "monthly"]),
        (datetime(2026, 6, 2, 2, tzinfo=UTC), ["daily"]),
        (datetime(2026, 6, 8, 23, tzinfo=UTC), ["daily", "weekly"]),
        (datetime(2026, 6, 8, 1, 59, tzinfo=UTC), []),
    ],
)
def test_the_calendars_of_a_day(now: datetime, calendars: list[str]) -> None:
    assert list(due(now, time(2))) == calendars


async def test_each_merchant_is_settled_once_on_his_day(fund_database: str, service: RunningService) -> None:
    async with FundDesk(fund_database, service.base_url, service.token) as desk:
        daily = await desk.merchant("daily", settlement="daily")
        weekly = await desk.merchant("weekly", settlement="weekly")
        manual = await desk.merchant("manual")
        for merchant in (daily, weekly, manual):
            await desk.pay(merchant, "1", 100, settle="later")
        settlers = [Settler(desk.pool, desk.desk, time(2)) for _ in range(3)]
        tuesday = MONDAY.replace(day=2)
        await asyncio.gather(*(settler.settle_some(tuesday) for settler in settlers))
        assert [await desk.of(m) for m in (daily, weekly, manual)] == [(100, 0, 0), (0, 100, 0), (0, 100, 0)]
        await desk.pay(daily, "2", 50, settle="later")
        assert await settlers[0].settle_some(tuesday) == (0, 0.0)
        assert (await settlers[0].settle_some(MONDAY.replace(day=8)))[0] == 2
        assert [await desk.of(m) for m in (daily, weekly, manual)] == [(150, 0, 0), (100, 0, 0), (0, 100, 0)]
    await prove_fund(fund_database, service.dsn, desk.salt)
