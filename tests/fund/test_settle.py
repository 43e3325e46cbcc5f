"""Automatic settlements: each merchant is settled on the days on which its payments are due, once for each day."""

import asyncio
from datetime import UTC, date, datetime, time, timedelta

import msgspec
import pytest

from fundledger.fund.jobs.settle import next_number
from fundledger.fund.model.answer import Taken
from fundledger.fund.model.refusal import Refusal
from fundledger.fund.model.requests import Settlement
from fundledger.fund.store import settling
from tests.support.fund_books import prove_fund
from tests.support.fund_worker import FundWorker
from tests.support.running import RunningService

MONDAY = datetime(2026, 6, 1, 10, tzinfo=UTC)
DAY = timedelta(days=1)
NUMBERS = "SELECT array_agg(order_no ORDER BY seq) FROM fund.orders WHERE kind = 'settlement' AND merchant = $1"


class Clocked(FundWorker):
    """A fund worker whose orders are created at the time `at`."""

    at = MONDAY

    def now(self) -> datetime:
        return self.at

    async def later(self, merchant: str, order_no: str, amount: int = 100) -> date | None:
        """Post a payment that is settled later. Return the day on which it is due."""
        return (await self.pay(merchant, order_no, amount, settle="later")).settle_on

    async def numbers(self, merchant: str) -> list[str]:
        return await self.value(NUMBERS, merchant) or []


@pytest.mark.parametrize(
    ("due_on", "last_no", "last_state", "number"),
    [
        ("2026-06-02", None, None, "auto-2026-06-02"),
        ("2026-06-02", "auto-2026-06-01-7", "posting", "auto-2026-06-02"),
        ("2026-06-02", "auto-2026-06-01", "refused", "auto-2026-06-02"),
        ("2026-06-02", "auto-2026-06-02", "posted", "auto-2026-06-02-2"),
        ("2026-06-02", "auto-2026-06-02-9", "refused", "auto-2026-06-02-10"),
        ("2026-06-02", "auto-2026-06-02", "posting", None),
        ("2026-06-02", "auto-2026-06-02", "stuck", None),
        ("2026-06-02", "auto-2026-06-05", "posted", "auto-2026-06-05-2"),
    ],
)
def test_the_number_of_a_settlement_has_the_day_on_which_its_payments_are_due(
    due_on: str, last_no: str | None, last_state: str | None, number: str | None
) -> None:
    assert next_number(date.fromisoformat(due_on), last_no, last_state) == number


async def test_payments_of_a_day_are_settled_together_on_the_next_due_day(
    fund_database: str, service: RunningService
) -> None:
    async with Clocked(fund_database, service.base_url, service.fund_token) as worker:
        daily = await worker.merchant("daily", settlement="daily")
        weekly = await worker.merchant("weekly", settlement="weekly")
        monthly = await worker.merchant("monthly", settlement="monthly")
        manual = await worker.merchant("manual")
        merchants = (daily, weekly, monthly, manual)
        due = [await worker.later(merchant, "1") for merchant in merchants]
        assert due == [date(2026, 6, 2), date(2026, 6, 8), date(2026, 7, 1), None]
        settlers = [worker.settler() for _ in range(3)]
        # The first payment of a day is not settled alone immediately: the others of the day follow.
        for hours in (0, 1, 13):
            worker.at = MONDAY + timedelta(hours=hours)
            assert await settlers[0].settle_some(worker.at) == (0, 0.0)
            await worker.later(daily, f"more-{hours}", 10)
        worker.at = MONDAY.replace(hour=1, minute=59) + DAY
        assert await settlers[0].settle_some(worker.at) == (0, 0.0)
        worker.at += timedelta(minutes=1)
        await worker.later(daily, "next day", 1000)
        await asyncio.gather(*(settler.settle_some(worker.at) for settler in settlers))
        assert await worker.of(daily) == (130, 1000, 0)
        assert await settlers[0].settle_some(worker.at) == (0, 0.0)
        assert await settlers[0].settle_some(MONDAY + 7 * DAY) == (2, 0.0)
        assert await settlers[0].settle_some(MONDAY + 29 * DAY) == (0, 0.0)
        assert await settlers[0].settle_some(MONDAY + 30 * DAY) == (1, 0.0)
        assert [await worker.of(m) for m in merchants] == [(1130, 0, 0), (100, 0, 0), (100, 0, 0), (0, 100, 0)]
        assert [await worker.numbers(m) for m in merchants] == [
            ["auto-2026-06-02", "auto-2026-06-03"],
            ["auto-2026-06-08"],
            ["auto-2026-07-01"],
            [],
        ]
    await prove_fund(fund_database, service.dsn, worker.salt)


