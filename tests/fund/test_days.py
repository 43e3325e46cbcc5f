"""Days of the fund service: they are those of the account service, and another calendar applies from a later day on."""

import asyncio
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundledger.accounting_days import CalendarDiffers
from fundledger.client.account_service import AccountService
from fundledger.fund.account_gateway import AccountGateway, GatewayFault
from fundledger.fund.agreement import Agreement
from fundledger.fund.model.days import FIRST, NOTICE, Days, Era, first_free
from fundledger.fund.store.calendars import adopt, record_first
from fundledger.fund.store.macs import open_macs
from fundledger.security.keys import KeyFault
from tests.support.calendar_model import CalendarModel
from tests.support.fund_ids import KEYS
from tests.support.fund_worker import FundWorker
from tests.support.orders import an_order
from tests.support.running import RunningService
from tests.support.tampering import unguarded

DAY = timedelta(days=1)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SHANGHAI = "Asia/Shanghai", time(23)
NEW_YORK = "America/New_York", time(17)
CALENDARS = st.tuples(
    st.sampled_from(("UTC", "Asia/Shanghai", "America/New_York", "Pacific/Kiritimati", "Pacific/Pago_Pago")),
    st.builds(time, st.integers(0, 23), st.integers(0, 59)),
)


def eras(*of: tuple[date, str, time]) -> list[Era]:
    return [Era(from_day, zone, cut, NOW) for from_day, zone, cut in of]


# --- Pure ---


def test_days_are_utc_days_until_a_calendar_is_recorded() -> None:
    days = Days()
    assert not days.is_recorded
    assert days.day_of(datetime(2026, 3, 1, 23, 59, 59, 999999, tzinfo=UTC)) == date(2026, 3, 1)
    assert days.beginning_of(date(2026, 3, 2)) == datetime(2026, 3, 2, tzinfo=UTC)


@given(CALENDARS, CALENDARS, st.integers(-72, 72), st.integers(0, 59))
def test_days_follow_each_other_when_the_calendar_changes(
    first: tuple[str, time], second: tuple[str, time], hours: int, minutes: int
) -> None:
    switch = date(2026, 3, 9)
    days = Days(eras((FIRST, *first), (switch, *second)))
    at = datetime(2026, 3, 9, tzinfo=UTC) + timedelta(hours=hours, minutes=minutes)
    day = days.day_of(at)
    assert days.beginning_of(day) <= at < days.beginning_of(day + DAY)
    begins = [days.beginning_of(switch + number * DAY) for number in range(-4, 5)]
    assert begins == sorted(begins)
    assert days.day_of(at + DAY) >= day


@given(CALENDARS, CALENDARS, st.integers(0, 23), st.integers(0, 10_000))
def test_another_calendar_changes_no_day_that_has_begun(
    first: tuple[str, time], second: tuple[str, time], hour: int, minutes: int
) -> None:
    now = NOW.replace(hour=hour)
    before = Days(eras((FIRST, *first)))
    from_day = first_free(before, *second, now, None)
    after = Days(eras((FIRST, *first), (from_day, *second)))
    assert after.beginning_of(from_day) >= now + NOTICE
    for at in (now - timedelta(minutes=minutes), now, now + NOTICE - timedelta(microseconds=1)):
        assert after.day_of(at) == before.day_of(at)
    later = after.beginning_of(from_day + 3 * DAY)
    assert after.day_of(later) == Days(eras((FIRST, *second))).day_of(later)


def test_another_calendar_follows_closed_days_and_calendars_that_are_not_in_force_yet() -> None:
    days = Days(eras((FIRST, "UTC", time())))
    assert first_free(days, *SHANGHAI, NOW, None) == date(2026, 3, 2)
    assert first_free(days, *SHANGHAI, NOW, date(2026, 3, 5)) == date(2026, 3, 6)
    # In Shanghai, the 2nd has begun at 16:00 in UTC.
    assert first_free(days, "Asia/Shanghai", time(), NOW.replace(hour=15, minute=49), None) == date(2026, 3, 2)
    assert first_free(days, "Asia/Shanghai", time(), NOW.replace(hour=15, minute=51), None) == date(2026, 3, 3)
    planned = Days(eras((FIRST, "UTC", time()), (date(2026, 3, 9), *SHANGHAI)))
    assert first_free(planned, *NEW_YORK, NOW, None) == date(2026, 3, 10)