async def test_a_day_on_which_nothing_ran_is_made_up_for_under_its_number(
    fund_database: str, service: RunningService
) -> None:
    async with Clocked(fund_database, service.base_url, service.fund_token) as worker:
        merchants = {name: await worker.merchant(name, settlement=name) for name in ("daily", "weekly", "monthly")}
        for merchant in merchants.values():
            await worker.later(merchant, "1")
        worker.at += 2 * DAY
        await worker.later(merchants["daily"], "2")
        assert await worker.settler().settle_some(MONDAY + 40 * DAY) == (3, 0.0)
        numbers = {name: await worker.numbers(merchant) for name, merchant in merchants.items()}
        assert numbers == {"daily": ["auto-2026-06-04"], "weekly": ["auto-2026-06-08"], "monthly": ["auto-2026-07-01"]}


async def test_a_day_ends_at_the_cut_of_the_merchant_in_the_time_zone_of_the_calendar(
    fund_database: str, service: RunningService
) -> None:
    worker = Clocked(fund_database, service.base_url, service.fund_token)
    worker.calendar = "Asia/Shanghai", time(23)
    async with worker:
        plain = await worker.merchant("plain", settlement="daily")
        early = await worker.merchant("early", settlement="daily", settlement_cut="16:00")
        # 15:59 and 16:00 on Monday in Shanghai, then 22:59 and 23:00.
        for at, due_plain, due_early in (
            (datetime(2026, 6, 1, 7, 59, tzinfo=UTC), 2, 2),
            (datetime(2026, 6, 1, 8, 0, tzinfo=UTC), 2, 3),
            (datetime(2026, 6, 1, 14, 59, tzinfo=UTC), 2, 3),
            (datetime(2026, 6, 1, 15, 0, tzinfo=UTC), 3, 3),
        ):
            worker.at = at
            assert await worker.later(plain, f"{at:%H%M}") == date(2026, 6, due_plain), at
            assert await worker.later(early, f"{at:%H%M}") == date(2026, 6, due_early), at
        # The accounting day of the 2nd began at 23:00 on the 1st. It is settled at 02:00 in Shanghai.
        settler = worker.settler()
        assert (await settler.settle_some(datetime(2026, 6, 1, 17, 59, tzinfo=UTC)))[0] == 0
        assert (await settler.settle_some(datetime(2026, 6, 1, 18, 0, tzinfo=UTC)))[0] == 2
        assert (await worker.of(plain), await worker.of(early)) == ((300, 100, 0), (100, 300, 0))
    await prove_fund(fund_database, service.dsn, worker.salt, same_days=False)


async def test_a_settlement_after_working_days_waits_for_a_working_day(
    fund_database: str, service: RunningService
) -> None:
    async with Clocked(fund_database, service.base_url, service.fund_token) as worker:
        merchant = await worker.merchant(settlement="daily", settlement_days=2)
        same_day = await worker.merchant("same", settlement="daily", settlement_days=0, settlement_cut="16:00")
        worker.at = datetime(2026, 6, 4, 10, tzinfo=UTC)
        assert await worker.later(merchant, "Thursday") == date(2026, 6, 8)
        worker.at = datetime(2026, 6, 6, 10, tzinfo=UTC)
        assert await worker.later(merchant, "Saturday") == date(2026, 6, 9)
        assert await worker.later(same_day, "Saturday") == date(2026, 6, 8)
        worker.at = datetime(2026, 6, 8, 15, tzinfo=UTC)
        assert await worker.later(same_day, "Monday") == date(2026, 6, 8)
        settler = worker.settler()
        # On Monday at 15:00, the day of payments of the second merchant has not ended: nothing of it is settled alone.
        assert (await settler.settle_some(worker.at))[0] == 1
        assert (await worker.of(merchant), await worker.of(same_day)) == ((100, 100, 0), (0, 200, 0))
        assert (await settler.settle_some(datetime(2026, 6, 8, 16, tzinfo=UTC)))[0] == 1
        assert (await worker.of(merchant), await worker.of(same_day)) == ((100, 100, 0), (200, 0, 0))
        worker.at = datetime(2026, 6, 11, 10, tzinfo=UTC)
        assert await worker.later(merchant, "last") == date(2026, 6, 15)
        # The payment that is due on Tuesday was missed. On Saturday it waits for the next working day.
        assert (await settler.settle_some(datetime(2026, 6, 13, 10, tzinfo=UTC)))[0] == 0
        assert (await settler.settle_some(datetime(2026, 6, 15, 10, tzinfo=UTC)))[0] == 1
        assert await worker.of(merchant) == (300, 0, 0)
        assert await worker.numbers(merchant) == ["auto-2026-06-08", "auto-2026-06-15"]
    await prove_fund(fund_database, service.dsn, worker.salt)


async def test_a_settlement_that_was_refused_is_made_again_when_the_accounts_take_it(
    fund_database: str, service: RunningService
) -> None:
    async with Clocked(fund_database, service.base_url, service.fund_token) as worker:
        merchant = await worker.merchant(settlement="daily")
        other = await worker.merchant("other", settlement="daily")
        for each in (merchant, other):
            await worker.later(each, "1")
        await worker.accounts.freeze(f"merchant:{merchant}:pending", "tests", "all")
        settler, now = worker.settler(), MONDAY + DAY
        assert (await settler.settle_some(now))[0] == 2
        assert await worker.of(other) == (100, 0, 0)
        for _ in range(3):
            assert (await settler.settle_some(now))[0] == 0
        assert await worker.numbers(merchant) == ["auto-2026-06-02"]
        await worker.accounts.unfreeze(f"merchant:{merchant}:pending")
        assert (await settler.settle_some(now))[0] == 1
        assert await worker.numbers(merchant) == ["auto-2026-06-02", "auto-2026-06-02-2"]
        assert await worker.of(merchant) == (100, 0, 0)
    await prove_fund(fund_database, service.dsn, worker.salt)


async def test_refused_settlements_delay_no_other_merchant(fund_database: str, service: RunningService) -> None:
    async with Clocked(fund_database, service.base_url, service.fund_token) as worker:
        held = [await worker.merchant(f"a{i}", settlement="daily") for i in range(60)]
        last = await worker.merchant("z", settlement="daily")
        for merchant in (*held, last):
            await worker.later(merchant, "1")
        await worker.value("UPDATE fund.merchants SET name = 'edited' WHERE id = ANY ($1)", held)
        settler, now = worker.settler(again_s=60.0), MONDAY + DAY
        done = [await settler.settle_some(now) for _ in range(3)]
        assert [number for number, _ in done] == [0, 1, 0]
        assert await worker.of(last) == (100, 0, 0)


async def test_a_settlement_of_all_has_so_many_payments_at_most_and_the_settler_goes_on(
    fund_database: str, service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "PAYMENTS_MAX", 2)
    async with Clocked(fund_database, service.base_url, service.fund_token) as worker:
        merchant = await worker.merchant(settlement="daily")
        for i in range(8):
            await worker.later(merchant, str(i), 10)
        asked = await worker.done("settlement", merchant=merchant, order_no="all")
        assert asked.amount == 20
        asked = await worker.done("settlement", merchant=merchant, order_no="some", amount=30)
        assert await worker.of(merchant) == (50, 30, 0)
        settler, now = worker.settler(), MONDAY + DAY
        assert [(await settler.settle_some(now))[0] for _ in range(3)] == [1, 1, 0]
        assert await worker.of(merchant) == (80, 0, 0)
        assert (await worker.numbers(merchant))[2:] == ["auto-2026-06-02", "auto-2026-06-02-2"]
    await prove_fund(fund_database, service.dsn, worker.salt)