@given(
    CALENDARS,
    st.one_of(st.none(), st.builds(time, st.integers(0, 23))),
    st.datetimes(datetime(2026, 5, 1), datetime(2026, 6, 9)),
)
def test_a_day_of_payments_ends_at_the_cut_of_the_merchant(
    calendar: tuple[str, time], cut: time | None, at: datetime
) -> None:
    moment = at.replace(tzinfo=UTC)
    days, model = Days(eras((FIRST, *calendar))), CalendarModel(*calendar)
    assert days.trade_day(moment, cut) == model.day(moment, cut)
    assert days.trade_day(moment + timedelta(hours=5), cut) == model.day(moment + timedelta(hours=5), cut)


@given(CALENDARS, st.builds(time, st.integers(0, 23)), st.datetimes(datetime(2026, 5, 1), datetime(2026, 6, 9)))
def test_the_last_day_whose_time_is_reached(calendar: tuple[str, time], at: time, moment: datetime) -> None:
    now = moment.replace(tzinfo=UTC)
    assert Days(eras((FIRST, *calendar))).last_reached(now, at) == CalendarModel(*calendar).reached(now, at)


# --- The record in the fund database ---


async def recorded(connection: Any) -> list[tuple[str, str, str]]:
    rows = await connection.fetch("SELECT from_day::text, timezone, cut FROM fund.calendars ORDER BY from_day")
    return [tuple(row) for row in rows]


async def test_a_new_database_has_the_calendar_from_the_first_day_on(fund_database: str) -> None:
    connection = await asyncpg.connect(fund_database)
    macs = await open_macs(connection, KEYS)
    for calendar in (SHANGHAI, NEW_YORK):
        (era,) = await record_first(connection, macs.rows, macs.days, *calendar)
        assert (era.timezone, era.cut) == SHANGHAI
    assert await recorded(connection) == [("1970-01-01", "Asia/Shanghai", "23:00")]
    await macs.read_days(connection)
    assert macs.days.day_of(datetime(2026, 3, 1, 15, tzinfo=UTC)) == date(2026, 3, 2)
    await connection.close()


async def test_concurrent_first_starts_record_one_calendar(fund_database: str) -> None:
    async with asyncpg.create_pool(fund_database, min_size=6, max_size=6) as pool:
        macs = await open_macs(pool, KEYS)

        async def begin() -> None:
            async with pool.acquire() as connection:
                await record_first(connection, macs.rows, macs.days, *SHANGHAI)

        await an_order(pool, posted_at=NOW)
        await asyncio.gather(*(begin() for _ in range(6)))
        found = await recorded(pool)
        assert [(first, zone) for first, zone, _ in found][:1] == [("1970-01-01", "UTC")]
        assert [zone for _, zone, _ in found] == ["UTC", "Asia/Shanghai"]


async def test_an_upgraded_database_keeps_its_days_in_utc_until_a_later_day(fund_database: str) -> None:
    connection = await asyncpg.connect(fund_database)
    macs = await open_macs(connection, KEYS)
    await an_order(connection, posted_at=NOW)
    now = datetime.now(UTC)
    first, second = await record_first(connection, macs.rows, macs.days, *SHANGHAI)
    assert (first.from_day, first.timezone, first.cut) == (FIRST, "UTC", time())
    assert second.from_day > now.date()
    await macs.read_days(connection)
    assert macs.days.day_of(now) == now.date()
    assert macs.days.beginning_of(second.from_day) >= second.recorded_at + NOTICE
    await connection.close()


async def test_an_upgraded_database_with_the_same_calendar_needs_no_second_one(fund_database: str) -> None:
    connection = await asyncpg.connect(fund_database)
    macs = await open_macs(connection, KEYS)
    await an_order(connection, posted_at=NOW)
    assert len(await record_first(connection, macs.rows, macs.days, "UTC", time())) == 1
    await connection.close()


async def test_another_calendar_is_adopted_once_and_after_the_last_closed_day(fund_database: str) -> None:
    connection = await asyncpg.connect(fund_database)
    macs = await open_macs(connection, KEYS)
    await record_first(connection, macs.rows, macs.days, "UTC", time())
    far = (datetime.now(UTC) + 9 * DAY).date()
    await connection.execute("INSERT INTO fund.day_closings VALUES ($1)", far)
    new = await adopt(connection, macs.rows, macs.days, *NEW_YORK)
    assert new is not None and new.from_day == far + DAY
    assert await adopt(connection, macs.rows, macs.days, *NEW_YORK) is None
    back = await adopt(connection, macs.rows, macs.days, "UTC", time())
    assert back is not None and back.from_day == far + 2 * DAY
    await connection.close()