async def test_a_requested_settlement_with_a_day_takes_what_is_due(fund_database: str, service: RunningService) -> None:
    async with Clocked(fund_database, service.base_url, service.fund_token) as worker:
        merchant = await worker.merchant(settlement_days=1)
        for number in range(3):
            worker.at = MONDAY + number * DAY
            assert await worker.later(merchant, str(number), 10 ** (number + 1)) == (MONDAY + (number + 1) * DAY).date()
        named = {"merchant": merchant, "day": date(2026, 6, 3)}
        no = await worker.ask("settlement", merchant=merchant, order_no="early", day=date(2026, 6, 1))
        assert isinstance(no, Refusal) and no.code == "nothing-to-settle"
        no = await worker.ask("settlement", order_no="much", amount=111, **named)
        assert isinstance(no, Refusal) and no.code == "settlement-exceeds-pending"
        assert (await worker.done("settlement", order_no="part", amount=7, **named)).amount == 7
        assert (await worker.done("settlement", order_no="rest", **named)).amount == 103
        assert await worker.of(merchant) == (110, 1000, 0)
        again = await worker.ask("settlement", order_no="rest", **named)
        assert isinstance(again, Taken) and again.replay
        other = await worker.ask("settlement", merchant=merchant, order_no="rest", day=date(2026, 6, 4))
        assert isinstance(other, Refusal) and other.code == "order-no-reused"
        # Without a day, all pending payments are settled, whatever their due day is.
        assert (await worker.done("settlement", merchant=merchant, order_no="all")).amount == 1000
    await prove_fund(fund_database, service.dsn, worker.salt)


async def test_payments_older_than_due_days_are_due_by_the_calendar_alone(
    fund_database: str, service: RunningService
) -> None:
    async with Clocked(fund_database, service.base_url, service.fund_token) as worker:
        merchants = {name: await worker.merchant(name, settlement=name) for name in ("daily", "weekly")}
        worker.merchants.dates.due = lambda *_: None  # type: ignore[method-assign]
        posted = [await worker.pay(merchant, "1", 100, settle="later") for merchant in merchants.values()]
        assert [order.settle_on for order in posted] == [None, None]
        now = posted[0].posted_at
        assert now is not None
        monday = (now - now.weekday() * DAY).replace(hour=3)
        settler = worker.settler()
        assert (await settler.settle_some(now.replace(hour=3)))[0] == 0
        assert (await settler.settle_some(now.replace(hour=3) + DAY))[0] == (2 if now.weekday() == 6 else 1)
        assert await worker.numbers(merchants["daily"]) == [f"auto-{now + DAY:%Y-%m-%d}"]
        await settler.settle_some(monday + 7 * DAY)
        assert await worker.numbers(merchants["weekly"]) == [f"auto-{monday + 7 * DAY:%Y-%m-%d}"]
    await prove_fund(fund_database, service.dsn, worker.salt)


async def no_answer(*_: object) -> None:
    """Post nothing: the account service does not answer."""


async def test_a_settlement_without_a_known_outcome_is_not_repeated_under_another_number(
    fund_database: str, service: RunningService
) -> None:
    async with Clocked(fund_database, service.base_url, service.fund_token) as worker:
        merchant = await worker.merchant(settlement="daily")
        for number in ("1", "2"):
            await worker.later(merchant, number)
        settler = worker.settler()
        worker.batcher._post_within = no_answer  # type: ignore[method-assign]
        await worker.ask("settlement", merchant=merchant, order_no="auto-2026-06-02", amount=150)
        for _ in range(2):
            assert (await settler.settle_some(MONDAY + DAY))[0] == 0
        del worker.batcher._post_within
        await worker.recoverer.recover_some()
        assert await worker.of(merchant) == (150, 50, 0)
        assert (await settler.settle_some(MONDAY + DAY))[0] == 1
        assert await worker.numbers(merchant) == ["auto-2026-06-02", "auto-2026-06-02-2"]


async def test_the_numbers_of_automatic_settlements_are_not_available_to_front_ends() -> None:
    with pytest.raises(msgspec.ValidationError, match="order_no"):
        msgspec.convert({"merchant": "m", "order_no": "auto-2026-06-01"}, Settlement)
    assert msgspec.convert({"merchant": "m", "order_no": "automatic"}, Settlement).order_no == "automatic"