async def test_a_calendar_that_was_edited_is_not_used(fund_database: str) -> None:
    connection = await asyncpg.connect(fund_database)
    macs = await open_macs(connection, KEYS)
    await record_first(connection, macs.rows, macs.days, *SHANGHAI)
    await macs.read_days(connection)
    await connection.execute(unguarded("fund"))
    await connection.execute("UPDATE fund.calendars SET cut = '00:00'")
    with pytest.raises(KeyFault, match=r"calendar from 1970-01-01 .* does not match its MAC"):
        await macs.read_days(connection)
    assert macs.days.current.cut == time(23)
    with pytest.raises(KeyFault):
        await open_macs(connection, KEYS)
    await connection.close()


async def test_processes_read_a_calendar_that_another_process_recorded(fund_database: str) -> None:
    async with asyncpg.create_pool(fund_database, min_size=1, max_size=2) as pool:
        macs, other = await open_macs(pool, KEYS), await open_macs(pool, KEYS)
        async with pool.acquire() as connection:
            await record_first(connection, macs.rows, macs.days, *SHANGHAI)
        assert not other.days.is_recorded
        await other.refresh(pool)
        assert other.days.current.timezone == "Asia/Shanghai"


# --- Agreement with the account service ---


async def test_a_worker_records_the_calendar_of_the_account_service(
    fund_database: str, service: RunningService
) -> None:
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        agreement = Agreement(worker.pool, worker.gateway, worker.macs)
        await agreement.begin()
        assert worker.macs.days.is_recorded
        assert await recorded(worker.pool) == [("1970-01-01", "UTC", "00:00")]
        await agreement.begin()
        await agreement.ensure()


async def test_a_worker_with_another_calendar_does_not_start(fund_database: str, service: RunningService) -> None:
    worker = FundWorker(fund_database, service.base_url, service.fund_token)
    worker.calendar = SHANGHAI
    async with worker:
        with pytest.raises(CalendarDiffers, match=r"Asia/Shanghai, cut 23:00, the account service has UTC, cut 00:00"):
            await Agreement(worker.pool, worker.gateway, worker.macs).begin()
        async with worker.pool.acquire() as connection:
            await adopt(connection, worker.macs.rows, worker.macs.days, "UTC", time())
        # The calendar applies from a later day on. From now on, the services agree.
        await Agreement(worker.pool, worker.gateway, worker.macs).begin()


async def test_without_the_account_service_the_recorded_calendar_is_used(fund_database: str) -> None:
    async with asyncpg.create_pool(fund_database, min_size=1, max_size=2) as pool:
        macs = await open_macs(pool, KEYS)
        async with AccountService("http://127.0.0.1:1", "") as away:
            agreement = Agreement(pool, AccountGateway(away), macs)
            await agreement.begin()
            assert not macs.days.is_recorded
            with pytest.raises(GatewayFault):
                await agreement.ensure()
            async with pool.acquire() as connection:
                await record_first(connection, macs.rows, macs.days, *SHANGHAI)
            await macs.read_days(pool)
            await agreement.begin()
            await agreement.ensure()
            assert macs.days.current.timezone == "Asia/Shanghai"


async def test_a_difference_while_running_is_reported_once_and_until_it_is_removed(
    fund_database: str, service: RunningService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fundledger.fund.agreement.LOOK_EVERY_S", 0.0)
    worker = FundWorker(fund_database, service.base_url, service.fund_token)
    worker.calendar = "UTC", time()
    async with worker:
        agreement = Agreement(worker.pool, worker.gateway, worker.macs)
        asked = asyncio.Queue[tuple[str, time]](1)

        async def calendar() -> tuple[str, time]:
            return await asked.get()

        monkeypatch.setattr(worker.gateway, "calendar", calendar)
        watching = asyncio.create_task(agreement.watch())
        for there in (SHANGHAI, SHANGHAI, SHANGHAI):
            await asked.put(there)
        assert agreement.differs
        for _ in range(2):
            await asked.put(("UTC", time()))
        await asked.put(("UTC", time()))
        assert not agreement.differs
        watching.cancel()
    logged = [record for record in caplog.records if getattr(record, "event", "") == "calendar_differs"]
    assert len(logged) == 1


async def test_a_merchant_is_created_only_after_the_calendar_is_recorded(
    fund_database: str, service: RunningService
) -> None:
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        worker.merchants._ensure = Agreement(worker.pool, worker.gateway, worker.macs).ensure
        await worker.merchant()
        assert worker.macs.days.is_recorded
